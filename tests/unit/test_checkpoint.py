"""checkpoint(): what forks of a Python program share with the first, and what they must not."""

from __future__ import annotations

import asyncio
import contextlib
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

import needs
from conftest import Run
from fastspawn import Command, Engine, Limits, Result, Template
from soak.processes import children
from support import BOUND, async_poll, at_checkpoint, poll

pytestmark = needs.templates

TOP = "import sys, os\nfrom fastspawn import checkpoint\n"
PACKAGE = str(Path(__import__("fastspawn").__file__).parent.parent)


async def answers(command: Command, inputs: list[bytes]) -> list[Result]:
    """One run for each, all but the first from a template at the checkpoint."""
    async with Template(command, size=1) as template:
        results = [await at_checkpoint(template, lambda: template.run(input=inputs[0]))]
        results += [await template.run(input=input) for input in inputs[1:]]
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


SAYS = "os.write(1, b'one'); os.write(2, b'two')"
STREAMS: dict[str, tuple[str, str, tuple[bytes, bytes]]] = {
    "stdout is kept from others": (
        "own = os.dup(1); os.dup2(2, 1)",
        "os.write(1, b'noise'); os.write(own, b'answer')",
        (b"answer", b"noise"),
    ),
    "exchanged": ("a = os.dup(1); os.dup2(2, 1); os.dup2(a, 2)", SAYS, (b"two", b"one")),
    "merged": ("os.dup2(1, 2)", SAYS, (b"onetwo", b"")),
    "a file": ("os.dup2(os.open('log', os.O_RDWR | os.O_CREAT), 2)", SAYS, (b"one", b"")),
    "a file, and back": (
        "own = os.dup(2); os.dup2(os.open('log', os.O_RDWR | os.O_CREAT), 2)",
        "os.write(2, b'log'); os.dup2(own, 2); os.write(2, b'two')",
        (b"", b"two"),
    ),
    "closed": ("os.close(0)", "os.write(1, b'%d' % os.open('/dev/null', 0))", (b"0", b"")),
    "all closed": (
        "os.closerange(0, 3)",
        "os._exit(os.dup(os.open('/dev/null', 0)) - 1)",
        (b"", b""),
    ),
    "not for children": (
        "os.set_inheritable(1, False)",
        "os.write(1, b'%d' % os.get_inheritable(1))",
        (b"0", b""),
    ),
}


@pytest.mark.parametrize("how", STREAMS)
def test_what_the_program_has_made_of_its_streams(run: Run, tmp_path: Path, how: str) -> None:
    """Each request has its own where the program has put those of the first one."""
    above, below, expected = STREAMS[how]
    path = script(tmp_path, f"{above}\ncheckpoint()\n{below}\n")
    for result in run(answers(Command([sys.executable, path], cwd=tmp_path), [b"in"] * 3)):
        assert (result.returncode, (result.stdout, result.stderr)) == (0, expected)
    log = tmp_path / "log"
    if log.exists():
        assert log.read_bytes() in {b"two" * 3, b"log" * 3}


def test_a_decoder_in_the_middle_of_a_character(run: Run, tmp_path: Path) -> None:
    path = script(tmp_path, "sys.stdin.read(1)\ncheckpoint()\nprint(ascii(sys.stdin.read()))\n")
    results = run(answers(Command([sys.executable, "-X", "utf8", path]), [b"a\xc3", b"\xa9", b"b"]))
    assert [r.stdout for r in results[1:]] == [b"'\\udca9'\n", b"'b'\n"]


