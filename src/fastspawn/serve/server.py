"""One server process: the event loop, from the first connection to the last.

The first SIGTERM or SIGINT stops accepting and lets what has been asked for finish, for at
most ``graceful_timeout``; the second, or the end of that time, cancels what is left.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

from fastspawn import TemplateError

from .protocol import Connection
from .service import Service
from .strategy import Strategies

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .config import Config

_POLL: Final = 0.01
"""Seconds between looks for the end of a drain."""


def serve(
    config: Config,
    sockets: list[socket.socket],
    *,
    ready: Callable[[], None],
    stopping: Callable[[], None],
    lifeline: socket.socket | None = None,
) -> None:
    """Serve on ``sockets`` (listening) until a signal, or until ``lifeline`` reaches its end.

    ``ready`` is called when requests are answered, ``stopping`` just before the sockets are
    closed. Raises StartError.
    """
    loop = _new_loop(config)
    try:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(_serve(loop, config, sockets, ready, stopping, lifeline))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _new_loop(config: Config) -> asyncio.AbstractEventLoop:
    if config.loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


_ACCEPTS: Final = 64
"""Connections accepted in one go: what asyncio makes of a backlog besides listen(2)."""


_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class StartError(Exception):
    """Why the server can't start, in one line."""


class _Stop:
    """What the signals ask for."""

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.cancel = asyncio.Event()

    def ask(self) -> None:
        if self.drain.is_set():
            self.cancel.set()
        self.drain.set()


class _Complaints:
    """The loop's exception handler.

    When no more connections can be accepted, asyncio says so with a traceback for each attempt;
    one line a second will do.
    """

    def __init__(self) -> None:
        self._silent_until = 0.0

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _NO_ROOM:
            loop.default_exception_handler(context)
        elif loop.time() >= self._silent_until:
            self._silent_until = loop.time() + 1.0
            _say(f"cannot accept connections: {error.strerror}")


def _say(text: str) -> None:
    print(f"fastspawn: {text}", file=sys.stderr, flush=True)  # noqa: T201


async def _serve(
    loop: asyncio.AbstractEventLoop,
    config: Config,
    sockets: list[socket.socket],
    ready: Callable[[], None],
    stopping: Callable[[], None],
    lifeline: socket.socket | None,
) -> None:
    stop = _Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)
    if lifeline is not None:
        loop.add_reader(lifeline, _lost, loop, lifeline, stop)

    strategies = Strategies(loop, config.spawners)
    service = Service(config, strategies.make, loop)
    try:
        await service.load()
    except OSError as error:
        raise StartError(f"cannot start the engine: {error.strerror}") from error
    except TemplateError as error:
        raise StartError(f"--strategy snapshot: {error}") from error
    service.start()
    loop.set_exception_handler(_Complaints().handle)
    servers = []
    for sock in sockets:
        servers.append(
            await loop.create_server(lambda: Connection(service), sock=sock, backlog=_ACCEPTS)
        )
        sock.listen(config.backlog)
    # What there is now stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    ready()
    await stop.drain.wait()

    stopping()
    for server in servers:
        server.close()
    service.drain()
    await _until_idle(service, stop.cancel, config.graceful_timeout)
    service.abort()
    # Every process answers to TERM or, after the grace, to KILL.
    await _until_idle(service, None, config.kill_grace + 5.0)
    await service.close()
    await strategies.close()
    if lifeline is not None:
        loop.remove_reader(lifeline)


async def _until_idle(
    service: Service, cancel: asyncio.Event | None, timeout: float | None
) -> None:
    """Until no connection and no process is left, ``cancel`` is set or the time is up."""
    loop = service.loop
    end = None if timeout is None else loop.time() + timeout
    while service.connections or service.running:
        if (cancel is not None and cancel.is_set()) or (end is not None and loop.time() >= end):
            return
        await asyncio.sleep(_POLL)


def _lost(loop: asyncio.AbstractEventLoop, lifeline: socket.socket, stop: _Stop) -> None:
    # The supervisor never sends anything: this is the end.
    loop.remove_reader(lifeline)
    _say("the supervisor has gone")
    stop.ask()
