"""WarmPool: keeps processes that wait for their request."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from fastspawn._command import Command, StrOrBytesPath
from fastspawn._core import STREAM, Job
from fastspawn._engine import Engine
from fastspawn._result import Result
from fastspawn._sinks import Collect, Run
from fastspawn._warm.job import WarmJob

if TYPE_CHECKING:
    from typing_extensions import Self

_BACK_OFF: Final = 0.1
"""Seconds until another spare is started when one has ended by itself; doubled each time ..."""
_BACK_OFF_MAX: Final = 30.0
_AT_ONCE: Final = 1.0
"""... if it lived for less than this."""
_HEADWAY: Final = 0.02
"""Seconds that a request has the processors to itself, if it does not end before, until the next
spare is started: a runtime's start would take them from it."""
_TROUBLE: Final = 3
"""Spares in a row that ended at once: the program does not wait for its input."""


class WarmPool:
    """One-shot processes of a command that wait for their request: an async context manager.

        async with WarmPool(["node", "handler.js"], size=2) as pool:
            result = await pool.run(input=b"...")

    A spare is a process of ``command`` that was started ahead, with pipes: it has loaded what it
    needs and waits for its standard input. A request takes the oldest, its input goes there,
    and what the process writes and how it ends is the answer. Another spare is started when the
    request has ended, or 20 ms after it began. No process serves twice.

    **What the program must do**: wait for its standard input, to its first byte or its end,
    before it does anything that counts. What it writes before is kept and belongs to the request
    that takes it. stdin is always a pipe, at its end for a request without input.

    ``size`` spares are kept at least, ``max_size`` (by default 8 or ``size``) at most. A request
    that finds none is started directly (``stats`` counts them), and from then on one spare more
    is kept; whenever ``max_idle`` seconds have passed, as many fewer as were left unused at their
    busiest moment. A spare older than ``max_age`` seconds is replaced, so that what it
    read before its request (its program, its configuration) is never older than that.

    A spare that ends before its request is replaced: after 0.1 s, and later each time if they end
    at once, up to 30 s. A request that meets such a one gets another, and never notices.

    Time limits count from the moment when the request takes its process, and so does
    ``Result.wall``; ``rusage`` includes what the process used before. ``engine`` is the one that
    starts the processes; by default the pool has its own.
    """

    on_trouble: Callable[[Job], object] | None = None
    """Called when several spares in a row have ended at once; again only after one served."""

    def __init__(
        self,
        command: Command | Sequence[StrOrBytesPath],
        *,
        size: int = 1,
        max_size: int | None = None,
        max_age: float = 300.0,
        max_idle: float = 30.0,
        engine: Engine | None = None,
    ) -> None:
        if max_size is None:
            max_size = max(size, 8)
        if not 0 <= size <= max_size or max_size < 1:
            raise ValueError("there must be 0 <= size <= max_size and max_size >= 1")
        if max_age <= 0 or max_idle <= 0:
            raise ValueError("max_age and max_idle must be positive")
        self.command = command if isinstance(command, Command) else Command(command)
        self._engine = Engine() if engine is None else engine
        self._owned = engine is None
        self._min, self._max = size, max_size
        self._max_age, self._max_idle = max_age, max_idle
        self._target = size
        self._loop: asyncio.AbstractEventLoop
        self._open = False
        self._ready: deque[_Spare] = deque()
        """Oldest first."""
        self._alive: set[_Spare] = set()
        """These, and those that are being ended."""
        self._news = asyncio.Event()
        """A spare runs, or has ended."""
        self._timer: asyncio.TimerHandle | None = None
        self._low = 0
        """Spares that were left at the busiest moment since _since."""
        self._since = 0.0
        self._failures = 0
        """Spares in a row that ended by themselves."""
        self._hold_until = 0.0
        self._headway_until = 0.0
        self._counts = dict.fromkeys(
            ("warm", "direct", "other", "again", "died", "aged", "surplus"), 0
        )

    async def start(self) -> None:
        """Start the first spares, and wait until they execute.

        Raises the OSError of a program that cannot be started. Nothing is left then.
        """
        if self._open:
            raise RuntimeError("the pool is running already")
        if self._owned:
            await self._engine.start()
        self._loop = self._engine._here()
        self._open = True
        self._since = self._loop.time()
        try:
            self._refill()
            first = list(self._ready)
            while not all(spare.started or spare.job.returncode is not None for spare in first):
                for spare in first:
                    if spare.job.error is not None:
                        raise spare.job.error
                if not self._open:
                    raise RuntimeError("the pool was closed")
                self._news.clear()
                await self._news.wait()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the spares; with an engine of its own, also what still runs."""
        if self._open:
            self._open = False
            if self._timer is not None:
                self._timer.cancel()
            self._retire(len(self._ready))
            while self._alive:
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
        """Give a spare this input, let it run to its end, and collect its output.

        ``args`` (after the program's name) and ``env`` (the whole environment) are what a process
        that runs already cannot be given: with either, a new one is started. All else is as for
        ``Engine.run``.
        """
        future = self._engine._here().create_future()
        if not self._open:
            raise RuntimeError("the pool is not running")
        command, job = self.command, None  # type: tuple[Command, Any]
        sink = Collect(future)
        if args is None and env is None:
            job = self.submit(sink, input)
        else:
            argv = command.argv if args is None else (command.argv[0], *args)
            command = command.replace(argv, env=env)
            self.count_other()
            job = self._engine.submit(command, Run(future), input, stream=False)
        try:
            ended = await future
        except asyncio.CancelledError:
            job.cancel()
            raise
        result = Result.of(command.argv, ended)
        sink.complete(result)
        if check:
            result.check_returncode()
        return result

    def submit(self, sink: Any, input: Any = None) -> WarmJob:
        """The same for a sink, as ``Engine.submit`` does it; ``input`` may be STREAM."""
        if not self._open:
            raise RuntimeError("the pool is not running")
        request = WarmJob(self, sink, input)
        self._place(request)
        return request

    def count_other(self) -> None:
        """A request of other arguments or environment has been started without the pool."""
        self._counts["other"] += 1

    @property
    def stats(self) -> dict[str, int]:
        """A dict: spares that wait and that are wanted; requests that took one ("warm"), that
        found none ("direct") or could use none ("other"), and how often one met a spare that had
        just ended ("again"); spares that ended by themselves ("died"), were too old ("aged") or
        too many ("surplus")."""
        return {"spares": len(self._ready), "wanted": self._target, **self._counts}

    # ---- requests

    def _place(self, request: WarmJob) -> None:
        if self._ready:
            spare = self._ready.popleft()
            self._alive.discard(spare)
            self._low = min(self._low, len(self._ready))
            self._counts["warm"] += 1
            request._adopt(spare.job)
        else:
            self._low = 0
            self._counts["direct"] += 1
            request._direct(self._engine, self.command)
            if not self._failures:
                self._target = min(self._target + 1, self._max)
        now = self._loop.time()
        if self._headway_until <= now:
            self._headway_until = now + _HEADWAY
        self._arm(now)

    def _served(self) -> None:
        self._failures = 0
        self._headway_until = 0.0
        self._arm(self._loop.time())

    def _again(self, request: WarmJob) -> None:
        self._counts["warm"] -= 1
        self._counts["again"] += 1
        self._place(request)

    # ---- spares

    def _refill(self) -> None:
        now = self._loop.time()
        while self._open and len(self._ready) < self._target and now >= self._not_before:
            self._start_one(now)
        self._arm(now)

    @property
    def _not_before(self) -> float:
        return max(self._hold_until, self._headway_until)

    def _start_one(self, now: float) -> None:
        spare = _Spare(self, now)
        spare.job = self._engine.submit(self.command, spare, STREAM, True, True, spare=True)
        self._ready.append(spare)
        self._alive.add(spare)

    def _retire(self, count: int) -> None:
        """End the oldest."""
        for _ in range(count):
            self._ready.popleft().job.cancel()

    def _started(self) -> None:
        self._news.set()

    def _ended(self, spare: _Spare, job: Job) -> None:
        self._alive.discard(spare)
        self._news.set()
        if spare not in self._ready:
            return  # it was to end
        self._ready.remove(spare)
        if job.cancelled:
            self._open = False  # the engine is closing
            return
        self._low = min(self._low, len(self._ready))
        self._counts["died"] += 1
        now = self._loop.time()
        self._failures = self._failures + 1 if now - spare.born < _AT_ONCE else 1
        delay = min(_BACK_OFF * 2 ** min(self._failures - 1, 20), _BACK_OFF_MAX)
        self._hold_until = max(self._hold_until, now + delay)
        self._arm(now)
        if self._failures == _TROUBLE and self.on_trouble is not None:
            self.on_trouble(job)

    # ---- time

    def _arm(self, now: float) -> None:
        """One timer, for what is due first."""
        if not self._open:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = []
        if self._ready:
            due.append(self._ready[0].born + self._max_age)
        if self._target > self._min:
            due.append(self._since + self._max_idle)
        if len(self._ready) < self._target:
            due.append(self._not_before)
        if due:
            self._timer = self._loop.call_at(max(min(due), now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        aged = sum(spare.born + self._max_age <= now for spare in self._ready)
        self._counts["aged"] += aged
        self._retire(aged)
        if now >= self._since + self._max_idle:
            self._target -= min(self._low, self._target - self._min)
            surplus = max(0, len(self._ready) - self._target)
            self._counts["surplus"] += surplus
            self._retire(surplus)
            self._low, self._since = len(self._ready), now
        self._refill()


class _Spare:
    """The sink of a process that waits."""

    __slots__ = ("born", "job", "pool", "started")

    def __init__(self, pool: WarmPool, born: float) -> None:
        self.pool = pool
        self.born = born
        self.job: Job
        self.started = False

    def on_start(self, job: Job) -> None:
        self.started = True
        self.pool._started()

    def on_output(self, data: bytes) -> None:
        pass  # it has ended, and left its pipes to others

    on_errors = on_output

    def on_exit(self, job: Job) -> None:
        self.pool._ended(self, job)
