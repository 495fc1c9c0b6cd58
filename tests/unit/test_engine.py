"""The engine itself: its life, its sinks, many of them, and many commands."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import uvloop

import needs
from conftest import Run
from fastspawn import STREAM, Command, Engine, Job, Template
from support import (
    BOUND,
    LINUX,
    async_failure,
    async_poll,
    often,
    own_threads,
    poll,
    run_script,
    same_error,
    sh,
)


class Sink:
    """Keeps what it hears, and raises what it is told to."""

    def __init__(self, **raises: BaseException) -> None:
        self.heard: list[str] = []
        self.output = b""
        self.job: Job | None = None
        self.raises = raises

    def hear(self, what: str) -> None:
        self.heard.append(what)
        if what in self.raises:
            raise self.raises[what]

    async def end(self) -> None:
        await async_poll(lambda: self.job, "it has ended")

    def on_start(self, job: Job) -> None:
        assert job.pid is not None
        assert job.returncode is None
        self.hear("start")

    def on_output(self, data: bytes) -> None:
        self.output += data
        self.hear("output")

    def on_errors(self, data: bytes) -> None:
        self.output += data
        self.hear("errors")

    def on_drain(self) -> None:
        self.hear("drain")

    def on_exit(self, job: Job) -> None:
        self.job = job
        self.output += job.output + job.errors
        self.hear("exit")


def finished(engine: Engine, count: int) -> None:
    """Wait, with the loop standing still, until so many jobs have ended."""
    poll(lambda: engine.stats["finished"] >= count, f"{count} jobs have ended")


# ---- its life ------------------------------------------------------------------------------------


async def test_start_twice(engine: Engine) -> None:
    with pytest.raises(RuntimeError, match="running already"):
        await engine.start()
    assert (await engine.run(["echo", "hi"])).stdout == b"hi\n"


async def test_before_start() -> None:
    engine = Engine()
    with pytest.raises(RuntimeError, match="not running"):
        await engine.run(["true"])
    with pytest.raises(RuntimeError, match="not running"):
        await engine.open(["true"])
    with pytest.raises(RuntimeError, match="not running"):
        engine.submit(Command(["true"]), Sink())
    assert (engine.stats, engine.live) == ({}, 0)


async def test_after_close() -> None:
    async with Engine(1) as engine:
        await engine.run(["true"])
        process = await engine.open(["cat"])
    for call in (engine.run, engine.open):
        with pytest.raises(RuntimeError, match="not running"):
            await call(["true"])
    with pytest.raises(RuntimeError, match="not running"):
        engine.submit(Command(["true"]), Sink())
    # What its jobs are asked to do has no effect.
    process.stdin.write(b"text")
    await process.stdin.drain()
    process.stdin.close()
    process.kill()
    process.cancel()
    assert engine.stats == {}


async def test_while_closing() -> None:
    engine = Engine(1)
    await engine.start()
    await engine.open(["sleep", "60"])
    closing = asyncio.ensure_future(engine.close())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="closing"):
        await engine.run(["true"])
    with pytest.raises(RuntimeError, match="closing"):
        engine.submit(Command(["true"]), Sink())
    await closing


@pytest.mark.parametrize("spawners", [0, -1])
def test_no_spawners(spawners: int) -> None:
    with pytest.raises(ValueError, match="spawners must be at least 1"):
        Engine(spawners)


@pytest.mark.parametrize("spawners", [None, 1, 3, 8])
async def test_spawners(spawners: int | None) -> None:
    before = len(own_threads())
    async with Engine(spawners) as engine:
        expected = spawners or max(1, min(4, os.cpu_count() or 1))
        assert engine.stats["spawners"] <= expected
        if spawners:
            assert engine.stats["spawners"] == spawners
        if LINUX:
            assert len(own_threads()) - before == engine.stats["spawners"]
            assert engine.stats["private_tables"] == engine.stats["spawners"]
        runs = [engine.run(["echo", str(i)]) for i in range(20)]
        for i, result in enumerate(await asyncio.gather(*runs)):
            assert result.stdout == f"{i}\n".encode()


async def test_stats(engine: Engine) -> None:
    assert engine.stats == {
        "started": 0,
        "finished": 0,
        "retried": 0,
        "running": 0,
        "pending": 0,
        "spawners": 2,
        "private_tables": 2 if LINUX else 0,
    }
    for _ in range(3):
        await engine.run(["true"])
    async with await engine.open(["cat"]):
        stats = engine.stats
        assert engine.live == 1
    assert (stats["started"], stats["finished"], stats["running"]) == (4, 3, 1)
    assert (engine.stats["finished"], engine.stats["running"], engine.live) == (4, 0, 0)


@needs.templates
async def test_who_watches_templates_hears_nothing_of_jobs(engine: Engine) -> None:
    looks: list[int] = []
    engine.watching.add(lambda: looks.append(1))
    for _ in range(20):
        await engine.run(Command(["echo", "a"]))
    assert not looks
    async with Template(["echo", "a"], engine=engine):
        assert looks


async def test_another_loop(engine: Engine) -> None:
    """An engine belongs to the loop that it was started on."""

    def elsewhere() -> list[Exception]:
        async def use() -> list[Exception]:
            return [await async_failure(call(["true"])) for call in (engine.run, engine.open)]

        return asyncio.run(use())

    for error in await asyncio.to_thread(elsewhere):
        assert same_error(error, RuntimeError("the engine belongs to another event loop"))


# ---- sinks ---------------------------------------------------------------------------------------


async def test_sink(run: Run, engine: Engine) -> None:
    sink = Sink()
    job = engine.submit(Command(sh("read x; echo $x; sleep 0.05")), sink, STREAM, notify=True)
    assert (job.pid, job.returncode, job.error) == (None, None, None)
    assert job.write(b"text\n")
    assert not job.write(bytes(1 << 20))
    job.write_eof()
    with pytest.raises(BrokenPipeError):
        job.write(b"more")
    await sink.end()
    assert sink.job is job
    assert sink.output == b"text\n"
    assert sink.heard[0] == "start"
    assert sink.heard[-1] == "exit"
    assert set(sink.heard[1:-1]) <= {"output", "drain"}
    assert (job.returncode, job.error, job.lost) == (0, None, False)


async def test_sink_without_a_stream(engine: Engine) -> None:
    """One call, and everything is in the job."""
    sink = Sink()
    job = engine.submit(Command(sh("echo out; echo err >&2")), sink, stream=False)
    await sink.end()
    assert sink.heard == ["exit"]
    assert (job.output, job.errors) == (b"out\n", b"err\n")


async def test_sink_of_one_that_cannot_start(engine: Engine) -> None:
    sink = Sink()
    job = engine.submit(Command(["/nowhere/program"]), sink, notify=True)
    await sink.end()
    assert sink.heard == ["exit"]
    assert isinstance(job.error, FileNotFoundError)
    assert (job.pid, job.returncode, job.rusage) == (None, None, None)


def test_a_job_keeps_what_it_needs(run: Run, engine: Engine) -> None:
    """Nothing of it has to be kept by whoever submits it."""
    sinks = [Sink() for _ in range(50)]
    for i, sink in enumerate(sinks):
        engine.submit(Command(["cat"]), sink, b"%d" % i * 1000)
    gc.collect()
    finished(engine, 50)
    run(asyncio.sleep(0.01))
    assert [sink.output for sink in sinks] == [b"%d" % i * 1000 for i in range(50)]


@pytest.mark.parametrize("where", ["start", "output", "errors", "drain", "exit"])
async def test_sink_that_raises(run: Run, engine: Engine, where: str) -> None:
    """The loop's exception handler hears of it, and everything else goes on."""
    error = ZeroDivisionError("in the sink")
    bad, good = Sink(**{where: error}), Sink()
    command = Command(sh("read x; echo out; echo err >&2; head -c $x >/dev/null; cat; echo more"))
    size = 1 << 20
    jobs = [engine.submit(command, sink, STREAM, notify=True) for sink in (bad, good)]
    for sink, job in zip((bad, good), jobs, strict=True):
        assert not job.write(b"%d\n" % size + bytes(size))
        # What comes just before the end is told with it.
        await async_poll(lambda sink=sink: {"output", "errors", "drain"} <= {*sink.heard}, "all")
        job.write_eof()
    await bad.end()
    await good.end()
    assert where in bad.heard
    for sink in (bad, good):
        assert {"start", "output", "errors", "drain", "exit"} == set(sink.heard)
        assert sorted(sink.output.split()) == [b"err", b"more", b"out"]
    assert {context["exception"] for context in run.unhandled} == {error}
    assert "sink" in run.unhandled[0]["message"]
    assert len(run.unhandled) == bad.heard.count(where)
    run.unhandled.clear()
    assert engine.live == 0


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3)], ids=lambda e: type(e).__name__
)
def test_sink_that_interrupts(run: Run, engine: Engine, error: BaseException) -> None:
    """It gets through, once all that came with it has been told."""
    sinks = [Sink(exit=error), *(Sink() for _ in range(5))]

    for sink in sinks:
        engine.submit(Command(["echo", "hi"]), sink, stream=False)
    finished(engine, len(sinks))
    with pytest.raises(type(error)):
        run(asyncio.sleep(BOUND))
    assert [sink.heard for sink in sinks] == [["exit"]] * len(sinks)
    assert engine.live == 0
    # The sleep is still there.
    for task in asyncio.all_tasks(run.loop):
        task.cancel()
    run(asyncio.sleep(0))


