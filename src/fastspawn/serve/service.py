"""What the connections of one event loop share: the routes, the time limits, the log."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final, Protocol

from fastspawn import TemplateError

from .config.model import RouteConfig
from .figures.access import AccessLog
from .figures.meter import Counting, Meters
from .figures.tally import Figures, SharedFigures, Upstream
from .http import about
from .http.response import Heads
from .http.watch import Delay, Unsent, Watch
from .routes import own, probes
from .routes.admission import Admission
from .routes.quota import Pool, PooledAdmission
from .routes.route import Route, added_by, cors_of
from .routes.routing import Routing
from .routes.taken import Taken, taken
from .strategies.base import NotStarted

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from fastspawn._core import Outlet

    from .config.model import Config
    from .figures.errors import ErrorLog
    from .figures.meter import Snapshot
    from .figures.record import Recorder
    from .http.exchange import Exchange
    from .jsonrpc.sessions import Sessions
    from .strategies.base import Strategy

_LINGER: Final = 5.0
"""Seconds for which input is thrown away after an answer that came before the request's end."""


_REROUTE: Final = 0.01
"""Seconds between looks at connections that were receiving a head during a reload."""

_NOWHERE: Final = "(none)"
"""Whose requests belong to no route, in the figures."""

_HOLD: Final = 0.01
"""Seconds for which the beginning of an answer is held back, for all of it to come."""


class Outlets(Protocol):
    """Where lines go (``host/outlets.py``)."""

    def access(self) -> Outlet | None:
        """For the access log; None: it is not open."""

    def errors(self) -> Outlet | None:
        """For standard error; None: it is not open."""

    def dropped(self) -> Mapping[str, int]:
        """Lines that nobody took, by what they were for."""

    def look(self) -> None:
        """To be called now and then."""


class Connection(Protocol):
    """One of a client, whatever is spoken on it (``http/connection.py``)."""

    def exchanges(self) -> Iterable[Exchange]:
        """Those that are not finished."""

    def reroute(self) -> bool:
        """Have requests to come find their routes as they are now. False: not yet."""

    def drain(self) -> None:
        """Close as soon as what is being answered is."""

    def retire(self) -> None:
        """Close with the next answer whose head can still say so."""

    def abort(self) -> None:
        """Close now."""


async def _start(route: Route) -> None:
    try:
        await route.strategy.start()
    except (OSError, TemplateError) as error:
        raise NotStarted(route.config, error) from error


def _seconds(limit: float | None) -> float:
    return math.inf if limit is None else limit


