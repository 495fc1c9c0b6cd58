"""A route at work: who may start its command when, how, and what the answers look like."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fastspawn.serve import paths
from fastspawn.serve.http import form
from fastspawn.serve.http.added import Added
from fastspawn.serve.http.cors import Cors
from fastspawn.serve.http.match import Match
from fastspawn.serve.http.outcome import Judge

from .filling import Filling
from .modes import mode

if TYPE_CHECKING:
    from fastspawn.serve.cgi.gateway import Gateway
    from fastspawn.serve.config.model import RouteConfig
    from fastspawn.serve.figures.meter import Meter
    from fastspawn.serve.figures.record import Recorder
    from fastspawn.serve.http.response import Heads
    from fastspawn.serve.http.watch import Delay
    from fastspawn.serve.jsonrpc.sessions import Sessions
    from fastspawn.serve.strategies.base import Strategy

    from .admission import Admission
    from .logged import Lines


class Route:
    """One per route and event loop. ``spawn``, ``exchange``: what its mode has chosen.

    ``title``: for people and for figures; stays the same when the configuration is read again.
    ``ids``: the command is told its request's. ``delay``: one of ``config.holds`` seconds, if that
    says any. ``lines``: where standard error goes, with ``stderr`` ``log``.
    """

    __slots__ = (
        "added",
        "admission",
        "config",
        "cors",
        "delay",
        "enter",
        "exchange",
        "filling",
        "gateway",
        "heads",
        "ids",
        "judge",
        "log",
        "max_body",
        "meter",
        "sessions",
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
        lines: Callable[[Any], Lines] | None = None,
    ) -> None:
        if lines is not None and config.stderr == "log":
            from .logged import LoggedStrategy

            strategy = LoggedStrategy(strategy, lines)
        self.title = title
        self.ids = ids
        self.config = config
        self.strategy = strategy
        self.admission = admission
        self.heads = heads
        self.delay = None if strategy.holds_back and config.holds is None else delay
        self.added = added_by(config)
        self.cors = cors_of(config)
        self.judge = Judge(dict(config.status), output=config.error_body == "output")
        self.log: Recorder | None = None
        self.meter = meter
        self.template = paths.parse(config.path)
        self.filling = Filling(config)
        limit = form.LIMIT if self.filling.form else sys.maxsize
        self.max_body = limit if config.body_limit is None else min(config.body_limit, limit)
        self.gateway: Gateway
        """Of modes cgi and ws only."""
        self.sessions: Sessions | None = None
        """Of mode jsonrpc only."""
        chosen = mode(config, form=self.filling.form)
        self.exchange = chosen.exchange
        self.wants_fields = chosen.wants_fields
        self.spawn = chosen.spawner(self)
        enter: Any = admission.enter
        if meter is not None:
            enter = meter.entering(enter)
            self.spawn = meter.spawning(self.spawn)
        self.enter: Callable[[Any], None] = enter

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
            and self.cors is None
        )

    def match(
        self,
        segments: tuple[str, ...],
        values: Mapping[str, str],
        target: bytes,
        fields: list[tuple[bytes, bytes]] | None,
    ) -> Match:
        """Raises Refused."""
        filling = self.filling
        kept = fields if self.wants_fields else None
        match = Match(segments, values, filling.argv, filling.env, kept)
        if not filling.form:
            self.fill(match, target)
        return match

    def fill(self, match: Match, target: bytes, body: bytes = b"") -> None:
        """Put in what the request says, now that all of it is there. Raises Refused."""
        query = target.partition(b"?")[2]
        match.argv, match.env = self.filling.fill(match.values, query, body)


def cors_of(config: RouteConfig) -> Cors | None:
    """None: it says nothing to pages of other sites. A WebSocket has a way of its own for that."""
    if not config.cors or config.mode == "ws":
        return None
    return Cors(config.cors, credentials=config.cors_credentials, max_age=config.cors_max_age)


def added_by(config: RouteConfig) -> Added:
    """The fields of all answers."""
    cors = cors_of(config)
    return Added(config.header, [] if cors is None else cors.fixed)
