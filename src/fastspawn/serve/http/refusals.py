"""Who is told 503, and when: at once, unless so many ask that saying no becomes the main work.

A client that asks again as soon as it is refused costs nearly as much as one that is served, and
two thousand of them leave a server no time for those it has let in. So after some refusals in a
short time the others wait for theirs, but no longer than a second and a half.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Protocol

TICK = 0.05
"""Seconds."""
PROMPT = 50
"""Refusals in a tick."""
SHARE = 20
"""Of those that wait, one in so many is told in a tick: evenly, so that no tick is a long one."""
PATIENCE = 1.5
"""Seconds that a refusal may wait. Without a pause n clients then cause n refusals a second."""


class Refused(Protocol):
    """Who is to be told."""

    def overloaded(self) -> None:
        """There is no place for it."""


class Refusals:
    """Refuses in order of arrival."""

    __slots__ = ("_loop", "_prompt", "_timer", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._prompt = PROMPT
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: OrderedDict[Refused, float] = OrderedDict()

    def add(self, refused: Refused) -> None:
        """Tell it now, or soon."""
        if self._timer is None:
            self._timer = self._loop.call_later(TICK, self._tick)
        if self._prompt:
            self._prompt -= 1
            refused.overloaded()
        else:
            self._waiting[refused] = self._loop.time()

    def withdraw(self, refused: Refused) -> None:
        """Forget one that may be waiting."""
        self._waiting.pop(refused, None)

    def close(self) -> None:
        """Tell all, and stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            self._waiting.popitem(last=False)[0].overloaded()

    def _tick(self) -> None:
        if not self._waiting and self._prompt == PROMPT:
            self._timer = None
            return
        self._timer = self._loop.call_later(TICK, self._tick)
        self._prompt = 0  # Those who ask again because of what follows come after all the others.
        patient = self._loop.time() - PATIENCE
        turn = max(PROMPT, len(self._waiting) // SHARE)
        told = 0
        while self._waiting:
            refused, since = next(iter(self._waiting.items()))
            if told >= turn and since > patient:
                return
            del self._waiting[refused]
            refused.overloaded()
            told += 1
        self._prompt = max(PROMPT - told, 0)
