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
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastspawn.serve.http.connection import Connection
from fastspawn.serve.routes.quota import Pool
from fastspawn.serve.routes.taken import Lately, weight
from fastspawn.serve.service import Service
from fastspawn.serve.strategies.base import NotStarted
from fastspawn.serve.strategies.maker import Strategies

from . import inherited, link, orphans, outlets, tls
from .agent import DRAIN, Agent, ready
from .lending import LentPool
from .outlets import say
from .reload import Reloader
from .systemd import Notifier

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from fastspawn.serve.config.model import Config

_POLL: Final = 0.01
"""Seconds between looks for the end of a drain."""
_GRACE: Final = 0.1
"""Seconds for which idle connections wait for a request that may be on its way, at the end."""
_JOIN: Final = 1.0
"""Seconds for the TLS handshakes of those who came last."""


def serve(
    config: Config,
    sockets: list[socket.socket],
    *,
    ready: Callable[[], None],
    stopping: Callable[[], None],
    reread: Callable[[], Config] | None = None,
    upstream: link.Upstream | None = None,
    notifier: Notifier | None = None,
    agent: Sequence[socket.socket] = (),
) -> None:
    """Serve on ``sockets`` (listening) until a signal.

    ``ready`` is called when requests are answered, ``stopping`` just before the sockets are
    closed. ``reread``: called at SIGHUP for a new configuration; its ValueError leaves things as
    they are. ``upstream``: of a worker; it serves until that has gone. ``notifier``: hears
    how things are. ``agent``: sockets for load balancers, closed at the end. Raises StartError.
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
                *(notifier or Notifier({}), lines, agent),
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

    def insist(self) -> None:
        """Once more, whether the first time has come here or not."""
        self.ask()
        self.cancel.set()

    def retire(self) -> None:
        self.retiring = not self._asked
        self.drain.set()

    def lost(self) -> None:
        say("the supervisor has gone")
        self.ask()


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
            say(f"cannot accept connections: {error.strerror}")


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
    agent: Sequence[socket.socket],
) -> None:
    stop = _Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)

    tell = say if upstream is None else partial(upstream.send_json, link.NEWS)
    ignores = bool(inherited.ignored)
    strategies = Strategies(loop, config.spawners, tell, alone=True, ignores=ignores)
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
    reloader = Reloader(service, strategies.news, notifier, secure)
    # Without a handler it would end the server.
    text = "not restarted: that takes --workers" if upstream is None else ""
    loop.add_signal_handler(signal.SIGUSR2, lambda: say(text) if text else None)
    if upstream is not None:
        # The supervisor reloads.
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        _follow(upstream, service, reloader, stop, pool if isinstance(pool, LentPool) else None)
    elif reread is not None:
        loop.add_signal_handler(signal.SIGHUP, reloader.reread, reread)
    loop.set_exception_handler(_Complaints().handle)
    servers = await _accept(sockets, service, config, secure)
    asked = _tell_taken(service, agent, upstream)
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
        # What is in front of us learns it from each answer, and keeps no connection that is used.
        service.retire()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.cancel.wait(), service.config.drain_delay)
    await reloader.close()
    stopping()
    await _stop_accepting(sockets, servers, service, tls.arguments(config, secure))
    await _finish(service, stop)
    await service.close()
    await strategies.close()
    for sock in asked.sockets:
        loop.remove_reader(sock)
    asked.close()
    if upstream is not None:
        upstream.close(loop)


def _tell_taken(
    service: Service, sockets: Sequence[socket.socket], upstream: link.Upstream | None
) -> Agent:
    """Let load balancers know how much of the service is; a worker's hear it of the supervisor."""

    lately = Lately(lambda: service.taken)

    def tell() -> str:
        total = service.config.max_inflight_total
        return DRAIN if service.leaving else ready(weight([lately.taken], total))

    asked = Agent(sockets, tell)
    for sock in sockets:
        service.loop.add_reader(sock, asked.answer, sock)
    if service.config.agent_check is not None:
        service.watch.every_second(lately.look)
        if upstream is not None:
            service.watch.every_second(lambda: _say_taken(upstream, lately))
    return asked


def _say_taken(upstream: link.Upstream, lately: Lately) -> None:
    if not upstream.blocked:
        upstream.send_json(link.TAKEN, lately.taken)


def _follow(
    upstream: link.Upstream,
    service: Service,
    reloader: Reloader,
    stop: _Stop,
    lent: LentPool | None,
) -> None:
    """Do what the supervisor says."""

    def heard(kind: bytes, value: Any) -> None:
        if kind == link.CONFIG:
            reloader.ask(value)
        elif kind == link.RETIRE:
            stop.retire()
        elif kind == link.INSIST:
            stop.insist()
        else:
            for each in (lent, service.figures):
                if each is not None:
                    each.heard(kind, value)

    upstream.open(service.loop, heard, stop.lost)


async def _accept(
    sockets: list[socket.socket], service: Service, config: Config, secure: ssl.SSLContext | None
) -> list[asyncio.AbstractServer]:
    servers: list[asyncio.AbstractServer] = []
    for sock in sockets:
        servers.append(
            await service.loop.create_server(
                lambda: Connection(service),
                sock=sock,
                backlog=_ACCEPTS,
                **tls.arguments(config, secure),
            )
        )
        sock.listen(config.backlog)
    return servers


async def _stop_accepting(
    sockets: list[socket.socket],
    servers: list[asyncio.AbstractServer],
    service: Service,
    secure: dict[str, Any],
) -> None:
    # asyncio takes a few turns of the loop to make a transport of what it has accepted, and loses
    # it if the server is closed meanwhile (Python 3.11: Server._attach asserts).
    for sock in sockets:
        asyncio.get_running_loop().remove_reader(sock)
    await asyncio.sleep(_POLL)
    # Who has connected meanwhile would be reset, with a request that may have been sent.
    late = [each for sock in sockets for each in _pending(sock)]
    for server in servers:
        server.close()
    loop = service.loop
    joining = [
        loop.create_task(loop.connect_accepted_socket(lambda: Connection(service), sock, **secure))
        for sock in late
    ]
    if joining:
        await asyncio.wait(joining, timeout=_JOIN)


def _pending(sock: socket.socket) -> Iterator[socket.socket]:
    """Connections that wait to be accepted."""
    with contextlib.suppress(OSError):
        while True:
            yield sock.accept()[0]


async def _finish(service: Service, stop: _Stop) -> None:
    """What has been asked for, and then whatever is left."""
    if stop.retiring:
        stop.hurry = service.drain
        service.retire()
    else:
        grace = service.config.graceful_timeout
        service.retire()
        await _until_idle(service, stop.cancel, _GRACE if grace is None else min(_GRACE, grace))
        service.drain()
    await _until_idle(service, stop.cancel, service.config.graceful_timeout)
    service.abort()
    # Every process answers to TERM or, after the grace, to KILL.
    await _until_idle(service, None, service.config.kill_grace + 5.0)


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
