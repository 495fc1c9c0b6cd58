"""What libraries and Python register for forks runs in a template as in fork(2) of libc's."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

import needs
from conftest import Run
from fastspawn import Command, Result, Template
from support import at_checkpoint

pytestmark = [needs.templates, needs.compiler]

At = Literal["main", "effect", "checkpoint"]
TOP = "import os, sys\nfrom fastspawn import checkpoint\n"
IN_C = """
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int checkpoint(void) {
    int (*of_object)(const char *const *);
    *(void **)&of_object = dlsym(RTLD_DEFAULT, "fastspawn_checkpoint");
    return of_object ? of_object(NULL) : -1;
}
"""


def build(path: Path, source: str, *options: object, compiler: str | None = needs.CC) -> Path:
    code = path.with_suffix(".c")
    code.write_text(IN_C + source)
    assert compiler is not None
    subprocess.run([compiler, "-O1", "-w", "-pthread", "-o", path, code, *options], check=True)
    return path


async def forked(command: Command, at: At, times: int = 4) -> list[Result]:
    """Forks of one template process, one after the other."""
    async with Template(command, size=1, at=at) as template:
        if at == "checkpoint":
            results = [await at_checkpoint(template, template.run)]
        else:
            results = [await template.run()]
        results += [await template.run() for _ in range(times - 1)]
        assert template.kind == at
        assert template.stats["direct"] == 0
    for result in results:
        assert (result.returncode, result.stderr) == (0, b"")
    return results


async def python(text: str, times: int = 4) -> list[bytes]:
    """The same at a checkpoint of Python's."""
    async with Template([sys.executable, "-c", TOP + text], size=1) as template:
        results = [await at_checkpoint(template, template.run)]
        results += [await template.run() for _ in range(times - 1)]
        assert template.stats["checkpoints"] == 1
    for result in results:
        assert (result.returncode, result.stderr) == (0, b"")
    return [result.stdout for result in results]


def places() -> Sequence[At]:
    return ("main", "effect", "checkpoint") if os.uname().machine == "x86_64" else ("main",)


# ---- what is drawn ----

GENERATOR = """
static unsigned long state, generation, seen;
static void in_child(void) { generation++; }
static void seed(void) { getentropy(&state, sizeof state); seen = generation; }
__attribute__((constructor)) static void start(void) {
    pthread_atfork(NULL, NULL, in_child);
    seed();
}
unsigned long draw(void) {
    if (seen != generation) seed();
    return state = state * 6364136223846793005u + 1442695040888963407u;
}
"""
DRAW = """
extern unsigned long draw(void);
int main(int argc, char **argv) {
    if (argc > 1) checkpoint();
    printf("%lx\\n", draw());
    return 0;
}
"""


@pytest.mark.parametrize("at", places())
def test_a_generator_in_a_library(run: Run, tmp_path: Path, at: At) -> None:
    """As GnuTLS's, or a TLS library's in general: seeded by a constructor, and anew in a child."""
    library = build(tmp_path / "generator.so", GENERATOR, "-shared", "-fPIC")
    program = build(tmp_path / "program", DRAW, library, "-Wl,-rpath," + str(tmp_path))
    args = ["checkpoint"] if at == "checkpoint" else []
    results = run(forked(Command([program, *args]), at))
    assert len({result.stdout for result in results}) == 4


def test_the_same_below_a_checkpoint_of_python(run: Run, tmp_path: Path) -> None:
    library = build(tmp_path / "generator.so", GENERATOR, "-shared", "-fPIC")
    text = f"import ctypes\ndraw = ctypes.CDLL({str(library)!r}).draw\ndraw()\n"
    assert len(set(run(python(text + "checkpoint()\nprint(draw())")))) == 4


GNUTLS = ctypes.util.find_library("gnutls")
GNUTLS_C = """
extern int gnutls_rnd(int level, void *data, size_t size);
static unsigned char above[8];
__attribute__((constructor)) static void start(void) { gnutls_rnd(0, above, 8); }
int main(int argc, char **argv) {
    if (argc > 1) checkpoint();
    unsigned char data[8];
    for (int level = 0; level < 3; level++) {
        gnutls_rnd(level, data, 8);
        for (int i = 0; i < 8; i++) printf("%02x", data[i]);
        puts("");
    }
    return 0;
}
"""


@needs.have(GNUTLS, "no GnuTLS")
@pytest.mark.parametrize("at", places())
def test_gnutls(run: Run, tmp_path: Path, at: At) -> None:
    program = build(tmp_path / "program", GNUTLS_C, f"-l:{GNUTLS}")
    args = ["checkpoint"] if at == "checkpoint" else []
    results = run(forked(Command([program, *args]), at))
    for of_level in zip(*(result.stdout.split() for result in results), strict=True):
        assert len(set(of_level)) == 4


