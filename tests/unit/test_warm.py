"""Warm pools: processes started ahead of demand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from conftest import Run
from fastspawn import STREAM, Command, Engine, Job, Limits, WarmPool
from sinks import Sink
from support import BOUND, async_poll, gone, is_alive, longer_times, poll, sh

CAT = ["sh", "-c", 'echo "$$"; cat']
"""Says who it is before its request, and answers with the request."""
PYTHON = [sys.executable, "-c", "import sys; d = sys.stdin.read(); print(d[::-1], end='')"]
REVERSE = """
let d = ''
process.stdin.on('data', c => d += c)
process.stdin.on('end', () => process.stdout.write([...d].reverse().join('')))
"""
NODE = ["node", "-e", REVERSE]
RUNTIMES = [PYTHON] + ([NODE] if shutil.which("node") else [])


def spares(pool: WarmPool) -> list[int]:
    """Those that run."""
    return [spare.job.pid for spare in pool._ready if spare.job.pid is not None]


async def full(pool: WarmPool, size: int) -> list[int]:
    """Wait until there are so many spares, all running."""
    await async_poll(lambda: len(spares(pool)) == size, "there are spares")
    return spares(pool)


def kill(pid: int) -> None:
    """And see it dead, before the event loop can hear of it."""
    os.kill(pid, signal.SIGKILL)
    poll(lambda: not is_alive(pid), "it has died")


@pytest.mark.parametrize("command", RUNTIMES, ids=lambda command: Path(command[0]).name)
async def test_a_request_gets_a_process_that_waited(command: list[str]) -> None:
    async with WarmPool(command) as pool:
        for text in (b"abc", b"", b"12" * 100_000):
            await full(pool, 1)
            result = await pool.run(text)
            assert (result.returncode, result.stdout) == (0, text[::-1])
            assert result.stderr == b""
            assert result.pid > 0
            assert not result.cancelled
        assert pool.stats["warm"] == 3
        assert pool.stats["direct"] == 0


async def test_each_process_serves_once_the_oldest_first() -> None:
    async with WarmPool(CAT, size=2) as pool:
        seen = set()
        for i in range(6):
            first, _ = await full(pool, 2)
            result = await pool.run(b"request %d\n" % i)
            assert result.pid == first
            assert result.stdout == b"%d\nrequest %d\n" % (first, i)
            seen.add(result.pid)
        assert len(seen) == 6


async def test_without_input_it_is_at_its_end() -> None:
    async with WarmPool(CAT) as pool:
        result = await pool.run()
        assert result.stdout == b"%d\n" % result.pid


async def test_errors_are_the_results() -> None:
    async with WarmPool(sh("echo early >&2; read x; echo $x >&2; exit $x")) as pool:
        await full(pool, 1)
        result = await pool.run(b"3\n")
        assert (result.returncode, result.stdout, result.stderr) == (3, b"", b"early\n3\n")
        with pytest.raises(Exception, match="status 4"):
            await pool.run(b"4\n", check=True)


async def test_what_is_written_before_is_kept_and_bounded(tmp_path: Path) -> None:
    """The process waits in its write, and goes on when it is wanted."""
    size, mark = 1_000_000, tmp_path / "mark"
    text = f"head -c {size} /dev/zero; touch '{mark}'; cat"
    async with WarmPool(sh(text)) as pool:
        (pid,) = await full(pool, 1)
        io = Path(f"/proc/{pid}/status")
        if io.exists():
            await async_poll(lambda: pool._ready and not mark.exists(), "it waits")
        result = await pool.run(b"end")
        assert result.stdout == bytes(size) + b"end"
        assert result.pid == pid
        assert mark.exists()


async def test_limits_count_from_the_request() -> None:
    argv = sh("read x; sleep $x; echo done")
    for seconds in longer_times(0.5):  # how long is 0?
        async with WarmPool(Command(argv, limits=Limits(timeout=seconds))) as pool:
            (pid,) = await full(pool, 1)
            await asyncio.sleep(seconds + 0.1)  # longer than a request may take
            assert spares(pool) == [pid]
            result = await pool.run(b"0\n")
            if not result.timed_out:
                break
    assert (result.pid, result.stdout, result.timed_out) == (pid, b"done\n", False)
    assert result.wall <= seconds
    async with WarmPool(Command(argv, limits=Limits(timeout=0.1, kill_grace=BOUND))) as pool:
        await full(pool, 1)
        result = await pool.run(b"60\n")
        assert (result.timed_out, result.returncode) == (True, -signal.SIGTERM)


async def test_output_is_capped() -> None:
    command = Command(sh("read x; yes"), limits=Limits(max_output=1000, kill_grace=0.1))
    async with WarmPool(command) as pool:
        await full(pool, 1)
        result = await pool.run(b"\n")
        assert result.truncated
        assert len(result.stdout) == 1000


async def test_a_burst_is_started_directly_and_more_are_kept() -> None:
    async with WarmPool(CAT, size=1, max_size=3) as pool:
        await full(pool, 1)
        results = await asyncio.gather(*(pool.run(b"r%d" % i) for i in range(20)))
        for i, result in enumerate(results):
            assert result.stdout == b"%d\nr%d" % (result.pid, i)
        assert len({result.pid for result in results}) == 20
        stats = pool.stats
        assert stats["warm"] + stats["direct"] == 20
        assert stats["direct"] >= 17
        assert stats["wanted"] == 3
        await full(pool, 3)


async def test_what_was_not_needed_goes() -> None:
    async with WarmPool(CAT, size=1, max_size=4, max_idle=0.2) as pool:
        await asyncio.gather(*(pool.run() for _ in range(8)))
        assert pool.stats["wanted"] == 4
        await async_poll(lambda: pool.stats["spares"] == pool.stats["wanted"] == 1, "few")
        assert pool.stats["surplus"] == 3


async def test_what_is_needed_stays() -> None:
    async with WarmPool(CAT, size=1, max_size=2, max_idle=0.2) as pool:
        loop = asyncio.get_running_loop()
        end = loop.time() + 1.0
        while loop.time() < end:
            await asyncio.gather(pool.run(), pool.run())
        assert pool.stats["wanted"] == 2
        assert pool.stats["surplus"] == 0


async def test_none_need_be_kept() -> None:
    async with WarmPool(CAT, size=0, max_size=1) as pool:
        assert pool.stats["spares"] == 0
        await pool.run()
        assert pool.stats["direct"] == 1
        await full(pool, 1)


async def test_old_ones_are_replaced() -> None:
    async with WarmPool(CAT, size=2, max_age=0.2) as pool:
        first = await full(pool, 2)
        await async_poll(lambda: pool.stats["aged"] >= 4, "they are replaced, again")
        await gone(*first)
        result = await pool.run(b"x")
        assert result.returncode == 0
        assert pool.stats["died"] == 0


async def test_a_spare_that_dies_is_replaced() -> None:
    async with WarmPool(CAT, size=2) as pool:
        first, second = await full(pool, 2)
        os.kill(first, signal.SIGKILL)
        await async_poll(lambda: pool.stats["died"] == 1, "it was seen to die")
        assert spares(pool)[0] == second
        await async_poll(lambda: pool.stats["spares"] == 2, "there is another")


async def test_a_request_never_meets_a_dead_spare() -> None:
    """Killed in the moment before it is taken, so that nobody can know."""
    async with WarmPool(CAT, size=2, max_size=2) as pool:
        for i in range(20):
            await full(pool, 2)
            for pid in spares(pool)[: 1 + i % 2]:
                kill(pid)
            result = await pool.run(b"request %d" % i)
            assert result.returncode == 0
            assert result.stdout == b"%d\nrequest %d" % (result.pid, i)
            pool._hold_until = 0.0
            pool._refill()
        assert pool.stats["again"] >= 20


async def test_nor_does_one_whose_input_is_still_to_come() -> None:
    async with WarmPool(CAT, max_size=1) as pool:
        for _ in range(5):
            (pid,) = await full(pool, 1)
            kill(pid)
            sink = Sink()
            job = pool.submit(sink, STREAM)
            job.write(b"one ")
            await asyncio.sleep(0)
            job.write(b"two")
            job.write_eof()
            ended = await sink.ended
            assert sink.output == b"%d\none two" % ended.pid
            assert ended.pid != pid
            pool._hold_until = 0.0
            pool._refill()
        assert pool.stats["again"] == 5


async def test_they_all_die_at_once() -> None:
    """The pool does not spin, and requests are answered."""
    async with WarmPool(["echo", "hi"], size=2) as pool:
        troubles = []
        pool.on_trouble = troubles.append
        await async_poll(lambda: troubles, "it was noticed")
        for _ in range(10):
            assert (await pool.run()).stdout == b"hi\n"
        assert pool.stats["direct"] >= 1
        assert pool.stats["died"] < 20
        assert troubles[0].returncode == 0


def test_who_is_told_of_it_raises(run: Run) -> None:
    """Others are started all the same."""
    error = ZeroDivisionError("in on_trouble")

    def fail(job: Job) -> None:
        raise error

    async def main() -> None:
        async with WarmPool(["true"]) as pool:
            pool.on_trouble = fail
            await async_poll(lambda: run.unhandled, "it was told")
            died = pool.stats["died"]
            await async_poll(lambda: pool.stats["died"] > died, "another one was there")

    run(main())
    assert [context["exception"] for context in run.unhandled] == [error]
    run.unhandled.clear()


async def test_other_requests_are_started_directly() -> None:
    async with WarmPool(["sh", "-c", "read x; echo $0 $A $x", "a"]) as pool:
        (pid,) = await full(pool, 1)
        other = await pool.run(b"y\n", args=["-c", "read x; echo $0 $A $x", "b"], env={"A": "1"})
        assert other.stdout == b"b 1 y\n"
        assert spares(pool) == [pid]
        assert (await pool.run(b"z\n")).stdout == b"a z\n"
        assert (pool.stats["other"], pool.stats["warm"], pool.stats["direct"]) == (1, 1, 0)


async def test_output_is_streamed_with_backpressure() -> None:
    size = 3_000_000
    async with WarmPool(["cat"]) as pool:
        await full(pool, 1)
        sink = Sink()
        job = pool.submit(sink, STREAM)
        job.pause_reading()
        written = 0
        while written < size:
            written += 100_000
            if not job.write(bytes(100_000)):
                break
        assert written < size  # the command waits for us, and we for it
        job.resume_reading()
        while written < size:
            written += 100_000
            if not job.write(bytes(100_000)):
                sink.drained.clear()
                await sink.drained.wait()
        job.write_eof()
        await sink.ended
        assert sink.output == bytes(written)


async def test_a_request_is_cancelled(tmp_path: Path) -> None:
    async with WarmPool(sh("read x; echo $$ > $1; sleep 60", tmp_path / "pid")) as pool:
        (pid,) = await full(pool, 1)
        task = asyncio.create_task(pool.run(b"\n"))
        await async_poll((tmp_path / "pid").exists, "it runs")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone(pid)


async def test_an_engine_that_others_use(engine: Engine) -> None:
    pool = WarmPool(CAT, size=2, engine=engine)
    await pool.start()
    pids = await full(pool, 2)
    running = asyncio.create_task(pool.run(b"x"))
    await asyncio.sleep(0)
    await pool.close()
    assert (await running).returncode == 0  # what was asked for is done
    await gone(*pids)
    assert engine.live == 0
    with pytest.raises(RuntimeError):
        await pool.run()


async def test_closing_the_engine_ends_all() -> None:
    async with WarmPool(sh("read x; sleep 60")) as pool:
        (pid,) = await full(pool, 1)
        task = asyncio.create_task(pool.run(b"\n"))
        await async_poll(lambda: pool.stats["spares"] == 1 and spares(pool) != [pid], "it runs")
    assert (await task).cancelled


async def test_an_engine_that_closes_at_the_start() -> None:
    engine = Engine(1)
    await engine.start()
    start = asyncio.create_task(WarmPool(["cat"], size=2, engine=engine).start())
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(RuntimeError):
        await asyncio.wait_for(start, BOUND)


async def test_an_engine_that_is_closed_first() -> None:
    engine = Engine(1)
    await engine.start()
    pool = WarmPool(CAT, size=2, engine=engine)
    await pool.start()
    await engine.close()
    await pool.close()
    assert pool.stats["spares"] == 0
    with pytest.raises(RuntimeError):
        await pool.run()


async def test_a_program_that_is_missing() -> None:
    with pytest.raises(FileNotFoundError):
        await WarmPool(["./missing"]).start()


def test_what_cannot_be() -> None:
    for options in ({"size": -1}, {"size": 2, "max_size": 1}, {"size": 0, "max_size": 0},
                    {"max_age": 0}, {"max_idle": -1}):  # fmt: skip
        with pytest.raises(ValueError, match="must be"):
            WarmPool(["true"], **options)  # type: ignore[arg-type]


def test_two_never_see_each_others_bytes(run: Run) -> None:
    """Many at once, and spares that are killed meanwhile."""

    async def main() -> None:
        async with WarmPool(["cat"], size=2, max_size=4) as pool:

            async def one(i: int) -> None:
                text = b"%d;" % i * 5000
                for _ in range(5):
                    result = await pool.run(text)
                    # One that was killed while it read says so.
                    assert result.returncode == -signal.SIGKILL or result.stdout == text

            tasks = [asyncio.ensure_future(one(i)) for i in range(10)]
            while not all(task.done() for task in tasks):
                for pid in spares(pool)[:1]:
                    with contextlib.suppress(ProcessLookupError):  # it was the last one killed
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.02)
            await asyncio.gather(*tasks)

    run(main())
