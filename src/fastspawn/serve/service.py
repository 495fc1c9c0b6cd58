"""What the connections of one event loop share."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final

from .access import AccessLog
from .admission import Admission
from .response import Heads
from .watch import Delay, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import Config
    from .protocol import Connection
    from .strategy import Job, Sink, Strategy

_LINGER: Final = 5.0
"""Seconds for which input is thrown away after an answer that came before the request's end."""


_HOLD: Final = 0.01
"""Seconds for which the beginning of an answer is held back, for all of it to come."""


class Service:
    """One command, one strategy, one set of limits; ``start`` comes before any connection."""

    __slots__ = (
        "admission",
        "config",
        "connections",
        "delay",
        "draining",
        "heads",
        "idle",
        "lingering",
        "log",
        "loop",
        "max_body",
        "slow",
        "spawn",
        "watch",
    )

    def __init__(self, config: Config, strategy: Strategy, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.loop = loop
        self.spawn: Callable[[Sink, Any], Job] = strategy.spawn
        self.max_body = sys.maxsize if config.max_body is None else config.max_body
        self.admission = Admission(loop, config.max_inflight, config.queue, config.queue_timeout)
        self.heads = Heads(config.content_type)
        self.delay = None if strategy.holds_back else Delay(loop, _HOLD)
        self.connections: set[Connection] = set()
        self.draining = False

        self.watch = Watch(loop)
        self.watch.every_second(self.heads.refresh)
        self.idle = self.watch.deadlines(config.keep_alive_timeout)
        self.slow = self.watch.deadlines(config.header_timeout)
        self.lingering = self.watch.deadlines(_LINGER)

        self.log: AccessLog | None = None
        if config.access_log:
            self.log = AccessLog(loop, sys.stdout.fileno())
            self.watch.every_second(self.log.refresh)

    def start(self) -> None:
        self.watch.start()

    def drain(self) -> None:
        """Finish what has been asked for; close each connection as it becomes idle."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()

    def abort(self) -> None:
        """Cancel what runs, forget what waits, cut every connection."""
        for connection in list(self.connections):
            connection.abort()

    def close(self) -> None:
        self.admission.close()
        if self.delay is not None:
            self.delay.close()
        self.watch.close()
        if self.log is not None:
            self.log.flush()
