"""Which calls a program may make before its first effect, and which name what stops it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import needs
from conftest import Run
from fastspawn import Command, Engine, Result, Template, TemplateError
from services import Service
from support import BOUND, CHILDREN, async_poll

pytestmark = needs.effects

Compile = Callable[[str], Path]
HEADERS = """
    #define _GNU_SOURCE
    #include <errno.h>
    #include <fcntl.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/prctl.h>
    #include <sys/random.h>
    #include <sys/stat.h>
    #include <unistd.h>
    #ifndef MAP_DROPPABLE
    #define MAP_DROPPABLE 8
    #endif
    #define say(...) (snprintf(text, sizeof text, __VA_ARGS__), write(1, text, strlen(text)))
    static char text[1000];
    static char *map(int flags) {
        return mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    }
"""
READLINK, MADVISE, OPENAT, WRITE, GETRANDOM, MMAP, PRCTL, CONNECT = 89, 28, 257, 1, 318, 9, 157, 42
LOOKS = (4, 5, 262)  # stat, fstat, newfstatat: versions of glibc differ


@pytest.fixture
def compile_c(tmp_path: Path) -> Compile:
    def build(source: str, compiler: str = "cc") -> Path:
        code, path = tmp_path / "program.c", tmp_path / "program"
        code.write_text(HEADERS + source)
        subprocess.run([compiler, "-O1", "-w", code, "-o", path], check=True)
        return path

    return build


def ending(result: Result) -> tuple[int, bytes, bytes]:
    return result.returncode, result.stdout, result.stderr


async def as_by_exec(template: Template, command: Command, input: bytes | None = None) -> Result:
    """Some forks, the first and later ones, and what they all answer: what an execution does."""
    async with Engine(1) as engine:
        direct = await engine.run(command, input)
    for _ in range(3):
        assert ending(await template.run(input=input)) == ending(direct)
    assert (template.stats["forked"], template.stats["direct"]) == (3, 0)
    return direct


# ---- memory --------------------------------------------------------------------------------------

ADVICE = {
    "dontfork": ("MADV_DONTFORK", MADVISE),
    "wipeonfork": ("MADV_WIPEONFORK", MADVISE),
    "unknown": ("12345", MADVISE),
    "dontneed": ("MADV_DONTNEED", WRITE),
    "dontdump": ("MADV_DONTDUMP", WRITE),
    "hugepage": ("MADV_HUGEPAGE", WRITE),
    "sequential": ("MADV_SEQUENTIAL", WRITE),
}


@pytest.mark.parametrize(("advice", "stop"), ADVICE.values(), ids=ADVICE)
def test_memory_that_was_advised(run: Run, compile_c: Compile, advice: str, stop: int) -> None:
    path = compile_c(
        f"""
        int main(void) {{
            char *page = map(MAP_PRIVATE);
            strcpy(page, "here");
            say("%d", madvise(page, 4096, {advice}));
            say("%s", page);
        }}"""
    )

    async def main() -> None:
        command = Command([path])
        async with Template(command, size=1, at="effect") as template:
            await as_by_exec(template, command)
            assert template.stats["stopped_by"] == stop

    run(main())


def test_memory_that_has_a_name(run: Run, compile_c: Compile) -> None:
    """As PHP's: one of a file's is no file that it came from. Others' prctl(2) are effects."""
    path = compile_c(
        """
        int main(int argc, char **argv) {
            char *page = map(MAP_PRIVATE), want[64], found = 0;
            snprintf(want, sizeof want, "%lx-", (unsigned long)page);
            int named = prctl(0x53564d41, 0, page, 4096, "/nowhere/at all") == 0;
            if (argc > 1) prctl(PR_SET_NAME, "other");
            FILE *maps = fopen("/proc/self/maps", "r");
            while (fgets(text, sizeof text, maps))
                if (strncmp(text, want, strlen(want)) == 0) found = !!strchr(text, '/');
            say("%d", found == named);
        }"""
    )

    async def main() -> None:
        for command, stop in (Command([path]), WRITE), (Command([path, "x"]), PRCTL):
            async with Template(command, size=1, at="effect") as template:
                assert (await as_by_exec(template, command)).stdout == b"1"
                assert template.stats["stopped_by"] == stop
                assert template.stats["direct"] == 0

    run(main())


