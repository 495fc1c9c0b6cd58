"""One set of figures of several workers, whichever of them is asked.

    worker -> supervisor   ASK n: what does it all come to?    COUNTS {...}: what I have
    supervisor -> worker   COLLECT n: what do you have?        TOTAL {...}: the answer to an ASK

A worker also tells what it has each second that something has changed, and at its end: the
counts of those that are gone stay in the sum, or it would go backwards.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from .meter import Snapshot, add

if TYPE_CHECKING:
    from collections.abc import Callable

ASK: Final = b"a"
COLLECT: Final = b"q"
COUNTS: Final = b"n"
TOTAL: Final = b"t"

_PATIENCE: Final = 1.0
"""Seconds for a worker to tell; then what it told before has to do."""


class Peer(Protocol):
    """The other end: a worker, to the supervisor, or that, to a worker."""

    def send(self, kind: bytes, number: int) -> None: ...

    def send_json(self, kind: bytes, value: Any) -> None: ...


class Upstream(Peer, Protocol):
    """A worker's way to its supervisor (``host/link.py``)."""

    @property
    def blocked(self) -> bool:
        """What is sent now waits: the supervisor does not read."""


class _Round:
    """One question, and those whose answers are still to come."""

    def __init__(self, asker: Peer, ask: int, missing: set[Peer]) -> None:
        self.asker = asker
        self.ask = ask
        self.missing = missing
        self.due = time.monotonic() + _PATIENCE


class Tally:
    """The supervisor's side. ``dropped``: tells the lines of its own that were lost."""

    def __init__(self, dropped: Callable[[], Snapshot]) -> None:
        self._dropped = dropped
        self.replaced = 0
        """Workers that ended by themselves."""
        self._latest: dict[Peer, Snapshot] = {}
        self._gone: Snapshot = {}
        """What workers counted that are no more."""
        self._rounds: dict[int, _Round] = {}
        self._number = 0

    def join(self, worker: Peer) -> None:
        self._latest[worker] = {}

    def leave(self, worker: Peer) -> None:
        latest = self._latest.pop(worker, {})
        add(self._gone, {name: latest[name] for name in ("counts", "dropped") if name in latest})
        for number, each in list(self._rounds.items()):
            if each.asker is worker:
                del self._rounds[number]
            else:
                self._told(number, worker)

    def heard(self, worker: Peer, kind: bytes, value: Any) -> None:
        if kind == ASK:
            self._number = self._number % 0xFFFFFFFF + 1
            self._rounds[self._number] = _Round(worker, value, set(self._latest))
            for each in self._latest:
                each.send(COLLECT, self._number)
        elif kind == COUNTS:
            number = value.pop("round")
            self._latest[worker] = value
            self._told(number, worker)

    @property
    def due(self) -> float | None:
        """When to call ``expire``."""
        return min((each.due for each in self._rounds.values()), default=None)

    def expire(self, now: float) -> None:
        for number, each in list(self._rounds.items()):
            if each.due <= now:
                self._answer(number)

    def _told(self, number: int, worker: Peer) -> None:
        found = self._rounds.get(number)
        if found is not None:
            found.missing.discard(worker)
            if not found.missing:
                self._answer(number)

    def _answer(self, number: int) -> None:
        asked = self._rounds.pop(number)
        total: Snapshot = {}
        add(total, self._gone)
        for snapshot in self._latest.values():
            add(total, snapshot)
        add(total, {"now": {"replaced": self.replaced}, "dropped": self._dropped()})
        asked.asker.send_json(TOTAL, {"ask": asked.ask, **total})


class Figures:
    """Where there is but one server: what it has is all there is."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def ask(self, tell: Callable[[Snapshot], None]) -> None:
        """Call ``tell`` with the sum, now or later, or never if the server ends before."""
        tell(self._snapshot())

    def push(self) -> None:
        """Let the supervisor have them."""

    def heard(self, kind: bytes, value: Any) -> None:
        """From the supervisor."""


class SharedFigures(Figures):
    """A worker's side."""

    def __init__(self, snapshot: Callable[[], Snapshot], upstream: Upstream) -> None:
        super().__init__(snapshot)
        self._upstream = upstream
        self._asked: dict[int, Callable[[Snapshot], None]] = {}
        self._number = 0
        self._pushed: Snapshot = {}

    def ask(self, tell: Callable[[Snapshot], None]) -> None:
        self._number = self._number % 0xFFFFFFFF + 1
        self._asked[self._number] = tell
        self._upstream.send(ASK, self._number)

    def push(self) -> None:
        if self._upstream.blocked:
            return  # it is told of what there is then
        snapshot = self._snapshot()
        if snapshot != self._pushed:
            self._pushed = snapshot
            self._upstream.send_json(COUNTS, {"round": 0, **snapshot})

    def heard(self, kind: bytes, value: Any) -> None:
        if kind == COLLECT:
            self._upstream.send_json(COUNTS, {"round": value, **self._snapshot()})
        elif kind == TOTAL:
            tell = self._asked.pop(value.pop("ask"), None)
            if tell is not None:
                tell(value)
