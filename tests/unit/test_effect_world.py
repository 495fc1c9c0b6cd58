"""Templates that stop before the first effect, in a world that changes: each of thirty requests at
once is answered as an execution at the same time is."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import needs
from conftest import Run
from fastspawn import Command, Engine, Result, Template
from support import async_poll

pytestmark = needs.effects

AT_ONCE = 30
ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}


def rewrite(folder: Path, i: int) -> None:
    (folder / "file").write_text(f"{i}\nb\na\n")


def replace(folder: Path, i: int) -> None:
    (folder / "new").write_text(f"{i}\nb\na\n")
    (folder / "new").rename(folder / "file")


def come_and_go(folder: Path, i: int) -> None:
    (folder / f"entry-{i}").touch()
    if i > 1:
        (folder / f"entry-{i - 2}").unlink()


def insert(folder: Path, i: int) -> None:
    db = sqlite3.connect(folder / "db")
    with db:
        db.execute("create table if not exists t(a)")
        db.execute("insert into t values(?)", (i,))
    db.close()


def commit(folder: Path, i: int) -> None:
    rewrite(folder, i)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for args in (["init", "-q"], ["add", "file"], [*who, "commit", "-qm", f"step {i}"]):
        subprocess.run(["git", *args], cwd=folder, env=ENV, check=True)


def turn(folder: Path, i: int) -> None:
    """A link that points elsewhere each time."""
    (folder / f"target-{i}").write_text(str(i))
    (folder / "link").symlink_to(f"target-{i}")
    (folder / "link").rename(folder / "file")


READS = "for (;;) { my $l = <F>; last unless defined $l; print $l }"
CHANGING: dict[str, tuple[tuple[str, ...], Callable[[Path, int], None]]] = {
    "cat": (("cat", "file"), rewrite),
    "cat-link": (("cat", "file"), turn),
    "sort": (("sort", "file"), rewrite),
    "sort-replaced": (("sort", "file"), replace),
    "sort-link": (("sort", "file"), turn),
    "ls": (("ls", "."), come_and_go),
    "ls-long": (("ls", "-ln", "--time-style=full-iso", "."), come_and_go),
    "stat": (("stat", "-c", "%s %y %z %i", "file"), replace),
    "sqlite3": (("sqlite3", "db", "select count(*), max(a) from t"), insert),
    "git-log": (("git", "log", "--format=%s %H", "-1"), commit),
    "git-status": (("git", "status", "--short"), commit),
    "sed": (("sed", "-n", "1p", "file"), rewrite),
    "awk": (("awk", "{ print NR, $0 }", "file"), rewrite),
    "dash": (("dash", "-c", "read a <file; echo $a; pwd"), rewrite),
    "dash-source": (("dash", "./file"), lambda folder, i: script_of(folder, f"echo {i}")),
    "bash": (("bash", "-c", "echo $(<file) $PWD ./*"), rewrite),
    "bash-script": (("bash", "file"), lambda folder, i: script_of(folder, f"echo {i} $0")),
    "perl": (("perl", "-we", f"open F, 'file'; {READS}"), rewrite),
    "perl-script": (("perl", "file"), lambda folder, i: script_of(folder, f'print "{i}\\n";')),
    "python3": ((sys.executable, "-c", "print(open('file').read())"), rewrite),
    "python3-script": (
        (sys.executable, "file"),
        lambda folder, i: script_of(folder, f"print({i})"),
    ),
    "node": (("node", "-e", "console.log(fs.readFileSync('file', 'utf8'))"), rewrite),
}


def script_of(folder: Path, text: str) -> None:
    (folder / "file").write_text(text + "\n")


def ending(result: Result) -> tuple[int, bytes, bytes]:
    return result.returncode, result.stdout, result.stderr


def command(argv: tuple[str, ...], folder: Path) -> Command:
    if shutil.which(argv[0]) is None:
        pytest.skip(f"no {argv[0]} here")
    return Command(argv, cwd=folder, env=ENV)


async def seen(template: Template, is_new: Callable[[Result], bool]) -> None:
    """Wait until a fork answers as it should: with one process, all later ones must."""

    async def now() -> bool:
        forked = template.stats["forked"]
        new = is_new(await template.run())
        return new and template.stats["forked"] > forked

    await async_poll(now, "a fork sees the change")


@pytest.mark.parametrize(("argv", "change"), CHANGING.values(), ids=CHANGING)
def test_as_by_exec_while_files_change(
    run: Run, tmp_path: Path, argv: tuple[str, ...], change: Callable[[Path, int], None]
) -> None:
    change(tmp_path, 0)
    what = command(argv, tmp_path)

    async def main() -> None:
        async with (
            Engine(1) as engine,
            Template(what, engine=engine, at="effect") as template,
        ):
            said = set()
            for i in range(1, 4):
                change(tmp_path, i)
                direct = await engine.run(what)
                assert direct.stderr == b""
                await seen(template, lambda r, direct=direct: ending(r) == ending(direct))

                async def all_forked() -> bool:
                    before = template.stats["forked"]
                    calls = [c for _ in range(AT_ONCE) for c in (template.run(), engine.run(what))]
                    results = await asyncio.gather(*calls)
                    for forked, executed in zip(results[::2], results[1::2], strict=True):
                        assert ending(forked) == ending(executed)
                    return template.stats["forked"] == before + AT_ONCE

                # A template that a busy machine keeps waiting is passed by, but not always.
                await async_poll(all_forked, "forks only")
                said.add(direct.stdout)
            assert len(said) == (3 if argv[1] != "status" else 1)
            assert template.kind == "effect"

    run(main())


@dataclass
class World:
    """What an answer may depend on."""

    before: float
    after: float
    input: bytes
    folder: Path


def is_now(out: bytes, world: World) -> bool:
    return world.before - 0.02 <= float(out) <= world.after + 0.02


def is_permutation(out: bytes, world: World) -> bool:
    return sorted(map(int, out.split())) == list(range(1, 1001))


def is_new_file(out: bytes, world: World) -> bool:
    path = Path(out.decode().strip())
    return path.parent == world.folder and path.stat().st_size == 0


def is_input(out: bytes, world: World) -> bool:
    return out == world.input


def is_number(out: bytes, world: World) -> bool:
    return 0 <= float(out) < 1


def is_time_and_input(out: bytes, world: World) -> bool:
    now, _, rest = out.partition(b" ")
    return is_now(now, world) and rest == world.input


PYTHON = "import time, sys; print(time.time(), sys.stdin.read(), end='')"
NODE = """
const now = (performance.timeOrigin + performance.now()) / 1e3;
process.stdout.write(now + ' ' + fs.readFileSync(0));
"""
OWN: dict[str, tuple[tuple[str, ...], Callable[[bytes, World], bool]]] = {
    "date": (("date", "+%s.%N"), is_now),
    "cat-stdin": (("cat",), is_input),
    "shuf": (("shuf", "-i", "1-1000"), is_permutation),
    "mktemp": (("mktemp", "-p", "FOLDER"), is_new_file),
    "dash": (("dash", "-c", 'printf "%s " "$(date +%s.%N)"; cat'), is_time_and_input),
    "bash": (("bash", "-c", 'printf "%s " "$EPOCHREALTIME"; cat'), is_time_and_input),
    "perl": (("perl", "-MTime::HiRes=time", "-e", "printf '%.9f ', time; print <STDIN>"),
             is_time_and_input),
    "python3": ((sys.executable, "-c", PYTHON), is_time_and_input),
    "node": (("node", "-e", NODE), is_time_and_input),
}  # fmt: skip
SLOW = {"node"}


@pytest.mark.parametrize("name", OWN)
def test_each_request_has_its_own(run: Run, tmp_path: Path, name: str) -> None:
    """Executed and forked by turns: each answer is true of its request, and no two are equal."""
    argv, is_true = OWN[name]
    what = command(tuple(word.replace("FOLDER", str(tmp_path)) for word in argv), tmp_path)
    rounds = 1 if name in SLOW else 3

    async def main() -> None:
        async with (
            Engine(2) as engine,
            Template(what, engine=engine, at="effect") as template,
        ):

            async def ask(i: int) -> bytes:
                world = World(time.time(), 0, b"%d\n" % i * 100, tmp_path)
                way = engine.run(what, world.input) if i % 2 else template.run(input=world.input)
                result = await way
                world.after = time.time()
                assert (result.returncode, result.stderr) == (0, b"")
                assert is_true(result.stdout, world), (result.stdout, world)
                return result.stdout

            for _ in range(rounds):
                said = await asyncio.gather(*(ask(i) for i in range(2 * AT_ONCE)))
                assert len(set(said)) == 2 * AT_ONCE
            assert template.stats["forked"] == rounds * AT_ONCE
            assert template.stats["direct"] == 0

    run(main())


def test_awk_starts_its_random_numbers_anew(run: Run, tmp_path: Path) -> None:
    """By the second, so within one all are equal, executed or forked."""
    what = command(("awk", "BEGIN { srand(); x = rand(); print srand(), x }"), tmp_path)

    async def main() -> None:
        async with (
            Engine(2) as engine,
            Template(what, engine=engine, at="effect") as template,
        ):
            found: dict[bytes, bytes] = {}

            async def ask(way: Engine | Template) -> None:
                before = int(time.time() - 0.02)  # time(2) is a tick behind
                result = await (way.run() if isinstance(way, Template) else way.run(what))
                seed, value = result.stdout.split()
                assert before <= int(seed) <= time.time()
                assert found.setdefault(seed, value) == value

            async def two_seconds() -> bool:
                await asyncio.gather(*(ask(way) for way in [engine, template] * AT_ONCE))
                return len(found) > 2

            await async_poll(two_seconds, "numbers of several seconds")
            assert len(set(found.values())) == len(found)
            assert template.stats["direct"] == 0

    run(main())


FIXED = {
    "pwd": ("pwd",),
    "id": ("id",),
    "env": ("env",),
    "printenv": ("printenv", "LC_ALL"),
    "nproc": ("nproc",),
    "uname": ("uname", "-a"),
}


@pytest.mark.parametrize("argv", FIXED.values(), ids=FIXED)
def test_as_by_exec(run: Run, tmp_path: Path, argv: tuple[str, ...]) -> None:
    what = command(argv, tmp_path)

    async def main() -> None:
        async with (
            Engine(2) as engine,
            Template(what, engine=engine, at="effect") as template,
        ):
            both = [call for _ in range(AT_ONCE) for call in (template.run(), engine.run(what))]
            results = await asyncio.gather(*both)
            assert {ending(result) for result in results} == {ending(results[1])}
            assert results[1].returncode == 0
            assert (template.stats["forked"], template.stats["direct"]) == (AT_ONCE, 0)

    run(main())


PROGRAMS = {
    # Read a file, then the clock without a system call.
    "config-then-clock": (
        r"""
        #include <stdio.h>
        #include <time.h>
        int main(int argc, char **argv) {
            char text[100] = "";
            struct timespec t;
            fgets(text, sizeof text, fopen("file", "r"));
            clock_gettime(CLOCK_REALTIME, &t);
            printf("%ld.%09ld %s", (long)t.tv_sec, t.tv_nsec, text);
        }""",
        -11 - 64,  # a clock
    ),
    "config-then-rdtsc": (
        r"""
        #include <stdio.h>
        #include <time.h>
        #include <x86intrin.h>
        int main(int argc, char **argv) {
            char text[100] = "";
            struct timespec t;
            fgets(text, sizeof text, fopen("file", "r"));
            unsigned long long a = __rdtsc(), b = __rdtsc();
            clock_gettime(CLOCK_REALTIME, &t);
            printf("%ld.%09ld %s", (long)t.tv_sec, a < b ? t.tv_nsec : -1, text);
        }""",
        -11 - 64,  # a clock
    ),
    # Seek in a file, stop, and read on: at its own offset.
    "seek": (
        r"""
        #include <stdio.h>
        #include <string.h>
        #include <fcntl.h>
        #include <time.h>
        #include <unistd.h>
        int main(void) {
            char text[100] = "", c;
            struct timespec t;
            int fd = open("file", O_RDONLY);
            lseek(fd, -3, SEEK_END);
            lseek(fd, -1, SEEK_CUR);
            lseek(fd, 0, SEEK_SET);
            getppid();
            for (char *at = text; read(fd, at, 1) == 1 && *at != '\n'; at++) usleep(100);
            clock_gettime(CLOCK_REALTIME, &t);
            printf("%ld.%09ld %s", (long)t.tv_sec, t.tv_nsec, text);
        }""",
        110,
    ),
}


@pytest.mark.parametrize(("source", "stop"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_file_then_the_clock(run: Run, tmp_path: Path, source: str, stop: int) -> None:
    (tmp_path / "program.c").write_text(source)
    subprocess.run(["cc", "-O1", "-w", "program.c", "-o", "program"], cwd=tmp_path, check=True)
    what = Command([tmp_path / "program"], cwd=tmp_path, env=ENV)
    rewrite(tmp_path, 0)

    async def main() -> None:
        async with (
            Engine(1) as engine,
            Template(what, engine=engine, at="effect") as template,
        ):
            assert template.stats["stopped_by"] == stop

            async def ask(way: Engine | Template) -> bytes:
                before = time.time()
                result = await (way.run() if isinstance(way, Template) else way.run(what))
                assert result.returncode == 0
                found = re.fullmatch(rb"(\d+\.\d+) (\d+)\n?", result.stdout)
                assert found is not None
                now, text = found.groups()
                assert before - 0.02 <= float(now) <= time.time() + 0.02
                return text

            for i in range(1, 4):
                rewrite(tmp_path, i)
                new = b"%d" % i
                await seen(template, lambda r, new=new: r.stdout.split()[1] == new)

                async def all_forked(new: bytes = new) -> bool:
                    before = template.stats["forked"]
                    said = await asyncio.gather(*(ask(way) for way in [engine, template] * AT_ONCE))
                    assert set(said) == {new}
                    return template.stats["forked"] == before + AT_ONCE

                await async_poll(all_forked, "forks only, and none passes a busy template by")

    run(main())
