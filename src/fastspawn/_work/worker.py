"""From messages to processes, and back to what becomes of the messages.

No more is asked for than there is room for. A message is a task from the moment it comes until it
is settled; as long as that lasts the server hears that it goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from fastspawn.serve.strategies.command import argv_of, env_of

from . import verdict
from .figures import Figures
from .process import Process
from .source import PATIENCE, Ended, NoReply, QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from fastspawn._core import Outlet
    from fastspawn.serve.config.model import RouteConfig
    from fastspawn.serve.job import Job
    from fastspawn.serve.strategies.base import Strategy

    from .source import Message, Source
    from .verdict import Policy

_PAUSES: Final = (0.1, 0.5, 1.0, 5.0)
"""Seconds after an attempt to start a process that failed; the last one counts for all that
follow."""


@dataclass(frozen=True)
class Terms:
    """Under which messages are worked on."""

    concurrency: int
    policy: Policy
    graceful: float | None
    """Seconds for what runs, once the worker is to end; None: as long as it takes."""
    variables: bool
    """Each process finds what there is to know of its message in its environment."""
    replies: bool


class Stop:
    """What the signals ask for: the first to take nothing more, the second to give back what
    runs."""

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.cancel = asyncio.Event()

    def ask(self) -> None:
        (self.cancel if self.drain.is_set() else self.drain).set()


class Worker:
    """``run`` until ``stop``, or until the queue is gone."""

    def __init__(
        self,
        source: Source,
        route: RouteConfig,
        strategy: Strategy,
        terms: Terms,
        say: Callable[[str], object],
        outlets: tuple[Outlet | None, Outlet | None],
    ) -> None:
        self.figures = Figures()
        self.stop = Stop()
        self._source, self._strategy, self._terms = source, strategy, terms
        self._policy = _together(terms.policy, source, say)
        self._say, self._outlets = say, outlets
        self._argv = argv_of(route)
        self._env = {os.fsencode(name): os.fsencode(text) for name, text in env_of(route).items()}
        self._grace = route.kill_grace
        self._tasks: dict[asyncio.Task[None], Message] = {}
        self._jobs: set[Job] = set()
        self._free: asyncio.Future[None] | None = None
        """Of a feed that waits for room."""
        self._trouble: QueueError | None = None
        self._told_refusal = ""

    @property
    def line(self) -> str:
        """What it has done, for people."""
        return self.figures.line(len(self._tasks), self._source.figures)

    # ---- the whole ----

    async def run(self) -> None:
        """Raises QueueError once what ran has ended."""
        ticking = asyncio.ensure_future(self._watched(self._tick()))
        feeding = asyncio.ensure_future(self._watched(self._feed()))
        asked = asyncio.ensure_future(self.stop.drain.wait())
        try:
            await asyncio.wait([feeding, asked], return_when=asyncio.FIRST_COMPLETED)
            self.stop.drain.set()
            if self._tasks:
                self._say(f"taking nothing more, {len(self._tasks)} running")
            await self._end_feed(feeding)
            await self._finish()
        finally:
            for task in (ticking, asked):
                task.cancel()
            await asyncio.gather(ticking, asked, return_exceptions=True)
        if self._trouble is not None:
            raise self._trouble

    async def _watched(self, what: Coroutine[Any, Any, None]) -> None:
        """Without it nothing goes on: who has put us here is to know."""
        try:
            await what
        except Exception as error:
            self._fail(error if isinstance(error, QueueError) else QueueError(repr(error)))

    async def _tick(self) -> None:
        """What is worked on is the worker's; also while it ends."""
        while True:
            await asyncio.sleep(self._source.ack_wait / 3)
            await self._source.extend(list(self._tasks.values()))

    async def _feed(self) -> None:
        while not self.stop.drain.is_set():
            room = self._terms.concurrency - len(self._tasks)
            if room <= 0:
                await self._room()
                continue
            for message in await self._source.get(room):
                self._begin(message)

    async def _room(self) -> None:
        self._free = asyncio.get_running_loop().create_future()
        try:
            await self._free
        finally:
            self._free = None

    async def _end_feed(self, feeding: asyncio.Future[None]) -> None:
        self._wake()
        # One that waits for an answer has it soon, and what comes with it is not lost sight of; one
        # that waits for a connection gets nothing.
        await asyncio.wait([feeding], timeout=2 * PATIENCE)
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        with contextlib.suppress(QueueError):
            await _within(2 * PATIENCE, [asyncio.ensure_future(self._source.stop())])

    def _wake(self) -> None:
        if self._free is not None and not self._free.done():
            self._free.set_result(None)

    def _fail(self, error: QueueError) -> None:
        self._trouble = self._trouble or error
        self.stop.drain.set()

    async def _finish(self) -> None:
        """What runs may end by itself for a while; then it is ended, and its message given back."""
        cancelled = asyncio.ensure_future(self.stop.cancel.wait())
        everything = asyncio.ensure_future(self._until_idle())
        try:
            await asyncio.wait(
                [cancelled, everything],
                timeout=self._terms.graceful,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            cancelled.cancel()
            everything.cancel()
        self.stop.cancel.set()
        for job in list(self._jobs):
            job.cancel()
        await _within(self._grace + 5.0, self._tasks)

    async def _until_idle(self) -> Literal[True]:
        if self._tasks:
            await asyncio.wait(self._tasks)
        return True

    # ---- one message ----

    def _begin(self, message: Message) -> None:
        task = asyncio.get_running_loop().create_task(self._work(message))
        self._tasks[task] = message
        task.add_done_callback(self._ended)
        self.figures.redelivered += message.deliveries > 1

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not self.stop.drain.is_set():
            self._wake()
            self._source.more(self._terms.concurrency - len(self._tasks))
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error if isinstance(error, QueueError) else QueueError(repr(error)))

    async def _work(self, message: Message) -> None:
        if self._policy.exhausted(message.deliveries):
            times = message.deliveries - 1
            why = f"no worker told how it ended, {times} times"
            await self._bury(message, Ended(None, why))
            return
        ended = await self._run(message)
        if ended is None:
            self.figures.back += 1
            await self._source.give_back(message)
        else:
            await self._judge(message, ended)

    async def _judge(self, message: Message, ended: Ended) -> None:
        found = self._policy.judge(ended.status, ended.reason, message.deliveries)
        if found.fate == "done":
            try:
                await self._source.done(message, ended.output)
            except NoReply as why:
                await self._bury(message, replace(ended, reason=str(why)))
            else:
                self.figures.done += 1
        elif found.fate == "dead":
            await self._bury(message, ended)
        else:
            self.figures.again += 1
            self._tell(message, ended, f"tried again in {found.delay:g}s")
            await self._source.again(message, found.delay)

    async def _bury(self, message: Message, ended: Ended) -> None:
        self.figures.dead += 1
        self._tell(message, ended, "dead letter")
        await self._source.bury(message, ended)

    def _tell(self, message: Message, ended: Ended, then: str) -> None:
        self._say(f"{message.title}: {ended.reason}: {then} (delivery {message.deliveries})")

    async def _run(self, message: Message) -> Ended | None:
        """None: it was ended so that the worker can end, or was not started for that."""
        attempts = 0
        while not self.stop.cancel.is_set():
            process, job = await self._process(message)
            if job.error is None:
                return None if job.cancelled else _how(process, job)
            if verdict.is_its_own(job.error):
                return Ended(min(self._policy.rejects, default=None), _refusal(job.error))
            self.figures.not_started += 1
            self._tell_refusal(_refusal(job.error))
            if await self._stopped_within(_PAUSES[min(attempts, len(_PAUSES) - 1)]):
                break
            attempts += 1
        return None

    async def _process(self, message: Message) -> tuple[Process, Any]:
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        replies = self._source.reply_to(message) is not None
        sink = Process(ended, *self._outlets, replies=replies)
        if self._terms.variables:
            env = {**self._env, **message.variables}
            job = self._strategy.spawn_as(sink, message.body, self._argv, env)
        else:
            job = self._strategy.spawn(sink, message.body)
        self._jobs.add(job)
        try:
            return sink, await ended
        finally:
            self._jobs.discard(job)

    def _tell_refusal(self, why: str) -> None:
        """Once, until it is another: all messages meet with the same."""
        if why != self._told_refusal:
            self._told_refusal = why
            self._say(f"{why}: trying until it can be")

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.stop.drain.wait(), seconds)
        return self.stop.drain.is_set()


def _how(process: Process, job: Any) -> Ended:
    why = verdict.why(job.returncode, timed_out=job.timed_out, truncated=job.truncated)
    return Ended(job.returncode, why, process.output, process.errors)


def _refusal(error: OSError | MemoryError) -> str:
    told = getattr(error, "strerror", None) or str(error) or "no memory"
    name = getattr(error, "filename", None)
    where = "" if name is None else f"{os.fsdecode(name)}: "
    return f"cannot be started: {where}{told}"


def _together(policy: Policy, source: Source, say: Callable[[str], object]) -> Policy:
    """The server may stop handing a message out before we would."""
    most = source.max_deliver
    if most is None or (policy.max_deliver is not None and policy.max_deliver <= most):
        return policy
    say(f"{source.name} hands a message out {most} times at most: that is --max-deliver")
    return replace(policy, max_deliver=most)


async def _within(seconds: float, tasks: Iterable[asyncio.Future[None]]) -> None:
    """Until all are done; those that are not by then are given up."""
    tasks = list(tasks)
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
