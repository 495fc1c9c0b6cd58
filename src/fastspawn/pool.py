"""Resettable pools: long-lived workers that hold a command as their child, and reset by killing it.

The protocol between a pool and its workers is described in docs/strategies.md.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from subprocess import DEVNULL, PIPE, STDOUT
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from fastspawn import _core
from fastspawn._core import STREAM, Job
from fastspawn.command import Command, Limits, StrOrBytesPath
from fastspawn.engine import Engine
from fastspawn.result import Result
from fastspawn.warm import _Collect

if TYPE_CHECKING:
    from typing_extensions import Self

_VERSION: Final = b"1"
_FRAME_MAX: Final = 4 << 20
"""Bytes."""
_WINDOW: Final = 65536
"""Bytes of input on their way that the worker has not taken."""
_PIECE: Final = 32768
_FEED_HIGH: Final = 262144
"""Bytes of input queued above which the writer is told to wait ..."""
_FEED_LOW: Final = 65536
"""... and below which to go on."""
_STUCK: Final = 5.0
"""Seconds from KILL until a worker that has not answered is killed itself."""
_LEAVE: Final = 2.0
"""Seconds from the end of its stdin until a worker is killed."""
_BACK_OFF: Final = 0.1
_BACK_OFF_MAX: Final = 30.0
"""Seconds until a worker that has died is replaced: doubled each time it died soon."""
_SOON: Final = 1.0
_TROUBLE: Final = 3
"""Workers in a row that died soon, after which requests no longer wait for one."""
_INHERITED: Final = ("cgroup", "no_new_privs")
"""Options that a command has because its worker has them; as are its rlimits."""
_TRIES: Final = 3
"""Workers that may die on a request before it has begun."""


class WorkerError(OSError):
    """The worker that ran the command has died, or does not speak the protocol."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.ECONNRESET, why)

    def __str__(self) -> str:
        return str(self.strerror)


def builtin_worker() -> tuple[str, ...]:
    """The command line of the worker that comes with the package."""
    return (os.path.join(os.path.dirname(_core.__file__), "_worker"),)


def default_size() -> int:
    """Workers of a pool that is not told otherwise."""
    return max(2, os.cpu_count() or 1)


