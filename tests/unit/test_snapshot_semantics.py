"""The same programs executed and forked from a template: what they see, say and end with."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

import needs
from conftest import Run
from fastspawn import Command, Engine, Limits, Result, Template, TemplateError
from fastspawn import _template as template_module
from support import BOUND, longer_times, poll

pytestmark = needs.templates

PYTHON = sys.executable
SHELL = "/bin/sh"

ROOT = Path(__file__).parents[2]
SOURCES = [path.read_bytes() for path in sorted((ROOT / "csrc").rglob("*.[ch]"))]
BUILD = zlib.crc32(b"".join(SOURCES))
"""As setup.py has it."""


def build_object(folder: Path, compiler: str, build: int, more: str = "") -> Path:
    """What templates load, made by this compiler."""
    flags = [f"CC={compiler}", f"OUT={folder}", f"DEFINE=-DFSP_BUILD={build}u {more}"]
    command = ["make", "-f", "tests/c/Makefile", "preload", *flags]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder / "preload.so"


Case = tuple[Command, "bytes | None"]


def program(*argv: str, input: bytes | None = None, **options: Any) -> Case:
    return Command(argv, **options), input


async def forks(
    command: Command, input: bytes | None, at: Literal["main", "effect"]
) -> list[Result]:
    """Two, of which none may have fallen back to exec."""
    async with Template(command, size=1, at=at) as template:
        forked = [await template.run(input=input) for _ in range(2)]
        assert template.stats["direct"] == 0
        assert template.stats["forked"] == 2
        assert template.kind == at
    return forked


async def both(command: Command, input: bytes | None = None) -> tuple[Result, list[Result]]:
    """Executed once, and forked at each place."""
    async with Engine(1) as engine:
        direct = await engine.run(command, input)
    forked = await forks(command, input, "main")
    if at_effect(command):
        forked += await forks(command, input, "effect")
    return direct, forked


def at_effect(command: Command) -> bool:
    """It can be stopped there."""
    return platform.machine() == "x86_64" and not is_of_musl(command)


def is_of_musl(command: Command) -> bool:
    return b"/ld-musl-" in Path(command.resolve()).read_bytes()[:4096]


def seen(result: Result) -> object:
    return result.returncode, result.stdout, result.stderr


def compare(
    run: Run,
    command: Command,
    input: bytes | None = None,
    normal: Callable[[Result], object] = seen,
) -> Result:
    direct, forked = run(both(command, input))
    for result in forked:
        assert normal(result) == normal(direct)
    return direct


# ---- programs as they are ----

TEXT = b"pear\napple\nfig\napple\n"
COUNT = '{ n[$1]++ } END { for (k in n) print k, n[k] | "sort" }'
QUERY = "create table t(a); insert into t values(41); select a + 1 from t;"
PRINT = "import sys; print(sys.argv, sys.stdin.read()); sys.exit(3)"
QUOTE = "printf '%q\\n' \"$@\"; set -o pipefail; false | true"

PROGRAMS: dict[str, Case] = {
    "echo": program("echo", "-n", "a b", ""),
    "cat": program("cat", input=TEXT * 50_000),
    "sort": program("sort", "-u", input=TEXT),
    "wc": program("wc", "-l", input=TEXT),
    "date": program("date", "-u", "-d", "@86400", "+%F %T"),
    "env": program("env", env={"A": "1", "B": "two words", "EMPTY": ""}),
    "env-empty": program("env", env={}),
    "ls-missing": program("ls", "/no/such/file"),
    "head": program("head", "-c", "3", input=TEXT * 100_000),
    "false": program("false"),
    "pwd": program("pwd", cwd="/usr"),
    "uniq-option": program("uniq", "--no-such-option", input=b""),
    "sh": program(SHELL, "-c", 'echo "$0 $# $*"; exit 7', "name", "x", "y z"),
    "sh-stdin": program(SHELL, "-s", input=b"echo $((6 * 7)); exit 5\n"),
    "bash": program("bash", "-c", QUOTE, "b", "a b"),
    "perl": program("perl", "-we", "print map { uc } <STDIN>; warn 'w'; exit 3", input=TEXT),
    "perl-die": program("perl", "-e", "die 'dead'"),
    "awk": program("awk", COUNT, input=TEXT),
    "sed": program("sed", "-n", "2p;$=", input=TEXT),
    "grep": program("grep", "-c", "apple", input=TEXT),
    "jq": program("jq", "-c", ".a + 1", input=b'{"a": 41}'),
    "sqlite3": program("sqlite3", ":memory:", QUERY),
    "ruby": program("ruby", "-e", "puts STDIN.read.upcase", input=TEXT),
    "python": program(PYTHON, "-c", PRINT, "a", input=TEXT),
    "python-error": program(PYTHON, "-c", "1 / 0"),
    "git": program("git", "--version"),
}


@pytest.mark.parametrize(
    "name", [name for name, (command, _) in PROGRAMS.items() if shutil.which(command.argv[0])]
)
def test_the_same_answer(run: Run, name: str) -> None:
    compare(run, *PROGRAMS[name])


@pytest.mark.parametrize("number", [1, 2, 3, 6, 8, 9, 10, 11, 13, 14, 15, 24, 31])
def test_a_signal_that_it_raises(run: Run, number: int) -> None:
    result = compare(run, Command([SHELL, "-c", f"echo here; kill -{number} $$; echo on"]))
    assert result.returncode == -number


# ---- what it is given ----

GROUPS = "import os; print(os.getpid() == os.getpgid(0), os.getpgrp() == os.getsid(0))"
SEE = f"""
grep -E '^(Umask|Sig(Blk|Ign|Cgt)|Uid|Gid|Groups|NoNewPrivs|Seccomp):' /proc/self/status
cat /proc/self/limits
for fd in /proc/self/fd/*; do echo "${{fd##*/}} $(readlink $fd | sed 's/[0-9]*//g')"; done
ulimit -a; umask; pwd; nice; echo "$0" "$-" $#
exec {PYTHON} -S -c '{GROUPS}'
"""

SURROUNDINGS: dict[str, Command] = {
    "plain": Command([SHELL, "-c", SEE]),
    "cwd": Command([SHELL, "-c", SEE], cwd="/"),
    "umask": Command([SHELL, "-c", SEE], umask=0o27),
    "session": Command([SHELL, "-c", SEE], start_new_session=True),
    "signals": Command([SHELL, "-c", SEE], restore_signals=False),
    "limits": Command(
        [SHELL, "-c", SEE],
        limits=Limits(rlimits={resource.RLIMIT_NOFILE: (50, 60), resource.RLIMIT_CORE: (0, 0)}),
    ),
    "merged": Command([SHELL, "-c", SEE], stderr=subprocess.STDOUT),
    "discarded": Command([SHELL, "-c", SEE], stderr=subprocess.DEVNULL),
    "inherited": Command([SHELL, "-c", SEE], stderr=None),
}


@pytest.mark.parametrize("name", SURROUNDINGS)
@pytest.mark.parametrize("input", [None, b"", b"text"], ids=["null", "empty", "input"])
def test_the_same_surroundings(run: Run, name: str, input: bytes | None) -> None:
    result = compare(run, SURROUNDINGS[name], input)
    assert result.returncode == 0
    assert b"Umask" in result.stdout


STACKS = """
import ctypes
libc, attr, size = ctypes.CDLL(None), ctypes.create_string_buffer(256), ctypes.c_size_t()
libc.pthread_attr_init(attr)
libc.pthread_attr_getstacksize(attr, ctypes.byref(size))
print(size.value)
"""


def test_stacks_of_threads(run: Run) -> None:
    """Libc asks how large they are before main."""
    limits = Limits(rlimits={resource.RLIMIT_STACK: (3 << 20, 3 << 20)})
    assert compare(run, Command([PYTHON, "-S", "-c", STACKS], limits=limits)).stdout == b"3145728\n"


def test_argv0_is_as_given(run: Run) -> None:
    command = Command(["another", "-c", "echo $0; exec 2>&1; no-such-command"], executable=SHELL)
    assert compare(run, command).stdout.startswith(b"another\n")


def test_a_large_environment(run: Run) -> None:
    env = {f"NAME_{i}": "x" * 1000 for i in range(150)} | {"PATH": os.environ["PATH"]}
    assert len(compare(run, Command(["env"], env=env)).stdout) > 150_000


def test_one_too_large_for_a_message_is_executed(run: Run) -> None:
    env = {f"NAME_{i}": "x" * 1000 for i in range(300)} | {"PATH": os.environ["PATH"]}

    async def main() -> None:
        async with Template(Command(["env"]), size=1) as template:
            result = await template.run(env=env)
            assert result.stdout.count(b"\n") == 301
            assert template.stats["direct"] == 1

    run(main())


def test_the_program_is_found_on_path(run: Run, tmp_path: Path) -> None:
    (tmp_path / "found").symlink_to(shutil.which("sort") or "")
    result = compare(run, Command(["found"], env={"PATH": f"/no/such:{tmp_path}"}), TEXT)
    assert result.stdout.startswith(b"apple\n")


@pytest.mark.parametrize("line", ["#!/bin/sh", "#!/bin/sh -u", "#! /usr/bin/env sh"])
def test_a_script(run: Run, tmp_path: Path, line: str) -> None:
    script = tmp_path / "a script"
    script.write_text(line + '\necho "$0" $# "$1" $-\necho $no_such_variable\nexit 4\n')
    script.chmod(0o755)
    result = compare(run, Command([script, "a b"]))
    assert result.stdout.startswith(os.fsencode(script) + b" 1 a b")


def test_usage_is_its_own(run: Run) -> None:
    burn = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done"

    async def main() -> None:
        async with Template([SHELL, "-c", burn], size=1) as template:
            busy = await template.run()
            idle = await template.run(["-c", ":"])
            assert busy.rusage.ru_utime > 5 * idle.rusage.ru_utime
            assert idle.rusage.ru_maxrss > 0
            assert idle.rusage.ru_minflt < 1000

    run(main())


def test_the_same_usage(run: Run) -> None:
    """Memory that it wrote, and time that it took, to a factor: forks need not start anew."""
    # ru_maxrss of an executed process is at least that of the process that started it; VmHWM is
    # its own.
    highest = "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    work = f"text = b'x' * (60 << 20); sum(range(3_000_000)); {highest}"
    direct, forked = run(both(Command([PYTHON, "-S", "-c", work])))
    for result in forked:
        used, expected = result.rusage, direct.rusage
        assert 0.9 < used.ru_maxrss / int(direct.stdout) < 1.1
        assert used.ru_minflt * os.sysconf("SC_PAGESIZE") > 60 << 20
        assert 1 / 3 < used.ru_utime / expected.ru_utime < 3


# ---- what it does ----


def test_grandchildren_that_outlive_it(run: Run) -> None:
    """What is written until the drain time has passed is the answer, by either way."""
    script = "(sleep 0.05; echo late) & echo early"
    command = Command([SHELL, "-c", script], limits=Limits(drain=BOUND))
    assert compare(run, command).stdout == b"early\nlate\n"


def test_a_deadline_ends_the_group(run: Run) -> None:
    script = "trap 'echo end; exit 3' TERM; sleep 60 & echo $!; wait"

    def gone(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return True

    def normal(result: Result) -> object:
        pid, rest = result.stdout.split(b"\n", 1)
        poll(lambda: gone(int(pid)), "the end of what it left")
        return result.returncode, result.timed_out, rest

    for seconds in longer_times(0.3):
        limits = Limits(timeout=seconds, kill_grace=BOUND)
        direct, forked = run(both(Command([SHELL, "-c", script], limits=limits), None))
        if all(b"\n" in result.stdout for result in (direct, *forked)):
            break
    assert normal(direct) == (3, True, b"end\n")
    assert [normal(result) for result in forked] == [(3, True, b"end\n")] * len(forked)


def test_one_that_executes_itself_again(run: Run) -> None:
    script = 'echo $1 $$ $LD_PRELOAD; [ $1 = 3 ] || exec "$0" -c "$2" "$0" $(($1 + 1)) "$2"'
    command = Command([SHELL, "-c", script, SHELL, "1", script])

    def normal(result: Result) -> object:
        assert set(re.findall(rb"^\d (\d+)$", result.stdout, re.M)) == {b"%d" % result.pid}
        return re.sub(rb" \d+", b"", result.stdout)

    compare(run, command, None, normal)


@needs.program("perl")
def test_a_title_of_its_own(run: Run) -> None:
    script = "$0 = 'title'; open F, '/proc/self/comm'; print <F>; print \"$0\\n\""
    compare(run, Command(["perl", "-e", script]))


def test_the_command_line_in_proc_is_the_templates(run: Run) -> None:
    """Documented."""
    script = "tr '\\0' ' ' </proc/$$/cmdline"
    command = Command([SHELL, "-c", script, "a"])
    assert compare(run, command).stdout.endswith(b" a ")

    async def main() -> None:
        async with Template(command, size=1) as template:
            assert (await template.run(["-c", script, "another"])).stdout.endswith(b" a ")

    run(main())


def test_forks_share_where_things_are(run: Run) -> None:
    """Documented: the layout of the address space is the template's."""
    command = Command([SHELL, "-c", "read a </proc/self/maps; echo $a"])

    async def main() -> None:
        async with Template(command, size=1) as template:
            assert len({(await template.run()).stdout for _ in range(3)}) == 1

    run(main())


