"""Cancellation anywhere, and engines that are closed, or forgotten, while children live."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from fastspawn import Command, Engine, Limits
from support import BOUND, async_poll, gone, is_alive, often, poll, run_script, sh

QUICK = Limits(kill_grace=0.5)

# ---- at any moment -------------------------------------------------------------------------------

Victim = Callable[[Engine], Awaitable[Any]]


async def a_run(engine: Engine) -> None:
    await engine.run(Command(["sleep", "0.002"], limits=QUICK))


async def a_run_with_input(engine: Engine) -> None:
    await engine.run(Command(["cat"], limits=QUICK), bytes(200_000))


async def a_run_that_stays(engine: Engine) -> None:
    await engine.run(Command(["sleep", "60"], limits=QUICK))


async def a_run_of_nothing(engine: Engine) -> None:
    with contextlib.suppress(FileNotFoundError):
        await engine.run(["/nowhere/program"])


async def an_open(engine: Engine) -> None:
    async with await engine.open(Command(["cat"], limits=QUICK)) as process:
        process.stdin.close()
        await process.wait()


async def a_flood(engine: Engine) -> None:
    async with await engine.open(Command(["yes"], limits=QUICK)) as process:
        assert process.stdout is not None
        while True:
            await process.stdout.read(1 << 16)


async def a_drain(engine: Engine) -> None:
    async with await engine.open(Command(["sleep", "60"], limits=QUICK)) as process:
        process.stdin.write(bytes(1 << 20))
        await process.stdin.drain()


async def a_result(engine: Engine) -> None:
    async with await engine.open(Command(sh("echo hi; sleep 0.003"), limits=QUICK)) as process:
        await process.result()


@pytest.mark.parametrize(
    "victim",
    [
        a_run,
        a_run_with_input,
        a_run_that_stays,
        a_run_of_nothing,
        an_open,
        a_flood,
        a_drain,
        a_result,
    ],
    ids=lambda victim: victim.__name__,
)
async def test_cancelled_at_any_moment(engine: Engine, victim: Victim) -> None:
    """Within 5 ms, 400 times (long: 100,000 over victims and loops): it is cancelled or done, and
    nothing is left."""
    rng = random.Random(victim.__name__)
    cancelled = 0

    async def one() -> None:
        nonlocal cancelled
        task = asyncio.ensure_future(victim(engine))
        await asyncio.sleep(rng.random() * 0.005)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=BOUND)
        assert done, "the cancellation did not get through"
        if task.cancelled():
            cancelled += 1
        else:
            task.result()

    for _ in range(often(50, 800)):
        await asyncio.gather(*(one() for _ in range(8)))
    assert cancelled > 0
    await async_poll(lambda: engine.live == 0, "the cancelled have ended")
    stats = engine.stats
    assert (stats["running"], stats["pending"]) == (0, 0)
    assert (await engine.run(["echo", "hi"])).stdout == b"hi\n"


async def test_cancelled_before_it_starts(engine: Engine) -> None:
    """The command is not run at all."""
    for _ in range(50):
        task = asyncio.ensure_future(engine.run(["touch", "/nowhere/file"]))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert engine.stats["finished"] == 0


async def test_cancelled_while_pending() -> None:
    """One that waits for a spawner never starts."""
    async with Engine(1) as engine:
        tasks = [asyncio.ensure_future(engine.run(["sleep", "60"])) for _ in range(100)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        await async_poll(lambda: engine.live == 0, "all have ended")


async def test_wait_for(engine: Engine) -> None:
    """The command goes when nobody waits for it any more; its group with it."""
    started = asyncio.get_running_loop().time()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(engine.run(["sleep", "60"]), 0.1)
    assert asyncio.get_running_loop().time() - started < BOUND
    await async_poll(lambda: engine.live == 0, "the command has ended")


async def test_cancelled_run_ends_the_group(engine: Engine) -> None:
    text = 'trap "" TERM; sleep 60 & echo $!; echo $$; sleep 60'
    process = await engine.open(Command(sh(text), limits=Limits(kill_grace=0.1)))
    assert process.stdout is not None
    pids = [int(await process.stdout.readline()) for _ in range(2)]
    waiting = asyncio.ensure_future(process.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert all(map(is_alive, pids))  # a wait is no owner
    process.cancel()
    await gone(*pids)
    assert await process.wait() == -signal.SIGKILL


# ---- close ---------------------------------------------------------------------------------------


async def test_close_with_everything_going_on() -> None:
    """Running, pending, streaming and failing commands each come to an end."""
    engine = Engine(1)
    await engine.start()
    flood = await engine.open(["yes"])  # nobody reads
    read = await engine.open(["yes"])
    assert read.stdout is not None
    assert await read.stdout.read(1) == b"y"
    reading = asyncio.ensure_future(_count(read))
    stubborn = await engine.open(sh('trap "" TERM; echo ready; while :; do sleep 1; done'))
    assert stubborn.stdout is not None
    await stubborn.stdout.readline()
    runs = [asyncio.ensure_future(engine.run(["sleep", "60"])) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.wait_for(engine.close(), BOUND)
    assert flood.returncode == stubborn.returncode == -signal.SIGKILL
    await reading
    for outcome in await asyncio.gather(*runs, return_exceptions=True):
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, RuntimeError), outcome
            assert str(outcome) == "the engine was closed before the command ran"
        else:
            assert (outcome.cancelled, outcome.lost) == (True, False)  # none was given up
            assert outcome.returncode == -signal.SIGKILL
    assert engine.live == 0


async def _count(process: Any) -> int:
    size = 0
    while data := await process.stdout.read(1 << 16):
        size += len(data)
    return size


async def test_close_while_opening() -> None:
    """An open() that did not get as far raises; it never returns a command without a process."""
    engine = Engine(1)
    await engine.start()
    opens = [asyncio.ensure_future(engine.open(["sleep", "60"])) for _ in range(50)]
    await asyncio.sleep(0)
    await engine.close()
    for outcome in await asyncio.gather(*opens, return_exceptions=True):
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, RuntimeError), outcome
        else:
            assert outcome.pid > 0
            assert await outcome.wait() == -signal.SIGKILL


async def test_close_check() -> None:
    """What was not run to its end was no success."""
    engine = Engine(1)
    await engine.start()
    runs = [asyncio.ensure_future(engine.run(["sleep", "60"], check=True)) for _ in range(20)]
    await asyncio.sleep(0)
    await engine.close()
    outcomes = await asyncio.gather(*runs, return_exceptions=True)
    assert all(isinstance(outcome, Exception) for outcome in outcomes)


async def test_close_twice() -> None:
    engine = Engine(1)
    await engine.close()
    await engine.start()
    process = await engine.open(["sleep", "60"])
    closes = [asyncio.ensure_future(engine.close()) for _ in range(3)]
    await asyncio.gather(*closes)
    assert process.returncode == -signal.SIGKILL
    await engine.close()


async def test_cancelled_close() -> None:
    """It goes on in the background."""
    engine = Engine(1)
    await engine.start()
    process = await engine.open(["sleep", "60"])
    closing = asyncio.ensure_future(engine.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await asyncio.wait_for(process.wait(), BOUND)
    await engine.close()
    with pytest.raises(RuntimeError, match="not running"):
        await engine.run(["true"])


async def test_close_while_the_body_is_cancelled() -> None:
    pid = 0

    async def body() -> None:
        nonlocal pid
        async with Engine(1) as engine:
            process = await engine.open(["sleep", "60"])
            pid = process.pid
            await process.wait()

    task = asyncio.ensure_future(body())
    await async_poll(lambda: pid, "it runs")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(pid)


async def test_engine_can_start_again() -> None:
    engine = Engine(1)
    for i in range(3):
        async with engine:
            assert (await engine.run(["echo", str(i)])).stdout == f"{i}\n".encode()


# ---- without close -------------------------------------------------------------------------------

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("kind", LOOPS)
def test_forgotten_engine(kind: str) -> None:
    """An idle engine goes with its loop: threads, descriptors (the leak check sees it)."""

    async def use() -> None:
        engine = Engine(2)
        await engine.start()
        assert (await engine.run(["echo", "hi"])).stdout == b"hi\n"

    for _ in range(5):
        loop = LOOPS[kind]()
        loop.run_until_complete(use())
        loop.close()


@pytest.mark.parametrize("kind", LOOPS)
def test_close_after_the_loop(kind: str) -> None:
    """Its loop is closed, with a live child: another one can still close the engine."""
    engine = Engine(1)

    async def use() -> int:
        await engine.start()
        return (await engine.open(["sleep", "60"])).pid

    loop = LOOPS[kind]()
    pid = loop.run_until_complete(use())
    loop.close()
    assert is_alive(pid)
    other = LOOPS[kind]()
    other.run_until_complete(asyncio.wait_for(engine.close(), BOUND))
    other.close()
    poll(lambda: not is_alive(pid), "the child is gone")


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize(
    "how", ["return", "exit", "raise", "loop closed", "forgotten", "thread", "interrupt"]
)
def test_children_do_not_outlive_the_program(kind: str, how: str) -> None:
    """Nobody closes the engine: the program ends at once, and its children with it."""
    started = time.monotonic()
    pids = [int(word) for word in run_script("leave.py", kind, how).split()]
    assert time.monotonic() - started < BOUND  # and not the 60 s that they take
    assert len(pids) == 12
    poll(lambda: not any(map(is_alive, pids)), f"the children {pids} are gone")
