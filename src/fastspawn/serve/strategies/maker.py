"""Which strategy a route has: the one place that knows them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Common, SharedEngine
from .direct import DirectStrategy
from .news import News
from .sharing import Shares

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from fastspawn.serve.config.model import RouteConfig

    from .base import Strategy


def _kind(route: RouteConfig) -> Callable[[RouteConfig, Common], Strategy]:
    """What is not asked for is not imported."""
    name = route.strategy
    if name == "snapshot":
        from .snapshot import SnapshotStrategy

        return SnapshotStrategy
    if name == "reset":
        from .reset import ResetStrategy

        return ResetStrategy
    if name == "auto" and route.allow_reset:
        from .reset import AutoResetStrategy

        return AutoResetStrategy
    if name == "auto":
        from .snapshot import AutoStrategy

        return AutoStrategy
    if name == "warm":
        from .warm import WarmStrategy

        return WarmStrategy
    if name == "pool":
        from .pool import PoolStrategy

        return PoolStrategy
    if name == "subprocess":
        from .subprocess import SubprocessStrategy

        return SubprocessStrategy
    return DirectStrategy


class Strategies:
    """Makes the strategy of each route of a server."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        spawners: int | None,
        say: Callable[[str], object],
        *,
        alone: bool = False,
        ignores: bool = False,
    ) -> None:
        """``say``: tell the operator something, in one line.

        ``alone``: the event loop's thread is the server's, which may schedule it as it likes.
        ``ignores``: there are signals that children are to ignore, since the server was started
        so.
        """
        self.news = News(say)
        self._engine = SharedEngine(spawners, alone=alone)
        self._common = Common(loop, self._engine, ignores, self.news, Shares(), set())

    def make(self, route: RouteConfig) -> Strategy:
        """The strategy that ``route`` names, not yet started."""
        return _kind(route)(route, self._common)

    def look(self) -> None:
        """Tell what is new. To be called every second or so."""
        for look in list(self._common.looks):
            look()

    def look_always(self) -> None:
        """For those without a timer, once all is started: look whenever the engine has news."""
        if self._common.looks:
            self._engine.watching.add(self.look)

    async def close(self) -> None:
        """What the strategies share. To be called after they are closed."""
        await self._engine.close()
