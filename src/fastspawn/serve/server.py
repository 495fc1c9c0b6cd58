"""One server process: the event loop, from the first connection to the last.

The first SIGTERM or SIGINT stops accepting and lets what has been asked for finish, for at
most ``graceful_timeout``; the second, or the end of that time, cancels what is left. With a
``drain_delay`` that begins later, while whoever asks hears that the server is not ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from . import link, orphans, outlets, settings, tls
from .pool import LentPool, Pool
from .protocol import Connection
from .service import Service
from .strategy import NotStarted, Strategies
from .systemd import Notifier

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Coroutine

    from .config import Config
    from .news import News

_POLL: Final = 0.01
"""Seconds between looks for the end of a drain."""


def serve(
    config: Config,
    sockets: list[socket.socket],
    *,
    ready: Callable[[], None],
    stopping: Callable[[], None],
    reread: Callable[[], Config] | None = None,
    upstream: link.Upstream | None = None,
    notifier: Notifier | None = None,
) -> None:
    """Serve on ``sockets`` (listening) until a signal.

    ``ready`` is called when requests are answered, ``stopping`` just before the sockets are
    closed. ``reread``: called at SIGHUP for a new configuration; its ValueError leaves things as
    they are. ``upstream``: of a worker; it serves until that has gone. ``notifier``: hears
    how things are. Raises StartError.
    """
    loop = _new_loop(config)
    if config.subreaper:
        try:
            orphans.become_subreaper()
        except OSError as error:
            raise StartError(f"--subreaper: {error.strerror}") from error
    with outlets.opened() as lines:
        _run(
            loop,
            _serve(
                *(loop, config, sockets, ready, stopping, reread, upstream),
                *(notifier or Notifier({}), lines),
            ),
        )


def _run(loop: asyncio.AbstractEventLoop, serving: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serving)
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
        self.retiring = False
        """Another worker has taken over: there is no hurry."""
        self.hurry: Callable[[], None] = lambda: None
        """What to do when there is, after all."""
        self._asked = False

    def ask(self) -> None:
        if self._asked:
            self.cancel.set()
        elif self.retiring:
            self.retiring = False
            self.hurry()
        self._asked = True
        self.drain.set()

    def retire(self) -> None:
        self.retiring = not self._asked
        self.drain.set()

    def lost(self) -> None:
        _say("the supervisor has gone")
        self.ask()


class _Reloader:
    """Puts new configurations into force, one after the other."""

    def __init__(
        self, service: Service, news: News, notifier: Notifier, secure: ssl.SSLContext | None
    ) -> None:
        self._service = service
        self._news = news
        self._secure = secure
        self._notifier = notifier
        self._next: Config | None = None
        self._note = ""
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def reread(self, read: Callable[[], Config]) -> None:
        """At SIGHUP."""
        self._notifier.reloading()
        try:
            config, note = settings.reloaded(self._service.config, read())
        except ValueError as error:
            _say(f"not reloaded: {error}")
            self._notifier.ready()
        else:
            self.ask(config, f"reloaded {config.config}{note}")

    def ask(self, config: Config, note: str = "") -> None:
        """``config`` has been checked. ``note``: what to say when it is in force."""
        self._next, self._note = config, note
        if self._task is None and not self._closed:
            self._task = self._service.loop.create_task(self._load())

    async def _load(self) -> None:
        while (config := self._next) is not None:
            self._next, note = None, self._note
            try:
                with self._news.gathering():
                    await self._service.load(config)
                if self._secure is not None:
                    tls.renew(self._secure, config)
            except (NotStarted, OSError, tls.TlsError) as error:
                _say(f"not reloaded: {error}")
            else:
                if note:
                    _say(note)
            self._notifier.ready()
        self._task = None

    async def close(self) -> None:
        """No more of it."""
        self._closed = True
        self._next = None
        if self._task is not None:
            await asyncio.wait([self._task])


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
    reread: Callable[[], Config] | None,
    upstream: link.Upstream | None,
    notifier: Notifier,
    lines: outlets.Outlets,
) -> None:
    stop = _Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)

    say = _say if upstream is None else partial(upstream.send_json, link.NEWS)
    strategies = Strategies(loop, config.spawners, say, alone=True)
    pool = _pool(config, upstream)
    service = Service(config, strategies.make, loop, pool, upstream, lines)
    try:
        with strategies.news.gathering():
            await service.load(config)
    except (NotStarted, OSError) as error:
        raise StartError(str(error)) from error
    service.watch.every_second(strategies.look)
    service.start()
    try:
        secure = tls.context(config)
    except tls.TlsError as error:
        raise StartError(str(error)) from error
    service.half_closes = secure is None
    if orphans.come_here(subreaper=config.subreaper):
        service.watch.every_second(lambda: _reap(service))
    reloader = _Reloader(service, strategies.news, notifier, secure)
    # Without a handler it would end the server.
    text = "not restarted: that takes --workers" if upstream is None else ""
    loop.add_signal_handler(signal.SIGUSR2, lambda: _say(text) if text else None)
    if upstream is not None:
        # The supervisor reloads.
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        lent = pool if isinstance(pool, LentPool) else None

        def heard(kind: bytes, value: Any) -> None:
            if kind == link.CONFIG:
                reloader.ask(value)
            elif kind == link.RETIRE:
                stop.retire()
            else:
                for each in (lent, service.figures):
                    if each is not None:
                        each.heard(kind, value)

        upstream.open(loop, heard, stop.lost)
    elif reread is not None:
        loop.add_signal_handler(signal.SIGHUP, reloader.reread, reread)
    loop.set_exception_handler(_Complaints().handle)
    servers = []
    for sock in sockets:
        servers.append(
            await loop.create_server(
                lambda: Connection(service),
                sock=sock,
                backlog=_ACCEPTS,
                **tls.arguments(config, secure),
            )
        )
        sock.listen(config.backlog)
    # What there is now stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    ready()
    notifier.ready()
    notifier.keep_alive(loop)
    await stop.drain.wait()

    notifier.stopping()
    service.leaving = True
    if service.config.drain_delay and not stop.retiring:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.cancel.wait(), service.config.drain_delay)
    await reloader.close()
    stopping()
    # asyncio takes a few turns of the loop to make a transport of what it has accepted, and loses
    # it if the server is closed meanwhile (Python 3.11: Server._attach asserts).
    for sock in sockets:
        loop.remove_reader(sock)
    await asyncio.sleep(_POLL)
    for server in servers:
        server.close()
    if stop.retiring:
        stop.hurry = service.drain
        service.retire()
    else:
        service.drain()
    await _until_idle(service, stop.cancel, service.config.graceful_timeout)
    service.abort()
    # Every process answers to TERM or, after the grace, to KILL.
    await _until_idle(service, None, service.config.kill_grace + 5.0)
    await service.close()
    await strategies.close()
    if upstream is not None:
        upstream.close(loop)


def _reap(service: Service) -> None:
    # asyncio waits for its own on the main thread, too.
    if not any(route.strategy.name == "subprocess" for route in service.routing.routes):
        orphans.reap()


def _pool(config: Config, upstream: link.Upstream | None) -> Pool | None:
    if config.max_inflight_total is None:
        return None
    return Pool(config.max_inflight_total) if upstream is None else LentPool(upstream.send)


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
