"""How much of a server is taken: what a load balancer is told of it (``host/agent.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .route import Route


class Taken(NamedTuple):
    """Of one event loop."""

    fullest: float
    """Of the routes, the one with the most requests for its places: these, by those. More than 1:
    some wait."""
    entered: float
    """Requests that run or wait, of all routes."""


def taken(routes: Iterable[Route]) -> Taken:
    """What is taken now."""
    fullest, entered = 0.0, 0
    for route in routes:
        admission = route.admission
        count = admission.running + admission.waiting
        fullest = max(fullest, count / route.config.max_inflight)
        entered += count
    return Taken(fullest, entered)


class Lately:
    """Over the last seconds: half of it the last one, a quarter the one before, and so on.

    A balancer that went by what was at a moment would send all it has to who was just free.
    """

    def __init__(self, now: Callable[[], Taken]) -> None:
        self._now = now
        self.taken = Taken(0.0, 0.0)

    def look(self) -> None:
        """To be called each second."""
        now = self._now()
        self.taken = Taken(*((old + new) / 2 for old, new in zip(self.taken, now, strict=True)))


def weight(each: Sequence[Taken], total: int | None) -> int:
    """Percent of what a server gets that has nothing to do: half if all its places are taken, a
    third if as many requests wait, and so on, at least 1 (to a load balancer, 0 is another thing).

    ``each``: of the event loops, between which the kernel shares the clients. ``total``: places
    of all of them together, if there is such a limit.
    """
    share = sum(one.fullest for one in each) / max(len(each), 1)
    if total is not None:
        share = max(share, sum(one.entered for one in each) / total)
    return max(1, round(100 / (1 + share)))
