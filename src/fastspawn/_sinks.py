"""Who hears of a job: what a sink is, and those behind ``run()``."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from fastspawn._core import Job
from fastspawn._result import Result


class Sink(Protocol):
    """Who hears of a job. Every method is called on the event loop's thread."""

    def on_output(self, data: bytes, /) -> None:
        """stdout of a child that lives on, as it comes."""

    def on_errors(self, data: bytes, /) -> None:
        """stderr, likewise."""

    def on_drain(self) -> None:
        """Job.write() may go on."""

    def on_exit(self, job: Job, /) -> None:
        """The end, exactly once, also of a job that could not be spawned (job.error)."""


class Run:
    """The sink of Engine.run: a future for the job."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[Job]) -> None:
        self.future = future

    def on_exit(self, job: Job) -> None:
        """The job is what was waited for."""
        if not self.future.done():
            self.future.set_result(job)


class Collect:
    """A sink that gathers all output, and a future for the job."""

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future
        self._parts: tuple[list[bytes], list[bytes]] = ([], [])

    def on_output(self, data: bytes) -> None:
        self._parts[0].append(data)

    def on_errors(self, data: bytes) -> None:
        self._parts[1].append(data)

    def on_exit(self, job: Any) -> None:
        if not self._future.done():
            self._future.set_result(job)

    def complete(self, result: Result) -> None:
        """Put what came before the end in front of it."""
        out, err = self._parts
        if out:
            result.stdout = b"".join(out) + result.stdout
        if err:
            result.stderr = b"".join(err) + result.stderr
