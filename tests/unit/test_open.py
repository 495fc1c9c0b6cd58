"""Engine.open: a running command and its streams."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fastspawn import DEVNULL, STDOUT, Command, Engine, Limits, Process
from support import (
    BOUND,
    async_failure,
    async_poll,
    gone,
    is_alive,
    longer_times,
    run_script,
    same_error,
    sh,
)

MIB = 1024 * 1024


def stdout(process: Process) -> asyncio.StreamReader:
    assert process.stdout is not None
    return process.stdout


def stderr(process: Process) -> asyncio.StreamReader:
    assert process.stderr is not None
    return process.stderr


async def blocks(awaitable: asyncio.Future[Any]) -> None:
    """It does not end as long as nothing else happens."""
    done, _ = await asyncio.wait([awaitable], timeout=0.2)
    assert not done


# ---- streams -------------------------------------------------------------------------------------


async def test_a_dialogue(engine: Engine) -> None:
    process = await engine.open(["cat"])
    assert process.returncode is None
    for i in range(50):
        line = f"line {i}\n".encode()
        process.stdin.write(line)
        await process.stdin.drain()
        assert await stdout(process).readline() == line
    process.stdin.close()
    assert await stdout(process).read() == b""
    assert await process.wait() == 0
    assert process.returncode == 0


async def test_both_outputs(engine: Engine) -> None:
    process = await engine.open(sh('while read x; do echo "out $x"; echo "err $x" >&2; done'))
    for word in (b"one", b"two"):
        process.stdin.write(word + b"\n")
        assert await stdout(process).readline() == b"out " + word + b"\n"
        assert await stderr(process).readline() == b"err " + word + b"\n"
    process.stdin.write_eof()
    assert await process.wait() == 0


async def test_redirections(engine: Engine) -> None:
    text = sh("echo out; echo err >&2")
    process = await engine.open(Command(text, stderr=STDOUT))
    assert process.stderr is None
    assert await stdout(process).read() == b"out\nerr\n"
    await process.wait()
    process = await engine.open(Command(text, stdout=DEVNULL))
    assert process.stdout is None
    assert await stderr(process).read() == b"err\n"
    await process.wait()
    process = await engine.open(Command(text, stdout=DEVNULL, stderr=DEVNULL))
    assert (process.stdout, process.stderr) == (None, None)
    assert await process.wait() == 0


async def test_reading_by_line(engine: Engine) -> None:
    process = await engine.open(["seq", "20000"])
    numbers = [int(line) async for line in stdout(process)]
    assert numbers == list(range(1, 20001))
    assert await process.wait() == 0


async def test_output_of_those_who_stay(engine: Engine, tmp_path: Path) -> None:
    """A background child may write on after the command has ended: until the drain ends."""
    go = tmp_path / "go"
    os.mkfifo(go)
    limits = Limits(drain=BOUND)
    process = await engine.open(
        Command(sh('(read go < "$1"; echo late) & exit 3', go), limits=limits)
    )
    await gone(process.pid)
    await asyncio.sleep(0.05)
    assert process.returncode is None
    go.write_text("go\n")
    result = await process.result()
    assert (result.returncode, result.stdout) == (3, b"late\n")


@pytest.mark.parametrize("size", [1, 65536, 400_000, 450_000, 3_000_000])
@pytest.mark.parametrize("drain", [0, 0.01])
async def test_nothing_is_lost_on_a_slow_reader(engine: Engine, size: int, drain: float) -> None:
    """All that the command wrote itself is kept for it, even with no drain at all."""
    text = 'head -c "$1" /dev/zero; echo written >&2'
    for part in range(0, 60_000, 10_000):
        command = Command(sh(text, size + part), limits=Limits(drain=drain))
        process = await engine.open(command)
        for _ in range(4):
            await asyncio.sleep(0.01)
        assert len(await stdout(process).read()) == size + part
        assert await stderr(process).read() == b"written\n"
        assert await process.wait() == 0


async def test_slow_reader_costs_nothing(engine: Engine) -> None:
    """While the output of a command that has ended waits for its reader, nobody is busy."""
    processes = []
    for size in range(400_000, 520_000, 5_000):
        limits = Limits(drain=0)
        processes.append(await engine.open(Command(sh(f"head -c {size} /dev/zero"), limits=limits)))

    async def idle() -> bool:
        """Those that still write are read, which takes its time; then nothing does."""
        before = time.process_time()
        await asyncio.sleep(0.5)
        return time.process_time() - before < 0.1

    await async_poll(idle, "half a second of which little is used")
    for process in processes:
        await stdout(process).read()
        assert await process.wait() == 0


# ---- stdin ---------------------------------------------------------------------------------------


async def test_no_stdin(engine: Engine) -> None:
    command = sh('cat; test -c /dev/fd/0 && echo "a device"; exec sleep 100')
    process = await engine.open(command, stdin=False)
    with pytest.raises(BrokenPipeError):
        process.stdin.write(b"text")
    assert await stdout(process).readline() == b"a device\n"
    process.kill()
    assert await process.wait() == -signal.SIGKILL


async def test_write_after_close(engine: Engine) -> None:
    process = await engine.open(["cat"])
    process.stdin.write(b"text")
    assert not process.stdin.is_closing()
    process.stdin.close()
    process.stdin.close()
    assert process.stdin.is_closing()
    with pytest.raises(BrokenPipeError):
        process.stdin.write(b"more")
    assert await stdout(process).read() == b"text"
    assert await process.wait() == 0
    with pytest.raises(BrokenPipeError):
        process.stdin.write(b"more")


async def test_write_to_one_that_does_not_read(engine: Engine) -> None:
    """What it does not take is dropped: when it closes its end, and when it has ended."""
    process = await engine.open(sh("exec <&-; echo closed; exec sleep 60"))
    assert await stdout(process).readline() == b"closed\n"
    process.stdin.write(bytes(10 * MIB))
    await asyncio.wait_for(process.stdin.drain(), BOUND)
    process.stdin.write(b"more")
    await process.stdin.drain()
    process.kill()
    assert await process.wait() == -signal.SIGKILL
    process.stdin.write(bytes(10 * MIB))
    await process.stdin.drain()
    process.stdin.close()


async def test_drain_waits_for_the_reader(engine: Engine, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    process = await engine.open(sh('read go < "$1"; wc -c', go))
    process.stdin.write(bytes(2 * MIB))
    drained = asyncio.ensure_future(process.stdin.drain())
    await blocks(drained)
    go.write_text("go\n")
    await asyncio.wait_for(drained, BOUND)
    process.stdin.close()
    assert int(await stdout(process).read()) == 2 * MIB
    assert await process.wait() == 0


async def test_drain_without_need(engine: Engine) -> None:
    process = await engine.open(["sleep", "60"])
    await process.stdin.drain()
    process.stdin.write(b"little")
    await process.stdin.drain()
    process.kill()
    await process.wait()


async def test_cancelled_drain(engine: Engine) -> None:
    """Others who wait for the same are not disturbed."""
    process = await engine.open(["sleep", "60"])
    process.stdin.write(bytes(MIB))
    first, second = (asyncio.ensure_future(process.stdin.drain()) for _ in range(2))
    await blocks(second)
    first.cancel()
    await blocks(second)
    assert first.cancelled()
    process.kill()
    await asyncio.wait_for(second, BOUND)
    await process.wait()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_kinds_of_data(engine: Engine, kind: type) -> None:
    """And each is copied at once."""
    process = await engine.open(["cat"])
    data = bytearray(b"text")
    process.stdin.write(kind(data))
    data[:] = b"gone"
    process.stdin.write(b"")
    with pytest.raises(TypeError):
        process.stdin.write("text")  # type: ignore[arg-type]
    process.stdin.close()
    assert await stdout(process).read() == b"text"
    await process.wait()


# ---- the end -------------------------------------------------------------------------------------


async def test_wait(engine: Engine) -> None:
    """By many, before and after the end."""
    process = await engine.open(sh("read go; exit 3"))
    waiting = [asyncio.ensure_future(process.wait()) for _ in range(3)]
    await blocks(waiting[0])
    waiting[0].cancel()
    await blocks(waiting[1])
    process.stdin.close()
    assert await asyncio.gather(*waiting[1:]) == [3, 3]
    assert await process.wait() == 3


async def test_result(engine: Engine) -> None:
    process = await engine.open(sh("echo one; read go; echo two; echo three >&2; exit 4"))
    assert await stdout(process).readline() == b"one\n"
    process.stdin.write(b"go\n")
    result = await process.result()
    assert (result.stdout, result.stderr, result.returncode) == (b"two\n", b"three\n", 4)
    assert (result.pid, result.args[0]) == (process.pid, "sh")
    assert result.wall > 0
    assert result.rusage.ru_maxrss > 0
    with pytest.raises(subprocess.CalledProcessError):
        result.check_returncode()


async def test_result_of_much(engine: Engine) -> None:
    """It reads, so that the command can end."""
    process = await engine.open(sh("head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2"))
    result = await asyncio.wait_for(process.result(), BOUND)
    assert (len(result.stdout), len(result.stderr)) == (5_000_000, 3_000_000)


async def test_pid_and_repr(engine: Engine) -> None:
    process = await engine.open(sh("echo $$; read go"))
    assert int(await stdout(process).readline()) == process.pid
    assert (
        repr(process)
        == f"<Process ('sh', '-c', 'echo $$; read go', 'sh') pid={process.pid} running>"
    )
    process.stdin.close()
    await process.wait()
    assert "returncode=1>" in repr(process)


async def test_signals(engine: Engine) -> None:
    traps = 'trap "echo usr1" USR1; trap "echo term; exit 5" TERM'
    process = await engine.open(sh(f"{traps}; echo ready; while :; do sleep 0.01; done"))
    assert await stdout(process).readline() == b"ready\n"
    process.send_signal(signal.SIGUSR1)
    assert await stdout(process).readline() == b"usr1\n"
    process.terminate()
    assert await stdout(process).readline() == b"term\n"
    assert await process.wait() == 5
    for send in (process.terminate, process.kill, process.cancel):
        send()  # nothing happens
    assert process.returncode == 5


async def test_kill_is_for_the_command_alone(engine: Engine) -> None:
    process = await engine.open(sh("sleep 60 >/dev/null 2>&1 & echo $!; wait"))
    background = int(await stdout(process).readline())
    process.kill()
    assert await process.wait() == -signal.SIGKILL
    assert is_alive(background)
    os.kill(background, signal.SIGKILL)
    await gone(background)


@pytest.mark.parametrize("number", [0, -1, 65, 1000])
async def test_no_such_signal(engine: Engine, number: int) -> None:
    process = await engine.open(["sleep", "60"])
    process.send_signal(number)
    with pytest.raises(TypeError):
        process.send_signal(9.5)  # type: ignore[arg-type]
    process.kill()
    assert await process.wait() == -signal.SIGKILL


async def test_cancel_ends_the_group(engine: Engine) -> None:
    limits = Limits(kill_grace=0.1)
    text = 'trap "" TERM; sleep 60 >/dev/null 2>&1 & echo $!; wait'
    process = await engine.open(Command(sh(text), limits=limits))
    background = int(await stdout(process).readline())
    process.cancel()
    process.cancel()
    result = await process.result()
    assert (result.returncode, result.cancelled) == (-signal.SIGKILL, True)
    await gone(background)


async def test_cancel_while_nobody_reads(engine: Engine) -> None:
    process = await engine.open(Command(["yes"], limits=Limits(kill_grace=BOUND)))
    await asyncio.sleep(0.1)
    process.cancel()
    assert await asyncio.wait_for(process.wait(), BOUND) == -signal.SIGTERM


async def test_timeout(engine: Engine) -> None:
    for seconds in longer_times():
        limits = Limits(timeout=seconds)
        process = await engine.open(Command(sh("echo hi; exec sleep 60"), limits=limits))
        result = await process.result()
        if result.stdout:
            break
    assert (result.stdout, result.returncode) == (b"hi\n", -signal.SIGTERM)
    assert result.timed_out


async def test_max_output(engine: Engine) -> None:
    process = await engine.open(Command(["yes"], limits=Limits(max_output=1_000_001)))
    result = await process.result()
    assert len(result.stdout) == 1_000_001
    assert (result.truncated, result.returncode) == (True, -signal.SIGTERM)


async def test_context_manager(engine: Engine) -> None:
    async with await engine.open(["sleep", "60"]) as process:
        pid = process.pid
        assert "running" in repr(process)
        assert is_alive(pid)
    assert process.returncode == -signal.SIGTERM
    assert not is_alive(pid)


async def test_context_manager_of_a_body_that_raises(engine: Engine) -> None:
    process = await engine.open(["yes"])

    async def body() -> None:
        async with process:
            await stdout(process).readline()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
    assert process.returncode == -signal.SIGTERM


async def test_context_manager_of_one_that_has_ended(engine: Engine) -> None:
    async with await engine.open(sh("echo hi; exit 3")) as process:
        assert await process.wait() == 3
    assert process.returncode == 3
    assert await stdout(process).read() == b"hi\n"


async def test_missing_program(engine: Engine, tmp_path: Path) -> None:
    path = str(tmp_path / "missing")
    error = await async_failure(engine.open([path]))
    assert same_error(error, FileNotFoundError(2, os.strerror(2), path))


async def test_programs_that_end_at_once(engine: Engine) -> None:
    """The end may come together with the start."""

    async def one(i: int) -> None:
        process = await engine.open(sh("echo $1; exit $1", i))
        assert await stdout(process).read() == f"{i}\n".encode()
        assert await process.wait() == i

    for i in range(0, 200, 20):
        await asyncio.gather(*(one(j) for j in range(i, i + 20)))


# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("case", "mib", "bound"),
    [
        ("both_ways", 300, 16),
        ("slow_reader", 100, 16),
        ("reader_stops", 0, 16),
        ("stubborn_flood", 0, 16),
        ("cancelled_flood", 0, 48),
        ("unread_input", 0, 16),
        ("capped", 0, 16),
    ],
)
def test_memory_is_bounded(case: str, kind: str, mib: int, bound: int) -> None:
    assert int(run_script("memory.py", kind, case, mib)) < bound * MIB