def test_memory_that_is_locked(run: Run, compile_c: Compile) -> None:
    """A fork's is not: mlock(2)."""
    path = compile_c(
        """
        int main(void) {
            map(MAP_PRIVATE | MAP_LOCKED);
            FILE *status = fopen("/proc/self/status", "r");
            while (fgets(text, sizeof text, status))
                if (strncmp(text, "VmLck:", 6) == 0) fputs(text, stdout);
        }"""
    )

    async def main() -> None:
        command = Command([path])
        async with Template(command, size=1, at="effect") as template:
            assert b" 64 kB" in (await as_by_exec(template, command)).stdout
            assert template.stats["stopped_by"] == MMAP

    run(main())


def test_a_guard_stays_one(run: Run, compile_c: Compile) -> None:
    """MADV_GUARD_INSTALL (Linux 6.13), with which glibc 2.43 guards the stacks of threads."""
    path = compile_c(
        """
        int main(void) {
            char *page = map(MAP_PRIVATE);
            if (madvise(page, 4096, 102) < 0) page = NULL;
            puts("");
            fflush(stdout);
            return *page;
        }"""
    )

    async def main() -> None:
        command = Command([path])
        async with Template(command, size=1, at="effect") as template:
            direct = await as_by_exec(template, command)
            assert direct.returncode == -11
            assert template.stats["stopped_by"] in LOOKS

    run(main())


@pytest.mark.parametrize("at", ["main", "effect", "fixed"])
@pytest.mark.parametrize(
    "call",
    [
        "madvise(page, 4096, MADV_DONTFORK)",
        "madvise(page, 4096, MADV_WIPEONFORK)",
        "mlock(page, 4096)",
    ],
)
def test_a_constructor_that_keeps_memory_from_forks(
    run: Run, compile_c: Compile, call: str, at: Any
) -> None:
    path = compile_c(
        f"""
        static char *page;
        __attribute__((constructor)) static void begin(void) {{
            page = map(MAP_PRIVATE);
            strcpy(page, "here");
            {call};
        }}
        int main(void) {{ puts(page); }}"""
    )

    async def main() -> None:
        with pytest.raises(TemplateError, match="memory that a fork does not get"):
            async with Template([path], size=1, at=at):
                pass

    run(main())


@pytest.mark.parametrize("at", ["main", "effect"])
def test_memory_that_may_be_dropped_is_no_obstacle(run: Run, compile_c: Compile, at: Any) -> None:
    """The kernel marks it as wiped in forks, too: glibc's getrandom has some (Linux 6.11)."""
    path = compile_c(
        """
        static char *page;
        __attribute__((constructor)) static void begin(void) { page = map(MAP_DROPPABLE); }
        int main(void) {
            char *more = map(MAP_DROPPABLE);
            if (page != MAP_FAILED) *page = *more = 'x';
            puts("here");
        }"""
    )

    async def main() -> None:
        command = Command([path])
        async with Template(command, size=1, at=at) as template:
            await as_by_exec(template, command)
            assert template.kind == at

    run(main())


# ---- names that are the process's own ------------------------------------------------------------


def test_links_of_proc_are_read_by_each_fork(run: Run, compile_c: Compile) -> None:
    path = compile_c(
        """
        int main(void) {
            char self[100] = "", input[100] = "", pid[100];
            struct stat st;
            readlink("/proc/self", self, 99);
            readlink("/proc/self/fd/0", input, 99);
            lstat("/proc/self/fd/0", &st);
            sprintf(pid, "%d", getpid());
            printf("%d %.5s %o", strcmp(self, pid), input, st.st_mode);
        }"""
    )

    async def main() -> None:
        command = Command([path])
        async with Template(command, size=1, at="effect") as template:
            direct = await as_by_exec(template, command, b"input")
            assert direct.stdout == b"0 pipe: 120500"
            assert template.stats["stopped_by"] == READLINK

    run(main())


def test_a_way_through_proc_is_no_name_of_a_file(
    run: Run, tmp_path: Path, compile_c: Compile
) -> None:
    """What it leads to is another file for the spawner, which is to look whether it changed."""
    (tmp_path / "file").write_text("text")
    (tmp_path / "way").symlink_to("/proc/self/cwd")
    path = compile_c(
        """
        int main(int argc, char **argv) {
            char text[100] = "";
            fgets(text, 100, fopen(argv[1], "r"));
            puts(text);
        }"""
    )

    async def main() -> None:
        command = Command([path, "way/file"], cwd=tmp_path)
        async with Template(command, size=1, at="effect") as template:
            assert (await as_by_exec(template, command)).stdout == b"text\n"
            assert template.stats["stopped_by"] == OPENAT

    run(main())


