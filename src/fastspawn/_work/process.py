"""The process of one message: what it says, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .letters import TAIL

if TYPE_CHECKING:
    import asyncio

    from fastspawn._core import Outlet


class Process:
    """The sink of a job. Its output is kept for a reply, or goes to ours; its standard error goes
    to ours, and the end of it is kept."""

    __slots__ = ("_ended", "_errors", "_output", "_replies", "_stderr", "_stdout")

    def __init__(
        self,
        ended: asyncio.Future[Any],
        stdout: Outlet | None,
        stderr: Outlet | None,
        *,
        replies: bool,
    ) -> None:
        self._ended, self._replies = ended, replies
        self._stdout, self._stderr = stdout, stderr
        self._output: list[bytes] = []
        self._errors = b""

    @property
    def output(self) -> bytes:
        """For the reply."""
        return b"".join(self._output)

    @property
    def errors(self) -> bytes:
        """The end of it."""
        return self._errors

    def on_output(self, data: bytes) -> None:
        if self._replies:
            self._output.append(data)
        elif self._stdout is not None:
            self._stdout.put(data)

    def on_errors(self, data: bytes) -> None:
        self._errors = (self._errors + data)[-TAIL:]
        if self._stderr is not None:
            self._stderr.put(data)

    def on_drain(self) -> None:
        pass

    def on_exit(self, job: Any) -> None:
        if job.error is None:
            if job.output:
                self.on_output(job.output)
            if job.errors:
                self.on_errors(job.errors)
        if not self._ended.done():
            self._ended.set_result(job)
