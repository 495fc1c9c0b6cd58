"""``--max-inflight-total``: one number of places for all routes.

The places are tokens. A single server has them all from the beginning; of several workers each has
those that it was lent (``host/lending.py``).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from .admission import Admission, Entrant

if TYPE_CHECKING:
    import asyncio


class Pool:
    """``free`` tokens, for those who ask first; then one for each that waits, in turn."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: OrderedDict[PooledAdmission, None] = OrderedDict()

    def take(self) -> bool:
        """A token, if there is one that nobody waits for."""
        if self._free and not self._waiting:
            self._free -= 1
            return True
        return False

    def want(self, admission: PooledAdmission) -> None:
        """Call its ``admit`` when there is a token for it."""
        self._waiting[admission] = None

    def swap(self, admission: PooledAdmission) -> None:
        """Take a token back from an admission that needs another: it is the last in turn."""
        self._waiting[admission] = None
        self.give()

    def forget(self, admission: PooledAdmission) -> None:
        self._waiting.pop(admission, None)

    def give(self) -> None:
        self._free += 1
        self._hand_out()

    @property
    def undecided(self) -> bool:
        """Whether there is a token is not known yet."""
        return False

    def _hand_out(self) -> None:
        while self._free and self._waiting:
            admission, _ = self._waiting.popitem(last=False)
            self._free -= 1
            if not admission.admit():
                self._free += 1
            elif admission.hungry:
                self._waiting[admission] = None


class PooledAdmission(Admission):
    """An Admission whose places need a token as well."""

    __slots__ = ("_pool",)

    def __init__(
        self,
        pool: Pool,
        loop: asyncio.AbstractEventLoop,
        limit: int,
        capacity: int,
        timeout: float | None,
    ) -> None:
        super().__init__(loop, limit, capacity, timeout)
        self._pool = pool

    @property
    def hungry(self) -> bool:
        """It has places, and somebody for them."""
        return bool(self._free and self._queue)

    @property
    def need(self) -> int:
        """How many tokens it could use now."""
        return min(self._free, len(self._queue))

    def enter(self, entrant: Entrant) -> None:
        if self._free and not self._queue and self._pool.take():
            self._free -= 1
            entrant.start()
            return
        self._push(entrant)
        if self._free:
            self._pool.want(self)
        # While it is not known whether there are tokens for the free places, those who may get
        # them do not count.
        self.trim(self._free if self._pool.undecided else 0)

    def leave(self) -> None:
        self._free += 1
        if self._queue:
            self._pool.swap(self)
        else:
            self._pool.give()

    def admit(self) -> bool:
        """Use a token that was taken for it. False: there is nobody (any more) who needs one."""
        if not self.hungry:
            return False
        self._free -= 1
        self._queue.popitem(last=False)[0].start()
        return True

    def trim(self, more: int = 0) -> None:
        """Refuse those that came last and for whom the queue, and ``more``, is too short."""
        while len(self._queue) > self._capacity + more:
            self._refusals.add(self._queue.popitem()[0])

    def close(self) -> None:
        super().close()
        self._pool.forget(self)