async def test_sink_that_lacks_methods(run: Run, engine: Engine) -> None:
    """The AttributeError is told, the job still ends."""
    engine.submit(Command(["echo", "hi"]), object(), stream=False)
    await async_poll(lambda: engine.live == 0, "it has ended")
    assert [type(context["exception"]) for context in run.unhandled] == [AttributeError]
    run.unhandled.clear()


async def test_sink_that_submits(engine: Engine) -> None:
    """From within on_exit, again and again."""
    done = asyncio.get_running_loop().create_future()

    class Chain:
        left = 50

        def on_exit(self, job: Job) -> None:
            self.left -= 1
            if self.left:
                engine.submit(Command(["true"]), self)
            else:
                done.set_result(job.returncode)

    engine.submit(Command(["true"]), Chain())
    assert await asyncio.wait_for(done, BOUND) == 0


async def test_pause_and_resume(engine: Engine) -> None:
    """A sink that takes no more gets no more than the window."""
    sink = Sink()
    job = engine.submit(Command(["head", "-c", "3000000", "/dev/zero"]), sink)
    job.pause_reading()
    await async_poll(lambda: sink.output, "the first output")
    await asyncio.sleep(0.2)
    held = len(sink.output)
    assert held <= 512 * 1024
    assert "exit" not in sink.heard
    job.resume_reading()
    await sink.end()
    assert len(sink.output) == 3_000_000


