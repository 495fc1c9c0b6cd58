"""A worker process of a resettable pool, and the request that it runs."""

from __future__ import annotations

import asyncio
import signal
from typing import Final, Protocol

from fastspawn._core import Job
from fastspawn._resettable.job import PoolJob, WorkerError
from fastspawn._resettable.protocol import VERSION, Frames, frame, group, kill_group

_LEAVE: Final = 2.0
"""Seconds from the end of its stdin until a worker is killed."""


class Keeper(Protocol):
    """What a worker needs of its pool."""

    _loop: asyncio.AbstractEventLoop

    def _is_free(self, worker: Worker) -> None:
        """It has said hello, or is done with a request."""

    def _served(self) -> None:
        """A request has come to its end."""

    def _lost(self, worker: Worker, request: PoolJob | None) -> None:
        """It has ended."""


class Worker:
    """A worker process: the sink of its job."""

    def __init__(self, pool: Keeper) -> None:
        self.pool = pool
        self.born = pool._loop.time()
        self.ready = False
        self.error: Exception | None = None
        """Why it has ended."""
        self.job: Job
        self._request: PoolJob | None = None
        self._frames = Frames()
        self._timer: asyncio.TimerHandle | None = None

    # ---- what the pool and the request tell it

    def begin(self, request: PoolJob) -> None:
        self._request = request
        self.send(b"R", request._settings.payload(request._has_input))
        request._begin(self)

    def send(self, kind: bytes, payload: bytes) -> None:
        if self.error is None:
            self.job.write(frame(kind, payload))

    def expect_hello(self, patience: float, name: str) -> None:
        """One that is silent for so long is ended: requests may wait for it."""
        self._timer = self.pool._loop.call_later(patience, self._silent, name)

    def kill_later(self, delay: float) -> None:
        """Unless it answers."""
        self._settle()
        self._timer = self.pool._loop.call_later(delay, self.kill)

    def kill(self) -> None:
        self.job.send_signal(signal.SIGKILL)

    def leave(self) -> None:
        """It ends, and ends what it runs."""
        if self.error is None:
            self.job.write_eof()
            self.job.resume_reading()
            self.kill_later(_LEAVE)

    def _settle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- what it tells

    def on_start(self, job: Job) -> None:
        pass  # asked for so that job.pid is known

    def on_drain(self) -> None:
        pass  # requests have a window of their own

    def on_output(self, data: bytes) -> None:
        self._frames.feed(data)
        try:
            while (whole := self._frames.next()) is not None:
                self._hear(*whole)
        except ValueError:
            self._broken()

    def _hear(self, kind: bytes, payload: bytes) -> None:
        request = self._request
        if not self.ready:
            if (kind, payload) != (b"H", VERSION):
                raise ValueError(kind)
            self.ready = True
            self._settle()
            self.pool._is_free(self)
        elif request is None:
            if kind != b"C":  # of a request that is over
                raise ValueError(kind)
        elif kind == b"O":
            request._output(payload, request._sink.on_output)
        elif kind == b"E":
            request._output(payload, request._sink.on_errors)
        elif kind == b"C":
            request._taken(int(payload))
        elif kind == b"S":
            request.pid = group(payload)
        elif kind in (b"X", b"F"):
            number = int(payload)
            self._request = None
            self._settle()
            self.pool._served()
            if kind == b"X":
                request._end(number)
            else:
                request._refused(number)
            self.pool._is_free(self)
        else:
            raise ValueError(kind)

    def _silent(self, name: str) -> None:
        self.error = WorkerError(f"{name} did not say hello: it is no worker")
        self.kill()

    def _broken(self) -> None:
        self.error = WorkerError("the worker does not speak the protocol")
        self._frames = Frames()
        self.kill()

    def on_exit(self, job: Job) -> None:
        if job.output and self.error is None:
            self.on_output(job.output)
        self._settle()
        request, self._request = self._request, None
        if self.error is None:
            how = f"status {job.returncode}"
            self.error = job.error or WorkerError(f"the worker has died ({how})")
        if request is not None and request.pid is not None:
            # Nobody else ends what it had started. The number is still that of its group, or was
            # a moment ago: too soon to be given to another.
            kill_group(request.pid)
        self.pool._lost(self, request)