# ---- compiled programs ----

SOURCE_CPP = r"""
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>
#include <vector>
static std::string *made = new std::string("made");
struct Noisy {
    Noisy() : text("constructed") { std::atexit([] { std::puts("at exit"); }); }
    ~Noisy() { std::cout << "destroyed " << text << std::endl; }
    std::string text;
} noisy;
int main(int argc, char **argv) {
    std::vector<std::string> args(argv, argv + argc);
    try { throw args.at(1); } catch (const std::string &text) { std::cout << text << *made; }
    std::thread([] { std::cout << " thread "; }).join();
    std::cout << noisy.text << std::endl;
    return argc;
}
"""

SOURCE_C = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>
extern char **environ;
static void *own_thread(void *arg) {
    *(int *)arg = syscall(SYS_gettid) != getpid();
    return NULL;
}
int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "abort")) abort();
    if (!strcmp(what, "raise")) { raise(atoi(argv[2])); return 1; }
    if (!strcmp(what, "overwrite")) {
        memset(argv[1], 'x', strlen(argv[1]));
        if (environ[0]) memset(environ[0], 'y', strlen(environ[0]));
        printf("%s %s\n", argv[1], environ[0]);
        return 0;
    }
    pthread_t thread;
    int own = 0;
    pthread_mutex_t lock;
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&lock, &kind);
    pthread_mutex_lock(&lock);
    int again = pthread_mutex_lock(&lock);
    pthread_create(&thread, NULL, own_thread, &own);
    pthread_join(thread, NULL);
    printf("%s %s %s %d %d %d\n", program_invocation_name, program_invocation_short_name,
           getenv("A") ? getenv("A") : "-", again == EDEADLK, own,
           syscall(SYS_gettid) == getpid() && getauxval(AT_PAGESZ) == (unsigned long)getpagesize());
    fflush(stdout);
    setenv("A", "changed", 1);
    unsetenv("B");
    return system("echo $A $B");
}
"""

ARGS: list[list[str]] = [["abort"], ["raise", "11"], ["raise", "6"], ["overwrite"], []]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    for compiler, text, name in ((needs.CC, SOURCE_C, "c"), (needs.CXX, SOURCE_CPP, "cpp")):
        if compiler is not None:
            source = folder / f"{name}.{name}"
            source.write_text(text)
            command = [compiler, "-O1", "-pthread", "-o", folder / name, source]
            subprocess.run(command, check=True)
    return folder


@needs.compiler_of_cxx
def test_static_constructors(run: Run, compiled: Path) -> None:
    result = compare(run, Command([compiled / "cpp", "thrown "]))
    assert result.stdout == b"thrown made thread constructed\ndestroyed constructed\nat exit\n"
    assert result.returncode == 2


@needs.compiler
@pytest.mark.parametrize("args", ARGS)
def test_what_libc_knows_of_it(run: Run, compiled: Path, args: list[str]) -> None:
    env = {"A": "1", "B": "2", "PATH": os.environ["PATH"]}
    compare(run, Command([compiled / "c", *args], env=env))


@pytest.fixture(scope="module")
def musl_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_object(tmp_path_factory.mktemp("musl"), "musl-gcc", BUILD)


@needs.musl
@pytest.mark.parametrize("own", [False, True], ids=["package's", "musl's own"])
@pytest.mark.parametrize("args", ARGS)
def test_a_program_of_musl(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    own: bool,
    args: list[str],
) -> None:
    """Either libc's object serves programs of musl."""
    (tmp_path / "c.c").write_text(SOURCE_C)
    command = ["musl-gcc", "-O1", "-o", tmp_path / "musl", tmp_path / "c.c"]
    subprocess.run(command, check=True)
    if own:
        path = request.getfixturevalue("musl_object")
        monkeypatch.setattr(template_module, "preload", lambda: os.fsencode(path))
    env = {"A": "1", "B": "2", "PATH": os.environ["PATH"]}
    compare(run, Command([tmp_path / "musl", *args], env=env))