class Service:
    """``start`` and ``load`` come before any connection; ``load`` may come again."""

    __slots__ = (
        "_closing",
        "_delays",
        "_errors",
        "_heads",
        "_make",
        "_meters",
        "_outlets",
        "_pool",
        "_reroute_timer",
        "_retired",
        "_unrouted",
        "body",
        "config",
        "connections",
        "figures",
        "half_closes",
        "idle",
        "leaving",
        "lingering",
        "log",
        "loop",
        "retiring",
        "routing",
        "slow",
        "unsent",
        "watch",
    )

    def __init__(
        self,
        config: Config,
        make: Callable[[RouteConfig], Strategy],
        loop: asyncio.AbstractEventLoop,
        pool: Pool | None = None,
        upstream: Upstream | None = None,
        outlets: Outlets | None = None,
    ) -> None:
        """``make``: the strategy of a route, not yet started. ``pool``: what all routes share.
        ``upstream``: of a worker. ``outlets``: stay the caller's."""
        self.config = config
        self._outlets = outlets
        self.loop = loop
        self._make = make
        self._pool = pool
        self._heads: dict[Hashable, Heads] = {}
        """By type and fields."""
        self._delays: dict[float, Delay] = {}
        """By their seconds."""
        self.connections: set[Connection] = set()
        self.half_closes = True
        """One side of a connection can end without the other: not with TLS, as asyncio has it."""
        self.leaving = False
        """It will stop soon: no longer ready."""
        self.retiring = False
        """Another takes its place: no new connections, each request is its connection's last."""

        self.watch = Watch(loop)
        self.watch.every_second(self._second)
        self.idle = self.watch.deadlines(config.keep_alive_timeout)
        self.slow = self.watch.deadlines(config.header_timeout)
        self.body = self.watch.deadlines(_seconds(config.body_timeout))
        self.unsent = Unsent(loop.time, _seconds(config.send_timeout))
        self.watch.every_second(self.unsent.look)
        self.lingering = self.watch.deadlines(_LINGER)
        self.log = self._log(config)
        self._errors: ErrorLog | None = None
        """Of commands; None: none was asked for yet."""

        self._meters: Meters | None = None
        self.figures: Figures | None = None
        if config.counts:
            self._meters = Meters()
            self.figures = (
                Figures(self._snapshot)
                if upstream is None
                else SharedFigures(self._snapshot, upstream)
            )

        self._retired: list[Route] = []
        """Routes of before a reload that are still busy."""
        self._closing: set[asyncio.Task[None]] = set()
        self._unrouted: set[Connection] = set()
        """Connections that still have the routing of before."""
        self._reroute_timer: asyncio.TimerHandle | None = None
        self.routing = Routing([], self._route(RouteConfig(max_inflight=1, queue=0), _NOWHERE))

    async def load(self, config: Config) -> None:
        """Serve the routes of ``config``, and take over its time limits.

        Routes that stay the same go on; those that are no more finish what they have been asked
        for. Raises NotStarted: then nothing has changed.
        """
        known = {route.config: route for route in self.routing.routes}
        routes: list[Route] = []
        try:
            for each in config.routes:
                route = known.get(each)
                if route is None:
                    route = self._route(each)
                    routes.append(route)
                    await _start(route)
                else:
                    routes.append(route)
        except BaseException:
            for route in routes:
                if route.config not in known:
                    await route.strategy.close()
            raise
        self._share(routes)
        for route in known.values():
            if route not in routes:
                self._retired.append(route)
                if route.sessions is not None:
                    route.sessions.drain()
        answers = {**own.answers(config, self), **probes.answers(config, self, routes)}
        self.routing = Routing(routes, self.routing.nowhere, answers, about.reader(config))
        self.config = config
        self.idle.seconds = config.keep_alive_timeout
        for heads in self._heads.values():
            heads.allow(config.keep_alive_timeout)
        self.slow.seconds = config.header_timeout
        self.body.seconds = _seconds(config.body_timeout)
        self.unsent.seconds = _seconds(config.send_timeout)
        self._switch_log(config)
        if self._errors is not None:
            self._errors.style = config.log_format
        self._unrouted = set(self.connections)
        self._reroute()

    def _reroute(self) -> None:
        self._reroute_timer = None
        self._unrouted = {each for each in self._unrouted & self.connections if not each.reroute()}
        if self._unrouted:
            self._reroute_timer = self.loop.call_later(_REROUTE, self._reroute)

    def _switch_log(self, config: Config) -> None:
        wanted = config.log_format if config.access_log else None
        if wanted == (None if self.log is None else self.log.style):
            return
        if self.log is not None:
            self.log.flush()
        self.log = self._log(config)
        for route in (*self.routing.routes, *self._retired, self.routing.nowhere):
            route.log = self._recorder(route)

    def _log(self, config: Config) -> AccessLog | None:
        if not config.access_log:
            return None
        outlet = None if self._outlets is None else self._outlets.access()
        return None if outlet is None else AccessLog(self.loop, outlet, config.log_format)

    def _error_log(self) -> ErrorLog:
        if self._errors is None:
            from .figures.errors import ErrorLog

            outlet = None if self._outlets is None else self._outlets.errors()
            put = (lambda _: None) if outlet is None else outlet.put
            self._errors = ErrorLog(put, self.config.log_format)
        return self._errors

    def _recorder(self, route: Route) -> Recorder | None:
        return self.log if route.meter is None else Counting(route.meter, self.log)

    def _snapshot(self) -> Snapshot:
        assert self._meters is not None
        routes = (*self.routing.routes, *self._retired, self.routing.nowhere)
        dropped = {} if self._outlets is None else self._outlets.dropped()
        return {**self._meters.snapshot(routes, len(self.connections)), "dropped": dropped}

    def _heads_of(self, config: RouteConfig) -> Heads:
        added = added_by(config)
        key = config.content_type, tuple(added.all)
        heads = self._heads.get(key)
        if heads is None:
            idle = self.config.keep_alive_timeout
            heads = self._heads[key] = Heads(config.content_type, idle, added)
        return heads

    def _share(self, routes: list[Route]) -> None:
        """Give answers that belong to no route what those of all routes have in common."""
        configs = [route.config for route in routes]
        first = configs[0]
        same = all(
            (each.cors, each.cors_credentials) == (first.cors, first.cors_credentials)
            and each.mode != "ws"
            for each in configs
        )
        shared = RouteConfig(
            header=tuple(
                each for each in first.header if all(each in config.header for config in configs)
            ),
            cors=first.cors if same else (),
            cors_credentials=first.cors_credentials,
        )
        self.routing.nowhere.heads = self._heads_of(shared)
        self.routing.nowhere.cors = cors_of(shared)

    def _delay(self, seconds: float) -> Delay:
        delay = self._delays.get(seconds)
        if delay is None:
            delay = self._delays[seconds] = Delay(self.loop, seconds)
        return delay

    def _route(self, config: RouteConfig, name: str | None = None) -> Route:
        limits = (self.loop, config.max_inflight, config.queue, config.queue_timeout)
        name = config.title if name is None else name
        route = Route(
            config,
            self._make(config),
            Admission(*limits) if self._pool is None else PooledAdmission(self._pool, *limits),
            self._heads_of(config),
            self._delay(_HOLD if config.holds is None else config.holds),
            name,
            self.config.request_id,
            None if self._meters is None else self._meters.of(name),
            self._error_log().lines if config.stderr == "log" else None,
        )
        route.log = self._recorder(route)
        return route

    def start(self) -> None:
        self.watch.start()

    @property
    def running(self) -> int:
        """Processes."""
        return sum(route.admission.running for route in (*self.routing.routes, *self._retired))

    @property
    def taken(self) -> Taken:
        """How much of it is, now."""
        return taken(self.routing.routes)

    def drain(self) -> None:
        """Finish what has been asked for; close each connection as it becomes idle."""
        self.leaving = True
        for connection in list(self.connections):
            connection.drain()
        for sessions in self._sessions:
            sessions.drain()

    def retire(self) -> None:
        """As ``drain``, but let idle connections wait for a request that may be on its way."""
        self.leaving = self.retiring = True
        for connection in list(self.connections):
            connection.retire()

    def abort(self) -> None:
        """Cancel what runs, forget what waits, cut every connection."""
        for connection in list(self.connections):
            connection.abort()
        for sessions in self._sessions:
            sessions.abort()

    @property
    def _sessions(self) -> list[Sessions]:
        routes = (*self.routing.routes, *self._retired)
        return [route.sessions for route in routes if route.sessions is not None]

    async def close(self) -> None:
        """End the strategies, too."""
        if self.figures is not None:
            self.figures.push()
        for route in (*self.routing.routes, *self._retired):
            await route.strategy.close()
            route.admission.close()
        if self._closing:
            await asyncio.wait(self._closing)
        if self._reroute_timer is not None:
            self._reroute_timer.cancel()
        for delay in self._delays.values():
            delay.close()
        self.watch.close()
        if self.log is not None:
            self.log.flush()

    def _close_retired(self) -> None:
        """Let go of the old routes that nobody uses any more."""
        used = {each.route for connection in self.connections for each in connection.exchanges()}
        for route in list(self._retired):
            if route not in used and not route.admission.running and not self._unrouted:
                self._retired.remove(route)
                if route.meter is not None:
                    route.meter.keep(route)
                route.admission.close()
                task = self.loop.create_task(route.strategy.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        if not self._retired:
            heads_used = {route.heads for route in (*self.routing.routes, self.routing.nowhere)}
            self._heads = {key: heads for key, heads in self._heads.items() if heads in heads_used}

    def _second(self) -> None:
        if self._retired:
            self._close_retired()
        for heads in self._heads.values():
            heads.refresh()
        if self.log is not None:
            self.log.refresh()
        if self._outlets is not None:
            self._outlets.look()
        if self.figures is not None:
            self.figures.push()
