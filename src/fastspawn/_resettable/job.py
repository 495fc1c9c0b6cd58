"""A request at a resettable pool."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from fastspawn._command import Command, as_bytes
from fastspawn._core import STREAM, Job
from fastspawn._resettable.protocol import PIECE, WINDOW
from fastspawn._resettable.settings import Settings

_FEED_HIGH: Final = 262144
"""Bytes of input queued above which the writer is told to wait ..."""
_FEED_LOW: Final = 65536
"""... and below which to go on."""
_STUCK: Final = 5.0
"""Seconds from KILL until a worker that has not answered is killed itself."""
_TRIES: Final = 3
"""Workers that may die on a request before it has begun."""


class WorkerError(OSError):
    """The worker that ran the command has died, or does not speak the protocol."""

    __module__ = "fastspawn"

    def __init__(self, why: str) -> None:
        super().__init__(errno.ECONNRESET, why)

    def __str__(self) -> str:
        return str(self.strerror)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.strerror,), self.__dict__


class Runner(Protocol):
    """What a request needs of its worker."""

    job: Job
    error: Exception | None

    def send(self, kind: bytes, payload: bytes) -> None:
        """A frame."""

    def kill_later(self, delay: float) -> None:
        """Unless it answers."""


class Keeper(Protocol):
    """What a request needs of its pool."""

    _loop: asyncio.AbstractEventLoop
    _open: bool

    def _withdraw(self, request: PoolJob) -> None:
        """It waits no longer."""

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        """Of a sink; what it raises is told to the event loop."""


class PoolJob:
    """A request at a resettable pool: what ``Engine.submit`` gives, for a worker's child."""

    def __init__(self, pool: Keeper, settings: Settings, sink: Any, input: Any) -> None:
        self.pid: int | None = None
        self.returncode: int | None = None
        self.output = self.errors = b""
        self.error: OSError | None = None
        self.timed_out = self.truncated = self.cancelled = self.lost = False
        self.wall = 0.0
        self.rusage = None

        self._pool = pool
        self._settings = settings
        self._sink = sink
        self._worker: Runner | None = None
        self._began = 0.0
        self._tries = 1
        self._ending = False
        self._done = False
        self._paused = False
        self._came = 0
        """Bytes of output."""
        self._timer: asyncio.TimerHandle | None = None

        self._has_input = input is not None
        self._all: list[bytes] = []
        """Until the command runs: what another worker would have to be sent."""
        self._unsent: deque[bytes] = deque()
        self._queued = 0
        self._credit = WINDOW
        self._eof = input is not STREAM
        self._eof_sent = False
        self._blocked = False
        if input is not None and input is not STREAM:
            self._queue(as_bytes(input))

    @property
    def plan(self) -> Command:
        """The command."""
        return self._settings.plan

    # ---- the request's side

    def write(self, data: bytes | bytearray | memoryview) -> bool:
        """As ``Job.write``."""
        if self._done:
            return True
        if self._eof:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        self._queue(as_bytes(data))
        self._feed()
        self._blocked = self._queued > _FEED_HIGH
        return not self._blocked

    def write_eof(self) -> None:
        """As ``Job.write_eof``."""
        self._eof = True
        self._feed()

    def pause_reading(self, stream: int = 0) -> None:
        """As ``Job.pause_reading``; both streams come the same way."""
        self._paused = True
        if self._worker is not None and not self._ending:
            self._worker.job.pause_reading()

    def resume_reading(self, stream: int = 0) -> None:
        """As ``Job.resume_reading``."""
        self._paused = False
        if self._worker is not None:
            self._worker.job.resume_reading()

    def cancel(self) -> None:
        """TERM to the process group, KILL after the grace; on_exit still comes."""
        if self._done or self.cancelled:
            return
        self.cancelled = True
        if self._worker is not None:
            self._terminate()
        else:
            self._pool._withdraw(self)
            self._done = True
            self._pool._loop.call_soon(self._sink.on_exit, self)

    # ---- the worker's side

    def _begin(self, worker: Runner) -> None:
        self._worker = worker
        self._began = self._pool._loop.time()
        self._credit = WINDOW
        self._eof_sent = False
        if self._tries > 1:
            self._unsent = deque(self._all)
            self._queued = sum(map(len, self._unsent))
        if self._paused:
            worker.job.pause_reading()
        if (timeout := self._settings.limits.timeout) is not None:
            self._later(timeout, self._expire)
        self._feed()

    def _may_move(self) -> bool:
        """Its worker has died: make it ready for another, if that is no second time."""
        if self.pid is not None or self._ending or self._tries >= _TRIES:
            return False
        self._tries += 1
        self._worker = None
        self._settle()
        return True

    def _queue(self, data: bytes) -> None:
        if self.pid is None:
            self._all.append(data)
        if data:
            self._unsent.append(data)
            self._queued += len(data)

    def _feed(self) -> None:
        worker = self._worker
        if worker is None or self._done or not self._has_input:
            return
        while self._unsent and self._credit > 0:
            data = self._unsent.popleft()
            piece = data[: min(self._credit, PIECE)]
            if len(piece) < len(data):
                self._unsent.appendleft(data[len(piece) :])
            self._credit -= len(piece)
            worker.send(b"I", piece)
        if self._eof and not self._unsent and not self._eof_sent:
            self._eof_sent = True
            worker.send(b"I", b"")

    def _taken(self, count: int) -> None:
        self._credit += count
        self._queued -= count
        self._feed()
        if self._blocked and self._queued <= _FEED_LOW:
            self._blocked = False
            self._pool._call(self._sink.on_drain)

    def _output(self, data: bytes, tell: Callable[[bytes], object]) -> None:
        if self._ending:
            return
        limit = self._settings.limits.max_output
        self._came += len(data)
        if limit is not None and self._came > limit:
            self.truncated = True
            data = data[: max(0, len(data) - (self._came - limit))]
            if data:
                self._pool._call(tell, data)
            self._terminate()
        else:
            self._pool._call(tell, data)

    def _expire(self) -> None:
        self.timed_out = True
        self._terminate()

    def _terminate(self) -> None:
        """TERM, grace, KILL; a worker that does not answer then is killed itself."""
        if self._ending or self._worker is None:
            return
        self._ending = True
        self._worker.job.resume_reading()
        grace = self._settings.limits.kill_grace
        if grace > 0:
            self._signal(signal.SIGTERM)
            self._later(grace, self._kill)
        else:
            self._kill()

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._worker is not None:
            self._worker.kill_later(_STUCK)

    def _signal(self, number: signal.Signals) -> None:
        if self._worker is not None:
            self._worker.send(b"K", b"%d" % number)

    def _later(self, delay: float, callback: Callable[[], None]) -> None:
        self._settle()
        self._timer = self._pool._loop.call_later(delay, callback)

    def _settle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- the end

    def _end(self, returncode: int) -> None:
        self.returncode = returncode
        self._finish()

    def _refused(self, number: int) -> None:
        self.error = OSError(number, os.strerror(number), self._settings.argv[0])
        self._finish()

    def _end_without(self, worker: Runner | None) -> None:
        """Its worker has died, or there is none."""
        if self.cancelled or self.timed_out or self.truncated or not self._pool._open:
            self.cancelled = self.cancelled or not (self.timed_out or self.truncated)
            if self.pid is not None:
                self.returncode = -signal.SIGKILL
        elif worker is None:
            self.error = WorkerError("no worker could be started")
        else:
            error = worker.error
            self.error = error if isinstance(error, WorkerError) else WorkerError(str(error))
        self._finish()

    def _finish(self) -> None:
        self._settle()
        self._done = True
        worker, self._worker = self._worker, None
        if worker is not None:
            if self._paused:
                worker.job.resume_reading()
            self.wall = self._pool._loop.time() - self._began
        self._unsent.clear()
        self._all.clear()
        self._pool._call(self._sink.on_exit, self)