KEPT_INPUT = {
    "the buffer": ("body = sys.stdin.buffer", "body.read()"),
    "a method": ("read = sys.stdin.read", "read()"),
    "a method of the buffer": ("read = sys.stdin.buffer.read", "read()"),
    "raw": ("raw = sys.stdin.buffer.raw", "raw.readall()"),
    "a default": ("def f(file=sys.stdin): return file.read()", "f()"),
    "argparse": (
        (
            "import argparse\np = argparse.ArgumentParser()\n"
            "p.add_argument('file', nargs='?', default=sys.stdin)\na = p.parse_args([])"
        ),
        "a.file.read()",
    ),
    "an iterator": ("lines = iter(sys.stdin)\nfirst = next(lines)", "list(lines)"),
    "a codec": (
        "import codecs\ns = codecs.getreader('utf-8')(sys.stdin.buffer)\nfirst = s.readline()",
        "s.read()",
    ),
    "a pipe of buffers": ("b = io.BufferedReader(sys.stdin.buffer)\nb.readline()", "b.read()"),
    "reconfigured": ("sys.stdin.reconfigure(newline='')", "sys.stdin.read()"),
    "universal newlines": (
        "sys.stdin.reconfigure(newline=None)\nsys.stdin.readline()",
        "sys.stdin.read()",
    ),
    "not reconfigured": ("", "sys.stdin.read()"),
    "an encoding": (
        "sys.stdin.reconfigure(encoding='utf-16-le', errors='replace')",
        "sys.stdin.read()",
    ),
    "attributes": (
        "",
        ("(sys.stdin.mode, sys.stdin.name, sys.stdin.encoding, sys.stdin.errors,"
         " sys.stdin.newlines, sys.stdin.line_buffering, sys.stdin.buffer.name,"
         " sys.stdin.buffer.mode, sys.stdin.closed, sys.stdin.buffer.raw.closefd,"
         " sys.stdin.fileno(), sys.stdin is sys.__stdin__)"),
    ),
    "an attribute of its own": ("sys.stdin.mine = 1", "(sys.stdin.mine, sys.stdin.read())"),
    "closed": ("sys.stdin.close()", "(sys.stdin.closed, os.read(0, 9))"),
    "a copy": (
        "s = os.fdopen(os.dup(0), errors='surrogateescape')\ns.readline()",
        "s.read()",
    ),
    "a name": ("s = open('/dev/stdin', newline='', errors='surrogateescape')", "s.read()"),
    "none": ("sys.stdin = None", "(sys.stdin, sys.__stdin__.read())"),
    "read to its end": ("sys.stdin.read()", "sys.stdin.read()"),
    "detached": ("b = sys.stdin.detach()\nb.readline()", "b.read()"),
    "of another": ("sys.stdin = io.StringIO('own')", "(sys.stdin.read(), sys.__stdin__.read())"),
}  # fmt: skip


@pytest.mark.parametrize("how", KEPT_INPUT)
def test_what_reads_the_input_is_kept(tmp_path: Path, how: str) -> None:
    """Whoever has it: it reads what each request sends, as by exec."""
    above, read = KEPT_INPUT[how]
    path = script(tmp_path, f"import io\n{above}\ncheckpoint()\nprint(ascii({read}))\n")
    # What is read above is the first's: the others' come whole.
    ahead = how != "a default" and any(word in above for word in ("next(", "readline()"))
    inputs = [b"of the first\nand\r\nmore\xc3", b"one\r\ntwo\xc3", b"", b"o\rne,\n\ntwo"]
    command = Command([sys.executable, "-X", "utf8", path])

    async def main() -> list[bytes]:
        async with Engine(1) as engine:
            before = b"\n" if ahead else b""
            rest = [before + input for input in inputs[1:]]
            runs = [await engine.run(command, input) for input in (inputs[0], *rest)]
            assert {result.stderr for result in runs} == {b""}
            return [result.stdout for result in runs]

    expected = asyncio.run(main())
    if how == "read to its end":
        expected[1:] = [b"%a\n" % input.decode(errors="surrogateescape") for input in inputs[1:]]
    assert [r.stdout for r in asyncio.run(answers(command, inputs))] == expected


