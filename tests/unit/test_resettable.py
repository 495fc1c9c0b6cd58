"""Resettable pools: workers that hold the command as their child."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import errno
import os
import pickle
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from fastspawn import (
    DEVNULL,
    STDOUT,
    STREAM,
    Command,
    Engine,
    Limits,
    ResettablePool,
    WorkerError,
)
from fastspawn._resettable.protocol import group
from sinks import Sink
from support import BOUND, async_poll, gone, is_alive, longer_times, poll, sh

EXAMPLES = Path(__file__).parents[2] / "examples" / "workers"
WORKERS: dict[str, list[str] | None] = {
    "built-in": None,
    "python": [sys.executable, str(EXAMPLES / "python" / "worker.py")],
}
for runtime in ("node", "bun"):
    if found := shutil.which(runtime):
        WORKERS[runtime] = [found, str(EXAMPLES / runtime / "worker.js")]


@pytest.fixture(params=WORKERS.values(), ids=WORKERS)
def worker(request: pytest.FixtureRequest) -> list[str] | None:
    """The command line of each worker that can be run here."""
    found: list[str] | None = request.param
    return found


def workers(pool: ResettablePool) -> list[int]:
    return [worker.job.pid for worker in pool._workers if worker.job.pid is not None]


def pid_in(path: Path) -> int:
    text = path.read_text() if path.exists() else ""
    return int(text) if text.endswith("\n") else 0


async def test_a_command_runs(worker: list[str] | None) -> None:
    async with ResettablePool(["cat"], size=2, worker=worker) as pool:
        for text in (b"abc", b"", b"12" * 500_000, None):
            result = await pool.run(text)
            assert (result.returncode, result.stdout, result.stderr) == (0, text or b"", b"")
            assert result.pid > 0
            assert result.pid not in workers(pool)
        assert pool.stats["requests"] == 4
        assert pool.stats["died"] == 0


async def test_what_it_is_given(worker: list[str] | None, tmp_path: Path) -> None:
    script = 'pwd; echo "$0|$1|$2|$A|$B"; echo err >&2; exit 7'
    command = Command(
        ["sh", "-c", script, "zero", "", "two words"], cwd=tmp_path,
        env={"A": "x=y", "B": "", "PATH": os.environ["PATH"]},
    )  # fmt: skip
    async with ResettablePool(command, size=1, worker=worker) as pool:
        result = await pool.run()
        assert result.stdout == b"%s\nzero||two words|x=y|\n" % os.fsencode(tmp_path)
        assert (result.returncode, result.stderr) == (7, b"err\n")
        result = await pool.run(args=["-c", "echo $#", "a", "b"], env={"PATH": "/bin:/usr/bin"})
        assert result.stdout == b"1\n"


async def test_how_it_ends(worker: list[str] | None) -> None:
    async with ResettablePool(sh("kill -$1 $$", "KILL"), size=1, worker=worker) as pool:
        assert (await pool.run()).returncode == -signal.SIGKILL
        result = await pool.run(args=["-c", "exit 3"])
        assert result.returncode == 3
        missing = ResettablePool(["./missing"], size=1, worker=worker, engine=pool._engine)
        await missing.start()
        with pytest.raises(FileNotFoundError) as caught:
            await missing.run(b"x")
        assert caught.value.filename == "./missing"
        await missing.close()


async def test_errors_go_where_they_should(worker: list[str] | None) -> None:
    for stderr, out in ((DEVNULL, b"1\n"), (STDOUT, b"1\n2\n")):
        command = Command(sh("echo 1; sleep 0.05; echo 2 >&2"), stderr=stderr)
        async with ResettablePool(command, size=1, worker=worker) as pool:
            assert (await pool.run()).stdout == out


async def test_a_deadline(worker: list[str] | None, tmp_path: Path) -> None:
    """TERM to the whole group, then KILL."""
    script = "(trap '' TERM; echo $$ > $1; echo out; sleep 60) & sleep 60"
    argv = sh(script, tmp_path / "pid")
    for seconds in longer_times():
        command = Command(argv, limits=Limits(timeout=seconds, kill_grace=0.2))
        async with ResettablePool(command, size=1, worker=worker) as pool:
            result = await pool.run()
            assert result.timed_out
            assert result.returncode < 0
            # And the worker is ready for another.
            following = await pool.run(args=["-c", "echo next"])
            assert pool.stats["died"] == 0
        if result.stdout and not following.timed_out:
            break
    assert (result.stdout, following.stdout) == (b"out\n", b"next\n")
    await gone(pid_in(tmp_path / "pid"))


async def test_it_is_reset(worker: list[str] | None, tmp_path: Path) -> None:
    """What a command leaves behind is killed, and never writes into the next one's answer."""
    script = "(while :; do echo mine; sleep 0.001; done) & echo $! > $1; echo first"
    async with ResettablePool(sh(script, tmp_path / "pid"), size=1, worker=worker) as pool:
        result = await pool.run()
        assert set(result.stdout.split()) <= {b"first", b"mine"}
        for i in range(5):
            answer = await pool.run(args=["-c", f"sleep 0.01; echo {i}"])
            assert answer.stdout == b"%d\n" % i
        await gone(pid_in(tmp_path / "pid"))


