"""What routes share that have the same command: a template's processes, spares that wait.

A source is made for the first route that asks for it under a key, and ends with the last one that
lets go of it, which may be another: routes come and go when the configuration is read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from fastspawn import TemplateError

if TYPE_CHECKING:
    from fastspawn import Command


class Source(Protocol):
    """Of processes."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


S = TypeVar("S", bound=Source)

Counts = Mapping[str, Mapping[str, int]]
"""What only grows, by the figures' names for it."""


def key_of(command: Command) -> Hashable:
    """Equal for commands whose processes are the same in all but what a request brings."""
    options: dict[str, Any] = dict(command._options)
    limits = options.pop("limits")
    rlimits = frozenset(limits.rlimits.items())
    del options["env"]
    return (
        command.argv,
        frozenset(command.environment().items()),
        tuple(options.items()),
        (limits.timeout, limits.kill_grace, limits.drain, limits.max_output, rlimits),
    )


class Shares:
    """All of a server."""

    def __init__(self) -> None:
        self._shares: dict[Hashable, _Share[Any]] = {}

    def join(
        self, key: Hashable, make: Callable[[], S], count: Callable[[S], Counts], title: str
    ) -> Lease[S]:
        """``key``: also of what ``make`` makes, whose counts ``count`` tells. ``title``: the
        route's."""
        share: _Share[S] | None = self._shares.get(key)
        if share is None:
            share = self._shares[key] = _Share(make(), count, lambda: self._shares.pop(key))
        return Lease(share, title)


class _Share(Generic[S]):
    def __init__(
        self, source: S, count: Callable[[S], Counts], forget: Callable[[], object]
    ) -> None:
        self.source: Final = source
        self._count = count
        self.forget: Final = forget
        self.leases: list[Lease[S]] = []
        """Oldest first."""
        self.told: set[str] = set()
        self._started = False
        self._failure: TemplateError | None = None
        self._starting = asyncio.Lock()

    @property
    def counts(self) -> Counts:
        return self._count(self.source)

    async def start(self) -> None:
        async with self._starting:
            if self._failure is not None:
                raise self._failure  # it would be the same once more
            if not self._started:
                try:
                    await self.source.start()
                except TemplateError as error:
                    self._failure = error
                    raise
                self._started = True


class Lease(Generic[S]):
    """A route's part in a source."""

    def __init__(self, share: _Share[S], title: str) -> None:
        self._share = share
        self._before: Counts = {}
        self.source: Final = share.source
        self.title: Final = title
        share.leases.append(self)

    @property
    def titles(self) -> list[str]:
        """Of all routes that share it; a title may be that of one before a reload, and after."""
        return list(dict.fromkeys(each.title for each in self._share.leases))

    async def start(self) -> None:
        """Start the source, unless another has. Raises what its ``start`` does."""
        await self._share.start()

    @property
    def speaks(self) -> bool:
        """It is the one among those who share the source that tells of it."""
        return self._share.leases[:1] == [self]

    def once(self, what: str) -> bool:
        """Whether ``what`` is still to be told."""
        if not self.speaks or what in self._share.told:
            return False
        self._share.told.add(what)
        return True

    @property
    def counts(self) -> Counts:
        """What the source counts and no other lease tells: sums over routes are right."""
        counts = self._share.counts
        before = self._before if self.speaks else counts
        return {kind: _less(each, before.get(kind, {})) for kind, each in counts.items()}

    async def close(self) -> None:
        """Let go of it; the last one ends it. May be called twice."""
        leases = self._share.leases
        if self not in leases:
            return
        spoke = self.speaks
        leases.remove(self)
        if not leases:
            self._share.forget()
            await self.source.close()
        elif spoke:
            leases[0]._before = self._share.counts


def _less(counts: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in counts.items()}
