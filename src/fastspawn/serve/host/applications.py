"""What ``--wsgi`` and ``--asgi`` name is looked for before the first request: a process imports it,
with the rights that this one has now, and comes as far as a request would begin."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from fastspawn._app.run import REFUSED
from fastspawn.serve.config import settings
from fastspawn.serve.strategies.command import argv_of, env_of

from .checks import UsageError

if TYPE_CHECKING:
    from fastspawn.serve.config.model import Config, RouteConfig


def check(config: Config) -> None:
    """Raises UsageError. What the application itself raises is on standard error then, as Python
    tells it."""
    seen = set()
    for route in config.routes:
        key = (route.application, route.cwd, route.sandbox, route.set_env)
        if route.application is None or key in seen:
            continue
        seen.add(key)
        why = _why_not(route)
        if why is not None:
            where = "" if len(config.routes) == 1 else f"{settings.title(route)}: "
            raise UsageError(f"{where}{why}")


def _why_not(route: RouteConfig) -> str | None:
    done = subprocess.run(
        argv_of(route),
        cwd=route.cwd,
        env=env_of(route),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode == 0:
        return None  # each template will say what is to be said
    text = done.stderr.decode(errors="backslashreplace")
    before, _, last = text.rstrip("\n").rpartition("\n")
    kind, target = route.application or ("", "")
    said = f"--{kind} {target}: "
    if done.returncode == REFUSED and last.startswith(said):
        if before:
            print(before, file=sys.stderr)  # noqa: T201
        return last
    sys.stderr.write(text)
    how = f"status {done.returncode}"
    if done.returncode < 0:
        how = f"signal {-done.returncode}"
    return f"{said}it cannot be loaded: its process ended with {how}"
