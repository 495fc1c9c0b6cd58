"""A connection by itself: what it asks of time and of its transport. The service, its routes and
their processes are real; the transport is not."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastspawn.serve.config.model import Config, RouteConfig
from fastspawn.serve.http.connection import Connection
from fastspawn.serve.service import Service
from fastspawn.serve.strategies.maker import Strategies
from support import async_poll

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HI = RouteConfig(command=("echo", "hi"))
CGI = r"printf 'Content-Type: text/plain\n\n'; "


class Transport:
    """Takes what it is given. ``full``: its client does not read, from the next write on."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.written = b""
        self.full = False
        self.closing = False
        self.connection: Connection

    def get_extra_info(self, name: str) -> Any:
        return self._sock if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        return len(self.written) if self.full else 0

    def write(self, data: bytes) -> None:
        self.written += data
        if self.full and not self.connection.write_paused:
            self.connection.pause_writing()

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


@asynccontextmanager
async def connected(route: RouteConfig) -> AsyncIterator[tuple[Transport, Connection, Service]]:
    loop = asyncio.get_running_loop()
    strategies = Strategies(loop, 1, print)
    service = Service(Config(routes=(route,), access_log=False), strategies.make, loop)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        await service.load(service.config)
        transport = Transport(ours)
        connection = transport.connection = Connection(service)
        connection.connection_made(transport)  # type: ignore[arg-type]
        try:
            yield transport, connection, service
        finally:
            connection.connection_lost(None)
            await service.close()
            await strategies.close()


@pytest.mark.parametrize("pieces", [[ASK], [ASK[:9], ASK[9:]]])
def test_a_request_that_came_while_the_answer_before_is_still_taken(pieces: list[bytes]) -> None:
    """It came in time, and its own answer is not due before the client has read the other."""

    async def serve() -> None:
        async with connected(HI) as (transport, connection, service):
            transport.full = True
            connection.data_received(ASK)
            await async_poll(lambda: not service.running, "the first answer")
            for piece in pieces:
                connection.data_received(piece)
            for limit in (service.idle, service.slow):
                limit.expire(math.inf)
            assert not transport.closing
            transport.full = False
            connection.resume_writing()
            await async_poll(lambda: not service.running, "the second answer")
        assert transport.written.count(b"HTTP/1.1 200 OK") == 2
        assert b"408" not in transport.written

    asyncio.run(serve())


@pytest.mark.parametrize("lines", [b"\r\n", b"\n\r\n"])
def test_an_empty_line_behind_a_request_begins_no_other(lines: bytes) -> None:
    """The connection ends as an idle one does, without a word."""

    async def serve() -> None:
        async with connected(HI) as (transport, connection, service):
            connection.data_received(ASK)
            await async_poll(lambda: not service.running, "the answer")
            before = transport.written
            connection.data_received(lines)
            service.slow.expire(math.inf)
            assert not transport.closing
            service.idle.expire(math.inf)
            assert transport.closing
            assert transport.written == before

    asyncio.run(serve())


@pytest.mark.parametrize("length", [3, 300_000], ids=["in memory", "in a file"])
def test_a_client_that_reads_no_more_since_it_was_told_to_send(length: int) -> None:
    """A process that starts after that waits for it, as one that runs already does."""
    paused = []

    async def serve() -> None:
        route = RouteConfig(mode="cgi", command=("sh", "-c", f"{CGI}exec cat"))
        async with connected(route) as (transport, connection, service):
            known = service.routing.routes[0]
            spawn = known.spawn

            def watched(exchange: Any, input: Any) -> Any:
                job = spawn(exchange, input)
                return Watched(job, paused)

            known.spawn = watched
            transport.full = True
            connection.data_received(
                b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                b"Expect: 100-continue\r\n\r\n"
            )
            assert transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.data_received(b"%x\r\n%b\r\n0\r\n\r\n" % (length, bytes(length)))
            assert paused == [True]
            transport.full = False
            connection.resume_writing()
            await async_poll(lambda: not service.running, "the answer")
        assert transport.written.count(b"\0") == length

    asyncio.run(serve())


class Watched:
    """A job, and what is asked of it."""

    def __init__(self, job: Any, paused: list[bool]) -> None:
        self._job = job
        self._paused = paused

    def pause_reading(self) -> None:
        self._paused.append(True)
        self._job.pause_reading()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._job, name)