async def test_input_that_is_not_read(worker: list[str] | None) -> None:
    async with ResettablePool(sh("exec <&-; echo done"), size=1, worker=worker) as pool:
        for _ in range(3):
            result = await pool.run(bytes(1_000_000))
            assert (result.returncode, result.stdout) == (0, b"done\n")
        assert (await pool.run(b"x", args=["-c", "cat"])).stdout == b"x"


async def test_streams_with_backpressure(worker: list[str] | None) -> None:
    async with ResettablePool(["cat"], size=1, worker=worker) as pool:
        sink = Sink()
        job = pool.submit(sink, STREAM)
        job.pause_reading()
        written = 0
        while written < 20_000_000:
            written += 100_000
            if not job.write(b"%-100000d" % written):
                # Until the pipes and the queue are full.
                try:
                    await asyncio.wait_for(sink.drained.wait(), 0.3)
                except (asyncio.TimeoutError, TimeoutError):
                    break
                sink.drained.clear()
        assert written < 10_000_000
        job.resume_reading()
        await sink.drained.wait()
        job.write(b"end")
        job.write_eof()
        ended = await sink.ended
        assert ended.returncode == 0
        expected = b"".join(b"%-100000d" % n for n in range(100_000, written + 1, 100_000))
        assert sink.output == expected + b"end"


async def test_a_slow_reader_can_be_cancelled(worker: list[str] | None) -> None:
    """The worker is held up in its own write, and hears of it all the same."""
    async with ResettablePool(["yes"], size=1, worker=worker) as pool:
        sink = Sink()
        job = pool.submit(sink)
        job.pause_reading()
        await async_poll(lambda: len(sink.output) > 0, "output")
        job.cancel()
        ended = await sink.ended
        assert ended.cancelled
        assert ended.returncode == -signal.SIGTERM
        assert (await pool.run(args=["--help"])).returncode == 0
        assert pool.stats["died"] == 0


async def test_a_worker_is_killed(worker: list[str] | None, tmp_path: Path) -> None:
    """What it ran goes too, its request fails, and there is another."""
    path = tmp_path / "pid"
    async with ResettablePool(sh("echo $$ > $1; sleep 60", path), size=1, worker=worker) as pool:
        sink = Sink()
        job = pool.submit(sink)
        await async_poll(lambda: job.pid and pid_in(path), "it runs")
        (pid,) = workers(pool)
        os.kill(pid, signal.SIGKILL)
        error = (await sink.ended).error
        assert isinstance(error, WorkerError)
        assert "has died" in str(error)
        await gone(pid_in(path))
        assert (await pool.run(args=["-c", "echo on"])).stdout == b"on\n"
        assert (pool.stats["died"], pool.stats["failed"]) == (1, 1)


async def test_closing_ends_what_runs(worker: list[str] | None, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    async with ResettablePool(sh("echo $$ > $1; sleep 60", path), size=1, worker=worker) as pool:
        task = asyncio.create_task(pool.run())
        waiting = asyncio.create_task(pool.run())
        await async_poll(lambda: pid_in(path), "it runs")
    assert (await task).cancelled
    with pytest.raises(RuntimeError):
        await waiting
    await gone(pid_in(path))


async def test_many_at_once(worker: list[str] | None) -> None:
    async with ResettablePool(["cat"], size=3, worker=worker) as pool:
        texts = [b"%d;" % i * (1 + i * 100) for i in range(60)]
        results = await asyncio.gather(*map(pool.run, texts))
        assert [result.stdout for result in results] == texts
        assert len({result.pid for result in results}) == 60


# ---- the pool


def test_workers_are_killed_under_load(run: Run) -> None:
    """Each answer is whole and its own, or an error."""

    async def main() -> None:
        async with ResettablePool(["cat"], size=2) as pool:
            answers = []

            async def one(i: int) -> None:
                text = b"%d;" % i * 5000
                for _ in range(10):
                    try:
                        result = await pool.run(text)
                    except WorkerError:
                        continue
                    assert result.stdout == text
                    answers.append(i)

            tasks = [asyncio.ensure_future(one(i)) for i in range(8)]
            # By answers, not by the clock: on a slow machine that would leave none to give any.
            killed_at = -1
            while not all(task.done() for task in tasks):
                if len(answers) > killed_at:
                    killed_at = len(answers)
                    for pid in workers(pool)[:1]:
                        with contextlib.suppress(ProcessLookupError):  # it was the last one killed
                            os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.01)
            await asyncio.gather(*tasks)
            assert answers
            assert pool.stats["died"] > 0

    run(main())


