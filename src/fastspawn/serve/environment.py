"""What a command finds in its environment before a request adds to it.

In mode ``raw`` a command gets the server's environment, as a shell would give it: nothing of a
request is mixed into it. With ``--clear-env`` or ``--pass-env``, and in the other modes always
(they put what a client says beside it), it gets ``MINIMUM`` and what is allowed by name, so
that the server's own secrets do not reach a program that answers to the network.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .config import RouteConfig

MINIMUM: Final = ("PATH", "LANG", "LC_*", "TZ")
"""Names, or patterns for names."""

_INHERITS: Final = frozenset({"raw"})
"""Modes that mix nothing of a request into the environment."""


def inherits(route: RouteConfig) -> bool:
    """The command gets all of the server's environment."""
    return route.mode in _INHERITS and not route.clear_env and not route.pass_env


def base(route: RouteConfig, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment that ``route`` starts from, without what ``--set-env`` adds.

    A new dict. PATH is always in it: many programs can't do without.
    """
    if inherits(route):
        return dict(environ)
    allowed = (*MINIMUM, *route.pass_env)
    found = {
        name: value
        for name, value in environ.items()
        if any(fnmatchcase(name, pattern) for pattern in allowed)
    }
    found.setdefault("PATH", os.defpath)
    return found
