"""Templates that stop before a program's first effect: never a stale world."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import needs
from conftest import Run
from fastspawn import Command, Engine, Result, Template
from support import async_poll, longer_times

pytestmark = needs.effects


def program(name: str, *args: str) -> list[str]:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} here")
    return [path, *args]


SAME = {
    "echo": ("echo", "a", "b"),
    "true": ("true",),
    "false": ("false",),
    "printf": ("printf", "%s\\n", "x"),
    "env": ("env",),
    "id": ("id",),
    "pwd": ("pwd",),
    "ls": ("ls", "/"),
    "ls-long": ("ls", "-l", "/etc"),
    "cat": ("cat", "/etc/passwd"),
    "sort": ("sort", "/etc/passwd"),
    "head": ("head", "-2", "/etc/passwd"),
    "wc": ("wc", "/etc/passwd"),
    "sha256sum": ("sha256sum", "/etc/passwd"),
    "stat": ("stat", "-c", "%n %s %Y %a", "/etc/passwd"),
    "basename": ("basename", "/a/b"),
    "seq": ("seq", "3"),
    "tr": ("tr", "a-z", "A-Z"),
    "sed": ("sed", "-n", "1p", "/etc/passwd"),
    "awk": ("awk", "BEGIN{print 1}"),
    "grep": ("grep", "root", "/etc/passwd"),
    "sh": ("sh", "-c", "echo $0 $1; exit 3", "n", "x"),
    "bash": ("bash", "-c", "echo $BASH_VERSION; ulimit -n; exit 4"),
    "sh-pipe": ("sh", "-c", "echo b a | tr ' ' '\\n' | sort"),
    "perl": ("perl", "-e", "print qq(1\\n); exit 5"),
    "git": ("git", "--version"),
    "getent": ("getent", "passwd", "root"),
    "missing-file": ("cat", "/nonexistent"),
    "usage": ("sort", "--nonsense"),
    "umask": ("sh", "-c", "umask"),
    "limits": ("sh", "-c", "ulimit -a"),
    "signals": ("grep", "Sig[BIC]", "/proc/self/status"),
    "fds": ("sh", "-c", "ls /proc/$$/fd"),
    "python": (sys.executable, "-c", "import sys; print(sys.argv, sys.flags.hash_randomization)"),
}


def ending(result: Result) -> tuple[int, bytes, bytes]:
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize("argv", SAME.values(), ids=SAME)
def test_the_same_as_by_exec(run: Run, argv: tuple[str, ...]) -> None:
    command = Command(program(*argv), env={**os.environ, "LC_ALL": "C.UTF-8"})

    async def main() -> None:
        async with Engine(1) as engine:
            direct = await engine.run(command, b"input\n")
        async with Template(command, size=1, at="effect") as template:
            results = await asyncio.gather(*(template.run(input=b"input\n") for _ in range(8)))
            assert template.stats["at_effect"] == 1
            assert template.stats["direct"] == 0
        for result in results:
            assert ending(result) == ending(direct)

    run(main())


DIFFERENT = {
    "clock": ("date", "+%s.%N"),
    "pid": ("sh", "-c", "echo $$"),
    "random": ("shuf", "-i", "1-1000000000", "-n", "1"),
    "mktemp": ("mktemp", "-u"),
    "python-random": (sys.executable, "-c", "import random, uuid; print(random.random())"),
    "hash-seed": (sys.executable, "-c", "print(hash('x'))"),
    "bash-random": ("bash", "-c", "echo $RANDOM$RANDOM$RANDOM"),
}


@pytest.mark.parametrize("argv", DIFFERENT.values(), ids=DIFFERENT)
def test_each_fork_has_its_own(run: Run, argv: tuple[str, ...]) -> None:
    async def main() -> None:
        async with Template(program(*argv), size=1, at="effect") as template:
            results = await asyncio.gather(*(template.run() for _ in range(10)))
            assert template.stats["direct"] == 0
        assert all(result.returncode == 0 for result in results)
        assert len({result.stdout for result in results}) == 10

    run(main())


SOURCES = {
    # The clock is read by the vDSO: no system call tells.
    "vdso": """
        #include <stdio.h>
        #include <time.h>
        int main(void) {
            struct timespec t;
            clock_gettime(CLOCK_MONOTONIC, &t);
            printf("%ld.%09ld\\n", (long)t.tv_sec, t.tv_nsec);
        }""",
    # ... and this one not by rdtsc either.
    "vdso-coarse": """
        #include <stdio.h>
        #include <time.h>
        #include <unistd.h>
        int main(void) {
            struct timespec t;
            clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
            printf("%ld.%09ld\\n", (long)t.tv_sec, t.tv_nsec);
            fflush(stdout);
            usleep(20000);
        }""",
    "rdtsc": """
        #include <stdio.h>
        #include <x86intrin.h>
        int main(void) { printf("%llu\\n", __rdtsc()); }""",
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_clocks_without_system_calls(
    run: Run, tmp_path: Path, compile_c: Callable[[str], Path], source: str
) -> None:
    path = compile_c(source)

    async def main() -> None:
        async with Template([path], size=1, at="effect") as template:
            outputs = [(await template.run()).stdout for _ in range(5)]
            assert template.stats["stopped_by"] == -11 - 64  # a clock
            assert template.stats["direct"] == 0
        assert len(set(outputs)) == 5
        assert [float(text) for text in outputs] == sorted(float(text) for text in outputs)

    run(main())


def test_forks_do_not_share_an_offset(
    run: Run, tmp_path: Path, compile_c: Callable[[str], Path]
) -> None:
    data = tmp_path / "data"
    data.write_bytes(bytes(range(97, 123)) * 1000)
    path = compile_c(
        """
        #include <fcntl.h>
        #include <stdio.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            char buf[1001] = {0};
            int fd = open(argv[1], O_RDONLY);
            lseek(fd, 5, SEEK_SET);
            printf("%d ", fd);
            fflush(stdout);
            for (int i = 0; i < 20; i++) {
                if (read(fd, buf, 1000) != 1000) return 1;
                printf("%.3s", buf);
                usleep(500);
            }
        }"""
    )

    async def main() -> None:
        async with Engine(1) as engine:
            direct = await engine.run([path, data])
        async with Template([path, data], size=2, at="effect") as template:
            results = await asyncio.gather(*(template.run() for _ in range(20)))
            assert template.stats["direct"] == 0
        assert direct.returncode == 0
        assert {ending(result) for result in results} == {ending(direct)}

    run(main())


def test_a_file_that_it_read_changes(
    run: Run, tmp_path: Path, compile_c: Callable[[str], Path]
) -> None:
    data, later = tmp_path / "data", tmp_path / "later"
    data.write_text("one")
    path = compile_c(
        """
        #include <stdio.h>
        int main(int argc, char **argv) {
            char buf[100] = "", more[100] = "";
            FILE *f = fopen(argv[1], "r"), *g = fopen(argv[2], "r");
            if (f) fgets(buf, 100, f);
            if (g) fgets(more, 100, g);
            printf("%s %s\\n", buf, more);
        }"""
    )

    async def main() -> None:
        async with Template([path, data, later], size=1, at="effect") as template:

            async def says(text: bytes) -> None:
                async def now() -> bool:
                    return (await template.run()).stdout == text

                await async_poll(now, f"it says {text!r}")
                await async_poll(lambda: template.stats["ready"] == 1, "it is ready again")

            await says(b"one \n")
            data.write_text("two")
            await says(b"two \n")
            later.write_text("more")  # was looked for and not found
            await says(b"two more\n")
            data.unlink()
            await says(b" more\n")
            other = tmp_path / "other"
            other.write_text("new")
            other.rename(data)  # another file by the same name
            await says(b"new more\n")

    run(main())


def test_other_arguments_start_by_exec(run: Run) -> None:
    async def main() -> None:
        async with Template(program("echo", "a"), size=1, at="effect") as template:
            assert (await template.run(["b"])).stdout == b"b\n"
            assert (await template.run(env={"X": "1"})).stdout == b"a\n"
            assert (await template.run()).stdout == b"a\n"
            assert (template.stats["direct"], template.stats["forked"]) == (2, 1)

    run(main())


def test_a_program_that_crashes_first(run: Run, compile_c: Callable[[str], Path]) -> None:
    path = compile_c("int main(void) { *(volatile int *)0 = 1; }")

    async def main() -> None:
        async with Template([path], size=1, at="effect") as template:
            assert (await template.run()).returncode == -11
            assert (await template.run()).returncode == -11
            assert template.stats["direct"] == 0

    run(main())


def test_a_program_that_takes_its_time_stops_at_main_if_it_may(
    run: Run, compile_c: Callable[[str], Path]
) -> None:
    path = compile_c(
        """
        #include <stdio.h>
        int main(void) {
            for (volatile long i = 0;; i++);
        }"""
    )

    async def at_main(seconds: float) -> bool:
        """False: not even that was reached in time."""
        async with Template([path], size=1, at="fixed", start_timeout=seconds) as template:
            assert template.stats["at_effect"] == 0
            if template.stats["ready"] == 0:
                return False
            assert template.kind == "main"
            assert template.not_at_effect == "it did not get there in time"
            return True

    async def main() -> None:
        for seconds in longer_times(0.5):
            if await at_main(seconds):
                return
        pytest.fail("it never is at main")

    run(main())


@pytest.mark.parametrize(
    ("at", "fallback", "kind", "why"),
    [
        ("effect", False, "effect", None),
        ("effect", True, "effect", None),
        ("fixed", False, "main", "it is a Python program, which may come to a checkpoint"),
        ("auto", False, "main", None),
        ("main", True, "main", None),
    ],
)
def test_where_forks_of_python_begin(
    run: Run, at: Any, fallback: bool, kind: str, why: str | None
) -> None:
    async def main() -> None:
        command = [sys.executable, "-c", "print(1)"]
        async with Template(command, size=1, at=at, fallback=fallback) as template:
            assert (template.kind, template.not_at_effect) == (kind, why)
            assert (await template.run()).stdout == b"1\n"

    run(main())


def test_handlers_and_masks_of_the_program(run: Run, compile_c: Callable[[str], Path]) -> None:
    path = compile_c(
        """
        #include <signal.h>
        #include <stdio.h>
        #include <stdlib.h>
        static void handler(int sig) { printf("caught %d\\n", sig); exit(7); }
        int main(void) {
            sigset_t set;
            sigemptyset(&set);
            sigaddset(&set, SIGUSR1);
            sigprocmask(SIG_BLOCK, &set, NULL);
            signal(SIGPIPE, SIG_IGN);
            signal(SIGSEGV, handler);
            sigprocmask(SIG_BLOCK, NULL, &set);
            printf("%d %d %d\\n", sigismember(&set, SIGUSR1), sigismember(&set, SIGSYS),
                   signal(SIGPIPE, SIG_DFL) == SIG_IGN);
            *(volatile int *)0 = 1;
        }"""
    )

    async def main() -> None:
        async with Template([path], size=1, at="effect") as template:
            for _ in range(2):
                assert ending(await template.run()) == (7, b"1 0 1\ncaught 11\n", b"")
            assert template.stats["direct"] == 0

    run(main())


def test_dispatch_ends_with_the_template(run: Run) -> None:
    async def main() -> None:
        async with Template(program("cat", "/proc/self/status"), size=1, at="effect") as template:
            status = (await template.run()).stdout.decode()
        assert re.search(r"^SigCgt:\s0+$", status, re.M)
        assert re.search(r"^Threads:\s1$", status, re.M)

    run(main())


ALWAYS = {
    # Forks share no memory that they write to.
    "shared-memory": (
        """
        #include <stdio.h>
        #include <sys/mman.h>
        int main(void) {
            int *n = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            puts("");
            fflush(stdout);
            printf("%d\\n", ++*n);
        }""",
        b"\n1\n",
    ),
    # Locks that know their owner by its thread id are the fork's.
    "locks": (
        """
        #define _GNU_SOURCE
        #include <pthread.h>
        #include <stdio.h>
        int main(void) {
            pthread_mutex_t m = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
            pthread_rwlock_t l = PTHREAD_RWLOCK_INITIALIZER;
            pthread_mutex_lock(&m);
            pthread_rwlock_wrlock(&l);
            puts("held");
            fflush(stdout);
            int a = pthread_mutex_unlock(&m), b = pthread_rwlock_unlock(&l);
            printf("%d %d %d\\n", a, b, pthread_rwlock_tryrdlock(&l));
        }""",
        b"held\n0 0 0\n",
    ),
    # A mask that would hide the watch is an effect, and is kept.
    "all-blocked": (
        """
        #include <signal.h>
        #include <stdio.h>
        int main(void) {
            sigset_t set;
            sigfillset(&set);
            sigprocmask(SIG_SETMASK, &set, NULL);
            sigprocmask(SIG_BLOCK, NULL, &set);
            printf("%d\\n", sigismember(&set, SIGSYS));
        }""",
        b"1\n",
    ),
    "alternate-stack": (
        """
        #include <signal.h>
        #include <stdio.h>
        #include <stdlib.h>
        int main(void) {
            stack_t s = {.ss_sp = malloc(65536), .ss_size = 65536}, now;
            sigaltstack(&s, NULL);
            sigaltstack(NULL, &now);
            printf("%d\\n", now.ss_sp == s.ss_sp);
        }""",
        b"1\n",
    ),
    "bad-addresses": (
        """
        #include <errno.h>
        #include <fcntl.h>
        #include <stdio.h>
        #include <sys/stat.h>
        int main(void) {
            struct stat st;
            int a = open((char *)8, O_RDONLY), e = errno, b = stat((char *)8, &st);
            printf("%d %d %d %d\\n", a, e == EFAULT, b, errno == EFAULT);
        }""",
        b"-1 1 -1 1\n",
    ),
}


@pytest.mark.parametrize(("source", "output"), ALWAYS.values(), ids=ALWAYS)
def test_what_every_fork_prints(
    run: Run, compile_c: Callable[[str], Path], source: str, output: bytes
) -> None:
    path = compile_c(source)

    async def main() -> None:
        async with Template([path], size=1, at="effect") as template:
            for _ in range(3):
                assert ending(await template.run()) == (0, output, b"")
            assert template.stats["direct"] == 0

    run(main())


NEVER = {
    "clock": ("#include <time.h>", "struct timespec t; syscall(SYS_clock_gettime, 1, &t)",
              "(long)t.tv_sec * 1000000000 + t.tv_nsec"),
    "pid": ("", "long p = syscall(SYS_getpid)", "p"),
    "tid": ("", "long p = syscall(SYS_gettid)", "p"),
    "random": ("", "long p; syscall(SYS_getrandom, &p, sizeof p, 0)", "p"),
    "proc": ("#include <fcntl.h>",
             'long p = 0, f = open("/proc/self/stat", O_RDONLY); char b[64]; read(f, b, 64)',
             "atol(b)"),
}  # fmt: skip


@pytest.mark.parametrize(("include", "make", "value"), NEVER.values(), ids=NEVER)
def test_what_no_two_forks_print(
    run: Run, compile_c: Callable[[str], Path], include: str, make: str, value: str
) -> None:
    path = compile_c(
        f"""
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        {include}
        int main(void) {{ {make}; printf("%ld\\n", {value}); }}"""
    )

    async def main() -> None:
        async with Template([path], size=1, at="effect") as template:
            results = [await template.run() for _ in range(4)]
            assert template.stats["direct"] == 0
        assert len({result.stdout for result in results}) == 4

    run(main())


def test_a_directory_is_listed_by_each_fork(
    run: Run, tmp_path: Path, compile_c: Callable[[str], Path]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = compile_c(
        """
        #include <dirent.h>
        #include <stdio.h>
        int main(int argc, char **argv) {
            int n = 0;
            for (DIR *d = opendir(argv[1]); readdir(d); n++);
            printf("%d\\n", n - 2);
        }"""
    )

    async def main() -> None:
        async with Template([path, folder], size=1, at="effect") as template:
            for n in range(3):
                assert (await template.run()).stdout == b"%d\n" % n
                (folder / str(n)).touch()

    run(main())


def test_what_a_directory_lists_is_no_input(
    run: Run, tmp_path: Path, compile_c: Callable[[str], Path]
) -> None:
    """Opened as if it were a file to read, so that only the listing is an effect."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = compile_c(
        """
        #include <fcntl.h>
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            char buf[4096];
            int n = 0, size = syscall(SYS_getdents64, open(argv[1], O_RDONLY), buf, sizeof buf);
            for (int at = 0; at < size; at += *(unsigned short *)(buf + at + 16)) n++;
            printf("%d\\n", n - 2);
        }"""
    )

    async def main() -> None:
        async with Template([path, folder], size=1, at="effect") as template:
            assert template.stats["stopped_by"] == 217  # getdents64
            for n in range(3):
                assert (await template.run()).stdout == b"%d\n" % n
                (folder / str(n)).touch()

    run(main())


