"""Engine.run: what goes in, what comes out, and how it went."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from fastspawn import DEVNULL, STDOUT, Command, Engine
from support import script, sh

KIB = 1024
MIB = 1024 * KIB


# ---- output --------------------------------------------------------------------------------------

BOTH = sh("echo out; echo err >&2")


async def test_output(engine: Engine) -> None:
    result = await engine.run(["echo", "hi"])
    assert (result.stdout, result.stderr, result.returncode) == (b"hi\n", b"", 0)
    assert isinstance(result, subprocess.CompletedProcess)
    assert result.args == ["echo", "hi"]
    flags = (result.timed_out, result.truncated, result.cancelled, result.lost)
    assert flags == (False, False, False, False)
    result.check_returncode()


async def test_streams_are_separate(engine: Engine) -> None:
    result = await engine.run(BOTH)
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")


def outputs(result: Any) -> tuple[Any, Any]:
    """None, as in the standard library, for what was not captured."""
    return result.stdout, result.stderr


async def test_stderr_to_stdout(engine: Engine) -> None:
    result = await engine.run(Command(BOTH, stderr=STDOUT))
    assert outputs(result) == (b"out\nerr\n", None)


async def test_devnull(engine: Engine) -> None:
    result = await engine.run(Command(BOTH, stdout=DEVNULL))
    assert outputs(result) == (None, b"err\n")
    result = await engine.run(Command(BOTH, stderr=DEVNULL))
    assert outputs(result) == (b"out\n", None)
    result = await engine.run(Command(BOTH, stdout=DEVNULL, stderr=STDOUT))
    assert outputs(result) == (None, None)


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("stdout", "stderr", "seen"),
    [
        ("None", "PIPE", ("out\n", "")),
        ("PIPE", "None", ("", "err\n")),
        ("None", "None", ("out\n", "err\n")),
        ("None", "STDOUT", ("out\nerr\n", "")),
        ("PIPE", "STDOUT", ("", "")),
    ],
)
def test_inherited(kind: str, stdout: str, stderr: str, seen: tuple[str, str]) -> None:
    """The engine's own stdout and stderr are the children's."""
    done = subprocess.run(
        script("inherit.py", kind, stdout, stderr), capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == seen


@pytest.mark.parametrize("stream", [1, 2])
@pytest.mark.parametrize("size", [1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB, 10 * MIB])
async def test_sizes_of_output(engine: Engine, stream: int, size: int) -> None:
    result = await engine.run(sh(f'head -c "$1" /dev/zero >&{stream}', size))
    assert (result.stdout, result.stderr)[stream - 1] == bytes(size)
    assert not (result.stdout, result.stderr)[2 - stream]


async def test_both_streams_at_once(engine: Engine) -> None:
    """Neither waits for the other to be read."""
    text = 'head -c "$1" /dev/zero & head -c "$1" /dev/zero >&2; wait'
    result = await engine.run(sh(text, 3 * MIB))
    assert (len(result.stdout), len(result.stderr)) == (3 * MIB, 3 * MIB)


async def test_output_closed_early(engine: Engine) -> None:
    """The end of the output is not the end of the command."""
    result = await engine.run(sh("echo hi; exec >&- 2>&-; sleep 0.05; exit 7"))
    assert (result.stdout, result.returncode) == (b"hi\n", 7)
    assert result.wall > 0.05


# ---- return codes --------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 255])
async def test_exit_status(engine: Engine, code: int) -> None:
    result = await engine.run(sh("exit $1", code))
    assert result.returncode == code


@pytest.mark.parametrize("name", "HUP INT QUIT ABRT KILL USR1 SEGV PIPE ALRM TERM XFSZ".split())
async def test_killed_by_a_signal(engine: Engine, name: str) -> None:
    result = await engine.run(sh("ulimit -c 0; kill -$1 $$", name))
    assert result.returncode == -signal.Signals[f"SIG{name}"]


async def test_check(engine: Engine) -> None:
    assert (await engine.run(["true"], check=True)).returncode == 0
    with pytest.raises(subprocess.CalledProcessError) as raised:
        await engine.run(sh("echo out; echo err >&2; exit 3"), check=True)
    error = raised.value
    assert (error.returncode, error.stdout, error.stderr) == (3, b"out\n", b"err\n")
    assert error.cmd == sh("echo out; echo err >&2; exit 3")
    with pytest.raises(subprocess.CalledProcessError, match="SIGKILL"):
        await engine.run(sh("kill -KILL $$"), check=True)


# ---- input ---------------------------------------------------------------------------------------

SIZES = [0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB, 10 * MIB]


@pytest.mark.parametrize("size", SIZES)
async def test_input(engine: Engine, size: int) -> None:
    data = random.Random(size).randbytes(size)
    result = await engine.run(["cat"], data, check=True)
    assert len(result.stdout) == size
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("size", SIZES)
async def test_input_that_is_ignored(engine: Engine, size: int) -> None:
    result = await engine.run(sh("exit 5"), bytes(size))
    assert (result.returncode, result.stderr) == (5, b"")


async def test_input_that_is_closed(engine: Engine) -> None:
    result = await engine.run(sh("exec <&-; echo still here"), bytes(10 * MIB))
    assert (result.returncode, result.stdout) == (0, b"still here\n")


async def test_input_that_is_read_in_part(engine: Engine) -> None:
    result = await engine.run(["head", "-c", "5"], b"12345" + bytes(10 * MIB))
    assert (result.returncode, result.stdout) == (0, b"12345")


async def test_no_input_is_devnull(engine: Engine) -> None:
    result = await engine.run(sh('cat; test -c /dev/fd/0 && echo "a device"'))
    assert result.stdout == b"a device\n"
    result = await engine.run(sh('cat; test -p /dev/fd/0 && echo "a pipe"'), b"")
    assert result.stdout == b"a pipe\n"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_kinds_of_input(engine: Engine, kind: Any) -> None:
    assert (await engine.run(["cat"], kind(b"text"))).stdout == b"text"


async def test_input_is_taken_at_once(engine: Engine) -> None:
    """What becomes of the buffer later does not matter."""
    data = bytearray(b"1" * MIB)
    running = asyncio.ensure_future(engine.run(["cat"], data))
    await asyncio.sleep(0)
    data[:] = b"2" * MIB
    assert (await running).stdout == b"1" * MIB


async def test_strided_input(engine: Engine) -> None:
    assert (await engine.run(["cat"], memoryview(b"a-b-c-")[::2])).stdout == b"abc"


@pytest.mark.parametrize("data", ["text", 5, ["a"]], ids=repr)
async def test_input_of_another_type(engine: Engine, data: Any) -> None:
    with pytest.raises(TypeError):
        await engine.run(["cat"], data)
    assert engine.live == 0


# ---- what else is known --------------------------------------------------------------------------


async def test_pid(engine: Engine) -> None:
    result = await engine.run(sh("echo $$"))
    assert int(result.stdout) == result.pid != os.getpid()


async def test_wall(engine: Engine) -> None:
    before = time.monotonic()
    result = await engine.run(["sleep", "0.1"])
    assert 0.1 <= result.wall <= time.monotonic() - before


async def test_wall_counts_from_before_the_child_is(engine: Engine) -> None:
    # Detached starts go on while their children run: no child has used more CPU than time passed.
    results = await asyncio.gather(*(engine.run(["echo", "hi"]) for _ in range(300)))
    for result in results:
        assert result.rusage.ru_utime + result.rusage.ru_stime <= result.wall


async def test_rusage(engine: Engine) -> None:
    # User time, of the command and of a descendant that it waited for.
    result = await engine.run([sys.executable, "-ISc", "sum(i * i for i in range(1_000_000))"])
    assert 0.01 < result.rusage.ru_utime < result.wall + 0.1
    assert result.rusage.ru_maxrss > 0
    assert result.rusage.ru_minflt > 0
    child = await engine.run(sh('"$@"; :', sys.executable, "-ISc", "sum(range(10_000_000))"))
    assert child.rusage.ru_utime > 0.01
    light = await engine.run(["true"])
    assert light.rusage.ru_utime < result.rusage.ru_utime


async def test_crossed_outputs(engine: Engine) -> None:
    """Of many at once each gets its own."""

    async def one(i: int) -> None:
        result = await engine.run(sh("cat; echo $1 >&2", i), f"{i}".encode() * 1000)
        assert result.stdout == f"{i}".encode() * 1000
        assert result.stderr == f"{i}\n".encode()

    await asyncio.gather(*(one(i) for i in range(100)))