def test_the_programs_own_file(run: Run, compile_c: Compile) -> None:
    """/proc/self/exe leads to the same file in every fork, if not in the spawner."""
    path = compile_c(
        """
        int main(void) {
            char magic[5] = "", name[4096] = "";
            struct stat st, same;
            int fd = open("/proc/self/exe", O_RDONLY);
            read(fd, magic, 4);
            stat("/proc/self/exe", &st);
            readlink("/proc/self/exe", name, sizeof name - 1);
            stat(name, &same);
            say("%s %d\\n", magic + 1, st.st_ino == same.st_ino);
        }"""
    )

    async def main() -> None:
        command = Command([path])
        async with Template(command, size=1, at="effect") as template:
            assert (await as_by_exec(template, command)).stdout == b"ELF 1\n"
            assert template.stats["stopped_by"] == WRITE
            end = time.monotonic() + 0.4  # some looks at what changed
            while time.monotonic() < end:
                await template.run()
            assert template.stats["direct"] == 0

    run(main())


def test_where_everyone_writes_nothing_stays_as_it_is(
    run: Run, tmp_path: Path, compile_c: Compile
) -> None:
    """As lynx does with /tmp, which changes with every request."""
    (tmp_path / "all").mkdir()
    (tmp_path / "all").chmod(0o1777)
    path = compile_c(
        """
        int main(int argc, char **argv) {
            struct stat st;
            char name[] = "all/XXXXXX";
            stat("all/.", &st);
            close(mkstemp(name));
            puts(S_ISDIR(st.st_mode) ? "yes" : "no");
        }"""
    )

    async def main() -> None:
        async with Template(Command([path], cwd=tmp_path), size=1, at="effect") as template:
            assert template.stats["stopped_by"] in LOOKS
            end = time.monotonic() + 0.4
            while time.monotonic() < end:
                assert (await template.run()).stdout == b"yes\n"
            assert template.stats["direct"] == 0

    run(main())


def test_lynx(run: Run, tmp_path: Path) -> None:
    if shutil.which("lynx") is None:
        pytest.skip("no lynx here")
    (tmp_path / "page.html").write_text("<p>text</p>")
    # Where it has its own files, a directory that it looks at, only those of this test are made.
    (tmp_path / "own").mkdir()
    (tmp_path / "own").chmod(0o1777)
    env = {**os.environ, "TMPDIR": str(tmp_path / "own")}

    async def main() -> None:
        command = Command(["lynx", "-dump", tmp_path / "page.html"], env=env)
        async with Template(command, size=1, at="effect") as template:
            assert (await as_by_exec(template, command)).stdout.strip() == b"text"
            assert template.stats["stopped_by"] in LOOKS

    run(main())


# ---- what is mapped ------------------------------------------------------------------------------


def test_its_own_mappings(run: Run, compile_c: Compile) -> None:
    """A fork's are the same, with all that the watch hides; what is read later, it reads anew."""
    path = compile_c(
        """
        #include <sys/auxv.h>
        static char all[2][1 << 16];
        static int get(int fd, char *to, int size) {
            int n = 0, r;
            while (n < size && (r = read(fd, to + n, size - n)) > 0) n += r;
            return n;
        }
        static int is_code(const char *maps, unsigned long start) {
            char line[64];
            sprintf(line, "%lx-", start);
            const char *at = strstr(maps, line);
            return at && strncmp(strchr(at, ' '), " r-xp", 5) == 0;
        }
        int main(void) {
            unsigned long vdso = getauxval(AT_SYSINFO_EHDR);
            int fd = open("/proc/self/maps", O_RDONLY), rest = open("/proc/self/maps", O_RDONLY);
            get(fd, all[0], sizeof all[0] - 1);
            close(fd);
            int n = get(rest, all[1], 100);
            say("%d %d ", is_code(all[0], vdso), strncmp(all[0], all[1], n));
            memset(all, 0, sizeof all);
            lseek(rest, 0, SEEK_SET);
            get(rest, all[1], sizeof all[1] - 1);
            get(open("/proc/self/maps", O_RDONLY), all[0], sizeof all[0] - 1);
            say("%d %d\\n", is_code(all[1], vdso), strcmp(all[0], all[1]));
        }"""
    )

    async def main() -> None:
        command = Command([path])
        async with Template(command, size=1, at="effect") as template:
            assert (await as_by_exec(template, command)).stdout == b"1 0 1 0\n"
            assert template.stats["stopped_by"] == WRITE

    run(main())


