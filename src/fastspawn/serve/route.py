"""A route at work: who may start its command when, how, and what the answers look like."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from . import paths
from .filling import Filling
from .modes import mode

if TYPE_CHECKING:
    from .admission import Admission
    from .cgi.gateway import Gateway
    from .config import RouteConfig
    from .exchange import Exchange
    from .meter import Meter
    from .response import Heads
    from .strategy import Job, Strategy
    from .watch import Delay


class Match:
    """What a route knows of a request that was found to be its own.

    ``argv`` and ``env`` are the command line and the environment with the path's values in
    them; ``env`` may be shared and is not to be changed. ``fields``: the header fields in order,
    their names in lower case, if the route's mode wants them.
    """

    __slots__ = ("argv", "env", "fields", "segments", "values")

    def __init__(
        self,
        segments: tuple[str, ...],
        values: Mapping[str, str],
        argv: tuple[str, ...],
        env: Mapping[str, str],
        fields: list[tuple[bytes, bytes]] | None,
    ) -> None:
        self.segments = segments
        """Of the path, decoded and checked: see ``paths.py``."""
        self.values = values
        """Of the placeholders in the route's path."""
        self.argv = argv
        self.env = env
        self.fields = fields or []


class Recorder(Protocol):
    """Wants to know of each request that has been answered."""

    def record(self, exchange: Exchange, job: Job | None) -> None:
        """``job``: its process, which has ended; None: there was none."""


class Route:
    """One per route and event loop. ``spawn``, ``exchange``: what its mode has chosen.

    ``title``: for people and for figures; stays the same when the configuration is read again.
    ``ids``: the command is told its request's.
    """

    __slots__ = (
        "admission",
        "config",
        "delay",
        "enter",
        "exchange",
        "filling",
        "gateway",
        "heads",
        "ids",
        "log",
        "max_body",
        "meter",
        "spawn",
        "strategy",
        "template",
        "title",
        "wants_fields",
    )

    def __init__(
        self,
        config: RouteConfig,
        strategy: Strategy,
        admission: Admission,
        heads: Heads,
        delay: Delay,
        title: str,
        ids: bool,
        meter: Meter | None,
    ) -> None:
        self.title = title
        self.ids = ids
        self.config = config
        self.strategy = strategy
        self.admission = admission
        self.heads = heads
        self.delay = None if strategy.holds_back else delay
        self.log: Recorder | None = None
        self.meter = meter
        self.max_body = sys.maxsize if config.max_body is None else config.max_body
        self.template = paths.parse(config.path)
        self.filling = Filling(config)
        self.gateway: Gateway
        """Of mode cgi only."""
        chosen = mode(config.mode)
        self.exchange = chosen.exchange
        self.wants_fields = chosen.wants_fields
        self.spawn = chosen.spawner(self)
        self.enter: Callable[[Exchange], None] = admission.enter
        if meter is not None:
            self.enter = meter.entering(self.enter)
            self.spawn = meter.spawning(self.spawn)

    @property
    def free(self) -> bool:
        """The path goes to a script as it is, and nowhere else: see ``paths.split``."""
        return self.wants_fields and not self.filling.varies

    @property
    def plain(self) -> bool:
        """It takes every request, and wants to know nothing of it."""
        return (
            self.template.fits_all
            and self.config.methods is None
            and not self.filling.varies
            and not self.wants_fields
        )

    def match(
        self,
        segments: tuple[str, ...],
        values: Mapping[str, str],
        fields: list[tuple[bytes, bytes]] | None,
    ) -> Match:
        """Raises filling.BadValue."""
        argv, env = self.filling.fill(values)
        kept = fields if self.wants_fields else None
        return Match(segments, values, argv, env, kept)
