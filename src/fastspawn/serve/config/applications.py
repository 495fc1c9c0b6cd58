"""What a route of ``--wsgi`` or ``--asgi`` is: a command of ours (``fastspawn._app``), a CGI script
in all but how it is told of its request, that stops at a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

_STRATEGIES: Final = ("snapshot", "reset", "auto", "direct")
_DEFAULT: Final = "snapshot" if sys.platform == "linux" else "direct"
"""Templates are for Linux only."""


def fill(kind: str, fields: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the route, ``own`` those that are its own. Raises ValueError."""
    strategy = fields.get("strategy", _DEFAULT)
    if strategy not in _STRATEGIES:
        raise ValueError(f"--{kind} has no --strategy {strategy}, but {', '.join(_STRATEGIES)}")
    if own.get("mode", "cgi") != "cgi":
        raise ValueError(f"--{kind} has no --mode {own['mode']}")
    if own.get("shell"):
        raise ValueError(f"--shell is for a command, not --{kind}")
    if own.get("snapshot_at", "auto") not in ("auto", "checkpoint"):
        raise ValueError(f"--{kind} has no --snapshot-at {own['snapshot_at']}: it has a checkpoint")
    if fields.get("stderr") == "merge":
        raise ValueError(f"--{kind} has no --stderr merge: it would be in the midst of the answer")
    return {
        "pass_authorization": True,
        **fields,
        "command": (sys.executable, "-m", "fastspawn._app", kind, fields[kind]),
        "mode": "cgi",
        "shell": False,
        "strategy": strategy,
        "snapshot_at": "auto" if strategy == "direct" else "checkpoint",
        # The runner's exit status says whether its answer is complete.
        "cgi_exit": "strict",
    }
