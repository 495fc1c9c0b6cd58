"""Templates whose forks serve one run after the other (``reset``): nobody can tell."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import needs
from conftest import Run
from fastspawn import Command, Engine, Limits, Result, Template
from fastspawn._sinks import Run as Sink
from soak.processes import children
from support import async_poll, longer_times, script

pytestmark = needs.residents


@asynccontextmanager
async def resident(
    command: Any, size: int = 1, at: Any = "main", **options: Any
) -> AsyncIterator[Template]:
    """A template with an idle resident."""
    async with Template(command, size=size, at=at, reset=True, **options) as template:
        await async_poll(
            lambda: template.stats["residents"] or template.stats["without"], "a resident"
        )
        yield template


async def until_reset(template: Template, *args: Any, **options: Any) -> None:
    """Until a run was done by a resident."""
    before = template.stats["resets"]
    for _ in range(2000):
        await template.run(*args, **options)
        if template.stats["resets"] > before:
            return
    raise AssertionError(f"no resident: {template.stats}, {template.not_reset}")


def test_a_command_that_is_not_the_templates_twice(run: Run) -> None:
    """It is told once. What a resident keeps of it is not put back with the program's memory."""

    async def one(template: Template, command: Command, text: str) -> None:
        done = asyncio.get_running_loop().create_future()
        job = template._engine.submit(command, Sink(done), None, False, False, template)
        await done
        assert Result.of(command.argv, job).stdout.decode() == text

    async def main() -> None:
        async with resident(["echo", "a"]) as template:
            await until_reset(template)
            before = template.stats
            for word in ("b", "c" * 9000):
                command = template._variant([word], None)
                for _ in range(20):
                    await one(template, command, f"{word}\n")
            after = template.stats
            assert (after["resets"] - before["resets"], after["made"]) == (40, before["made"])

    run(main())


PROGRAMS = {
    "echo": (["/bin/echo"], lambda n: ([f"x{n}"], None, f"x{n}\n")),
    "cat": (["cat"], lambda n: ([], f"text {n}\n" * (n % 50), f"text {n}\n" * (n % 50))),
    "sh": (
        ["/bin/sh"],
        lambda n: (["-c", f"read a; y=$y$a; echo $y {n} $#", "sh", "b"], f"{n}!", f"{n}! {n} 1\n"),
    ),
    "awk": (["awk"], lambda n: ([f"{{ s += $1 }} END {{ print s, {n} }}"], "1\n2\n", f"3 {n}\n")),
    "perl": (["perl"], lambda n: (["-e", f"$s .= <STDIN>; print $s, {n}"], "in\n", f"in\n{n}")),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_run_has_its_own_answer(run: Run, name: str) -> None:
    argv, make = PROGRAMS[name]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"there is no {name}")

    async def one(template: Template, n: int) -> None:
        args, text, expected = make(n)
        result = await template.run(args, None if text is None else text.encode())
        assert (result.stdout.decode(), result.returncode) == (expected, 0)

    async def main() -> None:
        async with resident(argv, size=2) as template:
            for turn in range(30):
                await asyncio.gather(*(one(template, 20 * turn + i) for i in range(20)))
            stats = template.stats
            assert stats["resets"] > 300
            assert stats["leaves"] == 0
            assert stats["direct"] == 0

    run(main())


def test_at_the_first_effect(run: Run) -> None:
    async def main() -> None:
        async with resident(["/bin/echo", "same"], at="effect") as template:
            await until_reset(template)
            pids = set()
            for _ in range(3000):
                result = await template.run()
                assert result.stdout == b"same\n"
                pids.add(result.pid)
            assert template.stats["resets"] >= 2900
            assert len(pids) < 100
            # Another command line starts by exec, as with a template.
            other = await template.run(["other"])
            assert (other.stdout, template.stats["direct"]) == (b"other\n", 1)

    run(main())


