"""What a program may ask of its surroundings before its first effect: it is told what by exec."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import needs
from fastspawn import DEVNULL, Command, Engine, Result, Template
from soak.processes import children
from support import async_poll

pytestmark = needs.effects

Compile = Callable[[str], Path]
WRITE, POLL, FCNTL, IOCTL = 1, 7, 72, 16
HEADERS = """
    #define _GNU_SOURCE
    #include <errno.h>
    #include <fcntl.h>
    #include <poll.h>
    #include <sched.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/ioctl.h>
    #include <unistd.h>
    static char text[5000];
    static int by_byte(const void *a, const void *b) { return *(char *)a - *(char *)b; }
    #define say(...) (snprintf(text, sizeof text, __VA_ARGS__), write(1, text, strlen(text)))
"""


@pytest.fixture
def program(tmp_path: Path) -> Compile:
    def build(body: str) -> Path:
        code, path = tmp_path / "program.c", tmp_path / "program"
        code.write_text(f"{HEADERS} int main(void) {{ {body} }}")
        subprocess.run(["cc", "-O1", "-w", code, "-o", path], check=True)
        return path

    return build


def ending(result: Result) -> tuple[int, bytes, bytes]:
    return result.returncode, result.stdout, result.stderr


async def stop_of(command: Command) -> int:
    """... where forks say what an execution does, whatever their standard input is."""
    async with (
        Engine(1) as engine,
        Template(command, engine=engine, at="effect") as template,
    ):
        for input in (None, b"", b"input"):
            direct = await engine.run(command, input)
            assert ending(await template.run(input=input)) == ending(direct)
        assert (template.stats["forked"], template.stats["direct"]) == (3, 0)
        stop = template.stats["stopped_by"]
    assert type(stop) is int
    return stop


EACH = "for (int i = 0; i < 3; i++)"
ALL = "struct pollfd all[] = {{0, 0}, {1, 0}, {2, 0}};"
PASSED = {
    "isatty": f'{EACH} if (isatty(i) || errno != ENOTTY) return 1; say("none");',
    "a file": 'int f = open("/etc/passwd", O_RDONLY); say("%d %m", isatty(f));',
    "window": f'struct winsize w; {EACH} if (ioctl(i, TIOCGWINSZ, &w) == 0) return 1; say("%m");',
    "group": f'{EACH} if (tcgetpgrp(i) != -1) return 1; say("%m");',
    "close-on-exec": f'int f = 0; {EACH} f |= fcntl(i, F_GETFD) << i; say("%d", f);',
    # As Rust's programs do. (Whether somebody has hung up by then is a matter of who is quicker.)
    "closed": f'{ALL} int r = poll(all, 3, 0); say("%d", r < 0 || all[0].revents & POLLNVAL);',
    "where": 'char name[4096]; getcwd(name, sizeof name); say("%s", name);',
    "processors": """
        cpu_set_t set;
        sched_getaffinity(0, sizeof set, &set);
        say("%d", CPU_COUNT(&set));""",
    "sort": """
        char *bytes = malloc(3000);
        for (int i = 0; i < 3000; i++) bytes[i] = i % 100;
        qsort(bytes, 3000, 1, by_byte);
        say("%d %d", bytes[0], bytes[2999]);""",
}


@pytest.mark.parametrize("body", PASSED.values(), ids=PASSED)
def test_the_same_for_every_request(program: Compile, body: str) -> None:
    path = program(body)
    for command in (Command([path]), Command([path], stdout=DEVNULL)):
        assert asyncio.run(stop_of(command)) == WRITE


NOT_PASSED = {
    "mode": ('say("%d", fcntl(0, F_GETFL) & O_ACCMODE);', FCNTL),
    "set": ('say("%d", fcntl(1, F_SETFD, FD_CLOEXEC));', FCNTL),
    "a file's": (
        'int n = 0, f = open("/etc/passwd", O_RDONLY); say("%d %d", ioctl(f, FIONREAD, &n), n);',
        IOCTL,
    ),
    "size": ('int n = 0; say("%d %d", ioctl(0, FIONREAD, &n), n);', IOCTL),
    "one": ('struct pollfd one = {1, 0}; say("%d", poll(&one, 1, 0));', POLL),
    "events": (f'{ALL} all[1].events = POLLOUT; say("%d", poll(all, 3, 0));', POLL),
    "waits": (f'{ALL} poll(all, 3, 1); say("here");', POLL),
    "nowhere": ('say("%d", poll((void *)1, 3, 0)); say("%d", errno);', POLL),
}


@pytest.mark.parametrize(("body", "stop"), NOT_PASSED.values(), ids=NOT_PASSED)
def test_another_for_each_request(program: Compile, body: str, stop: int) -> None:
    path = program(body)

    async def main() -> int:
        async with Template([path], size=1, at="effect") as template:
            assert (await template.run()).returncode >= 0
            stopped = template.stats["stopped_by"]
            assert type(stopped) is int
            return stopped

    assert asyncio.run(main()) == stop


TERMINAL = """
import asyncio, sys
from fastspawn import Command, Template
async def main():
    command = Command([sys.argv[1]], stdout=None)
    async with Template(command, size=1, at="effect") as template:
        said = (await template.run()).stderr.decode()
        print(said, template.stats["forked"], template.stats["direct"], file=sys.stderr)
asyncio.run(main())
"""


@pytest.mark.parametrize("terminal", [True, False])
def test_the_servers_own_terminal(program: Compile, terminal: bool) -> None:
    """Such a job is executed: the template has been told that there is none."""
    path = program('dprintf(2, "%d", isatty(1));')
    ours, theirs = os.openpty() if terminal else os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", TERMINAL, path],
            stdout=theirs,
            stderr=subprocess.PIPE,
            check=True,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stderr.decode() == ("1 0 1\n" if terminal else "0 1 0\n")


def test_where_it_runs_gets_another_name(tmp_path: Path, program: Compile) -> None:
    """The link leads to the same directory as before."""
    path = program('char name[4096]; getcwd(name, sizeof name); say("%s", name);')
    (tmp_path / "a" / "here").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/here")

    async def main() -> None:
        command = Command([path], cwd=tmp_path / "link")
        async with Template(command, size=1, at="effect") as template:
            assert (await template.run()).stdout == os.fsencode(tmp_path / "a" / "here")
            (tmp_path / "a").rename(tmp_path / "b")
            (tmp_path / "new").symlink_to("b/here")
            (tmp_path / "new").rename(tmp_path / "link")

            async def is_new() -> bool:
                return (await template.run()).stdout == os.fsencode(tmp_path / "b" / "here")

            await async_poll(is_new, "the new name")

    asyncio.run(main())


def test_processors_that_it_loses(program: Compile) -> None:
    """As cpusets do: a fork would have fewer than its template was told."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one processor only")
    path = program(PASSED["processors"])

    async def main() -> None:
        async with Template([path], size=1, at="effect") as template:
            assert (await template.run()).stdout == b"%d" % len(allowed)
            for pid in children():
                os.sched_setaffinity(pid, {min(allowed)})

            async def is_seen() -> bool:
                await template.run()
                return bool(template.stats["stale"])

            await async_poll(is_seen, "the change")

    asyncio.run(main())
