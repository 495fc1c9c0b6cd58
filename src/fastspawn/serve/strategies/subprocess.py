"""The subprocess strategy: ``asyncio.create_subprocess_exec`` on whatever loop there is.

The "before" of every comparison, written as well as the standard library allows: the same
deadlines, group kill, backpressure and limits as the engine gives. ``communicate()`` is not
used, because how much a command will write is only known when it has: an answer must be able
to turn into a stream, and memory stay bounded. For a short answer this costs the same.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from fastspawn import aio
from fastspawn.serve.job import STREAM

from .command import STDERR, argv_of, env_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from fastspawn.serve.config.model import RouteConfig
    from fastspawn.serve.job import Sink

    from .base import Common
    from .sharing import Counts

_READ: Final = 65536
"""Bytes."""
_LOOK: Final = 0.02
"""Seconds between looks for a process that has exited and left its stdout to another."""
_LEFT: Final = 1 << 20
"""Bytes that a process may have left in its pipe and here."""
_HIGH: Final = 262144
"""Bytes queued for stdin above which the writer is told to wait, until half is left."""


class SubprocessStrategy:
    """Starts the command of ``route`` once per ``spawn``, each in a session of its own."""

    holds_back = False
    name = "subprocess"
    reason = ""
    kind = ""
    alike = False
    counts: Counts = MappingProxyType({})

    def __init__(self, route: RouteConfig, common: Common) -> None:
        common.engine.accompany()
        self._loop = common.loop
        self._route = route
        self._argv = argv_of(route)
        self._options: dict[str, Any] = {
            "stdout": PIPE,
            "stderr": STDERR[route.stderr],
            "env": env_of(route),
            "cwd": route.cwd,
            "start_new_session": True,
            "limit": _READ,
        }
        # libuv resets every signal in a child, and asyncio those that have a handler here.
        self.create: Callable[..., Awaitable[Process]] = (
            aio.create_subprocess_exec if common.ignores else asyncio.create_subprocess_exec
        )
        self._jobs: dict[SubprocessJob, asyncio.Task[None]] = {}

    def spawn(self, sink: Sink, input: Any) -> SubprocessJob:
        return self._spawn(SubprocessJob(self, sink, input, self._argv, self._options))

    def spawn_as(
        self,
        sink: Sink,
        input: Any,
        argv: Sequence[str | bytes],
        env: Mapping[str, str] | Mapping[bytes, bytes],
        cwd: str | bytes | None = None,
    ) -> SubprocessJob:
        options = self._options | {"env": env, "cwd": cwd or self._route.cwd}
        return self._spawn(SubprocessJob(self, sink, input, argv, options))

    def _spawn(self, job: SubprocessJob) -> SubprocessJob:
        self._jobs[job] = self._loop.create_task(job.run())
        return job

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        for job in self._jobs:
            job.cancel()
        while self._jobs:
            await asyncio.wait(self._jobs.values())

    # ---- for the jobs

    @property
    def route(self) -> RouteConfig:
        return self._route

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def forget(self, job: SubprocessJob) -> None:
        self._jobs.pop(job, None)


class SubprocessJob:
    """A ``job.Job``."""

    def __init__(
        self,
        strategy: SubprocessStrategy,
        sink: Any,
        input: Any,
        argv: Sequence[str | bytes],
        options: Mapping[str, Any],
    ) -> None:
        self.output = self.errors = b""
        self.pid: int | None = None
        self.returncode: int | None = None
        self.error: OSError | MemoryError | None = None
        self.timed_out = self.truncated = self.cancelled = False
        self.wall = 0.0
        self.rusage = None

        self._strategy = strategy
        self._loop = strategy.loop
        self._sink = sink
        self._argv = argv
        self._options = options
        self._process: Process | None = None
        self._started = 0.0
        self._timers: dict[str, asyncio.TimerHandle] = {}

        # Output.
        self._read = 0
        self._read_since = 0
        """Bytes since the process was seen to be gone."""
        self._quiet = -1
        """That, at the last look."""
        self._ended = False
        self._paused = False
        self._resumed: asyncio.Future[None] | None = None

        # Input.
        self._input = input is not None
        self._chunks: deque[bytes] = deque()
        self._queued = 0
        self._eof = input is not STREAM
        self._blocked = False
        self._unread = False
        self._more: asyncio.Future[None] | None = None
        if self._input and input is not STREAM:
            self.write(input)

    # ---- the sink's side

    def write(self, data: bytes) -> bool:
        if self._unread:
            return True
        self._chunks.append(data)
        self._queued += len(data)
        _wake(self._more)
        self._blocked = self._queued > _HIGH
        return not self._blocked

    def write_eof(self) -> None:
        self._eof = True
        _wake(self._more)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        _wake(self._resumed)

    def cancel(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self._terminate()

    # ---- the process's side

    async def run(self) -> None:
        """The job from its start to ``on_exit``. Never raises."""
        feeder = None
        self._started = time.monotonic()
        try:
            process = await self._strategy.create(
                *self._argv, stdin=PIPE if self._input else DEVNULL, **self._options
            )
        except (OSError, MemoryError) as error:
            self.error = error
        else:
            self._process = process
            self.pid = process.pid
            if self.cancelled:
                self._terminate()
            elif (timeout := self._strategy.route.exec_timeout) is not None:
                self._later("deadline", timeout, self._expire)
            if process.stdin is not None:
                _expect_any_end(process.stdin)
                feeder = self._loop.create_task(self._feed(process.stdin))
            await self._collect(process)
            self.returncode = await process.wait()
            self.wall = time.monotonic() - self._started
            # Else a descriptor that another process shares would stay open here.
            _close(process)
        for timer in self._timers.values():
            timer.cancel()
        if feeder is not None:
            feeder.cancel()
            await asyncio.wait([feeder])
        self._strategy.forget(self)
        self._sink.on_exit(self)

    async def _collect(self, process: Process) -> None:
        self._later("look", _LOOK, self._look)
        assert process.stdout is not None
        if process.stderr is None:
            await self._collect_output(process.stdout)
        else:
            await asyncio.gather(
                self._collect_output(process.stdout), self._collect_errors(process.stderr)
            )
        self._ended = True

    async def _collect_output(self, stdout: asyncio.StreamReader) -> None:
        while data := await stdout.read(_READ):
            if not self.truncated and (data := self._within(data)):
                self._sink.on_output(data)
            # Nobody waits for what a dying process writes; it must not wait for us either.
            while self._paused and not (self.cancelled or self.timed_out):
                self._resumed = self._loop.create_future()
                await self._resumed

    async def _collect_errors(self, stderr: asyncio.StreamReader) -> None:
        while data := await stderr.read(_READ):
            if not self.truncated and (data := self._within(data)):
                self._sink.on_errors(data)

    def _within(self, data: bytes) -> bytes:
        """What the limit allows of it."""
        self._read += len(data)
        self._read_since += len(data)
        limit = self._strategy.route.max_output
        if limit is not None and self._read > limit:
            self.truncated = True
            data = data[: len(data) - (self._read - limit)]
            self._terminate()
        return data

    def _look(self) -> None:
        # The process may be gone while a descendant keeps its output: EOF may never come.
        assert self._process is not None
        if self._process.returncode is None:
            self._later("look", _LOOK, self._look)
        elif not self._ended:
            self._read_since = 0
            self._quiet = -1
            self._later("look", self._strategy.route.drain_timeout, self._drained)

    def _drained(self) -> None:
        # What the process itself has written may still be in the pipe, while nobody takes it or
        # this loop comes late: the time counts when nothing came for a while (and a second time,
        # for the loop to have looked), or when more came than it can have left.
        if self._process is None:
            return
        if self._paused or (self._quiet != self._read_since and self._read_since < _LEFT):
            self._quiet = -1 if self._paused else self._read_since
            self._later("look", _LOOK, self._drained)
        else:
            _close(self._process)

    async def _feed(self, stdin: asyncio.StreamWriter) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            while self._chunks or not self._eof:
                if not self._chunks:
                    self._more = self._loop.create_future()
                    await self._more
                    continue
                chunk = self._chunks.popleft()
                stdin.write(chunk)
                await stdin.drain()
                self._queued -= len(chunk)
                if self._blocked and self._queued <= _HIGH // 2:
                    self._blocked = False
                    self._sink.on_drain()
            stdin.close()
            await stdin.wait_closed()
            return
        # The process does not read its stdin (any more), which is its right.
        stdin.close()
        self._unread = True
        self._chunks.clear()
        if self._blocked:
            self._blocked = False
            self._sink.on_drain()

    def _expire(self) -> None:
        self.timed_out = True
        self._terminate()

    def _terminate(self) -> None:
        self._signal(signal.SIGTERM)
        self._later("kill", self._strategy.route.kill_grace, self._kill)
        _wake(self._resumed)

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # The group has the process's id for as long as the process is not reaped or, after
        # that, for as long as a member lives: somebody who keeps stdout open.
        process = self._process
        if process is not None and (process.returncode is None or not self._ended):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)

    def _later(self, name: str, delay: float, callback: Any) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = self._loop.call_later(delay, callback)


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def _expect_any_end(stdin: asyncio.StreamWriter) -> None:
    # Python 3.10 and 3.11.2 log how a pipe broke unless somebody waits for its end, which may never
    # come: a descendant can hold the other side. What is waited for has no public name.
    protocol: asyncio.SubprocessProtocol = stdin._protocol  # type: ignore[attr-defined]
    protocol._get_close_waiter(stdin).add_done_callback(_retrieve)  # type: ignore[attr-defined]


def _retrieve(end: asyncio.Future[None]) -> None:
    if not end.cancelled():
        end.exception()


def _close(process: Process) -> None:
    # There is no public way: a Process has no close(), its StreamReader neither.
    transport: asyncio.SubprocessTransport = process._transport  # type: ignore[attr-defined]
    transport.close()