HANDLER = """\
import json, os, random, sys, threading
import fastspawn
state = []
fastspawn.checkpoint()
state.append(1)
asked = json.load(sys.stdin)
if asked.get("leave"):
    import subprocess
    subprocess.run(["true"], check=True)
if asked.get("fail"):
    raise SystemExit(9)
print(json.dumps({"n": asked["n"], "state": state, "random": random.random(),
                  "argv": sys.argv[1:], "name": os.environ.get("NAME")}))
"""


def test_a_checkpoint(run: Run, tmp_path: Path) -> None:
    import json

    script = tmp_path / "handler.py"
    script.write_text(HANDLER)

    async def main() -> None:
        async with Template(
            [sys.executable, str(script)], size=1, at="checkpoint", reset=True
        ) as template:
            seen = set()

            async def ask(n: int, **more: Any) -> Any:
                text = json.dumps({"n": n, **more}).encode()
                result = await template.run([str(script), f"a{n}"], text, env={"NAME": f"e{n}"})
                if more.get("fail"):
                    assert result.returncode == 9
                    return
                assert result.returncode == 0, result.stderr
                answer = json.loads(result.stdout)
                assert answer["n"] == n
                assert answer["state"] == [1]
                assert answer["name"] == f"e{n}"
                assert answer["argv"][-1] == f"a{n}"
                seen.add(answer["random"])

            await ask(0)
            await async_poll(lambda: template.stats["residents"], "a resident")
            for n in range(1, 300):
                await ask(n)
            for n in range(300, 303):
                await ask(n, leave=True)
                for more in range(20):
                    await ask(1000 + 20 * n + more)
            await ask(5, fail=True)
            await ask(6)
            stats = template.stats
            assert stats["resets"] > 200
            assert 0 < stats["leaves"] < 20
            assert len(seen) == 300 + 3 + 60 + 1

    run(main())


def test_a_program_that_always_leaves(run: Run) -> None:
    async def main() -> None:
        async with resident(["/bin/sh"]) as template:
            args = ["-c", "/bin/true; echo a"]
            for _ in range(2000):
                result = await template.run(args)
                assert result.stdout == b"a\n"
                if template.stats["without"]:
                    break
            assert template.stats["without"] == 1
            assert template.stats["leaves"] == 2
            assert "cannot be undone" in (template.not_reset or "")
            await template.run(["-c", "echo b"])
            assert template.stats["resets"] == 0

    run(main())


def test_plans_that_cannot_have_any(run: Run) -> None:
    async def main() -> None:
        limits = Limits(rlimits={resource.RLIMIT_CPU: (100, 100)})
        async with resident(Command(["/bin/echo", "a"], limits=limits)) as template:
            for _ in range(20):
                assert (await template.run()).stdout == b"a\n"
            assert (template.stats["resets"], template.stats["residents"]) == (0, 0)
            assert template.not_reset is not None

    run(main())


TIGHT = {
    # What the image of its memory is kept in would be too large a file.
    "files": (resource.RLIMIT_FSIZE, 4096, errno.EFBIG),
    "memory": (resource.RLIMIT_DATA, 2 << 20, errno.ENOMEM),
}


@pytest.mark.parametrize("name", TIGHT)
def test_limits_of_the_templates_own(run: Run, name: str) -> None:
    """Those that it has at the effect keep it from residents, and from nothing else."""
    limit, value, error = TIGHT[name]
    command = Command(["echo", "hi"], limits=Limits(rlimits={limit: (value, value)}))

    async def main() -> None:
        async with Template(command, size=1, at="effect", reset=True) as template:
            await async_poll(lambda: template.stats["without"], "a word of the resident")
            assert (await template.run()).stdout == b"hi\n"
            stats = template.stats
            assert (stats["without"], stats["reset_error"]) == (1, error)
            assert (stats["restarted"], stats["direct"]) == (0, 0)

    run(main())


