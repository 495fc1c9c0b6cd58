"""Limits: how a command that takes too long, or says too much, is ended."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from fastspawn import DEVNULL, STDOUT, Command, Engine, Limits
from support import (
    BOUND,
    gone,
    is_alive,
    longer_times,
    remembers,
    remembers_at_once,
    run_script,
    sh,
)

SHORT = Limits(timeout=0.05, kill_grace=BOUND)

# Ends on no signal but KILL; children of the shell ignore what it ignores.
STUBBORN = 'trap "" TERM HUP INT; echo ready; while :; do sleep 1; done'


# ---- time ----------------------------------------------------------------------------------------


async def test_timeout(engine: Engine) -> None:
    result = await engine.run(Command(["sleep", "60"], limits=Limits(timeout=0.05)))
    assert (result.returncode, result.timed_out) == (-signal.SIGTERM, True)
    assert 0.05 <= result.wall < BOUND
    assert (result.truncated, result.cancelled, result.lost) == (False, False, False)
    assert result.pid > 0


async def test_in_time(engine: Engine) -> None:
    result = await engine.run(Command(["echo", "hi"], limits=Limits(timeout=BOUND)))
    assert (result.returncode, result.stdout, result.timed_out) == (0, b"hi\n", False)


async def test_output_before_the_timeout_is_kept(engine: Engine) -> None:
    text = sh("echo out; echo err >&2; exec sleep 60")
    for seconds in longer_times():
        result = await engine.run(Command(text, limits=Limits(timeout=seconds)))
        if result.stderr:
            break
    assert (result.stdout, result.stderr, result.timed_out) == (b"out\n", b"err\n", True)


async def test_term_is_a_chance_to_clean_up(engine: Engine) -> None:
    text = 'trap "echo cleaned up; exit 3" TERM; echo ready; while :; do sleep 0.01; done'
    for seconds in longer_times():
        limits = Limits(timeout=seconds, kill_grace=BOUND)
        result = await engine.run(Command(sh(text), limits=limits))
        if result.stdout:
            break
    assert (result.returncode, result.timed_out) == (3, True)
    assert result.stdout == b"ready\ncleaned up\n"


async def test_kill_when_term_is_ignored(engine: Engine) -> None:
    for seconds in longer_times():
        limits = Limits(timeout=seconds, kill_grace=0.1)
        result = await engine.run(Command(sh(STUBBORN), limits=limits))
        if result.stdout:
            break
    assert (result.returncode, result.timed_out) == (-signal.SIGKILL, True)
    assert result.stdout == b"ready\n"
    assert seconds + 0.1 <= result.wall


async def test_no_grace(engine: Engine) -> None:
    """With a grace of 0 there is no TERM."""
    text = 'trap "echo cleaned up; exit 3" TERM; echo ready; while :; do sleep 0.01; done'
    for seconds in longer_times():
        result = await engine.run(Command(sh(text), limits=Limits(timeout=seconds, kill_grace=0)))
        if result.stdout:
            break
    assert (result.returncode, result.stdout) == (-signal.SIGKILL, b"ready\n")


@pytest.mark.parametrize("ignores", ["", 'trap "" TERM;'], ids=["meek", "stubborn"])
async def test_the_whole_group_goes(engine: Engine, ignores: str) -> None:
    """Children and grandchildren of the command, too."""
    text = f'{ignores} sleep 60 & sh -c "sleep 60 & echo \\$!; wait" & echo $!; wait'
    for seconds in longer_times():
        limits = Limits(timeout=seconds, kill_grace=0.1)
        result = await engine.run(Command(sh(text), limits=limits))
        pids = [int(line) for line in result.stdout.split()]
        await gone(*pids)
        if len(pids) == 2:
            break
    assert len(pids) == 2


async def test_group_goes_also_when_the_leader_obeys(engine: Engine) -> None:
    """The leader ends on TERM, a child of its does not: that one is killed."""
    text = '(trap "" TERM; sh -c "echo \\$\\$; exec sleep 60") & sleep 60'
    for seconds in longer_times():
        limits = Limits(timeout=seconds, kill_grace=0.1, drain=0)
        result = await engine.run(Command(sh(text), limits=limits))
        if result.stdout:
            break
    assert result.timed_out
    await gone(int(result.stdout))


async def test_stopped_command_is_ended(engine: Engine) -> None:
    limits = Limits(timeout=0.1, kill_grace=BOUND)
    result = await engine.run(Command(sh("kill -STOP $$; echo went on"), limits=limits))
    assert (result.returncode, result.timed_out) == (-signal.SIGTERM, True)


async def test_stop_and_continue_is_no_end(engine: Engine) -> None:
    stopped = "ps -o stat= -p $$ | grep -q T"
    text = (
        f"(until {stopped}; do sleep 0.01; done; kill -CONT $$) & "
        "kill -STOP $$; echo went on; wait; exit 4"
    )
    result = await engine.run(sh(text))
    assert (result.returncode, result.stdout) == (4, b"went on\n")


async def test_timeout_while_input_is_not_read(engine: Engine) -> None:
    command = Command(["sleep", "60"], limits=SHORT)
    result = await engine.run(command, bytes(1 << 20))
    assert (result.returncode, result.timed_out) == (-signal.SIGTERM, True)


async def test_timeout_racing_the_exit(engine: Engine) -> None:
    """Whoever wins, there is one outcome, and it fits."""
    seen = set()

    async def one(i: int) -> None:
        limits = Limits(timeout=0.005 + i % 20 * 0.0002, kill_grace=BOUND)
        result = await engine.run(Command(["sleep", "0.005"], limits=limits))
        assert result.returncode in (0, -signal.SIGTERM)
        if result.returncode < 0:
            assert result.timed_out
        seen.add(result.returncode)

    for i in range(0, 400, 4):
        await asyncio.gather(*(one(j) for j in range(i, i + 4)))
    assert -signal.SIGTERM in seen


# ---- output --------------------------------------------------------------------------------------


async def test_max_output(engine: Engine) -> None:
    result = await engine.run(Command(["yes"], limits=Limits(max_output=1001)))
    assert result.stdout == b"y\n" * 500 + b"y"
    assert (result.truncated, result.timed_out, result.returncode) == (True, False, -signal.SIGTERM)


async def test_max_output_of_a_large_size(engine: Engine) -> None:
    limits = Limits(max_output=3_000_000)
    result = await engine.run(Command(["cat", "/dev/zero"], limits=limits))
    assert (len(result.stdout), result.truncated) == (3_000_000, True)


@pytest.mark.parametrize(("maximum", "truncated"), [(9, True), (10, False), (11, False)])
async def test_max_output_is_of_both_streams(engine: Engine, maximum: int, truncated: bool) -> None:
    command = Command(sh("printf 12345; printf 67890 >&2"), limits=Limits(max_output=maximum))
    result = await engine.run(command)
    assert len(result.stdout) + len(result.stderr) == min(maximum, 10)
    assert b"12345".startswith(result.stdout)
    assert b"67890".startswith(result.stderr)
    assert result.truncated == truncated


async def test_max_output_kills_the_stubborn(engine: Engine) -> None:
    """And what it goes on to write is not kept."""
    limits = Limits(max_output=100, kill_grace=0.1)
    command = Command(sh('trap "" TERM; exec cat /dev/zero'), limits=limits, stderr=STDOUT)
    result = await engine.run(command)
    assert (len(result.stdout), result.returncode) == (100, -signal.SIGKILL)
    assert result.truncated


# ---- drain ---------------------------------------------------------------------------------------


async def test_a_background_child_holds_the_output(engine: Engine) -> None:
    """The command has ended: what it left behind is waited for as long as Limits.drain."""
    limits = Limits(drain=0.1)
    result = await engine.run(Command(sh("sleep 60 & echo $!"), limits=limits))
    pid = int(result.stdout)
    try:
        assert result.returncode == 0
        assert 0.1 <= result.wall < BOUND
        assert (result.timed_out, result.truncated) == (False, False)
        assert is_alive(pid)  # a background child is not ours to end
    finally:
        os.kill(pid, signal.SIGKILL)
    await gone(pid)


async def test_a_background_child_that_ends_in_time(engine: Engine) -> None:
    limits = Limits(drain=BOUND)
    command = Command(sh("(sleep 0.1; echo late; echo later >&2) & echo early"), limits=limits)
    result = await engine.run(command)
    assert (result.stdout, result.stderr) == (b"early\nlate\n", b"later\n")
    assert result.wall < BOUND


async def test_no_drain(engine: Engine) -> None:
    """All that the command itself wrote is there, whoever else holds the pipe."""
    command = Command(
        sh("sleep 60 2>&1 & echo $! >&2; head -c 50000 /dev/zero"), limits=Limits(drain=0)
    )
    result = await engine.run(command)
    os.kill(int(result.stderr), signal.SIGKILL)
    assert result.stdout == bytes(50000)


async def test_a_background_child_without_the_output(engine: Engine) -> None:
    command = Command(sh("sleep 60 >/dev/null 2>&1 & echo $!"), limits=Limits(drain=BOUND * 2))
    result = await engine.run(command)
    os.kill(int(result.stdout), signal.SIGKILL)
    assert result.wall < BOUND


async def test_nothing_piped(engine: Engine, tmp_path: Path) -> None:
    """There is no output to wait for: the end of the command counts."""
    command = Command(
        sh('sleep 60 & echo $! > "$1"', tmp_path / "pid"),
        stdout=DEVNULL,
        stderr=DEVNULL,
        limits=Limits(drain=BOUND * 2),
    )
    result = await engine.run(command)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert (result.returncode, result.wall < BOUND) == (0, True)


# ---- lost children -------------------------------------------------------------------------------


async def test_reaped_by_someone_else(engine: Engine) -> None:
    """Where the kernel does not remember, the status is not known, and says so."""
    text = "sleep 60 & echo $!; read go; exit 7"
    process = await engine.open(Command(sh(text), limits=Limits(drain=BOUND)))
    assert process.stdout is not None
    background = int(await process.stdout.readline())
    process.stdin.close()
    # Its zombie is kept as long as the pipe is open.
    await gone(process.pid)
    assert os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) == 7
    os.kill(background, signal.SIGKILL)
    result = await process.result()
    assert (result.lost, result.returncode) == ((False, 7) if remembers() else (True, 255))


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("how", ["ignored", "handler", "thread"])
def test_reaped_before_us(kind: str, how: str) -> None:
    """SIGCHLD is ignored, or someone waits for any child: no hang, and the right status."""
    known = "all" if remembers_at_once() else "some" if remembers() else "none"
    assert run_script("lost.py", kind, how, known) == "ok\n"