class ResettablePool:
    """A command that workers run, one process for each request: an async context manager.

        async with ResettablePool(["sort", "-u"], size=4) as pool:
            result = await pool.run(input=b"b\\na\\n")

    ``size`` workers (by default one for each processor, two at least) are started once. Each runs
    one command at a time as its child and, when that has ended, kills what is left of its process
    group: that is the reset. Requests that find no free worker wait for one, in order.

    ``worker`` is the command line of a program that speaks the protocol; None is the built-in
    one, in C. The command's environment, working directory, stderr and limits are as elsewhere,
    but for umask, executable and sessions, which the protocol does not know: ValueError. Its
    rlimits, cgroup, no_new_privs and death_signal are the workers', and so their children's, who
    also end with a worker that is killed, if it is the built-in one on Linux.

    A worker that dies is replaced (after 0.1 s, and later each time if they die soon, up to
    30 s). A request whose worker dies before it has said that the command runs is given to
    another; in the moment between the two the command may have begun. Later the request fails
    with WorkerError, and what it had started is killed.

    ``engine`` is the one that the workers run on; by default the pool has its own.
    """

    on_trouble: Callable[[Job], object] | None = None
    """Called when several workers in a row have died soon; again only after one served."""

    def __init__(
        self,
        command: Command | Sequence[StrOrBytesPath],
        *,
        size: int | None = None,
        worker: Sequence[StrOrBytesPath] | None = None,
        start_timeout: float = 10.0,
        engine: Engine | None = None,
    ) -> None:
        if size is None:
            size = default_size()
        if size < 1:
            raise ValueError("size must be at least 1")
        self.command = command if isinstance(command, Command) else Command(command)
        self._settings = _Settings(self.command, self.command)
        self._engine = Engine() if engine is None else engine
        self._owned = engine is None
        self._size = size
        self._worker = Command(
            builtin_worker() if worker is None else worker,
            stderr=None,
            # Its children have from it what they would have if they were executed directly.
            limits=Limits(kill_grace=0, drain=0.05, rlimits=self.command.limits.rlimits),
            **{name: self.command._options[name] for name in _INHERITED},
            death_signal=self.command._options["death_signal"],
        )
        self._timeout = start_timeout
        self._loop: asyncio.AbstractEventLoop
        self._open = False
        self._workers: set[_Worker] = set()
        self._idle: deque[_Worker] = deque()
        """The one that was used last is used next: the others may be swapped out."""
        self._waiting: deque[PoolJob] = deque()
        self._news = asyncio.Event()
        self._failures = 0
        self._timer: asyncio.TimerHandle | None = None
        self._counts = dict.fromkeys(("requests", "again", "failed", "died"), 0)

    async def start(self) -> None:
        """Start the workers, and wait until each has said hello.

        Raises the OSError of a worker that cannot be started, and WorkerError for one that is
        none. Nothing is left then.
        """
        if self._owned:
            await self._engine.start()
        self._loop = self._engine._here()
        self._open = True
        try:
            self._refill()
            first = list(self._workers)
            try:
                await asyncio.wait_for(self._hello(first), self._timeout)
            except (asyncio.TimeoutError, TimeoutError):  # not the same before Python 3.11
                name = os.fsdecode(self._worker.argv[0])
                raise WorkerError(f"{name} did not say hello: it is no worker") from None
        except BaseException:
            await self.close()
            raise

    async def _hello(self, workers: list[_Worker]) -> None:
        while not all(worker.ready for worker in workers):
            for worker in workers:
                if worker.error is not None:
                    raise worker.error
            self._news.clear()
            await self._news.wait()

    async def close(self) -> None:
        """End the workers and what they run."""
        if self._open:
            self._open = False
            if self._timer is not None:
                self._timer.cancel()
            for waiting in list(self._waiting):
                waiting.cancel()
            for worker in list(self._workers):
                worker.leave()
            while self._workers:
                self._news.clear()
                await self._news.wait()
        if self._owned:
            await self._engine.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def run(
        self,
        input: bytes | bytearray | memoryview | None = None,
        *,
        args: Sequence[StrOrBytesPath] | None = None,
        env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
        check: bool = False,
    ) -> Result:
        """Let a worker run the command to its end, and collect its output.

        ``args`` are the arguments after the program's name, ``env`` is the whole environment; by
        default the pool's own. All else is as for ``Engine.run``, but that ``Result.rusage`` is
        None: workers do not tell. Raises WorkerError when the worker died.
        """
        self._engine._here()
        command = self.command
        if args is not None or env is not None:
            argv = command.argv if args is None else (command.argv[0], *args)
            command = command.replace(argv, env=env)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        sink = _Collect(future)
        job = self.submit(sink, input, None if command is self.command else command)
        try:
            await future
        except asyncio.CancelledError:
            job.cancel()
            raise
        result = Result.of(command.argv, job)  # type: ignore[arg-type]
        sink.complete(result)
        if check:
            result.check_returncode()
        return result

    def submit(self, sink: Any, input: Any = None, command: Command | None = None) -> PoolJob:
        """The same for a sink, as ``Engine.submit`` does it; ``input`` may be STREAM.

        ``command``: another one than the pool's, of which the limits count, too.
        """
        if not self._open:
            raise RuntimeError("the pool is not running")
        settings = self._settings if command is None else _Settings(command, self.command)
        job = PoolJob(self, settings, sink, input)
        self._counts["requests"] += 1
        if len(settings.tail) > _FRAME_MAX - 64:
            self._loop.call_soon(job._refused, errno.E2BIG)
            return job
        self._waiting.append(job)
        if self._failures >= _TROUBLE and not self._workers:
            self._loop.call_soon(self._give_up)
        self._assign()
        return job

    @property
    def stats(self) -> dict[str, int]:
        """A dict: workers alive, of them idle, requests that wait for one; requests in all, those
        given to another worker ("again"), those that a worker's death ended ("failed"), and
        workers that "died"."""
        return {
            "workers": len(self._workers),
            "idle": len(self._idle),
            "waiting": len(self._waiting),
            **self._counts,
        }

    # ---- workers

    def _refill(self) -> None:
        self._timer = None
        while self._open and len(self._workers) < self._size:
            worker = _Worker(self)
            self._workers.add(worker)
            worker.job = self._engine.submit(self._worker, worker, STREAM, notify=True)

    def _assign(self) -> None:
        while self._idle and self._waiting:
            self._idle.pop().begin(self._waiting.popleft())

    def _is_free(self, worker: _Worker) -> None:
        """It has said hello, or is done with a request."""
        self._news.set()
        if self._open:
            self._idle.append(worker)
            self._assign()

    def _lost(self, worker: _Worker, request: PoolJob | None) -> None:
        """It has ended."""
        if worker.job.cancelled:
            self._open = False  # the engine is closing
        self._workers.discard(worker)
        with suppress(ValueError):
            self._idle.remove(worker)
        self._news.set()
        if request is not None:
            if self._open and request._may_move():
                self._counts["again"] += 1
                self._waiting.appendleft(request)
            else:
                self._counts["failed"] += 1
                request._end_without(worker)
        if not self._open:
            while self._waiting:
                self._waiting.popleft()._end_without(None)
            return
        self._counts["died"] += 1
        soon = self._loop.time() - worker.born < _SOON
        self._failures = self._failures + 1 if soon else 1
        if self._failures == _TROUBLE and self.on_trouble is not None:
            self.on_trouble(worker.job)
        if self._failures >= _TROUBLE and not self._workers:
            self._give_up()
        if self._timer is None:
            delay = min(_BACK_OFF * 2 ** min(self._failures - 1, 20), _BACK_OFF_MAX)
            self._timer = self._loop.call_later(delay, self._refill)
        self._assign()

    def _give_up(self) -> None:
        """There is no worker, and none to be expected soon."""
        while self._waiting and not self._workers:
            self._counts["failed"] += 1
            self._waiting.popleft()._end_without(None)

    def _served(self) -> None:
        self._failures = 0


