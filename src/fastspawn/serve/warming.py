"""The warm strategy: processes that were started before their request (``fastspawn.WarmPool``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fastspawn import WarmPool

from .filling import Filling
from .strategy import DirectStrategy, command_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .config import RouteConfig
    from .strategy import Job, SharedEngine, Sink


class WarmStrategy(DirectStrategy):
    """What a request makes of the command comes too late for a process that runs already: such
    requests are started directly, and a route that has no others keeps no spares."""

    name = "warm"

    def __init__(
        self, route: RouteConfig, engine: SharedEngine, say: Callable[[str], object]
    ) -> None:
        super().__init__(route, engine)
        self._pool = WarmPool(
            command_of(route),
            size=1 if route.pool_size is None else route.pool_size,
            max_size=route.pool_max,
            max_age=route.pool_age,
            engine=engine,
        )
        self._useless = route.mode != "raw" or Filling(route).varies
        if self._useless:
            self.reason = "each request has a command line or environment of its own"
        self._say = say
        self._pool.on_trouble = lambda job: say(
            f"--strategy warm: {route.command[0]} ends without waiting for its input "
            f"({job.error or f'status {job.returncode}'})"
        )
        self.spawn = self._spawn

    def _spawn(self, sink: Sink, input: Any) -> Job:
        return cast("Job", self._pool.submit(sink, input))

    def spawn_as(
        self,
        sink: Sink,
        input: Any,
        argv: Sequence[str | bytes],
        env: Mapping[str, str] | Mapping[bytes, bytes],
        cwd: str | bytes | None = None,
    ) -> Job:
        self._pool.count_other()
        return super().spawn_as(sink, input, argv, env, cwd)

    @property
    def stats(self) -> dict[str, int]:
        """As ``WarmPool.stats``."""
        return self._pool.stats

    async def start(self) -> None:
        await super().start()
        if self._useless:
            self._say(f"--strategy warm is direct: {self.reason}")
        else:
            await self._pool.start()

    async def close(self) -> None:
        await self._pool.close()
