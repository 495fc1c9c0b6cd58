"""How many requests run at once, how many wait, and for how long.

More processes than cores only fight for them, but sleeping ones cost little, so the number
that may run is large and the rest waits in order. What would wait too long is refused: without
a wait (queue full) or when its time is up.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Protocol

from fastspawn.serve.http.refusals import Refusals, Refused


class Entrant(Refused, Protocol):
    """What asks to be admitted."""

    def start(self) -> None:
        """A place is free and taken: run. ``Admission.leave`` must follow exactly once."""

    def overloaded(self) -> None:
        """No place was free in time. Nothing is held."""


class Admission:
    """``limit`` places and a queue of ``capacity``; ``timeout`` seconds (None: no limit) in it.

    Invariant: while anything waits, no place is free.
    """

    __slots__ = (
        "_capacity",
        "_free",
        "_limit",
        "_loop",
        "_queue",
        "_refusals",
        "_timeout",
        "_timer",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limit: int, capacity: int, timeout: float | None
    ) -> None:
        self._loop = loop
        self._limit = self._free = limit
        self._capacity = capacity
        self._timeout = timeout
        self._queue: OrderedDict[Entrant, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._refusals = Refusals(loop)

    @property
    def running(self) -> int:
        return self._limit - self._free

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def enter(self, entrant: Entrant) -> None:
        """Start it, queue it or refuse it."""
        if self._free:
            self._free -= 1
            entrant.start()
        elif len(self._queue) < self._capacity:
            self._push(entrant)
        else:
            self._refusals.add(entrant)

    def leave(self) -> None:
        """Give a place back: the first in the queue gets it."""
        if self._queue:
            self._queue.popitem(last=False)[0].start()
        else:
            self._free += 1

    def withdraw(self, entrant: Entrant) -> None:
        """Forget one that may be waiting."""
        if self._queue.pop(entrant, None) is None:
            self._refusals.withdraw(entrant)

    def dismiss(self) -> None:
        """Refuse all that wait."""
        while self._queue:
            self._queue.popitem(last=False)[0].overloaded()

    def close(self) -> None:
        """Forget all that wait, and the timer. Those who have lost hear of it."""
        self._refusals.close()
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _push(self, entrant: Entrant) -> None:
        self._queue[entrant] = self._loop.time()
        if self._timer is None and self._timeout is not None:
            self._timer = self._loop.call_later(self._timeout, self._expire)

    def _expire(self) -> None:
        # One timer for the whole queue: it is in order of arrival, so of expiry too.
        assert self._timeout is not None
        self._timer = None
        limit = self._loop.time() - self._timeout
        while self._queue:
            entrant, since = next(iter(self._queue.items()))
            if since > limit:
                self._timer = self._loop.call_at(since + self._timeout, self._expire)
                return
            del self._queue[entrant]
            entrant.overloaded()