def test_setting_a_limit_is_an_effect(run: Run, compile_c: Callable[[str], Path]) -> None:
    path = compile_c(
        """
        #include <stdio.h>
        #include <sys/resource.h>
        int main(void) {
            struct rlimit limit = {50, 50};
            setrlimit(RLIMIT_NOFILE, &limit);
            printf("%d\\n", getrlimit(RLIMIT_NOFILE, &limit) + (int)limit.rlim_cur);
        }"""
    )

    async def main() -> None:
        async with Template([path], size=1, at="effect") as template:
            assert template.stats["stopped_by"] == 302  # prlimit64
            assert (await template.run()).stdout == b"50\n"

    run(main())


UNTIMELY = {
    # The very file that is mapped has another name, or none, when the names are taken down.
    "replaced": ('rename("next", "data")', b"new\n"),
    "gone": ('unlink("next"); unlink("data")', b"\n"),
    # It was changed in its place after it was read.
    "rewritten": (
        'rename("next", "used"); n = open("data", O_WRONLY); write(n, "new", 3)',
        b"new\n",
    ),
}


@pytest.mark.parametrize(("change", "output"), UNTIMELY.values(), ids=UNTIMELY)
@pytest.mark.parametrize("at", ["main", "effect"])
def test_a_file_that_changes_while_the_process_starts(
    run: Run, tmp_path: Path, compile_c: Callable[[str], Path], change: str, output: bytes, at: Any
) -> None:
    """A constructor maps and reads a file, then the file changes: that is the process's past."""
    (tmp_path / "data").write_text("old")
    path = compile_c(
        f"""
        #include <fcntl.h>
        #include <stdio.h>
        #include <sys/mman.h>
        #include <unistd.h>
        static char text[4];
        __attribute__((constructor)) static void begin(void) {{
            int fd = open("data", O_RDONLY), n;
            mmap(NULL, 3, PROT_READ, MAP_PRIVATE, fd, 0);
            read(fd, text, 3);
            close(fd);
            if (access("next", F_OK) == 0) {{ {change}; }}
        }}
        int main(void) {{ puts(text); }}"""
    )
    (tmp_path / "next").write_text("new")

    async def main() -> None:
        async with Template(Command([path], cwd=tmp_path), size=1, at=at) as template:

            async def is_new() -> bool:
                return (await template.run()).stdout == output

            await async_poll(is_new, "the process is replaced")

            async def stays() -> bool:
                return template.stats["ready"] == 1 and template.stats["forked"] > 3

            async def by_fork() -> bool:
                assert (await template.run()).stdout == output
                return await stays()

            await async_poll(by_fork, "it serves")

    run(main())


