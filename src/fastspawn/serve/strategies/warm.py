"""The warm strategy: processes that were started before their request (``fastspawn.WarmPool``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fastspawn import WarmPool
from fastspawn.serve.config.placeholders import why_not_alike

from .command import command_of
from .direct import DirectStrategy
from .sharing import key_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastspawn.serve.config.model import RouteConfig
    from fastspawn.serve.job import Job, Sink

    from .base import Common
    from .sharing import Counts


def _counts(pool: WarmPool) -> Counts:
    return {"events": {"warm_miss": pool.stats["direct"], "warm_death": pool.stats["died"]}}


class WarmStrategy(DirectStrategy):
    """What a request makes of the command comes too late for a process that runs already: such
    requests are started directly, and a route that has no others keeps no spares. Routes with the
    same command keep theirs together."""

    name = "warm"

    def __init__(self, route: RouteConfig, common: Common) -> None:
        super().__init__(route, common)
        self._common = common
        command = command_of(route)
        size = 1 if route.pool_size is None else route.pool_size
        most, age = route.pool_max, route.pool_age
        self._lease = common.shares.join(
            ("warm", size, most, age, key_of(command)),
            lambda: WarmPool(command, engine=common.engine, size=size, max_size=most, max_age=age),
            _counts,
            route.title,
        )
        self._pool = self._lease.source
        self._pool.on_trouble = self._on_trouble
        self._useless = bool(why_not_alike(route))
        if self._useless:
            self.reason = "each request has a command line or environment of its own"
        self.spawn = self._spawn

    def _on_trouble(self, job: Any) -> None:
        self._common.news.tell(
            f"--strategy warm: {self._route.command[0]} ends without waiting for its input "
            f"({job.error or f'status {job.returncode}'})",
            self._lease.titles,
        )

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
    def alike(self) -> bool:
        return True

    @property
    def counts(self) -> Counts:
        """Of those that share a pool one tells of it."""
        return self._lease.counts

    async def start(self) -> None:
        await super().start()
        if self._useless:
            why = f"--strategy warm is direct: {self.reason}"
            self._common.news.tell(why, [self._route.title])
        else:
            await self._lease.start()

    async def close(self) -> None:
        await self._lease.close()