def test_one_that_ends_before_it_has_said_a_word(run: Run) -> None:
    """The next is made later, and after some there is none: here they cannot keep their socket."""
    limits = Limits(rlimits={resource.RLIMIT_NOFILE: (3, 3)})

    async def main() -> None:
        async with Template(Command(["echo", "hi"], limits=limits), size=1, reset=True) as template:
            await async_poll(lambda: template.stats["made"] > 1, "another one")
            for _ in range(100):
                assert (await template.run()).stdout == b"hi\n"
            assert template.stats["made"] <= 10
            assert template.stats["resets"] == 0

    run(main())


def test_deadlines(run: Run) -> None:
    async def main() -> None:
        for seconds in longer_times(0.2):
            command = Command(["/bin/sh"], limits=Limits(timeout=seconds))
            async with resident(command) as template:
                await until_reset(template, ["-c", "echo a"])
                result = await template.run(["-c", "echo begun; while :; do :; done"])
                assert result.timed_out
                await until_reset(template, ["-c", "echo a"])
                assert (await template.run(["-c", "echo a"])).pid != result.pid
            if result.stdout:
                break
        assert result.stdout == b"begun\n"

    run(main())


def test_a_file_of_it_changes(run: Run, tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/echo", program)

    async def main() -> None:
        async with resident([str(program), "a"]) as template:
            await until_reset(template)
            new = tmp_path / "new"
            shutil.copy(shutil.which("printf") or "/usr/bin/printf", new)
            os.replace(new, program)

            async def is_new() -> bool:
                return (await template.run()).stdout == b"a"

            for _ in range(5000):
                if await is_new():
                    break
            assert await is_new()
            await until_reset(template)
            for _ in range(20):
                assert await is_new()
            assert template.stats["stale"] >= 1

    run(main())


def test_what_it_reads_before_the_freeze_changes(run: Run, tmp_path: Path) -> None:
    """It is no effect, so what is made of the file is in the template."""
    file = tmp_path / "file"
    file.write_text("s/x/one/\n")

    async def main() -> None:
        async with resident(["sed", "-f", str(file)], at="effect") as template:
            await until_reset(template, input=b"x\n")
            (tmp_path / "new").write_text("s/x/two/\n")
            os.replace(tmp_path / "new", file)

            async def is_new() -> bool:
                return (await template.run(input=b"x\n")).stdout == b"two\n"

            await async_poll(is_new, "the new file")
            await until_reset(template, input=b"x\n")
            for _ in range(20):
                assert await is_new()
            assert template.stats["stale"] >= 1

    run(main())


def test_kills_at_random(run: Run) -> None:
    async def main() -> None:
        async with resident(["/bin/sh"], size=2) as template:
            killed = lost = 0
            choose = random.Random(1)

            async def one(n: int) -> None:
                nonlocal lost
                result = await template.run(["-c", f"read a; echo $a {n}; exit 3"], b"in\n")
                if result.returncode == -signal.SIGKILL:
                    lost += 1
                else:
                    assert (result.stdout, result.returncode) == (f"in {n}\n".encode(), 3)

            for turn in range(40):
                runs = asyncio.gather(*(one(30 * turn + i) for i in range(30)))
                await asyncio.sleep(0)
                pids = children()
                if pids:
                    try:
                        os.kill(choose.choice(pids), signal.SIGKILL)
                        killed += 1
                    except ProcessLookupError:
                        pass
                await runs
            assert lost <= killed
            await until_reset(template, ["-c", "echo a"])

    run(main())
    assert children() == []


def test_the_engine_goes_on(run: Run) -> None:
    """The template ends before the engine that it was on."""

    async def main() -> None:
        async with Engine(1) as engine:
            async with Template(["/bin/echo", "a"], engine=engine, reset=True) as template:
                await until_reset(template)
            result = await engine.run(Command(["/bin/echo", "b"]))
            assert result.stdout == b"b\n"
            await async_poll(lambda: children() == [], "the end of all residents")

    run(main())


def test_residents_end_when_this_process_dies() -> None:
    script = """
import asyncio, os, signal
from fastspawn import Template
async def main():
    async with Template(["/bin/echo", "a"], size=1, reset=True) as template:
        while not template.stats["resets"]:
            result = await template.run()
        print(result.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    pid = int(done.stdout)

    async def gone() -> None:
        await async_poll(lambda: not os.path.exists(f"/proc/{pid}/exe"), "its end")

    asyncio.run(gone())


# ---- explain ----


def explain(*args: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = (*prefix, sys.executable, "-m", "fastspawn.snapshot", "explain", "--rounds", "5")
    return subprocess.run(
        (*command, *args), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120
    )


def way(name: str) -> str:
    return rf"(?m)^ +\d+ \(\d+\) +\d+\.\dx  {name}$"


def test_explain_what_a_reset_costs() -> None:
    done = explain("--", "echo", "hi")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"(?m)^resets to the first effect, after \d+ of \d+ requests$", done.stdout)
    assert re.search(r"(?m)^  [1-9]\d* system calls in a request", done.stdout)
    assert re.search(r"(?m)^  [1-9]\d* pages to put back, which takes \d+\.\d micro", done.stdout)
    for name in ("exec", "fork at main", "fork at the first effect", "reset to the first effect"):
        assert re.search(way(name), done.stdout), name
    assert "no reset" not in done.stdout


@pytest.mark.parametrize("at", ["main", "effect"])
def test_explain_what_it_leaves_at(at: str) -> None:
    done = explain("--snapshot-at", at, "--", "sh", "-c", "echo a; exec echo b")
    assert (done.returncode, done.stderr) == (0, "")
    assert "no reset: it does what cannot be undone: execve(): it becomes an" in done.stdout
    assert re.search(r"(?m)^  left at execve in 2 of \d+ requests$", done.stdout)
    assert "  reset to" not in done.stdout
    assert re.search(way("fork at main"), done.stdout)


def test_explain_a_checkpoint(tmp_path: Path) -> None:
    script = tmp_path / "handler.py"
    script.write_text("from fastspawn import checkpoint\ncheckpoint()\nprint(1)\n")
    done = explain("--", sys.executable, str(script))
    assert done.stderr == ""
    for name in ("exec", "fork at main", "fork at its checkpoint", "reset to its checkpoint"):
        assert re.search(way(name), done.stdout), name


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (
            ("refuse_call.py", "157/0/59"),
            "the kernel has no Syscall User Dispatch (Linux 5.11), or ",
        ),
        (("refuse_call.py", "434"), "the kernel has no pidfd_open(2) (Linux 5.3), or "),
        (("refuse_call.py", "436"), "the kernel has no close_range(2) (Linux 5.9), or "),
        (("refuse_call.py", "310"), "it may not read its own memory (process_vm_readv(2))"),
    ],
    ids=["dispatch", "pidfd_open", "close_range", "process_vm_readv"],
)
def test_explain_what_the_kernel_lacks(refused: tuple[str, str], why: str) -> None:
    """Whatever it can do without is told all the same."""
    done = explain("--", "echo", "hi", prefix=tuple(script(*refused)))
    assert done.stderr == ""
    assert f"no reset: it cannot be reset here: {why}" in done.stdout
    assert re.search(way("fork at main"), done.stdout)


def test_explain_a_program_that_is_no_template(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/echo").read_bytes())
    program.chmod(0o4755)
    done = explain("--", str(program))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"no template: {program} is setuid")


def test_explain_what_does_not_end() -> None:
    done = explain("--timeout", "0.5", "--", "sleep", "60")
    assert (done.returncode, done.stderr) == (1, "")
    assert re.search(r"(?m)^no costs: a run took more than 0\.\d s$", done.stdout)