async def test_a_request_moves_to_another_worker() -> None:
    """Its worker has died, and nobody knows yet."""
    async with ResettablePool(["cat"], size=2) as pool:
        for _ in range(5):
            await async_poll(lambda: pool.stats["idle"] == 2, "both are free")
            pid = pool._idle[-1].job.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            poll(lambda pid=pid: not is_alive(pid), "it has died")
            assert (await pool.run(b"text")).stdout == b"text"
        assert (pool.stats["again"], pool.stats["failed"]) == (5, 0)


async def test_more_requests_than_workers() -> None:
    async with ResettablePool(["cat"], size=1) as pool:
        tasks = [asyncio.create_task(pool.run(b"%d" % i)) for i in range(5)]
        await asyncio.sleep(0)
        assert (pool.stats["waiting"], pool.stats["idle"]) == (4, 0)
        tasks[2].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results.pop(2), asyncio.CancelledError)
        assert [result.stdout for result in results] == [b"0", b"1", b"3", b"4"]  # type: ignore[union-attr]


async def test_output_is_capped() -> None:
    command = Command(["yes"], limits=Limits(max_output=1001, kill_grace=1.0))
    async with ResettablePool(command, size=1) as pool:
        result = await pool.run()
        assert result.truncated
        assert result.stdout == b"y\n" * 500 + b"y"


async def test_a_task_is_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    async with ResettablePool(sh("echo $$ > $1; sleep 60", path), size=1) as pool:
        task = asyncio.create_task(pool.run())
        await async_poll(lambda: pid_in(path), "it runs")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone(pid_in(path))


async def test_who_is_no_worker() -> None:
    with pytest.raises(FileNotFoundError):
        await ResettablePool(["true"], worker=["./missing"]).start()
    with pytest.raises(WorkerError, match="has died"):
        await ResettablePool(["true"], worker=["true"]).start()
    with pytest.raises(WorkerError, match="does not speak"):
        await ResettablePool(["true"], worker=sh("echo hello; cat")).start()
    with pytest.raises(WorkerError, match="say hello"):
        await ResettablePool(["true"], worker=["cat"], start_timeout=0.2).start()


async def test_one_that_lies() -> None:
    """It is killed, and its request is an error."""
    hello = r"printf 'H\0\0\0\0011'; "
    for lie in (r"printf 'S\0\0\0\1x'", r"printf 'O\377\0\0\0'", r"printf 'X\0\0\0\1x'"):
        pool = ResettablePool(["true"], size=1, worker=sh(hello + "read x; " + lie + "; cat"))
        await pool.start()
        sink = Sink()
        job = pool.submit(sink, STREAM)
        job.write(b"\n")
        ended = await sink.ended
        assert isinstance(ended.error, WorkerError)
        await pool.close()


@pytest.mark.parametrize(
    "text", ["0", "1", "-1", "-5", "", "x", "1 ", "0x10", "9999999999", "9" * 30]
)
def test_a_group_that_must_not_be_killed(text: str) -> None:
    """Asked of the check alone: a test of the killing itself would kill who knows what."""
    with pytest.raises(ValueError, match="no process group"):
        group(text.encode())


def test_our_own_is_never_killed() -> None:
    for pid in (os.getpid(), os.getpgrp()):
        with pytest.raises(ValueError, match=str(pid)):
            group(b"%d" % pid)
    assert group(b"2147483646") == 2147483646


async def test_workers_that_all_die() -> None:
    """Requests do not wait for ever, and the pool does not spin."""
    hello = r"printf 'H\0\0\0\0011'; read x"
    async with ResettablePool(["true"], size=1, worker=sh(hello)) as pool:
        troubles = []
        pool.on_trouble = troubles.append
        with pytest.raises(WorkerError):
            await pool.run(b"\n")
        await async_poll(lambda: troubles or pool.stats["idle"], "it was noticed")
        assert pool.stats["died"] < 10


def test_who_is_told_of_it_raises(run: Run) -> None:
    """Requests end all the same."""
    error = ZeroDivisionError("in on_trouble")

    async def main() -> None:
        hello = r"printf 'H\0\0\0\0011'; read x"
        async with ResettablePool(["true"], size=1, worker=sh(hello)) as pool:
            pool.on_trouble = raising(error)
            both = asyncio.gather(pool.run(b"\n"), pool.run(b"\n"), return_exceptions=True)
            for ended in await asyncio.wait_for(both, BOUND):
                assert isinstance(ended, WorkerError)

    run(main())
    assert [context["exception"] for context in run.unhandled] == [error]
    run.unhandled.clear()


