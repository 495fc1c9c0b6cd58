"""Templates of an application: at their checkpoint before the first request, which would have to
wait for all imports otherwise."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fastspawn import Template, TemplateError
from fastspawn._sinks import Run

from .command import command_of

if TYPE_CHECKING:
    from fastspawn import Command, Engine
    from fastspawn.serve.config.model import RouteConfig

_ROUNDS: Final = 4
"""Attempts to find a process that is not there yet: the engine chooses who runs what."""


class Arriving(Template):
    """``start`` also lets each of its processes come to the checkpoint, by runs that have no
    request. They take the time that they need."""

    def __init__(self, route: RouteConfig, command: Command, engine: Engine, **more: Any) -> None:
        super().__init__(command, engine=engine, **more)
        self._alone = command_of(replace(route, exec_timeout=None))

    async def start(self) -> None:
        await super().start()
        try:
            await self._arrive()
        except BaseException:
            await self.close()
            raise

    async def _arrive(self) -> None:
        for _ in range(_ROUNDS):
            missing = self.stats["processes"] - self.stats["checkpoints"]
            if missing <= 0 or self.no_checkpoint is not None:
                return
            count = self.stats["processes"]
            jobs = await asyncio.gather(*(self._run_alone() for _ in range(count)))
            for job in jobs:
                if job.error is not None:
                    raise job.error
                if job.returncode != 0:
                    raise TemplateError(f"it cannot be loaded: status {job.returncode}")

    async def _run_alone(self) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._engine.submit(self._alone, Run(future), None, False, False, self)
        return await future
