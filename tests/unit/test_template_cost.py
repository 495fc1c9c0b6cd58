"""What a fork of a template need not do again, and that leaving it out changes nothing."""

from __future__ import annotations

import itertools
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import needs
from conftest import Run
from fastspawn import Command, Engine, Result, Template
from support import LINUX

GLIBC = platform.libc_ver()[0] == "glibc"

pytestmark = pytest.mark.skipif(not LINUX or not GLIBC, reason="for Linux with glibc")

Compile = Callable[..., Path]


@pytest.fixture
def compile_c(tmp_path: Path) -> Compile:
    def build(name: str, source: str, *options: str) -> Path:
        (tmp_path / f"{name}.c").write_text(source)
        command = ["cc", "-O0", "-w", "-Wl,-z,lazy", "-o", name, f"{name}.c", *options]
        subprocess.run(command, check=True, cwd=tmp_path)
        return tmp_path / name

    return build


def both(run: Run, argv: Sequence[str | Path], env: dict[str, str], at: str) -> list[Result]:
    """By exec, and by fork."""
    results = []

    async def main() -> None:
        command = Command(argv, env=env)
        async with Engine() as engine:
            results.append(await engine.run(command))
        async with Template(command, at=at) as template:  # type: ignore[arg-type]
            results.append(await template.run())
            assert template.stats["direct"] == 0

    run(main())
    return results


# ---- symbols -------------------------------------------------------------------------------------

CALLS = r"""
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
int main(void) { printf("%s %ld\n", strpbrk("abc", "b"), atol("7")); return 0; }
"""


@pytest.mark.parametrize("at", ["main", "effect"])
def test_no_fork_looks_for_the_functions_of_libraries(
    run: Run, compile_c: Compile, at: str
) -> None:
    env = {"LD_DEBUG": "bindings"}
    by_exec, by_fork = both(run, [compile_c("calls", CALLS, "-fno-builtin")], env, at)
    assert by_exec.stdout == by_fork.stdout == b"bc 7\n"
    assert b"`strpbrk'" in by_exec.stderr
    assert b"`strpbrk'" not in by_fork.stderr


MINE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
const char *say(void);
char *strpbrk(const char *s, const char *accept) { return (char *)"mine"; }
int main(void) { puts(say()); puts(strpbrk("abc", "b")); return 0; }
"""

SAY = r"""
#include <string.h>
const char *say(void) { return strpbrk("xyz", "y"); }
"""


def test_the_programs_own_function_comes_first(
    run: Run, compile_c: Compile, tmp_path: Path
) -> None:
    compile_c("libsay.so", SAY, "-shared", "-fPIC", "-fno-builtin")
    program = compile_c("mine", MINE, "-fno-builtin", "-L.", "-l:libsay.so", "-rdynamic")
    env = {"LD_LIBRARY_PATH": str(tmp_path)}
    by_exec, by_fork = both(run, [program], env, "main")
    assert by_exec.stdout == by_fork.stdout == b"mine\nmine\n"


TAKEN = r"""
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
char *(*volatile taken)(const char *, const char *) = strpbrk;
int main(void) {
    puts(strpbrk("abc", "b"));
    puts(taken("abc", "b"));
    free(malloc(1));
    return 0;
}
"""


@pytest.mark.parametrize("options", [("-fPIE", "-pie"), ("-fno-pie", "-no-pie")])
def test_a_function_whose_address_the_program_takes(
    run: Run, compile_c: Compile, options: tuple[str, ...]
) -> None:
    """At a fixed address its stub in the program is the function's address, and calls no other."""
    program = compile_c("taken", TAKEN, "-fno-builtin", *options)
    by_exec, by_fork = both(run, [program], {}, "main")
    assert by_exec.stdout == by_fork.stdout == b"bc\nbc\n"


TWICE = r"""
#include <string.h>
char *strpbrk(const char *s, const char *accept) { return (char *)"the library's"; }
const char *say(void) { return strpbrk("xyz", "y"); }
"""


def test_a_symbolic_library_calls_its_own(run: Run, compile_c: Compile, tmp_path: Path) -> None:
    compile_c("libsay.so", TWICE, "-shared", "-fPIC", "-fno-builtin", "-Wl,-Bsymbolic")
    program = compile_c("mine", MINE, "-fno-builtin", "-L.", "-l:libsay.so", "-rdynamic")
    env = {"LD_LIBRARY_PATH": str(tmp_path)}
    by_exec, by_fork = both(run, [program], env, "main")
    assert by_exec.stdout == by_fork.stdout == b"the library's\nmine\n"


LATER = r"""
#include <dlfcn.h>
#include <stdio.h>
int main(void) {
    void *library = dlopen("liblater.so", RTLD_LAZY);
    if (library == NULL) { puts(dlerror()); return 1; }
    int (*seven)(void) = (int (*)(void))dlsym(library, "seven");
    printf("%d %d\n", seven(), dlerror() == NULL);
    return 0;
}
"""

MISSING = r"""
int nowhere(void);
int seven(void) { return 7; }
int never(void) { return nowhere(); }
"""


def test_what_is_loaded_later_stays_lazy(run: Run, compile_c: Compile, tmp_path: Path) -> None:
    """A function that does not exist is no error as long as nobody calls it."""
    compile_c("liblater.so", MISSING, "-shared", "-fPIC")
    env = {"LD_LIBRARY_PATH": str(tmp_path)}
    by_exec, by_fork = both(run, [compile_c("later", LATER, "-ldl")], env, "main")
    assert by_exec.stdout == by_fork.stdout == b"7 1\n"


