"""nginx, Caddy and HAProxy as docs/fleet.md has them, before servers that are really there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from websockets.sync.client import connect

from fleet import fronts
from fleet.fleet import Fleet, block, check, started
from fleet.haproxy import haproxy
from fleet.load import Load, steady, under_load
from serve.conftest import Serve
from serve.harness import BOUND, Client, Server, poll
from support import LINUX

pytestmark = pytest.mark.skipif(not LINUX, reason="each server has a loopback address of its own")

Front = Callable[[Path, list[tuple[str, int, int]]], AbstractContextManager[tuple[str, int]]]
"""Before servers: host, port and the agent's port of each."""


@contextmanager
def _haproxy(folder: Path, servers: list[tuple[str, int, int]]) -> Iterator[tuple[str, int]]:
    with haproxy(folder, servers) as found:
        yield found.where


def _other(name: str) -> Front:
    make = getattr(fronts, name)

    @contextmanager
    def front(folder: Path, servers: list[tuple[str, int, int]]) -> Iterator[tuple[str, int]]:
        named = [f"{host}:{port}" for host, port, _ in servers]
        with make(folder, f"{block()}.100", named) as where:
            yield where

    return front


@pytest.fixture(params=["nginx", "caddy", "haproxy"])
def front(request: pytest.FixtureRequest) -> Front:
    if fronts.program(request.param) is None:
        pytest.skip(f"no {request.param}")
    return _haproxy if request.param == "haproxy" else _other(request.param)


def before(front: Front, folder: Path, *servers: Server) -> AbstractContextManager[tuple[str, int]]:
    return front(folder, [("127.0.0.1", server.port, server.agent()) for server in servers])


OPTIONS = ("--agent-check", "0", "--ready-path", "/-/ready", "--keep-alive-timeout", "130s")

SHOW = r"""printf 'Content-Type: text/plain\n\n'
echo "$REMOTE_ADDR $REQUEST_SCHEME ${HTTP_UPGRADE-none} ${HTTP_CONNECTION-none} $HTTP_HOST"
"""
PORTS = r"""printf 'Content-Type: text/plain\n\n'; echo "$SERVER_PORT $REMOTE_PORT" """


def client_of(where: tuple[str, int], source: str = "127.0.0.1") -> HTTPConnection:
    """To be closed. Takes what Caddy makes of one field: two of it (Server)."""
    return HTTPConnection(*where, timeout=BOUND, source_address=(source, 0))


def get(client: HTTPConnection, target: str = "/", **fields: str) -> str:
    client.request("GET", target, headers=fields)
    answer = client.getresponse()
    body = answer.read().decode()
    assert answer.status == 200, (answer.status, body)
    return body


def test_request(front: Front, start: Serve, tmp_path: Path) -> None:
    """Whose it is is told, and nothing of what holds for one connection gets to the command."""
    options = ("--mode", "cgi", "--proxy-headers", "--forwarded-allow-ips", "127.0.0.1")
    servers = [start(*OPTIONS, *options, command=("sh", "-c", SHOW)) for _ in range(2)]
    with (
        before(front, tmp_path, *servers) as where,
        contextlib.closing(client_of(where, "127.0.0.2")) as client,
    ):
        # A client's own word is not believed.
        said = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "Host": "test"}
        assert get(client, **said) == "127.0.0.2 http none none test\n"


def test_connections_are_kept(front: Front, start: Serve, tmp_path: Path) -> None:
    servers = [start(*OPTIONS, "--mode", "cgi", command=("sh", "-c", PORTS)) for _ in range(2)]
    with (
        before(front, tmp_path, *servers) as where,
        contextlib.closing(client_of(where)) as client,
    ):
        assert len({get(client) for _ in range(20)}) <= 4


def test_websocket(front: Front, start: Serve, tmp_path: Path) -> None:
    servers = [start(*OPTIONS, "--mode", "ws", command=("cat",)) for _ in range(2)]
    with (
        before(front, tmp_path, *servers) as (host, port),
        connect(f"ws://{host}:{port}/", open_timeout=BOUND) as client,
    ):
        for word in ("hello", "again"):
            client.send(word)
            assert client.recv(BOUND) == word


def test_stream(front: Front, start: Serve, tmp_path: Path) -> None:
    """The beginning of an answer comes while its end is not there yet."""
    fifo = tmp_path / "go"
    command = ("sh", "-c", f"echo one; read go < {fifo}; echo two")
    with ExitStack() as stack:
        servers = [start(*OPTIONS, command=command) for _ in range(2)]
        os.mkfifo(fifo)
        where = stack.enter_context(before(front, tmp_path, *servers))
        client = stack.enter_context(Client(socket.create_connection(where, BOUND)))
        client.get("/")
        while b"one\n" not in client.buffer:
            assert client.fill()
        fifo.write_text("go\n")
        while b"two\n" not in client.buffer:
            assert client.fill()


def test_killed_and_drained(front: Front, tmp_path: Path) -> None:
    """No GET fails, and no POST is done twice."""
    with (
        started(tmp_path, 2, "0") as members,
        front(tmp_path, [member.address for member in members]) as where,
    ):
        ours = Fleet(members, where, tmp_path / "notes")

        def all_are_asked() -> bool:
            with contextlib.closing(client_of(where)) as client:
                return len({get(client, "/who") for _ in range(8)}) == len(members)

        def work() -> None:
            poll(all_are_asked, "the front's trust in both")
            members[0].kill()
            members[0].restart()
            poll(all_are_asked, "its trust in the new one")
            members[1].drain()
            members[1].restart()

        load = Load(where, steady(20), connections=32, posts=5)
        outcome = asyncio.run(under_load(load, work))
        check(outcome, ours.noted(), killed=True, undelayed=True)
        assert outcome.sent["GET"]


def test_drained_and_replaced(front: Front, tmp_path: Path) -> None:
    """Nothing fails, and least of all a POST, which nobody sends again."""
    with (
        started(tmp_path, 2, "4s", "--workers", "2") as members,
        front(tmp_path, [member.address for member in members]) as where,
    ):
        ours = Fleet(members, where, tmp_path / "notes")

        def all_are_asked() -> bool:
            with contextlib.closing(client_of(where)) as client:
                return len({get(client, "/who") for _ in range(8)}) == len(members)

        def work() -> None:
            for member in members:
                poll(all_are_asked, "the front's trust in both")
                member.server.signal(signal.SIGUSR2)
                member.server.says("restarted the workers")
                member.drain()
                member.restart()

        load = Load(where, steady(40), connections=32, posts=2)
        outcome = asyncio.run(under_load(load, work))
        check(outcome, ours.noted(), killed=False)
        assert outcome.sent["POST"]