class _Settings:
    """What a worker is told of a command, and what the pool sees to itself."""

    __slots__ = ("argv", "head", "limits", "plan", "tail")

    def __init__(self, command: Command, first: Command) -> None:
        """``first``: the one whose limits and rights the workers have. Raises ValueError."""
        options = command._options
        if _rights(command) != _rights(first):
            raise ValueError("the rlimits, cgroup and no_new_privs are those of the workers")
        limits = command.limits
        if (
            options["executable"] is not None
            or options["umask"] != -1
            or options["start_new_session"]
            or not options["restore_signals"]
            or options["stdout"] != PIPE
        ):
            raise ValueError("a worker knows no executable, umask, session, signals or stdout "
                             "of a command")  # fmt: skip
        how = {None: b"inherit", DEVNULL: b"discard", STDOUT: b"merge", PIPE: b"pipe"}
        self.argv = command.argv
        self.plan = command
        self.limits = limits
        self.head = how[options["stderr"]]
        cwd = options["cwd"]
        argv = [os.fsencode(arg) for arg in command.argv]
        env = [os.fsencode(k) + b"=" + os.fsencode(v) for k, v in command._env().items()]
        fields = [b"" if cwd is None else os.path.abspath(os.fsencode(cwd)), b"%d" % len(argv)]
        self.tail = b"\0".join(fields + argv + env)

    def frame(self, has_input: bool) -> bytes:
        return b"\0".join((self.head, b"pipe" if has_input else b"null", self.tail))


def _rights(command: Command) -> tuple[Any, ...]:
    """What a child has from its worker."""
    options = command._options
    return (dict(command.limits.rlimits), *(options[name] for name in _INHERITED))