@needs.have(GNUTLS, "no GnuTLS")
def test_gnutls_below_a_checkpoint_of_python(run: Run) -> None:
    text = f"""
import ctypes
lib = ctypes.CDLL({GNUTLS!r})
def draw():
    data = ctypes.create_string_buffer(8)
    lib.gnutls_rnd(1, data, 8)
    return data.raw.hex()
draw()
checkpoint()
print(draw())
"""
    assert len(set(run(python(text)))) == 4


# ---- in which order, and how often ----

ORDER = """
static char said[4096];
#define SAY(c, n) static void c##n(void) { strcat(said, #c #n); }
SAY(b, 1) SAY(p, 1) SAY(c, 1) SAY(b, 2) SAY(p, 2) SAY(c, 2) SAY(b, 3) SAY(p, 3) SAY(c, 3)
int main(int argc, char **argv) {
    pthread_atfork(b1, p1, c1);
    pthread_atfork(b2, NULL, c2);
    pthread_atfork(b3, p3, NULL);
    if (argc > 1) for (int i = 0; i < 3; i++) { fflush(stdout); if (fork() == 0) break; }
    if (argc > 1) { printf("%s\\n", said); return 0; }
    int r = checkpoint();
    printf("%s\\n", said);
    return 0;
}
"""


def test_their_order_is_that_of_fork(run: Run, tmp_path: Path) -> None:
    program = build(tmp_path / "program", ORDER)
    own = subprocess.run([program, "fork"], capture_output=True, check=True).stdout
    assert b"b3b2b1c1c2\n" in own, "the first child of libc's fork"
    assert b"b3b2b1p1p3b3b2b1c1c2\n" in own, "the second"
    said = [result.stdout for result in run(forked(Command([program]), "checkpoint"))]
    assert said == [b"b3b2b1p1p3" * i + b"b3b2b1c1c2\n" for i in range(4)]


@pytest.mark.parametrize("at", [at for at in places() if at != "checkpoint"])
def test_each_fork_has_its_round(run: Run, tmp_path: Path, at: At) -> None:
    """Of those that a constructor registers; one round more is made to count threads. What runs on
    to an effect has been made a child before."""
    source = ORDER.replace("int main(int argc, char **argv)", "__attribute__((constructor)) f()")
    source = source.partition("    if (argc")[0] + "}\nint main() { getppid(); puts(said); }"
    program = build(tmp_path / "program", source)
    said = [result.stdout for result in run(forked(Command([program]), at))]
    above = b"b3b2b1c1c2" if at == "effect" else b""
    assert said == [above + b"b3b2b1p1p3" * (i + 1) + b"b3b2b1c1c2\n" for i in range(4)]


@pytest.mark.skipif("effect" not in places(), reason="for x86-64")
def test_a_handler_that_is_an_effect(run: Run, tmp_path: Path) -> None:
    """Each fork goes on with it; what the handlers before it have locked, none locks again."""
    source = """
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static int pid, locked;
    static void prepare(void) { pthread_mutex_lock(&lock); locked++; }
    static void unlock(void) { pthread_mutex_unlock(&lock); }
    static void in_child(void) { pid = getpid(); pthread_mutex_unlock(&lock); }
    __attribute__((constructor)) static void start(void) {
        pthread_atfork(prepare, unlock, in_child);
    }
    int main() {
        printf("%d %d %d\\n", pid == getpid(), locked, pthread_mutex_trylock(&lock));
        return 0;
    }
    """
    program = build(tmp_path / "program", source)
    said = [result.stdout for result in run(forked(Command([program]), "effect"))]
    assert said == [b"1 1 0\n"] * 4


def test_hooks_of_python(run: Run) -> None:
    text = """
said = []
for n in ("1", "2"):
    os.register_at_fork(
        before=lambda n=n: said.append("b" + n),
        after_in_parent=lambda n=n: said.append("p" + n),
        after_in_child=lambda n=n: said.append("c" + n),
    )
checkpoint()
print(*said, sep="")
"""
    assert run(python(text)) == [b"b2b1p1p2" * i + b"b2b1c1c2\n" for i in range(4)]


def test_what_a_child_says_is_in_its_own_output(run: Run, tmp_path: Path) -> None:
    """With the request's environment."""
    source = """
    static void in_child(void) { printf("%s ", getenv("WHO")); }
    __attribute__((constructor)) static void start(void) { pthread_atfork(0, 0, in_child); }
    int main() { puts("main"); return 0; }
    """
    program = build(tmp_path / "program", source)

    async def main() -> None:
        async with Template([program], size=1, at="main") as template:
            for who in ("a", "b"):
                result = await template.run(env={"WHO": who})
                assert result.stdout == f"{who} main\n".encode()
            assert template.stats["forked"] == 2

    run(main())


def test_a_library_that_was_closed(run: Run, tmp_path: Path) -> None:
    """Its handlers are gone with its code."""
    library = build(tmp_path / "generator.so", GENERATOR, "-shared", "-fPIC")
    source = f"""
    int main() {{
        void *library = dlopen("{library}", RTLD_NOW);
        dlclose(library);
        if (dlopen("{library}", RTLD_NOW | RTLD_NOLOAD)) puts("still there");
        checkpoint();
        puts("on");
        return 0;
    }}
    """
    program = build(tmp_path / "program", source, "-ldl")
    results = run(forked(Command([program]), "checkpoint"))
    assert {result.stdout for result in results} == {b"on\n"}


