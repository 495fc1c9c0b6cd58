"""Cancellation at each point where a coroutine waits, one after the other: it gets through, and
nothing is left (conftest.py looks for descriptors, threads and children)."""

from __future__ import annotations

import asyncio
import types
from asyncio.subprocess import PIPE
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

from conftest import Run
from fastspawn import Command, Engine, Limits, ResettablePool, Template, WarmPool, aio
from support import BOUND, async_poll, own_children

QUICK = Limits(kill_grace=0.1)
CAT = Command(["cat"], limits=QUICK)
MOST = 1000
"""Points that no victim has."""


class Drive:
    """Awaits a coroutine, and cancels the task where that waits for the ``at``-th time;
    ``again``: and where it waits next, to clean up."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], at: int, *, again: bool) -> None:
        self._coroutine = coroutine
        self._points = range(at, at + 1 + again)
        self.seen = 0
        """Times that it waited."""

    @types.coroutine
    def run(self) -> Generator[Any, Any, None]:
        step: Callable[[Any], Any] = self._coroutine.send
        value: Any = None
        while True:
            try:
                awaited = step(value)
            except StopIteration:
                return
            self.seen += 1
            if self.seen in self._points:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                value = yield awaited
                step = self._coroutine.send
            except BaseException as error:
                step, value = self._coroutine.throw, error


async def a_run() -> None:
    async with Engine(1) as engine:
        assert (await engine.run(CAT, b"hi")).stdout == b"hi"


async def a_run_with_much(size: int = 1 << 20) -> None:
    async with Engine(1) as engine:
        assert len((await engine.run(CAT, bytes(size))).stdout) == size


async def an_open() -> None:
    async with Engine(1) as engine, await engine.open(CAT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(bytes(1 << 20))
        reading = asyncio.ensure_future(process.stdout.read())
        try:
            await process.stdin.drain()
            process.stdin.close()
            assert len(await reading) == 1 << 20
            assert await process.wait() == 0
        finally:
            reading.cancel()


async def a_subprocess() -> None:
    process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    try:
        assert (await process.communicate(b"hi"))[0] == b"hi"
    except BaseException:
        process.kill()
        await asyncio.shield(process.wait())
        raise


async def a_shell() -> None:
    process = await aio.create_subprocess_shell("exec cat", stdin=PIPE, stderr=PIPE)
    try:
        await process.communicate(b"hi")
    except BaseException:
        process.kill()
        await asyncio.shield(process.wait())
        raise


async def a_short_run() -> None:
    assert (await aio.run(["cat"], input=b"hi")).stdout == b"hi"


async def a_template(**options: Any) -> None:
    async with Template(CAT, start_timeout=BOUND, **options) as template:
        for _ in range(2):
            assert (await template.run(input=b"hi")).stdout == b"hi"


async def a_template_at_the_effect() -> None:
    await a_template(at="effect")


async def a_template_that_is_reset() -> None:
    await a_template(at="effect", reset=True)


async def a_warm_pool() -> None:
    async with Engine(1) as engine, WarmPool(CAT, size=2, engine=engine) as pool:
        assert (await pool.run(b"hi")).stdout == b"hi"


async def a_pool_of_workers() -> None:
    async with ResettablePool(CAT, size=2, start_timeout=BOUND) as pool:
        assert (await pool.run(b"hi")).stdout == b"hi"


VICTIMS: list[Callable[[], Coroutine[Any, Any, None]]] = [
    a_run,
    a_run_with_much,
    an_open,
    a_subprocess,
    a_shell,
    a_short_run,
    a_template,
    a_template_at_the_effect,
    a_template_that_is_reset,
    a_warm_pool,
    a_pool_of_workers,
]


@pytest.mark.parametrize("again", [False, True], ids=["once", "again"])
@pytest.mark.parametrize("victim", VICTIMS, ids=lambda victim: victim.__name__)
def test_cancelled_at_each_point(
    run: Run, victim: Callable[[], Coroutine[Any, Any, None]], *, again: bool
) -> None:
    for at in range(1, MOST):
        drive = Drive(victim(), at, again=again)
        if not run(cancelled(drive, at)):
            assert at > 1
            return
    pytest.fail("it waits without end")


async def cancelled(drive: Drive, at: int) -> bool:
    """False: it was done before."""
    task = asyncio.ensure_future(wrapped(drive))
    done, _ = await asyncio.wait([task], timeout=BOUND)
    assert done, f"the cancellation at point {at} did not get through"
    if drive.seen < at:
        task.result()
        return False
    assert task.cancelled(), task.exception()
    # What was cancelled a second time ends in the background.
    await async_poll(lambda: not own_children(), "its processes have ended")
    return True


async def wrapped(drive: Drive) -> None:
    await drive.run()
