"""The HTTP half shared by the Python peers: httptools, as small as it can honestly be.

The peers differ only in how they run the command, so what they lose or win against each other
is that and nothing else. Requests on one connection are answered in order. Not done here: limits,
request bodies, logging.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools
import uvloop

Run = Callable[[], "asyncio.Future[bytes]"]


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """The options of every Python peer: ``--port --size -- CMD ARG...``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--size", type=int, help="threads or workers")
    parser.add_argument("argv", nargs="+", metavar="CMD")
    return parser


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pending: deque[tuple[asyncio.Future[bytes], bool]] = deque()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pending.clear()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            assert self._transport is not None
            self._transport.close()

    def on_message_complete(self) -> None:
        future = self._run()
        self._pending.append((future, self._parser.should_keep_alive()))
        future.add_done_callback(self._answer)

    def _answer(self, _: asyncio.Future[bytes]) -> None:
        while self._pending and self._pending[0][0].done():
            future, keep_alive = self._pending.popleft()
            if self._transport is None or future.cancelled():
                continue
            if future.exception() is None:
                body = future.result()
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
            else:
                body = b""
                head = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
            self._transport.write(head + body)
            if not keep_alive:
                self._transport.close()


def serve(
    port: int,
    start: Callable[[asyncio.AbstractEventLoop], Run],
    loop: asyncio.AbstractEventLoop | None = None,
) -> None:
    """Serve on loopback until SIGTERM; *start* gets the loop and returns the way to run."""
    loop = loop or uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.add_signal_handler(signal.SIGTERM, loop.stop)
    run = start(loop)
    server = loop.run_until_complete(
        loop.create_server(lambda: Connection(run), "127.0.0.1", port, backlog=1024)
    )
    loop.run_forever()
    server.close()
    loop.run_until_complete(asyncio.sleep(0))
