"""The options that are set by environment variables: ``FASTSPAWN_`` and the name of one.

A variable with that beginning which is none of ours is refused, since it is most likely one that
was misspelled; but there are others that may begin so.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Final

from .options import OPTIONS, PREFIX

_OTHERS: Final = frozenset(
    PREFIX + name for name in ("BACKEND", "SNAPSHOT", "SANITIZE", "COVERAGE", "DEBUG")
)
"""Variables that the C core, what is forked from a template, and the build read."""
_SERVICE: Final = re.compile(
    r".*_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII
)
_SERVICE_URL: Final = re.compile(r"(tcp|udp|sctp)://", re.ASCII)


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """The options that are set by environment variables, by field.

    Raises ValueError, which names the variable, also for one that would be an option's but for its
    spelling.
    """
    given: dict[str, Any] = {}
    known = {option.variable: option for option in OPTIONS.values()}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in _OTHERS:
            continue
        if _is_service(variable, text):
            continue
        option = known.get(variable)
        if option is None:
            raise ValueError(f"{variable}: no such variable: {_hint(variable)}")
        try:
            if option.kind == "list":
                given[option.field] = [option.convert(line) for line in text.splitlines() if line]
            else:
                given[option.field] = option.convert(text)
        except ValueError as error:
            raise ValueError(f"{variable}: {error}") from error
    return given


def _hint(variable: str) -> str:
    names = [
        each.removeprefix(PREFIX) for each in (*_OTHERS, *(o.variable for o in OPTIONS.values()))
    ]
    close = difflib.get_close_matches(variable.removeprefix(PREFIX), names, 1)
    return f"did you mean {PREFIX}{close[0]}?" if close else "see --help for those there are"


def _is_service(variable: str, text: str) -> bool:
    """Kubernetes tells each container of a pod about the services around it: of one that is called
    fastspawn (or fastspawn-x) in such variables, FASTSPAWN_PORT=tcp://10.0.0.7:80 among them.
    See "Accessing the Service" in its documentation, and enableServiceLinks.
    """
    if variable.endswith("_PORT") and _SERVICE_URL.match(text):
        return True
    return _SERVICE.fullmatch(variable) is not None
