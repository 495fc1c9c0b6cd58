"""What the connections of one event loop share: the routes, the time limits, the log."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

from fastspawn import TemplateError

from . import about, own
from .access import AccessLog
from .admission import Admission
from .config import RouteConfig
from .meter import Counting, Meters
from .outlets import Outlets
from .pool import PooledAdmission
from .response import Heads
from .route import Route
from .routing import Routing
from .strategy import NotStarted
from .tally import Figures, SharedFigures
from .watch import Delay, Unsent, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import Config
    from .link import Upstream
    from .meter import Snapshot
    from .pool import Pool
    from .protocol import Connection
    from .route import Recorder
    from .strategy import Strategy

_LINGER: Final = 5.0
"""Seconds for which input is thrown away after an answer that came before the request's end."""


_REROUTE: Final = 0.01
"""Seconds between looks at connections that were receiving a head during a reload."""

_NOWHERE: Final = "(none)"
"""Whose requests belong to no route, in the figures."""

_HOLD: Final = 0.01
"""Seconds for which the beginning of an answer is held back, for all of it to come."""


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
        "delay",
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
        self._heads: dict[str, Heads] = {}
        self.delay = Delay(loop, _HOLD)
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

        self._meters: Meters | None = None
        self.figures: Figures | None = None
        if config.metrics_path is not None:
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
        self._retired += [route for route in known.values() if route not in routes]
        self.routing = Routing(
            routes, self.routing.nowhere, own.answers(config), about.reader(config)
        )
        self.config = config
        self.idle.seconds = config.keep_alive_timeout
        for heads in self._heads.values():
            heads.allow(config.keep_alive_timeout)
        self.slow.seconds = config.header_timeout
        self.body.seconds = _seconds(config.body_timeout)
        self.unsent.seconds = _seconds(config.send_timeout)
        self._switch_log(config)
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

    def _recorder(self, route: Route) -> Recorder | None:
        return self.log if route.meter is None else Counting(route.meter, self.log)

    def _snapshot(self) -> Snapshot:
        assert self._meters is not None
        routes = (*self.routing.routes, *self._retired, self.routing.nowhere)
        dropped = {} if self._outlets is None else self._outlets.dropped()
        return {**self._meters.snapshot(routes, len(self.connections)), "dropped": dropped}

    def _route(self, config: RouteConfig, name: str | None = None) -> Route:
        heads = self._heads.get(config.content_type)
        if heads is None:
            heads = self._heads[config.content_type] = Heads(
                config.content_type, self.config.keep_alive_timeout
            )
        limits = (self.loop, config.max_inflight, config.queue, config.queue_timeout)
        name = config.title if name is None else name
        route = Route(
            config,
            self._make(config),
            Admission(*limits) if self._pool is None else PooledAdmission(self._pool, *limits),
            heads,
            self.delay,
            name,
            self.config.request_id,
            None if self._meters is None else self._meters.of(name),
        )
        route.log = self._recorder(route)
        return route

    def start(self) -> None:
        self.watch.start()

    @property
    def running(self) -> int:
        """Processes."""
        return sum(route.admission.running for route in (*self.routing.routes, *self._retired))

    def drain(self) -> None:
        """Finish what has been asked for; close each connection as it becomes idle."""
        self.leaving = True
        for connection in list(self.connections):
            connection.drain()

    def retire(self) -> None:
        """As ``drain``, but let idle connections wait for a request that may be on its way."""
        self.leaving = self.retiring = True
        for connection in list(self.connections):
            connection.retire()

    def abort(self) -> None:
        """Cancel what runs, forget what waits, cut every connection."""
        for connection in list(self.connections):
            connection.abort()

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
        self.delay.close()
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
            kinds = {route.config.content_type for route in self.routing.routes}
            kinds.add(self.routing.nowhere.config.content_type)
            self._heads = {kind: self._heads[kind] for kind in kinds}

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
