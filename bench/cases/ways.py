"""The ways to start `echo hi` and collect its output, without HTTP.

A way is made inside the process that will be measured. ``batch(count, seconds)`` starts up to
*count* processes, or as many as fit *seconds*, checks each output and returns (started, wrong).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Protocol

ARGV = ["echo", "hi"]
EXPECTED = b"hi\n"
Run = Callable[[], Awaitable[bytes]]


class Way(Protocol):
    def batch(self, count: int, seconds: float) -> tuple[int, int]: ...


class Blocking:
    """One process after another on the calling thread."""

    def __init__(self, run: Callable[[], bytes]) -> None:
        self._run = run

    def batch(self, count: int, seconds: float) -> tuple[int, int]:
        deadline = time.monotonic() + seconds
        started = wrong = 0
        while started < count and time.monotonic() < deadline:
            wrong += self._run() != EXPECTED
            started += 1
        return started, wrong


class Concurrent:
    """*width* processes at a time on an event loop."""

    def __init__(self, width: int, start: Callable[[AsyncExitStack], Awaitable[Run]], uv: bool):
        self._width = width
        if uv:
            import uvloop

            self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        else:
            self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._stack = AsyncExitStack()
        self._run = self._loop.run_until_complete(self._as_coroutine(start))

    async def _as_coroutine(self, start: Callable[[AsyncExitStack], Awaitable[Run]]) -> Run:
        return await start(self._stack)

    def batch(self, count: int, seconds: float) -> tuple[int, int]:
        return self._loop.run_until_complete(self._batch(count, seconds))

    def alone(self, count: int, beside: Coroutine[object, object, None]) -> tuple[int, int]:
        """*count* processes one at a time, with *beside* on the same loop meanwhile."""
        return self._loop.run_until_complete(self._alone(count, beside))

    async def _alone(self, count: int, beside: Coroutine[object, object, None]) -> tuple[int, int]:
        task = asyncio.ensure_future(beside)
        wrong = 0
        for _ in range(count):
            wrong += await self._run() != EXPECTED
        task.cancel()
        await asyncio.wait([task])
        return count, wrong

    async def _batch(self, count: int, seconds: float) -> tuple[int, int]:
        deadline = time.monotonic() + seconds
        started = wrong = 0

        async def one_after_another() -> None:
            nonlocal started, wrong
            while started < count and time.monotonic() < deadline:
                started += 1
                wrong += await self._run() != EXPECTED

        await asyncio.gather(*(one_after_another() for _ in range(self._width)))
        return started, wrong


def read_to_end(fd: int) -> bytes:
    """All that comes from *fd*, which is closed."""
    output = b""
    while chunk := os.read(fd, 65536):
        output += chunk
    os.close(fd)
    return output


# ---- fastspawn: the two calls that this benchmark makes into it ------------------------------


def caller_path() -> Callable[[], bytes]:
    """fastspawn's synchronous path: spawned on this thread, read to EOF, reaped, the output."""
    from fastspawn import _core

    plan = _core.Plan(ARGV)

    def run() -> bytes:
        reader, writer = os.pipe()
        try:
            child = _core.spawn(plan, stdout=writer)
        finally:
            os.close(writer)
        output = read_to_end(reader)
        return output if child.wait() == 0 else b""

    return run


def engine(stderr: int | None) -> Callable[[AsyncExitStack], Awaitable[Run]]:
    """fastspawn's asynchronous path, the one that the server uses."""

    async def start(stack: AsyncExitStack) -> Run:
        import fastspawn

        running = await stack.enter_async_context(fastspawn.Engine())
        command = fastspawn.Command(ARGV, stderr=stderr)

        async def run() -> bytes:
            result = await running.run(command)
            return result.stdout if result.returncode == 0 else b""

        return run

    return start


def template(reset: bool) -> Callable[[AsyncExitStack], Awaitable[Run]]:
    """A fork from before the first effect, or one that puts itself back to there."""

    async def start(stack: AsyncExitStack) -> Run:
        import fastspawn

        command = fastspawn.Command(ARGV, stderr=None)
        once = fastspawn.Template(command, size=1, at="effect", reset=reset)
        try:
            running = await stack.enter_async_context(once)
        except fastspawn.TemplateError as error:
            raise NotImplementedError(str(error)) from None
        for _ in range(1_000):
            if not reset or running.stats["resets"]:
                break
            if running.not_reset:
                raise NotImplementedError(running.not_reset)
            await running.run()
        else:
            raise NotImplementedError("1,000 runs, and no process was put back")

        async def run() -> bytes:
            result = await running.run()
            return result.stdout if result.returncode == 0 and not running.not_reset else b""

        return run

    return start