def _group(payload: bytes) -> int:
    """The process group that a worker says to have made. Raises ValueError for what is none, or
    is not to be killed: kill(2) takes 0 for one's own group, and -1 for every process there is."""
    if not payload.isdigit() or len(payload) > 10:
        raise ValueError(f"no process group: {payload!r}")
    pid = int(payload)
    if not 1 < pid < 1 << 31 or pid in (os.getpid(), os.getpgrp()):
        raise ValueError(f"no process group: {payload!r}")
    return pid


def _kill_group(pid: int) -> None:
    """``pid`` is from _group(); nothing else may come here."""
    _group(b"%d" % pid)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class _Worker:
    """A worker process: the sink of its job."""

    def __init__(self, pool: ResettablePool) -> None:
        self.pool = pool
        self.born = pool._loop.time()
        self.ready = False
        self.error: Exception | None = None
        """Why it has ended."""
        self.job: Job
        self._request: PoolJob | None = None
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None

    # ---- what the pool and the request tell it

    def begin(self, request: PoolJob) -> None:
        self._request = request
        self.send(b"R", request._settings.frame(request._has_input))
        request._begin(self)

    def send(self, kind: bytes, payload: bytes) -> None:
        if self.error is None:
            self.job.write(kind + len(payload).to_bytes(4, "big") + payload)

    def kill_later(self, delay: float) -> None:
        """Unless it answers."""
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
        data = self._buffer + data if self._buffer else data
        at = 0
        while len(data) - at >= 5:
            size = int.from_bytes(data[at + 1 : at + 5], "big")
            if size > _FRAME_MAX:
                self._broken()
                return
            if len(data) - at - 5 < size:
                break
            kind, payload = data[at : at + 1], data[at + 5 : at + 5 + size]
            at += 5 + size
            try:
                self._frame(kind, payload)
            except ValueError:
                self._broken()
                return
        self._buffer = data[at:]

    def _frame(self, kind: bytes, payload: bytes) -> None:
        request = self._request
        if not self.ready:
            if (kind, payload) != (b"H", _VERSION):
                raise ValueError(kind)
            self.ready = True
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
            request.pid = _group(payload)
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

    def _broken(self) -> None:
        self.error = WorkerError("the worker does not speak the protocol")
        self._buffer = b""
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
            _kill_group(request.pid)
        self.pool._lost(self, request)


class PoolJob:
    """A request at a resettable pool: what ``Engine.submit`` gives, for a worker's child."""

    def __init__(self, pool: ResettablePool, settings: _Settings, sink: Any, input: Any) -> None:
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
        self._worker: _Worker | None = None
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
        self._credit = _WINDOW
        self._eof = input is not STREAM
        self._eof_sent = False
        self._blocked = False
        if input is not None and input is not STREAM:
            self._queue(bytes(input))

    @property
    def plan(self) -> Command:
        """The command."""
        return self._settings.plan

    # ---- the request's side

    def write(self, data: bytes | bytearray | memoryview) -> bool:
        """As ``Job.write``."""
        if self._done:
            return True
        self._queue(bytes(data))
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
            with suppress(ValueError):
                self._pool._waiting.remove(self)
            self._done = True
            self._pool._loop.call_soon(self._sink.on_exit, self)

    # ---- the worker's side

    def _begin(self, worker: _Worker) -> None:
        self._worker = worker
        self._began = self._pool._loop.time()
        self._credit = _WINDOW
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
            piece = data[: min(self._credit, _PIECE)]
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
            self._sink.on_drain()

    def _output(self, data: bytes, tell: Callable[[bytes], object]) -> None:
        if self._ending:
            return
        limit = self._settings.limits.max_output
        self._came += len(data)
        if limit is not None and self._came > limit:
            self.truncated = True
            data = data[: max(0, len(data) - (self._came - limit))]
            if data:
                tell(data)
            self._terminate()
        else:
            tell(data)

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

    def _end_without(self, worker: _Worker | None) -> None:
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
        self._sink.on_exit(self)
