"""ResettablePool: keeps the workers, and gives each request to one."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from fastspawn._command import Command, StrOrBytesPath
from fastspawn._core import STREAM, Job
from fastspawn._engine import Engine
from fastspawn._limits import Limits
from fastspawn._resettable.job import PoolJob
from fastspawn._resettable.protocol import FRAME_MAX
from fastspawn._resettable.settings import INHERITED, Settings
from fastspawn._resettable.worker import Worker
from fastspawn._result import Result
from fastspawn._sinks import Collect

if TYPE_CHECKING:
    from typing_extensions import Self

_BACK_OFF: Final = 0.1
_BACK_OFF_MAX: Final = 30.0
"""Seconds until a worker that has died is replaced: doubled each time it died soon."""
_SOON: Final = 1.0
_TROUBLE: Final = 3
"""Workers in a row that died soon, or silent, after which requests no longer wait for one."""


def builtin_worker() -> tuple[str, ...]:
    """The command line of the worker that comes with the package."""
    return (os.path.join(os.path.dirname(os.path.dirname(__file__)), "_worker"),)


def default_size() -> int:
    """Workers of a pool that is not told otherwise."""
    return max(2, os.cpu_count() or 1)


def _raise(exc: BaseException) -> None:
    raise exc


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

    ``start_timeout``: seconds that each worker may take until it says hello; then it is killed.
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
        start_timeout: float = 30.0,
        engine: Engine | None = None,
    ) -> None:
        if size is None:
            size = default_size()
        if size < 1:
            raise ValueError("size must be at least 1")
        self.command = command if isinstance(command, Command) else Command(command)
        self._settings = Settings(self.command, self.command)
        self._engine = Engine() if engine is None else engine
        self._owned = engine is None
        self._size = size
        self._worker = Command(
            builtin_worker() if worker is None else worker,
            stderr=None,
            # Its children have from it what they would have if they were executed directly.
            limits=Limits(kill_grace=0, drain=0.05, rlimits=self.command.limits.rlimits),
            **{name: self.command._options[name] for name in INHERITED},
            death_signal=self.command._options["death_signal"],
        )
        self._timeout = start_timeout
        self._loop: asyncio.AbstractEventLoop
        self._open = False
        self._workers: set[Worker] = set()
        self._idle: deque[Worker] = deque()
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
        if self._open:
            raise RuntimeError("the pool is running already")
        if self._owned:
            await self._engine.start()
        self._loop = self._engine._here()
        self._open = True
        try:
            self._refill()
            await self._hello(list(self._workers))
        except BaseException:
            await self.close()
            raise

    async def _hello(self, workers: list[Worker]) -> None:
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
        sink = Collect(future)
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
        settings = self._settings if command is None else Settings(command, self.command)
        job = PoolJob(self, settings, sink, input)
        self._counts["requests"] += 1
        if len(settings.tail) > FRAME_MAX - 64:
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

    def _withdraw(self, request: PoolJob) -> None:
        with suppress(ValueError):
            self._waiting.remove(request)

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        """Of a sink; the worker, and who waits for it, go on whatever it raises."""
        try:
            callback(*args)
        except Exception as exc:
            self._engine._on_error(exc)
        except BaseException as exc:
            self._loop.call_soon(_raise, exc)

    # ---- workers

    def _refill(self) -> None:
        self._timer = None
        while self._open and len(self._workers) < self._size:
            worker = Worker(self)
            self._workers.add(worker)
            worker.job = self._engine.submit(self._worker, worker, STREAM, notify=True)
            worker.expect_hello(self._timeout, os.fsdecode(self._worker.argv[0]))

    def _assign(self) -> None:
        while self._idle and self._waiting:
            self._idle.pop().begin(self._waiting.popleft())

    def _is_free(self, worker: Worker) -> None:
        """It has said hello, or is done with a request."""
        self._news.set()
        if self._open:
            self._idle.append(worker)
            self._assign()

    def _lost(self, worker: Worker, request: PoolJob | None) -> None:
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
        soon = not worker.ready or self._loop.time() - worker.born < _SOON
        self._failures = self._failures + 1 if soon else 1
        if self._failures == _TROUBLE and self.on_trouble is not None:
            self._call(self.on_trouble, worker.job)
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
