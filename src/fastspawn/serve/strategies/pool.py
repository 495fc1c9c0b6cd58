"""The pool strategy: children of long-lived workers (``fastspawn.ResettablePool``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastspawn import ResettablePool, WorkerError
from fastspawn._resettable.pool import builtin_worker

from .command import command_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastspawn.serve.config.model import RouteConfig
    from fastspawn.serve.job import Job, Sink

    from .base import Common
    from .sharing import Counts


class PoolStrategy:
    """A worker is free when its child has ended; until then requests wait in the pool."""

    holds_back = False
    name = "pool"
    reason = ""
    kind = ""
    alike = False

    def __init__(self, route: RouteConfig, common: Common) -> None:
        self._route = route
        self._engine = engine = common.engine
        # Not shared between routes: its workers are the requests that each may have at once.
        self._pool = ResettablePool(
            command_of(route), size=route.pool_size, worker=route.worker, engine=engine
        )
        self._pool.on_trouble = lambda job: common.news.tell(
            f"--strategy pool: the workers end at once ({job.error or f'status {job.returncode}'})",
            [route.title],
        )

    def spawn(self, sink: Sink, input: Any) -> Job:
        return self._pool.submit(sink, input)

    def spawn_as(
        self,
        sink: Sink,
        input: Any,
        argv: Sequence[str | bytes],
        env: Mapping[str, str] | Mapping[bytes, bytes],
        cwd: str | bytes | None = None,
    ) -> Job:
        return self._pool.submit(sink, input, command_of(self._route, argv, env, cwd))

    @property
    def counts(self) -> Counts:
        return {"events": {"pool_death": self._pool.stats["died"]}}

    async def start(self) -> None:
        await self._engine.start()
        try:
            await self._pool.start()
        except WorkerError:
            raise
        except OSError as error:
            worker = (self._route.worker or builtin_worker())[0]
            raise WorkerError(f"cannot run {worker}: {error.strerror}") from error

    async def close(self) -> None:
        await self._pool.close()
