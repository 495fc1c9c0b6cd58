"""Counting: what has been answered and how the processes ended, by route.

A ``Meter`` is plain numbers. What they come to over several processes is the sum of their
snapshots (``add``), which is all that a supervisor knows of them (``tally.py``); what they are
called is ``metrics.py``'s.
"""

from __future__ import annotations

import errno
import signal
import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fastspawn.serve.job import Job

    from .record import Exchange, Recorder, Route

    E = TypeVar("E", bound=Exchange)
    J = TypeVar("J")

Snapshot = dict[str, Any]
"""Of names, numbers, lists of numbers and snapshots."""

MOMENTS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
"""Seconds: the upper bounds of the histograms' buckets, but for the last, which has none."""

_METHODS: Final = frozenset(b"GET HEAD POST PUT DELETE OPTIONS PATCH".split())
"""Others are one, since a client is free to make them up."""
_GONE: Final = 499
_OVERLOADED: Final = 503

_REASONS: Final = ("deadline", "output", "stalled", "disconnect", "refused", "head")
"""Why the server ends a process."""


def add(total: Snapshot, part: Mapping[str, Any]) -> None:
    """Add the numbers of ``part`` to those of ``total``, of which nothing is shared after."""
    for name, value in part.items():
        if isinstance(value, dict):
            add(total.setdefault(name, {}), value)
        elif isinstance(value, list):
            have = total.get(name) or [0] * len(value)
            total[name] = [a + b for a, b in zip(have, value, strict=True)]
        else:
            total[name] = total.get(name, 0) + value


class Histogram:
    """Of seconds."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(MOMENTS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(MOMENTS, seconds)] += 1
        self._sum += max(seconds, 0.0)

    def snapshot(self) -> list[float]:
        """How many there are in each bucket, and the sum of all."""
        return [*self._counts, self._sum]


class Meter:
    """Of one route, through all reloads of its configuration."""

    __slots__ = (
        "_answers",
        "_before",
        "_errors",
        "_exits",
        "_kills",
        "_queued",
        "_received",
        "_rejected",
        "_run",
        "_sent",
        "_signals",
        "_spawned",
    )

    def __init__(self) -> None:
        self._answers: dict[tuple[bytes, int], int] = {}
        self._rejected = 0
        self._received = self._sent = 0
        self._exits: dict[int, int] = {}
        self._errors: dict[str, int] = {}
        self._kills = dict.fromkeys(_REASONS, 0)
        self._queued, self._spawned, self._run = Histogram(), Histogram(), Histogram()
        self._before: Snapshot = {}
        """What strategies counted that are no more."""

    # ---- on the way of each request

    def entering(self, enter: Callable[[E], None]) -> Callable[[E], None]:
        """``enter`` of an admission, with the time taken."""

        def timed(exchange: E) -> None:
            exchange.since = time.monotonic()
            enter(exchange)

        return timed

    def spawning(self, spawn: Callable[[E, Any], J]) -> Callable[[E, Any], J]:
        """``spawn`` of a mode, likewise."""

        def timed(exchange: E, input: Any) -> J:
            now = time.monotonic()
            self._queued.observe(now - exchange.since)
            exchange.since = now
            return spawn(exchange, input)

        return timed

    def count(self, exchange: Exchange, job: Job | None) -> None:
        """It has ended, and so has its process, if there was one."""
        method = exchange.method if exchange.method in _METHODS else b"other"
        key = method, exchange.status
        self._answers[key] = self._answers.get(key, 0) + 1
        self._received += exchange.received
        self._sent += exchange.sent
        if job is None:
            self._rejected += exchange.status == _OVERLOADED
            return
        error, status = job.error, job.returncode
        if error is not None:
            number = getattr(error, "errno", None) or errno.ENOMEM
            name = errno.errorcode.get(number, str(number))
            self._errors[name] = self._errors.get(name, 0) + 1
            return
        if status is not None:
            self._exits[status] = self._exits.get(status, 0) + 1
        self._run.observe(job.wall)
        self._spawned.observe(time.monotonic() - exchange.since - job.wall)
        if job.timed_out:
            self._kills["deadline"] += 1
        elif job.truncated:
            self._kills["output"] += 1
        elif job.cancelled and exchange.stalled:
            self._kills["stalled"] += 1
        elif job.cancelled and exchange.status == _GONE:
            self._kills["disconnect"] += 1
        elif job.cancelled:
            ended = exchange.head_only and exchange.head_sent
            self._kills["head" if ended else "refused"] += 1

    # ---- for those who ask

    def keep(self, route: Route) -> None:
        """The route is about to go: its strategy will not be asked any more."""
        add(self._before, route.strategy.counts)

    def snapshot(self, routes: Iterable[Route]) -> Snapshot:
        counts: Snapshot = {"events": {}, "resets": {}, "leaves": {}}
        add(counts, self._before)
        for route in routes:
            add(counts, route.strategy.counts)
        return {
            "answers": {f"{key[0].decode()} {key[1]}": n for key, n in self._answers.items()},
            "rejected": self._rejected,
            "received": self._received,
            "sent": self._sent,
            "exits": {str(status): n for status, n in self._exits.items() if status >= 0},
            "signals": {_signal(-status): n for status, n in self._exits.items() if status < 0},
            "errors": self._errors,
            "kills": self._kills,
            "queued": self._queued.snapshot(),
            "spawned": self._spawned.snapshot(),
            "run": self._run.snapshot(),
            **counts,
        }


class Meters:
    """All of a service."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}

    def of(self, title: str) -> Meter:
        return self._meters.setdefault(title, Meter())

    def snapshot(self, routes: Iterable[Route], connections: int) -> Snapshot:
        """``counts``: what only grows; ``now``: what is. In the order of ``routes``."""
        served: dict[str, list[Route]] = {}
        for route in routes:
            served.setdefault(route.title, []).append(route)
        for title in self._meters:
            served.setdefault(title, [])
        counts = {title: self._meters[title].snapshot(each) for title, each in served.items()}
        now: Snapshot = {}
        for title, each in served.items():
            for route in each:
                strategy = route.strategy
                add(now, {title: {
                    "running": route.admission.running,
                    "waiting": route.admission.waiting,
                    "info": {f"{strategy.name} {strategy.kind}": 1},
                }})  # fmt: skip
        return {"counts": counts, "now": {"connections": connections, "workers": 1, "routes": now}}


class Counting:
    """Counts what has ended, and has it logged."""

    __slots__ = ("_log", "_meter")

    def __init__(self, meter: Meter, log: Recorder | None) -> None:
        self._meter = meter
        self._log = log

    def record(self, exchange: Exchange, job: Job | None) -> None:
        self._meter.count(exchange, job)
        if self._log is not None:
            self._log.record(exchange, job)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