async def aio_exec(_: AsyncExitStack) -> Run:
    """create_subprocess_exec below with our function."""
    from fastspawn import aio

    async def run() -> bytes:
        process = await aio.create_subprocess_exec(*ARGV, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        return output if process.returncode == 0 else b""

    return run


async def aio_run(_: AsyncExitStack) -> Run:
    """The short form, on the loop's own engine."""
    from fastspawn import aio

    async def run() -> bytes:
        result = await aio.run(ARGV, stderr=None)
        return result.stdout if result.returncode == 0 else b""

    return run


# ---- the standard library and uvloop ---------------------------------------------------------


def subprocess_run() -> bytes:
    return subprocess.run(ARGV, stdout=subprocess.PIPE, check=True).stdout


def subprocess_run_output() -> bytes:
    return subprocess.run(ARGV, capture_output=True, check=True).stdout


def fastspawn_run() -> Callable[[], bytes]:
    """subprocess.run's drop-in, with one pipe."""
    import fastspawn

    return lambda: bytes(fastspawn.run(ARGV, stdout=subprocess.PIPE, check=True).stdout)


def fastspawn_run_output() -> Callable[[], bytes]:
    """The same with two."""
    import fastspawn

    return lambda: bytes(fastspawn.run(ARGV, capture_output=True, check=True).stdout)


def posix_spawn() -> Callable[[], bytes]:
    """`os.posix_spawn` by hand, with the path resolved once."""
    path = shutil.which(ARGV[0])
    assert path is not None

    def run() -> bytes:
        reader, writer = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
        pid = os.posix_spawn(path, ARGV, os.environ, file_actions=actions)
        os.close(writer)
        output = read_to_end(reader)
        _, status = os.waitpid(pid, 0)
        return output if status == 0 else b""

    return run


async def create_subprocess_exec(_: AsyncExitStack) -> Run:
    async def run() -> bytes:
        process = await asyncio.create_subprocess_exec(*ARGV, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        return output if process.returncode == 0 else b""

    return run


WAYS: dict[str, tuple[str, Callable[[], Way]]] = {
    "engine-1": (
        "fastspawn `Engine.run`, one at a time, on uvloop",
        lambda: Concurrent(1, engine(None), uv=True),
    ),
    "engine-1-output": (
        "the same with stderr collected, too (a second pipe)",
        lambda: Concurrent(1, engine(subprocess.PIPE), uv=True),
    ),
    "engine-30": (
        "fastspawn `Engine.run`, 30 at a time, on uvloop",
        lambda: Concurrent(30, engine(None), uv=True),
    ),
    "template-1": (
        "fastspawn `Template.run`: a fork from before the first effect, one at a time, on uvloop",
        lambda: Concurrent(1, template(reset=False), uv=True),
    ),
    "template-reset-1": (
        "the same with `reset=True`: one process that puts itself back, whose CPU is in no column",
        lambda: Concurrent(1, template(reset=True), uv=True),
    ),
    "aio-exec-30": (
        "`fastspawn.aio.create_subprocess_exec`, 30 at a time, on asyncio",
        lambda: Concurrent(30, aio_exec, uv=False),
    ),
    "aio-exec-uvloop-30": (
        "the same on uvloop",
        lambda: Concurrent(30, aio_exec, uv=True),
    ),
    "aio-run-30": (
        "`fastspawn.aio.run`, 30 at a time, on asyncio",
        lambda: Concurrent(30, aio_run, uv=False),
    ),
    "caller": (
        "fastspawn on the caller's thread, with a pipe made by hand",
        lambda: Blocking(caller_path()),
    ),
    "posix-spawn": (
        "`os.posix_spawn` by hand, path resolved once",
        lambda: Blocking(posix_spawn()),
    ),
    "fastspawn-run": (
        "`fastspawn.run(argv, stdout=PIPE)`",
        lambda: Blocking(fastspawn_run()),
    ),
    "fastspawn-run-output": (
        "`fastspawn.run(argv, capture_output=True)`",
        lambda: Blocking(fastspawn_run_output()),
    ),
    "subprocess-run": (
        "`subprocess.run(argv, stdout=PIPE)`",
        lambda: Blocking(subprocess_run),
    ),
    "subprocess-run-output": (
        "`subprocess.run(argv, capture_output=True)`",
        lambda: Blocking(subprocess_run_output),
    ),
    "asyncio-30": (
        "`asyncio.create_subprocess_exec`, 30 at a time",
        lambda: Concurrent(30, create_subprocess_exec, uv=False),
    ),
    "uvloop-30": (
        "`asyncio.create_subprocess_exec` on uvloop, 30 at a time",
        lambda: Concurrent(30, create_subprocess_exec, uv=True),
    ),
}