# ---- several -------------------------------------------------------------------------------------


async def test_several_engines(engine: Engine) -> None:
    async with Engine(1) as one, Engine(2) as two:
        runs = [e.run(["echo", str(i)]) for i in range(20) for e in (engine, one, two)]
        results = await asyncio.gather(*runs)
    assert [int(result.stdout) for result in results] == [i for i in range(20) for _ in range(3)]


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_engines_in_threads(make: Any) -> None:
    """Each with a loop of its own."""
    right = []

    async def use(me: int) -> None:
        async with Engine(1) as engine:
            for i in range(50):
                result = await engine.run(["cat"], f"{me} {i}".encode())
                assert result.stdout == f"{me} {i}".encode()
        right.append(me)

    def main(me: int) -> None:
        loop = make()
        loop.run_until_complete(use(me))
        loop.close()

    threads = [threading.Thread(target=main, args=[i]) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert sorted(right) == list(range(6))


def test_many_loops() -> None:
    """Started and closed again and again."""
    for make in (asyncio.new_event_loop, uvloop.new_event_loop) * often(50, 5000):
        loop = make()

        async def use() -> None:
            async with Engine(1) as engine:
                assert (await engine.run(["echo", "hi"])).stdout == b"hi\n"

        loop.run_until_complete(use())
        loop.close()


# ---- many ----------------------------------------------------------------------------------------


async def test_many_runs(engine: Engine) -> None:
    """Ten thousand over both loops, thirty at a time, each with its own answer."""
    times = often(5000, 500_000)
    numbers = iter(range(times))

    async def client() -> None:
        for i in numbers:
            result = await engine.run(["echo", str(i)])
            assert result.stdout == b"%d\n" % i
            assert result.returncode == 0

    await asyncio.gather(*(client() for _ in range(30)))
    stats = engine.stats
    assert (stats["finished"], stats["running"], stats["pending"]) == (times, 0, 0)
    assert engine.live == 0


async def test_many_at_once() -> None:
    """More than run at a time: 300 live children."""
    many = often(300, 1000)
    async with Engine(2) as engine:
        processes = await asyncio.gather(*(engine.open(["cat"]) for _ in range(many)))
        assert len({process.pid for process in processes}) == many
        for i, process in enumerate(processes):
            process.stdin.write(b"%d" % i)
            process.stdin.close()
        for i, process in enumerate(processes):
            assert (await process.result()).stdout == b"%d" % i


async def test_the_loop_is_not_held_up(engine: Engine, tmp_path: Path) -> None:
    """Submitting costs the loop no wait, whatever the commands do."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    runs = [asyncio.ensure_future(engine.run(sh(': < "$1"', gate))) for _ in range(200)]
    await asyncio.sleep(0)
    # All have been submitted, and none can have ended.
    assert not any(run.done() for run in runs)
    out = os.open(gate, os.O_RDWR)
    try:
        results = await asyncio.gather(*runs)
    finally:
        os.close(out)
    assert [result.returncode for result in results] == [0] * 200


# ---- fork ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_fork(kind: str) -> None:
    """The engine stays with the parent; the child can make one of its own."""
    assert run_script("forks.py", kind) == "ok\n"


# ---- scarcity ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_too_few_descriptors(kind: str) -> None:
    """RLIMIT_NOFILE leaves each number of free descriptors: an error or a result, then all is
    well again."""
    assert run_script("emfile.py", kind) == "ok\n"


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_too_many_processes(kind: str) -> None:
    """RLIMIT_NPROC, which the superuser does not feel."""
    assert run_script("nproc.py", kind) == "ok\n"


@pytest.mark.skipif(not LINUX, reason="macOS bounds no address space")
def test_no_memory_for_the_answer() -> None:
    """Of which the engine has one and Python shall have another; the engine goes on."""
    assert run_script("bounded.py") == "no memory\nb'next\\n' 0\n"
