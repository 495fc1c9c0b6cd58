"""The direct strategy: clone and exec, for each request."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .command import command_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastspawn.serve.config.model import RouteConfig
    from fastspawn.serve.job import Job, Sink

    from .base import Common
    from .sharing import Counts


class DirectStrategy:
    """clone and exec on the C engine's threads. Its jobs are handed through as they are."""

    holds_back = True
    name = "direct"
    reason = ""

    @property
    def kind(self) -> str:
        return ""

    @property
    def alike(self) -> bool:
        return False

    @property
    def counts(self) -> Counts:
        return {}

    def __init__(self, route: RouteConfig, common: Common) -> None:
        self._route = route
        self._engine = engine = common.engine
        self._submit: Callable[..., Job] = engine.submit
        self.spawn: Callable[[Sink, Any], Job] = partial(engine.submit, command_of(route))

    def spawn_as(
        self,
        sink: Sink,
        input: Any,
        argv: Sequence[str | bytes],
        env: Mapping[str, str] | Mapping[bytes, bytes],
        cwd: str | bytes | None = None,
    ) -> Job:
        return self._submit(command_of(self._route, argv, env, cwd), sink, input)

    async def start(self) -> None:
        await self._engine.start()

    async def close(self) -> None:
        pass  # the jobs are the engine's