SEEDS = {
    "random": "import random\ndraw = lambda: random.random()\n",
    "uuid": "import uuid\ndraw = uuid.uuid4\n",
    "secrets": "import secrets\ndraw = lambda: secrets.token_hex()\n",
    "ssl": "import ssl\nssl.RAND_bytes(8)\ndraw = lambda: ssl.RAND_bytes(8)\n",
    "tempfile": "import tempfile\ntempfile.mktemp()\ndraw = lambda: tempfile.mktemp()\n",
    "sqlite3": "import sqlite3\ndb = sqlite3.connect(':memory:')\n"
    "draw = lambda: db.execute('select random()').fetchone()\n",
    "apsw": "import apsw\ndb = apsw.Connection(':memory:')\n"
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


SHOW = (
    "names = 'GONE CHANGED MADE DEFAULT OWN PATH_INFO'.split()\n"
    "print(*(os.environ.get(name) for name in names))\n"
    "print(*(os.environb.get(name.encode()) for name in names))\n"
    "sys.stdout.flush()\nos.system('echo ' + ' '.join('${%s-None}' % name for name in names))\n"
)


def without(env: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in env.items() if key != name}


async def by_exec(path: Path, envs: list[dict[str, str]]) -> list[bytes]:
    """What the program says in each of these environments."""
    async with Engine(1) as engine:
        runs = [engine.run(Command([sys.executable, path], env=env)) for env in envs]
        return [result.stdout for result in await asyncio.gather(*runs)]


async def by_fork(path: Path, env: dict[str, str], envs: list[dict[str, str]]) -> list[bytes]:
    """The same of one template, which has another."""
    async with Template(Command([sys.executable, path], env=env), size=1) as template:
        results = [await at_checkpoint(template, lambda: template.run(env=envs[0]))]
        results += [await template.run(env=own) for own in envs[1:]]
        assert template.stats["checkpoints"] == 1
    assert {(result.returncode, result.stderr) for result in results} == {(0, b"")}
    return [result.stdout for result in results]


def test_the_environment_as_the_program_changed_it(run: Run, tmp_path: Path) -> None:
    """As by exec: what was done above holds for all, and what a request has is its own."""
    path = script(
        tmp_path,
        "del os.environ['GONE']\nos.environ['CHANGED'] = 'above'\nos.environ['MADE'] = 'above'\n"
        "os.environ.setdefault('DEFAULT', 'above')\ncheckpoint()\n" + SHOW,
    )
    env = dict(os.environ, GONE="secret", CHANGED="no")
    requests = [
        dict(env, PATH_INFO="the first's own"),
        env,
        env,
        dict(env, OWN="1"),
        dict(env, DEFAULT="its own", PATH_INFO="/2"),
        dict(env, GONE="another"),
        without(env, "CHANGED"),
        {"PATH": os.environ["PATH"]},
        env,
    ]
    requests[7]["GONE"] = ""
    expected = run(by_exec(path, requests))
    assert run(by_fork(path, env, requests)) == expected


def test_a_variable_of_the_requests_own(run: Run, tmp_path: Path) -> None:
    """Where the program changed it, too, nobody knows whether it would have done so again."""
    path = script(tmp_path, "os.environ['CHANGED'] = 'above'\ncheckpoint()\n" + SHOW)
    env = dict(os.environ, CHANGED="no")

    async def main() -> None:
        async with Template(Command([sys.executable, path], env=env), size=1) as template:
            await at_checkpoint(template, template.run)
            result = await template.run(env=dict(env, CHANGED="its own"))
            assert result.stdout.count(b"its own") == 3
            assert b"above" not in result.stdout

    run(main())


@pytest.mark.parametrize("how", ["a dict in its place", "only in C", "only in Python"])
def test_an_environment_that_is_not_cs(run: Run, tmp_path: Path, how: str) -> None:
    above = {
        "a dict in its place": "os.environ = dict(os.environ, MADE='above')\n",
        "only in C": "os.putenv('MADE', 'above')\n",
        "only in Python": "os.environ._data[b'MADE'] = b'above'\n",
    }[how]
    path = script(
        tmp_path,
        above + "checkpoint()\nprint(os.environ.get('MADE'), os.environ.get('OWN'))\n"
        "sys.stdout.flush()\nos.system('echo ${MADE-None} ${OWN-None}')\n",
    )
    env = dict(os.environ)
    requests = [env, env, dict(env, OWN="1"), dict(env, OWN="2"), env]
    expected = run(by_exec(path, requests))
    assert run(by_fork(path, env, requests)) == expected


ZONE = (
    "import time, ctypes\nlocal = time.localtime(0).tm_hour\ncheckpoint()\n"
    "print(time.localtime(0).tm_hour, time.strftime('%H %Z', time.localtime(0)), time.timezone)\n"
    "print(time.tzname, time.mktime((2000, 1, 1, 0, 0, 0, 0, 0, 0)))\n"
)


def test_a_zone_of_its_own(run: Run, tmp_path: Path) -> None:
    path = script(tmp_path, ZONE)
    env = dict(os.environ, TZ="UTC")
    zones = ["XYZ-3", "UTC", "XYZ-3", "ABC5DEF", "UTC", None, "XYZ-3"]
    requests = [dict(env, TZ=zone) if zone else without(env, "TZ") for zone in zones]
    expected = run(by_exec(path, requests))
    assert run(by_fork(path, env, requests)) == expected


async def one_end_each(path: Path, requests: int, lines: int) -> tuple[list[Result], bytes]:
    """What a template's requests say, and then what is left in the folder ``own`` by its end."""
    own = path.parent / "own"
    async with Template(Command([sys.executable, path], cwd=path.parent), size=1) as template:
        results = [await at_checkpoint(template, template.run)]
        own.unlink(missing_ok=True)  # of those that went on as plain processes
        results += [await template.run() for _ in range(requests - 1)]
        assert not own.exists()
    await async_poll(lambda: own.exists() and own.read_bytes().count(b"\n") == lines, "its end")
    return results, own.read_bytes()


def test_exit_handlers_from_above_are_the_templates(run: Run, tmp_path: Path) -> None:
    """They run when it ends, once; those from below when their request ends."""
    path = script(
        tmp_path,
        "import atexit, weakref\n"
        "def say(word):\n"
        "    with open('own', 'a') as file: file.write(f'{word} {os.getpid()}\\n')\n"
        "class Kept: pass\nkept = Kept()\nweakref.finalize(kept, say, 'finalize')\n"
        "atexit.register(say, 'above')\natexit.register(1 .__floordiv__, 0)\ncheckpoint()\n"
        "atexit.register(print, 'below')\nprint('program', flush=True)\n",
    )
    results, own = run(one_end_each(path, 4, 2))
    assert {(r.stdout, r.stderr, r.returncode) for r in results} == {(b"program\nbelow\n", b"", 0)}
    words = own.split()
    assert words[::2] == [b"above", b"finalize"]
    assert not set(map(int, words[1::2])) & {result.pid for result in results[1:]}


def test_what_was_made_above_is_there_for_all(run: Run, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import tempfile\nkept = tempfile.TemporaryDirectory()\n"
        "file = tempfile.NamedTemporaryFile()\nclass A:\n"
        "    def __del__(self): print('not before the template ends')\na = A()\n"
        "checkpoint()\nprint(os.path.isdir(kept.name), os.path.exists(file.name))\n"
        "sys.stderr.write(kept.name)\n"
        "if sys.stdin.read(): raise SystemExit(b'the slow way out')\n",
    )
    results = run(answers(Command([sys.executable, path]), [b"", b"slowly", b"", b"", b"slowly"]))
    assert {result.stdout for result in results} == {b"True True\n"}
    folder = results[0].stderr
    assert folder
    poll(lambda: not os.path.exists(folder), "the template has taken it along")


def test_a_plain_process_keeps_its_handlers(run: Run, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import atexit, weakref, threading\nclass Kept: pass\nkept = Kept()\n"
        "weakref.finalize(kept, print, 'finalize')\natexit.register(print, 'above')\n"
        "stop = threading.Event()\nthreading.Thread(target=stop.wait).start()\n"
        "checkpoint()\nstop.set()\nprint('program')\n",
    )

    async def main() -> None:
        async with Template([sys.executable, path], size=1) as template:
            for _ in range(2):
                assert (await template.run()).stdout == b"program\nabove\nfinalize\n"

    run(main())


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
                return template.stats["checkpoints"] >= 2

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
                for pid in children():
                    with contextlib.suppress(ProcessLookupError):  # one that has retired
                        os.kill(pid, signal.SIGKILL)
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


def test_a_plain_process_ends_as_one(run: Run, tmp_path: Path) -> None:
    """Where there is no checkpoint all that the program has is finalized."""
    path = script(tmp_path, "checkpoint()\nout = open('/dev/stdout', 'w')\nout.write('hi')\n")

    async def main() -> None:
        async with Template([sys.executable, path], size=1, at="main") as template:
            result = await template.run()
        assert (result.returncode, result.stdout, result.stderr) == (0, b"hi", b"")

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
            assert "it has several threads at its checkpoint" in (template.no_checkpoint or "")

    run(main())


LOOPS = {
    "running": "async def main():\n    checkpoint()\n"
    "    print(await asyncio.to_thread(input))\nasyncio.run(main())\n",
    "made above": "loop = asyncio.new_event_loop()\ncheckpoint()\n"
    "print(loop.run_until_complete(asyncio.to_thread(input)))\nloop.close()\n",
    "uvloop's": "import uvloop\nloop = uvloop.new_event_loop()\ncheckpoint()\n"
    "async def main(): return await asyncio.to_thread(input)\n"
    "print(loop.run_until_complete(main()))\nloop.close()\n",
    "select's": "import selectors\n"
    "loop = asyncio.SelectorEventLoop(selectors.SelectSelector())\ncheckpoint()\n"
    "async def main(): return await asyncio.to_thread(input)\n"
    "print(loop.run_until_complete(main()))\nloop.close()\n",
}


@pytest.mark.parametrize("how", LOOPS)
def test_an_event_loop_above(run: Run, tmp_path: Path, how: str) -> None:
    """It is not shared: whoever has one goes on as a plain process, and says so once."""
    path = script(tmp_path, "import asyncio\n" + LOOPS[how])
    command = Command([sys.executable, path], limits=Limits(timeout=BOUND))

    async def main() -> None:
        async with Template(command, size=1) as template:
            for word, warnings in (b"one", 1), (b"two", 0), (b"three", 0):
                result = await template.run(input=word)
                assert (result.stdout, result.returncode) == (word + b"\n", 0)
                assert result.stderr.count(b"checkpoint() needs event loops") == warnings
            assert template.no_checkpoint == "it has an event loop at its checkpoint"

    run(main())


def test_a_loop_that_was_closed(run: Run, tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "import asyncio\nasyncio.run(asyncio.sleep(0))\ncheckpoint()\n"
        "print(asyncio.run(asyncio.to_thread(input)))\n",
    )
    results = run(answers(Command([sys.executable, path]), [b"one", b"two"]))
    assert [result.stdout for result in results] == [b"one\n", b"two\n"]


def test_few_descriptors(run: Run, tmp_path: Path) -> None:
    """With a low RLIMIT_NOFILE of its own."""
    path = script(tmp_path, "checkpoint()\nprint('on')\n")
    limits = Limits(rlimits={resource.RLIMIT_NOFILE: (64, 64)})
    results = run(answers(Command([sys.executable, path], limits=limits), [b"", b""]))
    assert [r.stdout for r in results] == [b"on\n"] * 2
