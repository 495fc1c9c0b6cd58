"""What the connections of one event loop share: the routes, the time limits, the log."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final

from .access import AccessLog
from .admission import Admission
from .config import RouteConfig
from .response import Heads
from .route import Route
from .routing import Routing
from .watch import Delay, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import Config
    from .protocol import Connection
    from .strategy import Strategy

_LINGER: Final = 5.0
"""Seconds for which input is thrown away after an answer that came before the request's end."""


_HOLD: Final = 0.01
"""Seconds for which the beginning of an answer is held back, for all of it to come."""


class Service:
    """``load`` and then ``start`` come before any connection."""

    __slots__ = (
        "_heads",
        "_make",
        "config",
        "connections",
        "delay",
        "draining",
        "idle",
        "lingering",
        "log",
        "loop",
        "routing",
        "slow",
        "watch",
    )

    def __init__(
        self,
        config: Config,
        make: Callable[[RouteConfig], Strategy],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """``make``: the strategy of a route, not yet started."""
        self.config = config
        self.loop = loop
        self._make = make
        self._heads: dict[str, Heads] = {}
        self.delay = Delay(loop, _HOLD)
        self.connections: set[Connection] = set()
        self.draining = False

        self.watch = Watch(loop)
        self.watch.every_second(self._second)
        self.idle = self.watch.deadlines(config.keep_alive_timeout)
        self.slow = self.watch.deadlines(config.header_timeout)
        self.lingering = self.watch.deadlines(_LINGER)
        self.log = AccessLog(loop, sys.stdout.fileno()) if config.access_log else None

        self.routing = Routing([], self._route(RouteConfig(max_inflight=1, queue=0)))

    async def load(self) -> None:
        """Make and start the routes. Raises the OSError of a strategy that can't be started."""
        routes = [self._route(config) for config in self.config.routes]
        for route in routes:
            await route.strategy.start()
        self.routing = Routing(routes, self.routing.nowhere)

    def _route(self, config: RouteConfig) -> Route:
        heads = self._heads.get(config.content_type)
        if heads is None:
            heads = self._heads[config.content_type] = Heads(config.content_type)
        return Route(
            config,
            self._make(config),
            Admission(self.loop, config.max_inflight, config.queue, config.queue_timeout),
            heads,
            self.delay,
            self.log,
        )

    def start(self) -> None:
        self.watch.start()

    @property
    def running(self) -> int:
        """Processes."""
        return sum(route.admission.running for route in self.routing.routes)

    def drain(self) -> None:
        """Finish what has been asked for; close each connection as it becomes idle."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()

    def abort(self) -> None:
        """Cancel what runs, forget what waits, cut every connection."""
        for connection in list(self.connections):
            connection.abort()

    async def close(self) -> None:
        """End the strategies, too."""
        for route in self.routing.routes:
            await route.strategy.close()
            route.admission.close()
        self.delay.close()
        self.watch.close()
        if self.log is not None:
            self.log.flush()

    def _second(self) -> None:
        for heads in self._heads.values():
            heads.refresh()
        if self.log is not None:
            self.log.refresh()