def test_where_its_stack_is(run: Run, compile_c: Compile) -> None:
    """As Rust's programs ask, by a FILE."""
    path = compile_c(
        """
        int main(void) {
            pthread_attr_t of;
            char *start, here;
            size_t size = 0;
            pthread_getattr_np(pthread_self(), &of);
            pthread_attr_getstack(&of, (void **)&start, &size);
            say("%d", &here > start && &here < start + size);
        }"""
    )

    async def main() -> None:
        command = Command([path])
        async with Template(command, size=1, at="effect") as template:
            assert (await as_by_exec(template, command)).stdout == b"1"
            assert template.stats["stopped_by"] == WRITE

    run(main())


@pytest.mark.parametrize("command", [["grep", "root"], ["diff", "-", "/dev/null"]], ids=" ".join)
def test_what_guards_its_stack(run: Run, command: list[str]) -> None:
    """libsigsegv reads what is mapped; and grep looks what /dev/null is."""

    async def main() -> None:
        async with Template(command, size=1, at="effect") as template:
            await as_by_exec(template, Command(command), b"root\n")
            assert template.stats["stopped_by"] in LOOKS, "its standard streams"

    run(main())


# ---- services ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("asks") / "asks"
    subprocess.run(["cc", "-O1", CHILDREN / "asks.c", "-o", path], check=True)
    return path


def test_a_service_that_is_not_there(run: Run, asks: Path, tmp_path: Path) -> None:
    """As nscd's, for which libc looks before it reads /etc/passwd. Until it is there."""

    async def main() -> None:
        command = Command([asks, "missing"], cwd=tmp_path)
        async with Template(command, size=1, at="effect") as template:
            assert (await as_by_exec(template, command)).stdout == b"2 at 3\n"
            assert template.stats["stopped_by"] == WRITE
            with Service(tmp_path / "missing"):
                end = time.monotonic() + BOUND
                while (await template.run()).stdout != b"0 at 3\n":
                    assert time.monotonic() < end

    run(main())


def test_a_service_that_is_there(run: Run, asks: Path, tmp_path: Path) -> None:
    """Each fork asks by a socket of its own."""

    async def main() -> None:
        command = Command([asks, "missing", "service"], cwd=tmp_path)
        with Service(tmp_path / "service") as service:
            async with Template(command, size=1, at="effect") as template:
                direct = await as_by_exec(template, command)
                assert direct.stdout == (
                    b"2 at 3\n0 at 4\n6: there\n3: type 2, flags 0x802 and 0x1\n"
                    b"4: type 1, flags 0x2 and 0\n"
                )
                assert template.stats["stopped_by"] == CONNECT
                await async_poll(lambda: service.left == 4, "each has left")

    run(main())


def test_whoami(run: Run) -> None:
    async def main() -> None:
        async with Template(["whoami"], size=1, at="effect") as template:
            await as_by_exec(template, Command(["whoami"]))
            assert template.stats["stopped_by"] in (*LOOKS, CONNECT), "its output, or nscd"

    run(main())


# ---- the machine's name --------------------------------------------------------------------------

NAMED = """
import asyncio, ctypes, socket
from fastspawn import Template

async def main():
    async with Template(["uname", "-n"], size=1, at="effect") as template:
        for name in ("before", "after"):
            socket.sethostname(name)
            while (await template.run()).stdout != name.encode() + b"\\n":
                pass
        print(template.stats["stopped_by"])

assert ctypes.CDLL(None).unshare(0x04000000) == 0  # CLONE_NEWUTS
asyncio.run(main())
"""


@needs.root
def test_the_machines_name_is_watched() -> None:
    told = subprocess.run(
        [sys.executable, "-c", NAMED], capture_output=True, text=True, timeout=BOUND, check=True
    )
    assert int(told.stdout) in LOOKS, "its output"


# ---- what stops it, by its name ------------------------------------------------------------------


def test_random_numbers_of_libc(run: Run, compile_c: Compile) -> None:
    """From 2.41 on glibc blocks all signals and maps memory when it is first asked."""
    path = compile_c(
        """
        int main(void) {
            unsigned long n;
            getrandom(&n, sizeof n, 0);
            printf("%lu\\n", n);
        }"""
    )

    async def main() -> None:
        async with Template([path], size=1, at="effect") as template:
            assert template.stats["stopped_by"] == GETRANDOM
            assert len({(await template.run()).stdout for _ in range(4)}) == 4

    run(main())


