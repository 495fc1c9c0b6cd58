"""The engine: processes without waiting for them."""

from __future__ import annotations

import asyncio
import atexit
import os
import select
import sys
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fastspawn._command import Command, StrOrBytesPath
from fastspawn._core import STREAM, EngineCore, Job, Plan
from fastspawn._process import Process
from fastspawn._result import Result
from fastspawn._sinks import Run

if TYPE_CHECKING:
    from typing_extensions import Self


# Children must not outlive the program because someone forgot to close an engine.
_running: weakref.WeakSet[Engine] = weakref.WeakSet()


def _stop_all() -> None:
    for engine in list(_running):
        engine._stop()
        engine._free()


atexit.register(_stop_all)
_registered_in = 0
"""The process in which it will be called in multiprocessing's way, too."""


def _stop_at_exit() -> None:
    """A process of multiprocessing may end without atexit: it calls its own finalizers."""
    global _registered_in
    if "multiprocessing.util" in sys.modules and _registered_in != os.getpid():
        from multiprocessing.util import Finalize

        Finalize(None, _stop_all, exitpriority=0)
        _registered_in = os.getpid()


class Engine(EngineCore):
    """Spawner threads for one event loop: an async context manager.

        async with Engine() as engine:
            result = await engine.run(Command(["echo", "hi"]))

    ``spawners`` is the number of threads (by default one for each processor, at most 4; each is
    held while its child executes, and looks after all that it started). They inherit nothing that
    the program opens later, and neither do the children.

    Leaving the context kills what still runs and waits until it is reaped. In a forked child the
    engine does not exist: its methods raise RuntimeError there.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _closed: asyncio.Future[None] | None = None
    """While it is being closed."""
    _fd: int = -1

    def __init__(self, spawners: int | None = None) -> None:
        if spawners is None:
            spawners = max(1, min(4, len(os.sched_getaffinity(0)) if _HAS_AFFINITY else 2))
        if spawners < 1:
            raise ValueError("spawners must be at least 1")
        self._spawners = spawners

    async def start(self) -> None:
        """Start the threads. OSError if the system has no room for them."""
        self._start(asyncio.get_running_loop())

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._fd = self._open(self._spawners)
        self._loop = loop
        loop.add_reader(self._fd, self._drain)
        _running.add(self)
        _stop_at_exit()

    async def close(self) -> None:
        """Kill what runs, let every job end, end the threads. May be called twice.

        If this is cancelled, the engine closes in the background.
        """
        if (loop := self._loop) is not None:
            self.check_running()
            self._loop = None
            self._stop()
            if loop.is_closed():
                self._finish()
                return
            self._closed = loop.create_future()
            for callback in list(self.watching):
                callback()  # who waits for a template waits in vain
            if not self.live:
                self._finish()
        if self._closed is not None:
            await asyncio.shield(self._closed)

    def _end(self) -> None:
        """close() where no loop runs to wait with: what was killed is waited for here."""
        loop, self._loop = self._loop, None
        try:
            self.check_running()
        except RuntimeError:
            return
        self._stop()
        news = select.poll()
        news.register(self._fd, select.POLLIN)
        while self.live:
            news.poll()
            self._drain()
        if loop is not None:
            loop.remove_reader(self._fd)
        self._finish()

    def _finish(self) -> None:
        closed, self._closed = self._closed, None
        if closed is not None:
            closed.get_loop().remove_reader(self._fd)
            closed.set_result(None)
        _running.discard(self)
        self._free()

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

    def _on_quiet(self) -> None:
        if self._closed is not None:
            self._closed.get_loop().call_soon(self._finish)

    def _here(self) -> asyncio.AbstractEventLoop:
        """The running loop, which must be the engine's."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self.check_running()
            raise RuntimeError(
                "the engine is closing"
                if self._loop is None
                else "the engine belongs to another event loop"
            )
        return loop

    def _on_error(self, exc: Exception) -> None:
        if self._loop is None:
            return
        self._loop.call_exception_handler(
            {"message": "Exception in a sink of fastspawn.Engine", "exception": exc}
        )

    async def run(
        self,
        command: Command | Sequence[StrOrBytesPath],
        input: bytes | bytearray | memoryview | None = None,
        *,
        check: bool = False,
    ) -> Result:
        """Run a command to its end and collect its output.

        stdin is ``input``, or /dev/null. A command that exceeds its limits is a Result too
        (timed_out, truncated). If this is cancelled, the command's process group is ended (TERM,
        grace, KILL) in the background.

        Raises what subprocess.run raises for a program that cannot be started (OSError), and
        CalledProcessError for a return code other than 0 with ``check``.
        """
        if not isinstance(command, Command):
            command = Command(command)
        result = await self._collect(command, command.argv, input)
        if check:
            result.check_returncode()
        return result

    async def _collect(
        self,
        plan: Plan,
        argv: Sequence[StrOrBytesPath],
        input: bytes | bytearray | memoryview | None,
    ) -> Result:
        future: asyncio.Future[Job] = self._here().create_future()
        job: Any = self.submit(plan, Run(future), input, stream=False)
        try:
            job = await future
        except asyncio.CancelledError:
            job.cancel()
            raise
        return Result.of(argv, job)

    async def open(
        self, command: Command | Sequence[StrOrBytesPath], *, stdin: bool = True
    ) -> Process:
        """Start a command and stream to and from it.

        Returns when it runs; raises the OSError of a program that cannot be started. Without
        ``stdin`` it reads /dev/null. Memory is bounded however large the output or slow the
        reader: the child waits.
        """
        if not isinstance(command, Command):
            command = Command(command)
        process = Process(self._here(), command)
        process._job = self.submit(
            command, process._sink, STREAM if stdin else None, stream=True, notify=True
        )
        try:
            await process._started
        except asyncio.CancelledError:
            process._abandon()
            raise
        return process


_HAS_AFFINITY = hasattr(os, "sched_getaffinity")
