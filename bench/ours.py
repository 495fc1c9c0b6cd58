"""The rows of our own server: each strategy, each backend, and the standard library's spawn in it.

A row whose flag or module this version does not have is unavailable, with the reason.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Sequence

from bench.harness import tools
from bench.peers import builds
from bench.row import COMMAND, Row, ServerRow, module

STDLIB = "stdlib-asyncio"
POOL = 8  # workers of which each runs one command at a time, as in the article
FORKS_INSTEAD = "--strategy reset is snapshot"
"""What a server says that was to reset and does not."""
BACKENDS = ("clone3", "clone", "vfork", "posix_spawn", "fork")

PROBE = """
import sys
from fastspawn import _core
from fastspawn.serve import cli
try:
    cli.check(cli.parse(sys.argv[1:]))
except (SystemExit, ValueError) as error:
    sys.exit(f"fastspawn.serve: {error}")
print(_core.backend())
"""


@functools.cache
def _probe(backend: str, command: tuple[str, ...], *flags: str) -> str:
    """The backend with which fastspawn.serve would start. Raises Unavailable if it would not."""
    env = {**os.environ, "FASTSPAWN_BACKEND": backend} if backend else None
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *flags, "--", *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=tools.ROOT,
        env=env,
    )
    if done.returncode != 0:
        raise tools.Unavailable((done.stderr.strip().splitlines() or ["no output"])[-1])
    return done.stdout.strip()


def fastspawn(
    name: str,
    about: str,
    *flags: str,
    backend: str = "",
    command: Sequence[str] = COMMAND,
) -> ServerRow:
    """A row of our server; unavailable, with the server's words, where a flag is not known."""
    serve = [sys.executable, "-m", "fastspawn.serve", "--no-access-log"]

    def prepare() -> None:
        found = _probe(backend, tuple(command), *flags)
        if backend not in ("", found):
            raise tools.Unavailable(f"the backend is {found} here")

    def version() -> str:
        prepare()
        return builds.python_version("fastspawn", "uvloop")

    return ServerRow(
        name,
        about,
        lambda port: [*serve, "--port", str(port), *flags],
        prepare,
        version,
        {"FASTSPAWN_BACKEND": backend} if backend else {},
        command=command,
        streams=True,
        unless_told=FORKS_INSTEAD if "reset" in flags else "",
    )


def _process_app(server: str) -> ServerRow:
    def prepare() -> None:
        probe = [sys.executable, "-c", "import fastspawn.asgi"]
        told = subprocess.run(probe, capture_output=True, text=True, check=False, cwd=tools.ROOT)
        if told.returncode != 0:
            raise tools.Unavailable(told.stderr.strip().splitlines()[-1])
        builds.package(server)

    def version() -> str:
        prepare()
        return builds.python_version("fastspawn", server)

    return ServerRow(
        f"fastspawn-{server}",
        f"`fastspawn.asgi.ProcessApp` under {server}, one process",
        module("python.process_app", "--server", server),
        prepare,
        version,
        streams=True,
    )


OURS: tuple[Row, ...] = (
    fastspawn(
        "fastspawn-direct",
        "`python -m fastspawn.serve --strategy direct`",
        "--strategy",
        "direct",
    ),
    fastspawn(
        "fastspawn-snapshot",
        "`--strategy snapshot --snapshot-at main`: a fork of a process of the command that stopped "
        "before `main`",
        *("--strategy", "snapshot", "--snapshot-at", "main"),
    ),
    fastspawn(
        "fastspawn-effect",
        "`--strategy snapshot --snapshot-at effect`: one that stopped before its first effect",
        *("--strategy", "snapshot", "--snapshot-at", "effect"),
    ),
    fastspawn(
        "fastspawn-reset-main",
        "`--strategy reset --snapshot-at main`: a fork from before `main` that puts itself back "
        "after each request",
        *("--strategy", "reset", "--snapshot-at", "main"),
    ),
    fastspawn(
        "fastspawn-reset",
        "`--strategy reset --snapshot-at effect`: the same from before the first effect",
        *("--strategy", "reset", "--snapshot-at", "effect"),
    ),
    fastspawn(
        "fastspawn-warm",
        "`--strategy warm`: a process that was started before its request, in idle time",
        *("--strategy", "warm"),
    ),
    fastspawn(
        "fastspawn-pool",
        f"`--strategy pool --pool-size {POOL}`: long-lived workers run the command",
        *("--strategy", "pool", "--pool-size", str(POOL)),
    ),
    fastspawn(
        "fastspawn-workers-2",
        "`--strategy direct --workers 2`: two server processes on the port",
        *("--strategy", "direct", "--workers", "2"),
    ),
    _process_app("uvicorn"),
    _process_app("granian"),
)

BY_BACKEND: tuple[Row, ...] = tuple(
    fastspawn(
        f"fastspawn-{backend}",
        f"`FASTSPAWN_BACKEND={backend}`, `--strategy direct`",
        *("--strategy", "direct"),
        backend=backend,
    )
    for backend in BACKENDS
)

STANDARD_SPAWN: tuple[Row, ...] = (
    fastspawn(
        STDLIB,
        "`--strategy subprocess --loop asyncio`: our server, spawning by `create_subprocess_exec`",
        *("--strategy", "subprocess", "--loop", "asyncio"),
    ),
    fastspawn(
        "uvloop-subprocess",
        "`--strategy subprocess --loop uvloop`: the same on uvloop",
        *("--strategy", "subprocess", "--loop", "uvloop"),
    ),
)