def test_each_fork_writes(run: Run, tmp_path: Path, compile_c: Callable[[str], Path]) -> None:
    log = tmp_path / "log"
    path = compile_c(
        """
        #include <fcntl.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            return write(open(argv[1], O_WRONLY | O_APPEND | O_CREAT, 0600), "x\\n", 2) != 2;
        }"""
    )

    async def main() -> None:
        async with Template([path, log], size=2, at="effect") as template:
            assert not log.exists()
            await asyncio.gather(*(template.run(check=True) for _ in range(10)))
            assert log.read_text() == "x\n" * 10

    run(main())


def test_a_change_that_keeps_the_modification_time(
    run: Run, tmp_path: Path, compile_c: Callable[[str], Path]
) -> None:
    data = tmp_path / "data"
    data.write_text("one")
    before = data.stat()
    path = compile_c(
        """
        #include <stdio.h>
        int main(int argc, char **argv) {
            char buf[100] = "";
            fgets(buf, 100, fopen(argv[1], "r"));
            puts(buf);
        }"""
    )

    async def main() -> None:
        async with Template([path, data], size=1, at="effect") as template:
            assert (await template.run()).stdout == b"one\n"
            data.write_text("two")
            os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))

            async def is_new() -> bool:
                return (await template.run()).stdout == b"two\n"

            await async_poll(is_new, "the change was seen")

    run(main())