def raising(error: BaseException) -> Any:
    def call(*args: object) -> None:
        raise error

    return call


@pytest.mark.parametrize(
    "error", [ValueError("mine"), KeyError("mine")], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("where", ["on_output", "on_errors", "on_exit"])
def test_a_sink_that_raises(run: Run, where: str, error: Exception) -> None:
    """The event loop is told; the worker serves the next one."""

    async def main() -> None:
        async with ResettablePool(sh("cat; echo err >&2"), size=1) as pool:
            sink: Any = Sink()
            setattr(sink, where, raising(error))
            pool.submit(sink, b"in")
            result = await asyncio.wait_for(pool.run(b"next"), BOUND)
            assert (result.stdout, result.stderr) == (b"next", b"err\n")
            assert pool.stats["died"] == 0

    run(main())
    assert [context["exception"] for context in run.unhandled] == [error]
    run.unhandled.clear()


def test_a_sink_that_interrupts(run: Run) -> None:
    """It gets through, and the worker serves the next one."""

    async def main(pool: ResettablePool) -> None:
        await pool.start()
        sink: Any = Sink()
        sink.on_exit = raising(KeyboardInterrupt())
        pool.submit(sink)
        assert (await pool.run(b"next")).stdout == b"next"
        await pool.close()

    pool = ResettablePool(["cat"], size=1)
    task = run.loop.create_task(main(pool))
    with pytest.raises(KeyboardInterrupt):
        run(asyncio.wait_for(asyncio.shield(task), BOUND))
    run(asyncio.wait_for(task, BOUND))
    for other in asyncio.all_tasks(run.loop):
        other.cancel()


async def test_workers_that_all_hang(tmp_path: Path) -> None:
    """Before they say hello, all but the first: requests do not wait for them for ever."""
    once = f"mkdir {tmp_path}/once || exec sleep 600; printf 'H\\0\\0\\0\\0011'; read x"
    worker = sh(once)
    async with ResettablePool(["true"], size=1, worker=worker, start_timeout=60) as pool:
        pool._timeout = 0.05  # the first had long to start
        with pytest.raises(WorkerError):
            await pool.run(b"\n")


async def test_an_engine_that_others_use(engine: Engine) -> None:
    pool = ResettablePool(["cat"], size=2, engine=engine)
    await pool.start()
    pids = workers(pool)
    assert (await pool.run(b"x")).stdout == b"x"
    await pool.close()
    await gone(*pids)
    assert engine.live == 0


async def test_an_engine_that_closes_at_the_start() -> None:
    engine = Engine(1)
    await engine.start()
    start = asyncio.create_task(ResettablePool(["cat"], size=2, engine=engine).start())
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(WorkerError):
        await asyncio.wait_for(start, BOUND)


async def test_an_engine_that_is_closed_first() -> None:
    engine = Engine(1)
    await engine.start()
    pool = ResettablePool(sh("sleep 60"), size=1, engine=engine)
    await pool.start()
    tasks = [asyncio.create_task(pool.run()) for _ in range(2)]
    await async_poll(lambda: pool.stats["waiting"] == 1, "one runs")
    await engine.close()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(ended, RuntimeError) or ended.cancelled  # type: ignore[union-attr]
    await pool.close()
    with pytest.raises(RuntimeError):
        pool.submit(None)


async def test_more_than_a_frame_holds() -> None:
    async with ResettablePool(["true"], size=1) as pool:
        for _ in range(2):
            with pytest.raises(OSError, match="too long") as caught:
                await pool.run(args=["x" * 100_000] * 50)
            assert caught.value.errno == errno.E2BIG
        assert (await pool.run()).returncode == 0
        assert pool.stats["died"] == 0


def test_an_error_goes_to_other_processes() -> None:
    error = WorkerError("it has died")
    error.request = 7  # type: ignore[attr-defined]
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(same) is WorkerError
        assert (str(same), same.errno, same.request) == ("it has died", errno.ECONNRESET, 7)


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ResettablePool(["true"], size=0)
    for options in ({"umask": 0}, {"executable": "true"}, {"start_new_session": True},
                    {"stdout": None}):  # fmt: skip
        with pytest.raises(ValueError, match="a worker knows no"):
            ResettablePool(Command(["true"], **options))  # type: ignore[arg-type]


async def test_its_limits_are_the_workers(worker: list[str] | None) -> None:
    limits = Limits(rlimits={resource.RLIMIT_CORE: (0, 0), resource.RLIMIT_CPU: (7, 9)})
    command = Command(["sh", "-c", "ulimit -St; ulimit -Ht"], limits=limits)
    async with ResettablePool(command, size=1, worker=worker) as pool:
        assert (await pool.run()).stdout == b"7\n9\n"
        with pytest.raises(ValueError, match="those of the workers"):
            pool.submit(Sink(), None, Command(["true"]))
