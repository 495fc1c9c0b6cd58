"""``--stderr log``: a strategy whose processes' standard error goes to the log.

The engine hands it on as it comes, beside the output, so that whoever is answered need not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastspawn.serve.job import Job
    from fastspawn.serve.strategies.base import Strategy
    from fastspawn.serve.strategies.sharing import Counts


class Lines(Protocol):
    """Where that of one process goes."""

    def feed(self, data: bytes, pid: int | None) -> None: ...

    def end(self, pid: int | None) -> None: ...


class LoggedStrategy:
    """``strategy``, but for that."""

    def __init__(self, strategy: Strategy, lines: Callable[[Any], Lines]) -> None:
        """``lines(sink)``: for the process of a request, whose exchange that is."""
        self._strategy = strategy
        self._lines = lines
        self.holds_back = strategy.holds_back

    def spawn(self, sink: Any, input: Any) -> Job:
        logged = _Logged(sink, self._lines(sink))
        job = logged.job = self._strategy.spawn(logged, input)
        return job

    def spawn_as(
        self,
        sink: Any,
        input: Any,
        argv: Sequence[str | bytes],
        env: Mapping[str, str] | Mapping[bytes, bytes],
        cwd: str | bytes | None = None,
    ) -> Job:
        logged = _Logged(sink, self._lines(sink))
        job = logged.job = self._strategy.spawn_as(logged, input, argv, env, cwd)
        return job

    @property
    def name(self) -> str:
        return self._strategy.name

    @property
    def reason(self) -> str:
        return self._strategy.reason

    @property
    def kind(self) -> str:
        return self._strategy.kind

    @property
    def alike(self) -> bool:
        return self._strategy.alike

    @property
    def counts(self) -> Counts:
        return self._strategy.counts

    async def start(self) -> None:
        await self._strategy.start()

    async def close(self) -> None:
        await self._strategy.close()


class _Logged:
    """The sink of a job, before the one that asked for it."""

    __slots__ = ("_lines", "_sink", "job", "on_drain", "on_output")

    job: Job

    def __init__(self, sink: Any, lines: Lines) -> None:
        self._sink = sink
        self._lines = lines
        self.on_output = sink.on_output
        self.on_drain = sink.on_drain

    def on_errors(self, data: bytes) -> None:
        self._lines.feed(data, self.job.pid)

    def on_exit(self, job: Any) -> None:
        if job.errors:
            self._lines.feed(job.errors, job.pid)
        self._lines.end(job.pid)
        self._sink.on_exit(job)