def test_a_missing_function_of_a_library_at_the_start(
    run: Run, compile_c: Compile, tmp_path: Path
) -> None:
    """The same error, at the same time: when it is called."""
    compile_c("liblater.so", MISSING, "-shared", "-fPIC")
    source = (
        "#include <stdio.h>\nint seven(void), never(void);\nint main(int n, char **v) {"
        ' printf("%d\\n", seven()); fflush(stdout); return n > 1 ? never() : 0; }'
    )
    options = ("-L.", "-l:liblater.so", "-Wl,--unresolved-symbols=ignore-all")
    program = compile_c("start", source, *options)
    env = {"LD_LIBRARY_PATH": str(tmp_path)}
    for args in ((), ("x",)):
        by_exec, by_fork = both(run, [program, *args], env, "main")
        assert by_fork.stdout == by_exec.stdout == b"7\n"
        assert (by_fork.returncode, by_fork.stderr) == (by_exec.returncode, by_exec.stderr)


# ---- mappings ------------------------------------------------------------------------------------

LOCALE = r"""
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
int main(int argc, char **argv) {
    char line[4096], *at = mmap(NULL, 8 << 12, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 1; argc > 1 && i < 8; i += 2) munmap(at + (i << 12), 1 << 12);
    puts(setlocale(LC_ALL, ""));
    puts(nl_langinfo(CODESET));
    puts(nl_langinfo(DAY_1));
    puts(nl_langinfo(D_T_FMT));
    puts(localeconv()->decimal_point);
    puts(nl_langinfo(YESEXPR));
    fflush(stdout);
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps)) if (strstr(line, "LC_")) fputs(line, stderr);
    setlocale(LC_ALL, "C"); /* which unmaps some */
    puts(nl_langinfo(CODESET));
    return 0;
}
"""
FILES = r"""
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
int main(int argc, char **argv) {
    char line[4096], *at = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (char **name = argv + 1; *name; name++) {
        struct stat st = {.st_size = 1 << 12}; /* a hole */
        int fd = open(*name, O_RDONLY);
        if (fd >= 0) {
            fstat(fd, &st);
            mmap(at, st.st_size, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
            close(fd);
            *name = at;
        } else *name = "a hole";
        at += st.st_size;
    }
    for (char **name = argv + 1; *name; name++) puts(*name);
    fflush(stdout);
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps)) if (strstr(line, "/files/")) fputs(line, stderr);
    return 0;
}
"""
MERGED = 256 * 1024


def files_in(maps: bytes) -> list[tuple[str, int, int]]:
    """Name, start and end of each file that is mapped."""
    found = []
    for line in maps.decode().splitlines():
        start, end = line.split()[0].split("-")
        found.append((line.rpartition("/")[2], int(start, 16), int(end, 16)))
    return found


@needs.x86_64
@pytest.mark.parametrize("folder", ["locale", "other"])
def test_files_of_a_locale_that_lie_side_by_side(
    run: Run, compile_c: Compile, tmp_path: Path, folder: str
) -> None:
    """They are one mapping; other files, larger ones, and what lies alone stay what they are."""
    place = tmp_path / folder / "files"
    place.mkdir(parents=True)
    row = "LC_TIME LC_PAPER SYS_LC_MESSAGES - LC_NAME - LC_CTYPE LC_NUMERIC LC_ADDRESS - a.mo b.mo"
    for name in row.replace("-", "").split():
        size = MERGED + 4096 if name == "LC_CTYPE" else 4096
        (place / name).write_bytes(f"this is {name}".encode().ljust(size, b"\0"))
    argv = [compile_c("files", FILES), *(place / name for name in row.split())]
    by_exec, by_fork = both(run, argv, {}, "effect")
    assert by_exec.stdout == by_fork.stdout
    assert by_exec.stdout.count(b"this is ") == 9
    assert len(files_in(by_exec.stderr)) == 9
    stay = ["LC_NAME", "LC_CTYPE", "a.mo", "b.mo"]
    assert [name for name, _, _ in files_in(by_fork.stderr)] == stay


@pytest.mark.skipif(
    not Path("/usr/lib/locale/C.utf8/LC_TIME").exists(), reason="the locale is in no files here"
)
@needs.x86_64
@pytest.mark.parametrize("holes", [(), ("holes",)])
@pytest.mark.parametrize("moved", [False, True])
def test_the_files_of_a_locale(
    run: Run, compile_c: Compile, tmp_path: Path, moved: bool, holes: tuple[str, ...]
) -> None:
    """Where the kernel maps them depends on the holes that there are, and on their sizes."""
    env = {"LANG": "C.UTF-8"}
    if moved:
        shutil.copytree("/usr/lib/locale/C.utf8", tmp_path / "C.utf8")
        env["LOCPATH"] = str(tmp_path)
    by_exec, by_fork = both(run, [compile_c("program", LOCALE), *holes], env, "effect")
    assert by_exec.stdout == by_fork.stdout
    assert by_exec.stdout.startswith(b"C.UTF-8\nUTF-8\nSunday\n")
    files, left = files_in(by_exec.stderr), files_in(by_fork.stderr)
    assert 8 < len(files) > len(left)
    for (_, start, middle), (_, then, end) in itertools.pairwise(left):
        assert middle != then or end - start > MERGED
