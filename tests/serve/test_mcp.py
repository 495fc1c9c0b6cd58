"""``--mode jsonrpc`` and MCP's own Python package: its client, and a server made with it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from serve.harness import BOUND, Server, children, fds, poll
from support import CHILDREN

pytest.importorskip("mcp", reason="its package is not there")

from mcp.client.client import Client
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

Start = Callable[..., Server]

SERVER = """
import os
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("demo")
notes = []

@server.tool()
def add(a: int, b: int) -> int:
    return a + b

@server.tool()
def note(text: str) -> list[str]:
    notes.append(text)
    return notes

@server.tool()
async def count(times: int, ctx: Context) -> int:
    for number in range(times):
        await ctx.report_progress(number, times)
    return os.getpid()

server.run()
"""


@pytest.fixture
def demo(start: Start, tmp_path: Path) -> Server:
    program = tmp_path / "demo.py"
    program.write_text(SERVER)
    return start("--mode", "jsonrpc", command=(sys.executable, str(program)))


@pytest.fixture
def tiny(start: Start) -> Server:
    command = (sys.executable, "-I", "-S", str(CHILDREN / "tools.py"))
    return start("--mode", "jsonrpc", command=command)


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/mcp"


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main, 4 * BOUND))


def left(server: Server) -> None:
    poll(lambda: not children(server.pid), "no process is left", 2 * BOUND)


def test_tools(demo: Server) -> None:
    """A session has one process, and its state."""

    async def main() -> None:
        async with Client(url(demo), mode="legacy") as client:
            tools = (await client.list_tools()).tools
            assert sorted(tool.name for tool in tools) == ["add", "count", "note"]
            assert (await client.call_tool("add", {"a": 2, "b": 3})).structured_content == {
                "result": 5
            }
            await client.call_tool("note", {"text": "one"})
            noted = await client.call_tool("note", {"text": "two"})
            assert noted.structured_content == {"result": ["one", "two"]}
            told: list[float] = []

            async def progress(done: float, total: float | None, message: str | None) -> None:
                told.append(done)

            await client.call_tool("count", {"times": 3}, progress_callback=progress)
            assert told == [0, 1, 2]

    run(main())
    left(demo)


def test_requests_of_their_own(demo: Server) -> None:
    """From its version of 2026 on MCP needs no sessions: each request has a process."""

    async def main() -> None:
        # Named, as one that has to find out falls back to sessions when an answer takes long.
        async with Client(url(demo), mode="2026-07-28") as client:
            assert (await client.call_tool("add", {"a": 2, "b": 3})).structured_content == {
                "result": 5
            }
            for text in ("one", "two"):
                noted = await client.call_tool("note", {"text": text})
                assert noted.structured_content == {"result": [text]}

    run(main())
    left(demo)


def test_the_transport_before(tiny: Server) -> None:
    async def main() -> None:
        async with sse_client(url(tiny)) as streams, ClientSession(*streams) as session:
            await session.initialize()
            assert [tool.name for tool in (await session.list_tools()).tools] == ["keep"]
            kept = await session.call_tool("keep", {"text": "x"})
            assert kept.structured_content["kept"] == ["x"]

    run(main())
    left(tiny)


def test_a_hundred_sessions_at_once(tiny: Server) -> None:
    """None mixed, none left behind."""
    many = 100
    opened = asyncio.Event()
    ready: set[int] = set()

    async def one(number: int) -> tuple[int, list[str]]:
        async with AsyncExitStack() as stack:
            streams = await stack.enter_async_context(streamable_http_client(url(tiny)))
            session = await stack.enter_async_context(ClientSession(*streams))
            await session.initialize()
            ready.add(number)
            if len(ready) == many:
                opened.set()
            await opened.wait()
            assert [tool.name for tool in (await session.list_tools()).tools] == ["keep"]
            for turn in range(3):
                kept = await session.call_tool("keep", {"text": f"{number}.{turn}"})
            return kept.structured_content["pid"], kept.structured_content["kept"]

    async def main() -> list[tuple[int, list[str]]]:
        return await asyncio.gather(*(one(number) for number in range(many)))

    before = fds(tiny.pid)
    found: list[tuple[int, list[str]]] = []

    async def keep() -> None:
        found.extend(await main())

    run(keep())
    assert len({pid for pid, _ in found}) == many
    assert [kept for _, kept in found] == [
        [f"{number}.{turn}" for turn in range(3)] for number in range(many)
    ]
    left(tiny)
    poll(lambda: fds(tiny.pid) <= before + 8, "no descriptor is left")  # kept for the next ones


def test_an_answer_that_breaks_off_is_taken_up_again(tiny: Server) -> None:
    """A proxy in between loses each connection once: the client comes back for the rest."""

    async def main() -> None:
        proxy = _Breaking(tiny.port)
        async with proxy as port:
            address = f"http://127.0.0.1:{port}/mcp"
            async with streamable_http_client(address) as streams, ClientSession(*streams) as each:
                await each.initialize()
                proxy.breaks = True
                kept = await each.call_tool("keep", {"text": "x", "slow": True})
                assert kept.structured_content["kept"] == ["x"]
        assert proxy.broken

    run(main())
    left(tiny)


class _Breaking:
    """While ``breaks``, it cuts the next answer that begins with an event without data."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.breaks = False
        self.broken = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        up = asyncio.create_task(self._pass_on(reader, back, False))
        try:
            await self._pass_on(there, writer, True)
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
            for each in (writer, back):
                each.close()

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool
    ) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
            if answers and self.breaks and b"data: \n" in data:
                self.breaks = False
                self.broken = True
                return