def test_more_than_can_be_run(run: Run, tmp_path: Path) -> None:
    """No template is better than one that leaves some out."""
    source = """
    static void f(void) {}
    int main() {
        for (int i = 0; i < 1000; i++) pthread_atfork(f, f, f);
        printf("%d\\n", checkpoint());
        return 0;
    }
    """
    program = build(tmp_path / "program", source)

    async def main() -> None:
        async with Template([program], size=1, at="checkpoint") as template:
            assert int((await template.run()).stdout) < 0
            assert "pthread_atfork" in (template.no_checkpoint or "")

    run(main())


# ---- threads that end before a fork ----

POOL = """
static pthread_t thread;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static int running, ending, asked, done;
static void *work(void *unused) {
    pthread_mutex_lock(&lock);
    while (!ending) {
        if (asked > done) { done = asked; pthread_cond_broadcast(&wake); }
        pthread_cond_wait(&wake, &lock);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}
static void start(void) { ending = 0; running = !pthread_create(&thread, NULL, work, NULL); }
static void end(void) {
    if (!running) return;
    pthread_mutex_lock(&lock);
    ending = 1;
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
    pthread_join(thread, NULL);
    running = 0;
}
#ifdef EAGER
#define AGAIN start
#else
#define AGAIN NULL
#endif
__attribute__((constructor)) static void load(void) { pthread_atfork(end, AGAIN, NULL); start(); }
int multiply(int a, int b) {
    if (!running) start();
    pthread_mutex_lock(&lock);
    asked++;
    pthread_cond_broadcast(&wake);
    while (done < asked) pthread_cond_wait(&wake, &lock);
    pthread_mutex_unlock(&lock);
    return a * b;
}
"""
MULTIPLY = """
extern int multiply(int, int);
int main(int argc, char **argv) {
    if (argc > 1) { multiply(2, 3); if (checkpoint() < 0) return 1; }
    printf("%d\\n", multiply(6, 7));
    return 0;
}
"""


@pytest.mark.parametrize("eager", [False, True], ids=["as needed", "eager"])
@pytest.mark.parametrize("at", ["main", "checkpoint"])
def test_threads_that_a_handler_ends(run: Run, tmp_path: Path, at: At, eager: bool) -> None:
    """As OpenBLAS's; some libraries start theirs again in the parent."""
    options = ["-DEAGER"] if eager else []
    library = build(tmp_path / "pool.so", POOL, "-shared", "-fPIC", *options)
    program = build(tmp_path / "program", MULTIPLY, library, "-Wl,-rpath," + str(tmp_path))
    args = ["checkpoint"] if at == "checkpoint" else []
    results = run(forked(Command([program, *args]), at))
    assert {result.stdout for result in results} == {b"42\n"}


def test_the_same_above_a_checkpoint_of_python(run: Run, tmp_path: Path) -> None:
    library = build(tmp_path / "pool.so", POOL, "-shared", "-fPIC")
    text = f"import ctypes\nmultiply = ctypes.CDLL({str(library)!r}).multiply\n"
    text += "multiply(2, 3)\ncheckpoint()\nprint(multiply(6, 7))\n"
    assert run(python(text)) == [b"42\n"] * 4


@needs.module("numpy")
def test_numpy(run: Run) -> None:
    text = """
import numpy
a = numpy.arange(250_000.0).reshape(500, 500) % 7
expected = a @ a
checkpoint()
print((a @ a == expected).all(), numpy.linalg.det(numpy.eye(300)))
"""
    assert run(python(text)) == [b"True 1.0\n"] * 4


def test_a_thread_that_was_joined_just_now(run: Run) -> None:
    """The kernel still counts it for a moment."""
    text = """
import threading
for _ in range(20):
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
checkpoint()
print("on")
"""
    for _ in range(5):
        assert run(python(text, 2)) == [b"on\n"] * 2


def test_threads_that_stay(run: Run) -> None:
    text = """
import threading, warnings
warnings.simplefilter("ignore")
end = threading.Event()
thread = threading.Thread(target=end.wait)
thread.start()
checkpoint()
end.set()
thread.join()
print("on")
"""

    async def main() -> None:
        async with Template([sys.executable, "-c", TOP + text], size=1) as template:
            for _ in range(2):
                assert (await template.run()).stdout == b"on\n"
            assert template.stats["checkpoints"] == 0
            assert "several threads" in (template.no_checkpoint or "")

    run(main())


# ---- musl ----


@needs.musl
def test_a_program_of_musl(run: Run, tmp_path: Path) -> None:
    program = build(tmp_path / "program", ORDER, compiler="musl-gcc")
    said = [result.stdout for result in run(forked(Command([program]), "checkpoint"))]
    assert said == [b"b3b2b1p1p3" * i + b"b3b2b1c1c2\n" for i in range(4)]