@needs.compiler
def test_an_object_of_another_build_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the package is installed anew while an engine runs."""
    path = build_object(tmp_path, needs.CC or "cc", (BUILD + 1) & 0xFFFFFFFF, "-O0")  # sooner built
    monkeypatch.setattr(template_module, "preload", lambda: os.fsencode(path))

    async def main() -> None:
        with pytest.raises(TemplateError, match="another build"):
            await Template(["echo"], size=1).start()

    run(main())


@needs.compiler
def test_an_object_of_the_users_own_is_preloaded(run: Run, tmp_path: Path, compiled: Path) -> None:
    own = tmp_path / "own.so"
    source = tmp_path / "own.c"
    source.write_text('char *getenv(const char *name) { (void)name; return "own"; }\n')
    assert needs.CC is not None
    subprocess.run([needs.CC, "-shared", "-fPIC", "-o", own, source], check=True)
    env = {"LD_PRELOAD": str(own), "PATH": os.environ["PATH"]}
    assert b" own " in compare(run, Command([compiled / "c"], env=env)).stdout


@pytest.mark.parametrize("name", ["a b", "a:b", "ü$ORIGIN;x"])
def test_any_path_of_the_object_will_do(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    path = shutil.copy(os.fsdecode(template_module.preload()), folder / "_preload.so")
    monkeypatch.setattr(template_module, "preload", lambda: os.fsencode(path))
    compare(run, Command(["echo", "on"]))


def test_requests_of_their_own_do_not_mix(run: Run) -> None:
    """Each has its token in an argument, the environment and stdin, and gets all three back."""
    script = "cat; echo $0 $TOKEN"

    async def one(template: Template, i: int) -> None:
        token = f"token-{i}"
        env = {"TOKEN": token, "PATH": os.environ["PATH"]}
        result = await template.run(["-c", script, token], token.encode(), env=env)
        assert result.stdout == f"{token}{token} {token}\n".encode()

    async def main() -> None:
        async with Template([SHELL, "-c", script], size=2) as template:
            await asyncio.gather(*(one(template, i) for i in range(200)))

    run(main())
