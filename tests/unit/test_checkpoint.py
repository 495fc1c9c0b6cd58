"""checkpoint(): what forks of a Python program share with the first, and what they must not."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import sysconfig
import venv
from functools import partial
from pathlib import Path

import pytest

from conftest import Run
from fastspawn import Command, Engine, Limits, Result, Template
from support import LINUX, async_poll

pytestmark = pytest.mark.skipif(not LINUX, reason="templates are for Linux")

TOP = "import sys, os\nfrom fastspawn import checkpoint\n"
PACKAGE = str(Path(__import__("fastspawn").__file__).parent.parent)


async def answers(command: Command, inputs: list[bytes]) -> list[Result]:
    """One run for each, all but the first from a template at the checkpoint."""
    async with Template(command, size=1) as template:
        results = [await template.run(input=input) for input in inputs]
        assert template.stats["checkpoints"] == 1
        assert template.stats["direct"] == 0
    return results


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "program.py"
    path.write_text(TOP + text)
    return path


# ---- how it is started ----

SAY = "import state\ncheckpoint()\nstate.n += 1\nprint(state.n, sys.argv[1:], sys.stdin.read())\n"


@pytest.mark.parametrize(
    "how", ["script", "module", "package", "command", "shebang", "env", "venv"]
)
def test_however_it_is_started(run: Run, tmp_path: Path, how: str) -> None:
    site = sysconfig.get_path("purelib")  # the new venv has nothing of its own
    env = dict(os.environ, PYTHONPATH=f"{tmp_path}:{PACKAGE}:{site}")
    (tmp_path / "state.py").write_text("n = 0")
    path = script(tmp_path, SAY)
    python = sys.executable
    argv: list[str] = [python, str(path)]
    if how == "module":
        argv = [python, "-m", "program"]
    elif how == "package":
        (tmp_path / "package").mkdir()
        path.rename(tmp_path / "package" / "__main__.py")
        argv = [python, "-m", "package"]
    elif how == "command":
        argv = [python, "-c", TOP + SAY]
    elif how == "venv":
        venv.create(tmp_path / "venv", symlinks=True)
        argv[0] = str(tmp_path / "venv/bin/python")
    elif how in ("shebang", "env"):
        line = f"#!{python} -B\n" if how == "shebang" else "#!/usr/bin/env python3\n"
        path.write_text(line + path.read_text())
        path.chmod(0o755)
        env["PATH"] = os.path.dirname(python) + ":" + env["PATH"]
        argv = [str(path)]
    command = Command([*argv, "a", "b c"], env=env)

    async def direct() -> Result:
        async with Engine(1) as engine:
            return await engine.run(command, b"0")

    expected = b"1 ['a', 'b c'] %d\n"
    assert run(direct()).stdout == expected % 0
    results = run(answers(command, [b"0", b"1", b"2"]))
    assert [r.stdout for r in results] == [expected % i for i in range(3)]


# ---- what each request has for itself ----

READ_AHEAD = {
    "sys.stdin": "first = sys.stdin.readline()\n",
    "kept": "from sys import stdin\nfirst = stdin.readline()\n",
    "buffer": "first = sys.stdin.buffer.readline().decode()\n",
    "wrapped": "import io\nsys.stdin = io.TextIOWrapper(sys.stdin.buffer, encoding='latin-1')\n"
    "first = sys.stdin.readline()\n",
    "opened": "own = open(0, closefd=False)\nfirst = own.readline()\n",
}


@pytest.mark.parametrize("how", READ_AHEAD)
def test_input_that_was_left_is_not_the_next_ones(run: Run, tmp_path: Path, how: str) -> None:
    stream = {"kept": "stdin", "opened": "own", "buffer": "sys.stdin.buffer"}.get(how, "sys.stdin")
    path = script(tmp_path, READ_AHEAD[how] + f"checkpoint()\nprint(repr({stream}.read()))\n")
    inputs = [b"0\nleft of 0\n" * 100, b"one", b"two" * 50_000, b""]
    results = run(answers(Command([sys.executable, path]), inputs))
    for result, input in zip(results, [inputs[0][2:], *inputs[1:]], strict=True):
        text = input if how == "buffer" else input.decode()
        assert result.stdout == f"{text!r}\n".encode()


def test_a_decoder_in_the_middle_of_a_character(run: Run, tmp_path: Path) -> None:
    path = script(tmp_path, "sys.stdin.read(1)\ncheckpoint()\nprint(ascii(sys.stdin.read()))\n")
    results = run(answers(Command([sys.executable, "-X", "utf8", path]), [b"a\xc3", b"\xa9", b"b"]))
    assert [r.stdout for r in results[1:]] == [b"'\\udca9'\n", b"'b'\n"]


SEEDS = {
    "random": "import random\ndraw = lambda: random.random()\n",
    "uuid": "import uuid\ndraw = uuid.uuid4\n",
    "secrets": "import secrets\ndraw = lambda: secrets.token_hex()\n",
    "ssl": "import ssl\nssl.RAND_bytes(8)\ndraw = lambda: ssl.RAND_bytes(8)\n",
    "tempfile": "import tempfile\ntempfile.mktemp()\ndraw = lambda: tempfile.mktemp()\n",
    "sqlite3": "import sqlite3\ndb = sqlite3.connect(':memory:')\n"
    "draw = lambda: db.execute('select random()').fetchone()\n",
    "numpy": "import numpy.random\nnumpy.random.rand()\ndraw = lambda: numpy.random.rand()\n",
}


def is_present(name: str) -> bool:
    return (
        subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True).returncode
        == 0
    )


@pytest.mark.parametrize("name", [name for name in SEEDS if is_present(name)])
def test_what_is_random_differs(run: Run, tmp_path: Path, name: str) -> None:
    path = script(tmp_path, SEEDS[name] + "draw()\ncheckpoint()\nprint(draw())\n")
    results = run(answers(Command([sys.executable, path]), [b""] * 6))
    assert all(result.returncode == 0 for result in results)
    assert len({result.stdout for result in results}) == 6


@pytest.mark.parametrize("source", ["libuuid", "uuid"])
def test_two_forks_in_one_moment(run: Run, tmp_path: Path, source: str) -> None:
    """Their uuid1 differ by the clock sequence alone."""
    path = script(
        tmp_path,
        "import time, uuid\n"
        + ("uuid._generate_time_safe = None\n" if source == "uuid" else "")
        + "node = uuid.uuid1().node\ncheckpoint()\n"
        "now = uuid.uuid1()\n"
        "assert (now.version, now.variant, now.node) == (1, uuid.RFC_4122, node), now\n"
        "assert abs(now.time / 1e7 - 12219292800 - time.time()) < 3600\n"
        "print(now.clock_seq, uuid._last_timestamp in (None, now.time))\n",
    )
    results = run(answers(Command([sys.executable, path]), [b""] * 6))
    assert all(result.returncode == 0 for result in results), results
    sequences, times = zip(*(result.stdout.split() for result in results), strict=True)
    assert len(set(sequences)) > 2
    assert set(times) == {b"True"}


def test_the_environment_is_the_requests(run: Run, tmp_path: Path) -> None:
    """Also what the program took out of it, or changed, before."""
    path = script(
        tmp_path,
        "del os.environ['GONE']\nos.environ['CHANGED'] = 'by the first'\ncheckpoint()\n"
        "print(os.environ.get('GONE'), os.environ.get('CHANGED'), os.environ.get('OWN'))\n"
        "sys.stdout.flush()\nos.system('echo $GONE $CHANGED $OWN')\n",
    )
    env = dict(os.environ, GONE="there", CHANGED="no")

    async def main() -> None:
        async with Template(Command([sys.executable, path], env=env), size=1) as template:
            first = await template.run()
            assert first.stdout == b"None by the first None\nby the first\n"
            for own in ("1", "2"):
                for _ in range(2):
                    result = await template.run(env=dict(env, OWN=own))
                    assert result.stdout == b"there no %s\nthere no %s\n" % (2 * (own.encode(),))
                result = await template.run()
                assert result.stdout == b"there no None\nthere no\n"
            assert template.stats["checkpoints"] == 1

    run(main())


def test_output_above_is_the_firsts(run: Run, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import ctypes\nlibc = ctypes.CDLL(None)\nsys.stdout.write('above ')\n"
        "sys.stderr.write('error ')\nlibc.printf(b'libc ')\ncheckpoint()\nprint('below')\n",
    )
    first, second = run(answers(Command([sys.executable, path]), [b"", b""]))
    assert sorted(first.stdout.split()) == [b"above", b"below", b"libc"]
    assert first.stderr == b"error "
    assert (second.stdout, second.stderr) == (b"below\n", b"")


def test_the_order_of_the_end(run: Run, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import atexit\natexit.register(print, 'registered above')\ncheckpoint()\n"
        "atexit.register(print, 'registered below')\nprint('program')\n",
    )
    command = Command([sys.executable, path])

    async def direct() -> Result:
        async with Engine(1) as engine:
            return await engine.run(command)

    expected = run(direct()).stdout
    assert expected == b"program\nregistered below\nregistered above\n"
    assert [r.stdout for r in run(answers(command, [b"", b""]))] == [expected] * 2


@pytest.mark.parametrize("end", ["pass", "sys.exit(0)", "sys.exit(3)", "raise ValueError(1)"])
def test_the_quick_way_out_is_taken(run: Run, tmp_path: Path, end: str) -> None:
    """Not every page is touched, and so copied, on the way out; no time is measured."""
    path = script(
        tmp_path, f"import json, re, email, urllib.request, asyncio\ncheckpoint()\n{end}\n"
    )
    results = run(answers(Command([sys.executable, path]), [b""] * 4))
    full = script(tmp_path, "import json, re, email, urllib.request, asyncio, gc\ncheckpoint()\n"
                  f"gc.callbacks.clear()\n{end}\n")  # fmt: skip
    slow = run(answers(Command([sys.executable, full]), [b""] * 4))
    faults = [min(r.rusage.ru_minflt for r in of[1:]) for of in (results, slow)]
    assert faults[0] < 0.7 * faults[1]


# ---- when there is none, or no more ----


def test_a_module_that_changes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text("value = 'one'\n")
    path = script(tmp_path, "import part\ncheckpoint()\nprint(part.value)\n")
    env = dict(os.environ, PYTHONPATH=PACKAGE, PYTHONDONTWRITEBYTECODE="1")

    async def main() -> None:
        async with Template(Command([sys.executable, path], env=env), size=1) as template:
            for _ in range(2):
                assert (await template.run()).stdout == b"one\n"
            (tmp_path / "part.py").write_text("value = 'two, and longer'\n")

            async def is_new() -> bool:
                return (await template.run()).stdout == b"two, and longer\n"

            await async_poll(is_new, "it was started anew")

            async def is_frozen() -> bool:
                assert await is_new()
                return template.stats["checkpoints"] == 2

            await async_poll(is_frozen, "there is a template at the checkpoint again")

    run(main())


def test_many_at_once_and_then_anew(run: Run, tmp_path: Path) -> None:
    """Those that come second at the checkpoint do not count as programs without one."""
    path = script(tmp_path, "checkpoint()\nprint(os.getppid() and 'on')\n")

    async def main() -> None:
        async with Template(Command([sys.executable, path]), size=1) as template:
            for times in (1, 2):
                results = await asyncio.gather(*(template.run() for _ in range(30)))
                assert {r.stdout for r in results} == {b"on\n"}
                assert template.stats["checkpoints"] == times
                for task in Path("/proc/self/task").iterdir():
                    for pid in (task / "children").read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
                died = partial(lambda n: template.stats["restarted"] == n, times)
                await async_poll(died, "it died")
                await async_poll(lambda: template.stats["ready"] == 1, "there is another")

    run(main())


def test_at_main_there_is_none(run: Run, tmp_path: Path) -> None:
    path = script(tmp_path, "checkpoint()\nprint(os.listdir('/proc/self/fd'))\n")

    async def main() -> None:
        async with Template([sys.executable, path], size=1, at="main") as template:
            for _ in range(2):
                assert (await template.run()).stdout == b"['0', '1', '2', '3']\n"
            assert template.stats["checkpoints"] == 0
            assert template.no_checkpoint is None
        with pytest.raises(ValueError, match="none of"):
            Template(["echo"], at="nowhere")  # type: ignore[arg-type]

    run(main())


def test_the_reason_of_a_refusal(run: Run, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import threading\nstop = threading.Event()\nthreading.Thread(target=stop.wait).start()\n"
        "checkpoint()\nstop.set()\n",
    )

    async def main() -> None:
        async with Template([sys.executable, path], size=1) as template:
            assert template.no_checkpoint is None
            assert b"needs a single thread" in (await template.run()).stderr
            assert template.no_checkpoint == "it has several threads at its checkpoint"

    run(main())


def test_few_descriptors(run: Run, tmp_path: Path) -> None:
    """With a low RLIMIT_NOFILE of its own."""
    path = script(tmp_path, "checkpoint()\nprint('on')\n")
    limits = Limits(rlimits={resource.RLIMIT_NOFILE: (64, 64)})
    results = run(answers(Command([sys.executable, path], limits=limits), [b"", b""]))
    assert [r.stdout for r in results] == [b"on\n"] * 2
