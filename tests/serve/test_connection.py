"""A connection by itself, whose time limits the tests end and whose client they are: a socket pair
that holds little."""

from __future__ import annotations

import asyncio
import fcntl
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from termios import FIONREAD
from typing import Any

import pytest

from fastspawn.serve.config.model import Config, RouteConfig
from fastspawn.serve.http.connection import Connection
from fastspawn.serve.service import Service
from fastspawn.serve.strategies.maker import Strategies
from support import BOUND, async_poll

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HI = RouteConfig(command=("echo", "hi"))
LONG = "head -c 60000 /dev/zero; echo end"
ENDS = b"end\n"


class Client:
    """Of one connection. It reads when it is told to."""

    def __init__(self, sock: socket.socket, connection: Connection) -> None:
        self._sock = sock
        self._connection = connection

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def seen(self) -> None:
        """What was sent has been read, and what the loop had to do for it is done."""
        sock = self._connection.transport.get_extra_info("socket")
        await async_poll(lambda: not any(fcntl.ioctl(sock, FIONREAD, bytes(4))), "all is read")
        await asyncio.sleep(0)

    async def read(self, marks: int, mark: bytes = b"HTTP/1.1") -> bytes:
        """Until ``mark`` has come so often."""
        data = b""
        loop = asyncio.get_running_loop()
        while data.count(mark) < marks:
            piece = await asyncio.wait_for(loop.sock_recv(self._sock, 65536), BOUND)
            assert piece, data[-1000:]
            data += piece
        return data


@asynccontextmanager
async def connected(route: RouteConfig) -> AsyncIterator[tuple[Client, Connection, Service]]:
    loop = asyncio.get_running_loop()
    strategies = Strategies(loop, 1, print)
    service = Service(Config(routes=(route,), access_log=False), strategies.make, loop)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with theirs:
        await service.load(service.config)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least that there is
        transport, connection = await loop.connect_accepted_socket(
            lambda: Connection(service), ours
        )
        transport.set_write_buffer_limits(high=1000)
        try:
            yield Client(theirs, connection), connection, service
        finally:
            transport.abort()
            await async_poll(lambda: not service.connections, "its end")
            await service.close()
            await strategies.close()


@pytest.mark.parametrize("pieces", [[ASK], [ASK[:9], ASK[9:]]])
def test_a_request_that_came_while_the_answer_before_is_still_taken(pieces: list[bytes]) -> None:
    """It came in time, and its own answer is not due before the client has read the other."""

    async def serve() -> None:
        async with connected(RouteConfig(command=("sh", "-c", LONG), hold=math.inf)) as (
            client,
            connection,
            service,
        ):
            await client.send(ASK)
            await async_poll(lambda: connection.write_paused, "the first answer")
            await async_poll(lambda: not service.running, "the first process's end")
            for piece in pieces:
                await client.send(piece)
                await client.seen()
            for limit in (service.idle, service.slow):
                limit.expire(math.inf)
            assert not connection.transport.is_closing()
            assert (await client.read(2, ENDS)).count(b"HTTP/1.1 200 OK") == 2
            await client.send(ASK)
            assert (await client.read(1, ENDS)).startswith(b"HTTP/1.1 200 OK")

    asyncio.run(serve())


@pytest.mark.parametrize("lines", [b"\r\n", b"\r\n\r\n"])
def test_an_empty_line_behind_a_request_begins_no_other(lines: bytes) -> None:
    """The connection ends as an idle one does, without a word."""

    async def serve() -> None:
        async with connected(HI) as (client, connection, service):
            await client.send(ASK)
            await client.read(1, b"hi\n")
            await client.send(lines)
            await client.seen()
            service.slow.expire(math.inf)
            assert not connection.transport.is_closing()
            service.idle.expire(math.inf)
            assert connection.transport.is_closing()
            assert not connection.transport.get_write_buffer_size()

    asyncio.run(serve())


@pytest.mark.parametrize("length", [3, 300_000], ids=["in memory", "in a file"])
def test_a_client_that_reads_no_more_since_it_was_told_to_send(length: int) -> None:
    """A process that starts after that waits for it, as one that runs already does."""
    paused: list[bool] = []

    async def serve() -> None:
        script = rf"printf 'Content-Type: text/plain\n\n'; cat; {LONG}"
        route = RouteConfig(mode="cgi", command=("sh", "-c", script), hold=math.inf)
        async with connected(route) as (client, connection, service):
            known = service.routing.routes[0]
            spawn = known.spawn
            known.spawn = lambda *args: Watched(spawn(*args), paused)
            transport = connection.transport
            transport.set_write_buffer_limits(high=1 << 20)
            await client.send(ASK)
            await async_poll(transport.get_write_buffer_size, "the first answer")
            await async_poll(lambda: not service.running, "the first process's end")
            transport.set_write_buffer_limits(high=transport.get_write_buffer_size() + 1)
            await client.send(
                b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                b"Expect: 100-continue\r\n\r\n"
            )
            await async_poll(lambda: connection.write_paused, "100 Continue")
            await client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (length, bytes(length)))
            await async_poll(lambda: paused, "the process")
            assert (await client.read(2, ENDS)).count(b"HTTP/1.1 200 OK") == 2

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