def explain(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fastspawn.snapshot", "explain", *args],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_explain(tmp_path: Path) -> None:
    result = explain("--rounds", "3", "--", *program("cat", "/etc/passwd"))
    assert (result.returncode, result.stderr) == (0, "")
    assert "standard streams" in result.stdout
    assert re.search(r"^  /.*/libc\.so", result.stdout, re.M)
    assert re.search(r"^ +\d+ \(\d+\) +\d+\.\dx  fork at the first effect$", result.stdout, re.M)


STOPS = {
    "clock": ("time(0); clock_gettime(1, (void *)buffer);", "a clock (vDSO, rdtsc): it reads"),
    "rdtsc": ("__builtin_ia32_rdtsc();", "a clock (vDSO, rdtsc): it reads the time"),
    "AT_RANDOM": (
        "buffer[0] = *(volatile char *)getauxval(AT_RANDOM);",
        "random bytes (AT_RANDOM, RDRAND): it draws",
    ),
    "fault": ("*(volatile char *)8 = 1;", "SIGSEGV: a fault of its own"),
    "undefined": ("__builtin_trap();", "SIGILL: a fault of its own"),
    "descriptor": (
        "write(1, buffer, 1);",
        "write(): it writes\n  of standard output (descriptor 1)",
    ),
    "path": (
        'unlink("/nowhere/else");',
        "unlink(): it is not known to have no effect\n  of /nowhere/else\n",
    ),
    "path at": (
        'open("/dev/null", O_WRONLY);',
        "openat(): it opens what is no plain file, or opens one to write\n  of /dev/null\n",
    ),
}


@pytest.mark.parametrize("kind", STOPS)
def test_explain_what_stops_it(kind: str, compile_c: Callable[[str], Path]) -> None:
    code, said = STOPS[kind]
    path = compile_c(
        "#include <fcntl.h>\n#include <sys/auxv.h>\n#include <time.h>\n#include <unistd.h>\n"
        f"static char buffer[64];\nint main(void) {{ {code} }}\n"
    )
    result = explain("--rounds", "0", "--", str(path))
    assert (result.returncode, result.stderr) == (0, "")
    assert f"stops before\n  {said}" in result.stdout


def test_explain_what_a_fork_repeats(tmp_path: Path, compile_c: Callable[[str], Path]) -> None:
    file = tmp_path / "data"
    file.write_text("x")
    main = f'open("{file}", O_RDONLY); write(1, "", 1);'
    path = compile_c(f"#include <fcntl.h>\n#include <unistd.h>\nint main(void) {{ {main} }}\n")
    said = explain("--rounds", "0", "--", str(path)).stdout
    assert (
        "a fork at main repeats these calls; one that begins there repeats none of them\n" in said
    )
    assert f"but opens anew what is open there (1):\n  {file}\n" in said


def test_explain_what_cannot_be(tmp_path: Path, compile_c: Callable[[str], Path]) -> None:
    slow = compile_c("int main(void) { for (volatile int i = 0;; i++); }")
    text = tmp_path / "text"
    text.write_text("x")
    text.chmod(0o755)
    why_not = "no stop before an effect: it"
    for args, status, why in (
        (("--timeout", "0.2", str(slow)), 1, f"{why_not} ran for more than 0.2 s\n"),
        ((str(text),), 1, "no template: "),
        (("nonexistent-program",), 2, "no such program"),
        ((), 2, ""),
    ):
        result = explain(*args)
        assert result.returncode == status
        assert why in result.stdout + result.stderr
        assert "Traceback" not in result.stderr


@pytest.fixture
def compile_c(tmp_path: Path) -> Callable[[str], Path]:
    def build(source: str) -> Path:
        code, path = tmp_path / "program.c", tmp_path / "program"
        code.write_text(source)
        subprocess.run(["cc", "-O1", "-w", code, "-o", path], check=True)
        return path

    return build
