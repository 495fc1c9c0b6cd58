"""What a command finds in its environment before a request adds to it.

In modes ``raw`` and ``jsonrpc`` a command gets the server's environment, as a shell would give it,
and so does an application of ``--wsgi`` or ``--asgi``: nothing of a request is mixed into it. With
``--clear-env`` or ``--pass-env``, and with ``--request-env`` and in modes cgi and ws always (they
put what a client says beside it), it gets ``MINIMUM`` and what is allowed by name: the server's own
secrets do not reach a program that answers to the network.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fastspawn.serve.config.model import RouteConfig

MINIMUM: Final = ("PATH", "LANG", "LC_*", "TZ")
"""Names, or patterns for names."""

_INHERITS: Final = frozenset({"raw", "jsonrpc", "streaming", "serializing"})
"""Modes that mix nothing of a request into the environment; and those that are of-watchdog's, whose
functions find their configuration and their secrets there."""


def inherits(route: RouteConfig) -> bool:
    """The command gets all of the server's environment."""
    if route.request_env or route.clear_env or route.pass_env:
        return False
    return route.mode in _INHERITS or route.application is not None


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
    if route.pty:
        found.setdefault("TERM", "xterm-256color")
    return found
