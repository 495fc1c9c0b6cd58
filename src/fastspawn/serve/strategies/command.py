"""The command of a route: its line and its environment as they are without a request, and all of
it as the engine takes it."""

from __future__ import annotations

import resource
import signal
import sys
from subprocess import DEVNULL, PIPE, STDOUT
from typing import TYPE_CHECKING, Final

from fastspawn import Command, Limits

from . import environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastspawn.serve.config.model import RouteConfig

_SHELL: Final = "/bin/sh"

# No process is to outlive a server that was killed.
_DEATH: Final = signal.SIGKILL if sys.platform == "linux" else 0

STDERR: Final = {
    "inherit": None,
    "discard": DEVNULL,
    "merge": STDOUT,
    "log": PIPE,
    "pipe": PIPE,
}


def argv_of(route: RouteConfig) -> tuple[str, ...]:
    """The command line, what it is confined with first. A shell's script has its name at the end:
    arguments may follow."""
    command = (_SHELL, "-c", *route.command, "sh") if route.shell else route.command
    return (*(route.sandbox or ()), *command)


def env_of(route: RouteConfig) -> dict[str, str]:
    """The environment. A new dict."""
    return environment.base(route) | dict(route.set_env)


def command_of(
    route: RouteConfig,
    argv: Sequence[str | bytes] | None = None,
    env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    cwd: str | bytes | None = None,
) -> Command:
    """The prepared command; None: as it is without a request.

    ``.resolve()`` raises the OSError that a spawn would give.
    """
    limits = Limits(
        timeout=route.exec_timeout,
        kill_grace=route.kill_grace,
        max_output=route.max_output,
        drain=route.drain_timeout,
        rlimits=rlimits(route),
    )
    stderr = STDERR[route.stderr]
    if argv is None:
        argv = argv_of(route)
    if env is None and (route.set_env or not environment.inherits(route)):
        env = env_of(route)
    return Command(
        argv,
        env=env,
        cwd=cwd or route.cwd,
        limits=limits,
        stderr=stderr,
        cgroup=route.cgroup,
        no_new_privs=route.no_new_privs,
        death_signal=_DEATH,
    )


def rlimits(route: RouteConfig) -> dict[int, tuple[int, int]]:
    """As ``Limits`` has them."""
    return {
        getattr(resource, f"RLIMIT_{name.upper()}"): (soft, hard)
        for name, soft, hard in route.rlimit
    }