def test_blocking_signals_is_no_effect(run: Run, compile_c: Compile) -> None:
    """Nor does it blind the watch, even of a clock that is read meanwhile."""
    path = compile_c(
        """
        #include <time.h>
        int main(void) {
            sigset_t all, before, now;
            struct timespec t;
            sigfillset(&all);
            sigprocmask(SIG_BLOCK, &all, &before);
            sigprocmask(SIG_BLOCK, NULL, &now);
            clock_gettime(CLOCK_REALTIME, &t);
            sigprocmask(SIG_BLOCK, NULL, &all);
            int still = sigismember(&all, SIGSYS) + sigismember(&all, SIGSEGV);
            say("%d %d %d\\n", sigismember(&before, SIGSYS), sigismember(&now, SIGSYS), still);
            sigprocmask(SIG_SETMASK, &before, NULL);
            raise(SIGSYS);
        }"""
    )

    async def main() -> None:
        command = Command([path])
        async with Template(command, size=1, at="effect") as template:
            direct = await as_by_exec(template, command)
            assert (direct.returncode, direct.stdout) == (-31, b"0 1 2\n")
            assert template.stats["stopped_by"] == -11 - 64, "a clock"

    run(main())


def test_another_libc_is_the_reason(run: Run, compile_c: Compile) -> None:
    if shutil.which("musl-gcc") is None:
        pytest.skip("no musl-gcc here")
    path = compile_c('int main(void) { puts("here"); }', "musl-gcc")

    async def main() -> None:
        command = Command([path])
        with pytest.raises(TemplateError, match="its libc is not glibc"):
            async with Template(command, size=1, at="effect"):
                pass
        async with Template(command, size=1, at="fixed") as template:
            await as_by_exec(template, command)
            assert template.not_at_effect is not None
            assert template.not_at_effect.startswith("its libc is not glibc")

    run(main())


DEEP = "int deep(volatile int n) { return deep(n + 1) + n; } int main(void) { return deep(0); }"
EARLY = "__attribute__((constructor)) void early(void) { _exit(3); } int main(void) { puts(1); }"


@pytest.mark.parametrize(
    ("source", "how", "main_too"),
    [(DEEP, "its first effect, with signal 11", True), (EARLY, "main, with status 3", False)],
)
def test_an_early_end(run: Run, compile_c: Compile, source: str, how: str, main_too: bool) -> None:
    """A full stack leaves no room to see its end coming."""
    path = compile_c(source)
    command = Command([path])
    told = f"it ended before {how}"

    async def main() -> None:
        with pytest.raises(TemplateError, match=told):
            async with Template(command, size=1, at="effect"):
                pass
        if main_too:
            async with Template(command, size=1, at="fixed") as template:
                await as_by_exec(template, command)
                assert template.not_at_effect == told

    run(main())
    explain = [sys.executable, "-m", "fastspawn.snapshot", "explain", "--rounds", "0", "--", path]
    explained = subprocess.run(explain, capture_output=True, text=True, check=False)
    assert (explained.returncode, explained.stderr) == (1, "")
    assert explained.stdout == f"no stop before an effect: {told}\n"


def test_more_locks_than_can_be_given(run: Run, compile_c: Compile) -> None:
    path = compile_c(
        """
        static pthread_mutex_t m[64];
        int main(void) {
            pthread_mutexattr_t a;
            pthread_mutexattr_init(&a);
            pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
            for (int i = 0; i < 64; i++) pthread_mutex_init(&m[i], &a), pthread_mutex_lock(&m[i]);
            puts("");
        }"""
    )

    async def main() -> None:
        with pytest.raises(TemplateError, match="it holds more locks than can be given"):
            async with Template([path], size=1, at="effect"):
                pass

    run(main())


def test_an_end_before_the_first_effect(run: Run, compile_c: Compile) -> None:
    path = compile_c("int main(void) { return 0; }")

    async def main() -> None:
        async with Template([path], size=1, at="effect") as template:
            assert (await template.run()).returncode == 0
            assert template.kind == "effect"

    run(main())


def test_explain_names_files_by_what_they_are(compile_c: Compile) -> None:
    path = compile_c('int main(void) { close(open("/proc/self/exe", O_RDONLY)); puts(""); }')
    command = [sys.executable, "-m", "fastspawn.snapshot", "explain", "--rounds", "0", "--", path]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"  {path}\n" in said
    assert "/proc/" not in said
