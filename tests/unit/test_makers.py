"""A refusal for threads names whose they are, and what helps."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import needs
from conftest import Run
from fastspawn import Command, Template, TemplateError

pytestmark = [needs.templates, needs.compiler]

TOP = "from fastspawn import checkpoint\n"
POOL = """
#include <pthread.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>
static pthread_barrier_t begun;
static void *work(void *number) {
    char name[16];
    snprintf(name, sizeof name, "p\\t\\x85\\xc2\\x85l-%ld", (long)number);
#ifdef NAMED
    prctl(PR_SET_NAME, name);
#endif
    pthread_barrier_wait(&begun);
    for (;;) pause();
}
#ifdef EAGER
__attribute__((constructor))
#endif
void pool_start(void) {
    pthread_t thread;
    pthread_barrier_init(&begun, NULL, 4);
    for (long i = 0; i < 3; i++) pthread_create(&thread, NULL, work, (void *)i);
    pthread_barrier_wait(&begun);
}
"""
PROGRAM = """
#include <dlfcn.h>
#include <stdio.h>
extern void pool_start(void);
int main(int argc, char **argv) {
    int (*checkpoint)(const char *const *);
    *(void **)&checkpoint = dlsym(RTLD_DEFAULT, "fastspawn_checkpoint");
    if (argc > 1) { pool_start(); printf("%d\\n", checkpoint(NULL)); }
    return 0;
}
"""
AT_CHECKPOINT = "it has several threads at its checkpoint"
BELOW = "what starts them belongs below the checkpoint"


def build(path: Path, source: str, *options: object, compiler: str | None) -> Path:
    code = path.with_suffix(".c")
    code.write_text("#define _GNU_SOURCE\n" + source)
    assert compiler is not None
    subprocess.run([compiler, "-O1", "-pthread", "-o", path, code, *options], check=True)
    return path


def pool(folder: Path, *options: str, compiler: str | None = needs.CC) -> Path:
    """A library, below as many directories as are more than a message has room for."""
    for part in ("x" * 100, "y" * 100, "site-packages", "pool.libs"):
        folder /= part
    folder.mkdir(parents=True)
    library = folder / "libwork-1.so"
    return build(library, POOL, "-shared", "-fPIC", *options, compiler=compiler)


def program(folder: Path, library: Path, compiler: str | None = needs.CC) -> Path:
    options = (library, "-Wl,--no-as-needed,-rpath," + str(library.parent))
    return build(folder / "program", PROGRAM, *options, "-ldl", compiler=compiler)


async def refused(command: Command) -> str | None:
    async with Template(command, size=1, at="checkpoint") as template:
        while template.no_checkpoint is None:  # one may be there before the spawner is
            assert (await template.run()).returncode == 0
            assert template.stats["checkpoints"] == 0
        return template.no_checkpoint


@pytest.mark.parametrize("named", [False, True], ids=["without names", "with names"])
@pytest.mark.parametrize("compiler", [needs.CC, "musl-gcc"], ids=["glibc", "musl"])
def test_threads_of_a_library(run: Run, tmp_path: Path, compiler: str | None, named: bool) -> None:
    if shutil.which(compiler or "") is None:
        pytest.skip(f"no {compiler}")
    library = pool(tmp_path, *["-DNAMED"] * named, compiler=compiler)
    path = program(tmp_path, library, compiler)
    names = " (p?\ufffd?l-0)" if named else ""
    told = run(refused(Command([path, "checkpoint"])))
    assert told == f"{AT_CHECKPOINT}, 3 of pool{names}: {BELOW}"


def test_threads_before_main(run: Run, tmp_path: Path) -> None:
    path = program(tmp_path, pool(tmp_path, "-DEAGER", "-DNAMED"))

    async def main() -> None:
        with pytest.raises(TemplateError) as raised:
            async with Template([path], size=1, at="main"):
                pass
        assert (
            str(raised.value)
            == f"{path}: it has several threads before main, 3 of pool (p?\ufffd?l-0)"
        )

    run(main())


def test_what_helps_is_told_to_the_program(run: Run) -> None:
    """Threads of Python's, and after them a library's: both, in the warning and to the caller."""
    text = "import threading\nend = threading.Event()\n"
    text += "thread = threading.Thread(target=end.wait)\nthread.start()\n"
    text += "checkpoint()\nend.set()\nthread.join()\n"
    cure = "1 of Python (threading): join them above the checkpoint, or start them below"

    async def main() -> None:
        async with Template([sys.executable, "-c", TOP + text], size=1) as template:
            errors = (await template.run()).stderr.decode()
            assert f"checkpoint() needs a single thread, and has {cure}; this process" in errors
            assert template.no_checkpoint == f"{AT_CHECKPOINT}, {cure}"

    run(main())


LIBRARIES = {
    "polars": ("import polars", "3 of polars (", "import it below the checkpoint"),
    "pyarrow": (
        "import pyarrow",
        "1 of pyarrow (jemalloc_bg_thd)",
        "set JE_ARROW_MALLOC_CONF=background_thread:false",
    ),
    "duckdb": (
        "import duckdb; it = duckdb.connect()",
        " of duckdb",
        "connect with threads=1 and async_threads=0",
    ),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_real_library(run: Run, name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"no {name}")
    text, whose, cure = LIBRARIES[name]
    told = run(refused(Command([sys.executable, "-c", f"{TOP}{text}\ncheckpoint()\n"])))
    assert told is not None
    assert whose in told
    assert cure in told


def test_a_database_above_the_checkpoint(run: Run) -> None:
    if importlib.util.find_spec("duckdb") is None:
        pytest.skip("no duckdb")
    above = "import duckdb\nit = duckdb.connect(config={'threads': 1, 'async_threads': 0})\n"
    below = "print(it.execute('select sum(n) from range(5) as of_(n)').fetchone()[0])\n"

    async def main() -> None:
        command = [sys.executable, "-c", f"{TOP}{above}checkpoint()\n{below}"]
        async with Template(command, size=1) as template:
            assert [(await template.run()).stdout for _ in range(3)] == [b"10\n"] * 3
            assert template.no_checkpoint is None

    run(main())
