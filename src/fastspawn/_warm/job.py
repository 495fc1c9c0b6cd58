"""A request at a warm pool."""

from __future__ import annotations

from typing import Any, Protocol

from fastspawn._command import Command, as_bytes
from fastspawn._core import STREAM, Job
from fastspawn._engine import Engine


class Keeper(Protocol):
    """What a request needs of its pool."""

    def _served(self) -> None:
        """Its process has ended."""

    def _again(self, request: WarmJob) -> None:
        """The spare that it was given had ended before. Raises RuntimeError."""


class WarmJob:
    """A request at a warm pool: what ``Engine.submit`` gives, for a process that may change until
    one has taken the request. Its sink's ``on_exit`` gets the ``Job`` that did."""

    __slots__ = ("_cancelled", "_eof", "_job", "_kept", "_paused", "_pool", "_sink", "_streams")

    def __init__(self, pool: Keeper, sink: Any, input: Any) -> None:
        self._pool = pool
        self._sink = sink
        self._streams = input is STREAM
        self._kept: list[bytes] = []
        """What a process was sent that may have ended before."""
        if input is not None and input is not STREAM:
            self._kept.append(as_bytes(input))
        self._eof = not self._streams
        self._paused = [False, False]
        self._cancelled = False
        self._job: Job

    # ---- the pool's

    def _adopt(self, job: Job) -> None:
        self._job = job
        job.adopt(self, self._streams)
        self._send(job)

    def _direct(self, engine: Engine, command: Command) -> None:
        if self._streams:
            self._job = engine.submit(command, self, STREAM)
            self._send(self._job)
            self._kept.clear()
            self._streams = False
        else:
            self._job = engine.submit(command, self, self._kept[0] if self._kept else None)

    def _send(self, job: Job) -> None:
        for data in self._kept:
            job.write(data)
        if self._eof:
            job.write_eof()
        for stream in range(2):
            if self._paused[stream]:
                job.pause_reading(stream)

    # ---- the process's

    def on_start(self, job: Job) -> None:
        """The process was there in time: nobody else will be sent the input."""
        self._kept.clear()
        self._streams = False

    def on_output(self, data: bytes) -> None:
        """Handed on."""
        self._sink.on_output(data)

    def on_errors(self, data: bytes) -> None:
        """Handed on."""
        self._sink.on_errors(data)

    def on_drain(self) -> None:
        """Handed on."""
        self._sink.on_drain()

    def on_exit(self, job: Job) -> None:
        """Handed on, unless it was a spare that got nothing of the request."""
        if not job.spare:
            self._pool._served()
        elif not self._cancelled and not job.cancelled:
            try:
                self._pool._again(self)
            except RuntimeError:
                pass  # the engine is closing
            else:
                return
        self._sink.on_exit(job)

    # ---- the request's

    @property
    def pid(self) -> int | None:
        """As ``Job.pid``, of the process that it has now."""
        return self._job.pid

    def write(self, data: bytes | bytearray | memoryview) -> bool:
        """As ``Job.write``."""
        if not self._streams:
            return self._job.write(data)
        kept = as_bytes(data)
        goes_on = self._job.write(kept)  # first: what it refuses is for no other process, either
        self._kept.append(kept)
        return goes_on

    def write_eof(self) -> None:
        """As ``Job.write_eof``."""
        self._eof = True
        self._job.write_eof()

    def pause_reading(self, stream: int = 0) -> None:
        """As ``Job.pause_reading``."""
        self._paused[stream] = True
        self._job.pause_reading(stream)

    def resume_reading(self, stream: int = 0) -> None:
        """As ``Job.resume_reading``."""
        self._paused[stream] = False
        self._job.resume_reading(stream)

    def cancel(self) -> None:
        """As ``Job.cancel``."""
        self._cancelled = True
        self._job.cancel()
