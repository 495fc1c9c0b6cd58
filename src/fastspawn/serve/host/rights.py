"""Whether the host gives processes the limits and rights that a route asks for.

Known only by trying: a process is started that takes one of them and then executes "/". Where
that is refused, all before it has worked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from fastspawn import _core
from fastspawn.serve.strategies.command import rlimits

if TYPE_CHECKING:
    from fastspawn.serve.config.model import RouteConfig

_NO_PROGRAM: Final = "/"


class RightsError(ValueError):
    """Which option can't be, and why."""


def check(route: RouteConfig) -> None:
    """Raises RightsError. To be called with the rights that the server will have."""
    if route.cgroup is not None:
        with _named(f"--cgroup {route.cgroup}"):
            _try(cgroup=route.cgroup)
    if route.no_new_privs:
        with _named("--no-new-privs"):
            _try(no_new_privs=True)
    names = {limit[0]: limit for limit in route.rlimit}
    for (name, *_), item in zip(names.values(), rlimits(route).items(), strict=True):
        with _named(f"--rlimit {name}"):
            _try(rlimits=[item])


@contextmanager
def _named(option: str) -> Iterator[None]:
    try:
        yield
    except NotImplementedError as error:
        raise RightsError(f"{option}: not on this system") from error
    except OSError as error:
        raise RightsError(f"{option}: {error.strerror}") from error


def _try(**options: Any) -> None:
    plan = _core.Plan([_NO_PROGRAM], env={}, **options)
    try:
        _core.spawn(plan)
    except OSError as error:
        if error.filename != _NO_PROGRAM:
            raise
