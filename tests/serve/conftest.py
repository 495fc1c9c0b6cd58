from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serve.harness import Server

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]


@pytest.fixture(params=["direct", "subprocess"])
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers, and stops them."""
    servers: list[Server] = []

    def start(*options: str, command: tuple[str, ...] = ("echo", "hi"), **more: object) -> Server:
        servers.append(Server(tmp_path, options, command, **more))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def serve(start: Serve, strategy: str, loop: str) -> Serve:
    """Starts servers of each strategy on each loop."""

    def serve(*options: str, **more: object) -> Server:
        return start("--strategy", strategy, "--loop", loop, *options, **more)

    return serve


@pytest.fixture
def script() -> Script:
    """A shell command line: ``script(text, arg...)``."""
    return lambda text, *args: ("sh", "-c", text, "sh", *map(str, args))


@pytest.fixture(params=[("direct", "uvloop"), ("subprocess", "asyncio")], ids=lambda way: way[0])
def any_way(request: pytest.FixtureRequest, start: Serve) -> Serve:
    """Starts servers of each strategy, and on each loop."""
    strategy, loop = request.param

    def any_way(*options: str, **more: object) -> Server:
        return start("--strategy", strategy, "--loop", loop, *options, **more)

    return any_way


@pytest.fixture
def cgi(any_way: Serve, script: Script) -> Serve:
    """Likewise, of a script that is given as text."""

    def cgi(text: str, *args: object, options: tuple[str, ...] = ()) -> Server:
        return any_way("--mode", "cgi", *options, command=script(text, *args))

    return cgi


@pytest.fixture
def one(start: Serve, script: Script) -> Serve:
    """One such server, where the strategy makes no difference."""

    def one(text: str, *args: object, options: tuple[str, ...] = ()) -> Server:
        return start("--mode", "cgi", *options, command=script(text, *args))

    return one
