"""What exec draws for each process is each fork's own: AT_RANDOM, the heap, the stack; and so is
what the processor draws."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

import needs
from conftest import Run
from fastspawn import Command, Engine, Result, Template
from support import at_checkpoint

pytestmark = [needs.templates, needs.compiler]

At = Literal["main", "effect", "checkpoint", "fixed"]
X86_FLAGS = Path("/proc/cpuinfo").read_text() if needs.X86_64 else ""
draws = pytest.mark.skipif(
    "rdrand" not in X86_FLAGS or "rdseed" not in X86_FLAGS, reason="no RDRAND"
)

HEAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>
#include <unistd.h>
static void checkpoint(void) {
    int (*of_object)(const char *const *);
    *(void **)&of_object = dlsym(RTLD_DEFAULT, "fastspawn_checkpoint");
    if (of_object) of_object(NULL);
}
"""


def build(path: Path, source: str, *options: object, compiler: str | None = None) -> Path:
    code = path.with_suffix(".cpp" if compiler else ".c")
    code.write_text(source if compiler else HEAD + source)
    command = [compiler or needs.CC or "cc", "-O1", "-w", "-o", path, code, *options]
    subprocess.run(command, check=True)
    return path


async def at_once(
    argv: Sequence[object], at: At, times: int = 10, kind: str | None = None
) -> list[Result]:
    """Forks of one template process."""
    async with Template(Command(list(map(str, argv))), size=1, at=at) as template:
        if at == "checkpoint":
            await at_checkpoint(template, template.run)
        results = await asyncio.gather(*(template.run() for _ in range(times)))
        assert template.kind == (kind or at)
        assert template.stats["direct"] == 0
    for result in results:
        assert (result.returncode, result.stderr) == (0, b"")
    return results


async def executed(argv: Sequence[object]) -> Result:
    async with Engine(1) as engine:
        return await engine.run(Command(list(map(str, argv))))


def distinct(results: list[Result]) -> int:
    return len({result.stdout for result in results})


# ---- AT_RANDOM ----

BYTES = """
static void say(const unsigned char *bytes) {
    for (int i = 0; i < 16; i++) printf("%02x", bytes[i]);
}
int main(int argc, char **argv) {
    if (argc > 1) checkpoint();
    unsigned char first[16], *there = (void *)getauxval(AT_RANDOM);
    memcpy(first, there, 16);
    say(first);
    fflush(stdout);
    putchar(memcmp(first, there, 16) ? '!' : '=');
    /* As the kernel tells it. */
    unsigned long pair[2];
    FILE *file = fopen("/proc/self/auxv", "r");
    while (fread(pair, sizeof pair, 1, file) && pair[0] != AT_RANDOM) continue;
    say((void *)pair[1]);
    return 0;
}
"""


@pytest.mark.parametrize("at", ["main", pytest.param("effect", marks=needs.effects), "checkpoint"])
def test_its_random_bytes(run: Run, tmp_path: Path, at: At) -> None:
    """Also where reading them is the first that it does."""
    program = build(tmp_path / "program", BYTES)
    results = run(at_once([program, "-"][: 1 + (at == "checkpoint")], at))
    assert distinct(results) == 10
    for result in results:
        first, _, told = result.stdout.partition(b"=")
        assert first == told


# ---- the heap and the stack ----

PLACES = """
int main() {
    int here;
    printf("%p %p\\n", malloc(100), &here);
    return 0;
}
"""


def test_where_its_memory_is(run: Run, tmp_path: Path) -> None:
    """Of 2^18 and 2^10 places."""
    program = build(tmp_path / "program", PLACES)
    heaps, stacks = zip(
        *(result.stdout.split() for result in run(at_once([program], "main", 20))), strict=True
    )
    assert len(set(heaps)) > 15
    assert len(set(stacks)) > 10
    assert all(int(heap, 16) % 16 == 0 for heap in heaps)


def test_its_stack_is_aligned(run: Run, tmp_path: Path) -> None:
    source = """
    typedef float four __attribute__((vector_size(16)));
    __attribute__((noinline)) static void fill(volatile four *at) { *at = (four){1, 2, 3, 4}; }
    int main() { volatile four here; fill(&here); puts("on"); return 0; }
    """
    program = build(tmp_path / "program", source)
    assert {result.stdout for result in run(at_once([program], "main"))} == {b"on\n"}


SEEDED = """
void lua_callk(void) {}
int main() { printf("%lx\\n", time(NULL) / 1000 ^ (uintptr_t)malloc(100) * 2654435761u); }
"""


def test_a_program_that_seeds_by_them(run: Run, tmp_path: Path) -> None:
    """As Lua does: not stopped at an effect unless that is asked for."""
    program = build(tmp_path / "program", SEEDED, "-rdynamic")
    assert distinct(run(at_once([program], "main"))) > 7
    assert distinct(run(at_once([program], "fixed", kind="main"))) > 7


@needs.effects
def test_the_reason_is_told(run: Run, tmp_path: Path) -> None:
    program = build(tmp_path / "program", SEEDED, "-rdynamic")

    async def main() -> None:
        async with Template([program], size=1, at="fixed") as template:
            assert "Lua" in (template.not_at_effect or "")
        async with Template([program], size=1, at="effect") as template:
            assert template.kind == "effect"

    run(main())


@needs.program("lua5.4")
@pytest.mark.parametrize("at", ["main", "fixed"])
def test_lua(run: Run, at: At) -> None:
    argv = ["lua5.4", "-e", "print(math.random(1 << 62))"]
    assert distinct(run(at_once(argv, at, 40, kind="main"))) > 35


# ---- what the processor draws ----

DRAWN = """
static unsigned long rdrand(void) {
    unsigned long x;
    __asm__ volatile("1: rdrand %0; jnc 1b" : "=r"(x) : : "cc");
    return x;
}
static unsigned rdseed(void) {
    unsigned x;
    __asm__ volatile("1: rdseed %0; jnc 1b" : "=r"(x) : : "cc");
    return x;
}
"""
LIBRARY = DRAWN + "unsigned long draw(void) { return rdrand() ^ rdseed(); }\n"
SAY_DRAWN = """
extern unsigned long draw(void);
int main() { printf("%lx\\n", draw()); return 0; }
"""
OF_PROCESSOR = {
    "rdrand": DRAWN + 'int main() { printf("%lx\\n", rdrand()); return 0; }',
    "rdseed": DRAWN + 'int main() { printf("%x\\n", rdseed()); return 0; }',
    "second": DRAWN + 'int main() { unsigned long a = rdrand(); printf("%lx\\n", rdrand()); }',
    "across pages": """
    __attribute__((naked, aligned(4096))) static unsigned long draw(void) {
        __asm__(".skip 4092, 0x90; rdrand %rax; jnc .-4; ret"); /* 48 0f c7 f0 */
    }
    __attribute__((naked, aligned(4096))) static unsigned long draw_again(void) {
        __asm__(".skip 4094, 0x90; rdrand %rax; jnc .-4; ret");
    }
    int main() { printf("%lx%lx\\n", draw(), draw_again()); return 0; }
    """,
}


@draws
@pytest.mark.parametrize("name", OF_PROCESSOR)
def test_the_processors_random_numbers(run: Run, tmp_path: Path, name: str) -> None:
    """It stops before it draws."""
    program = build(tmp_path / "program", OF_PROCESSOR[name])
    assert distinct(run(at_once([program], "effect"))) == 10


@draws
@pytest.mark.parametrize("how", ["linked", "opened"])
def test_those_of_a_library(run: Run, tmp_path: Path, how: str) -> None:
    library = build(tmp_path / "draw.so", LIBRARY, "-shared", "-fPIC")
    if how == "linked":
        program = build(tmp_path / "program", SAY_DRAWN, library, f"-Wl,-rpath,{tmp_path}")
    else:
        source = f"""
        int main() {{
            void *library = dlopen("{library}", RTLD_NOW);
            dlclose(library);
            library = dlopen("{library}", RTLD_NOW);
            unsigned long (*draw)(void) = dlsym(library, "draw");
            printf("%lx\\n", draw());
            return 0;
        }}
        """
        program = build(tmp_path / "program", source, "-ldl")
    assert distinct(run(at_once([program], "effect"))) == 10


CPP = """
#include <cstdio>
#include <random>
int main() {
    std::random_device device;
    std::mt19937_64 generator(device());
    std::printf("%lx\\n", (unsigned long)generator());
}
"""


@draws
@needs.compiler_of_cxx
@pytest.mark.parametrize("how", ["shared", "static"])
def test_random_device(run: Run, tmp_path: Path, how: str) -> None:
    options = ["-static-libstdc++", "-static-libgcc"] if how == "static" else []
    program = build(tmp_path / "program", CPP, *options, compiler=needs.CXX)
    assert distinct(run(at_once([program], "effect"))) == 10
    assert distinct(run(at_once([program], "fixed", kind="effect"))) == 10


NEIGHBOUR = (
    DRAWN
    + """
static const unsigned constant = 0xf0c70f; /* no instruction, though it looks like one */
__attribute__((noinline)) static unsigned long step(unsigned long x) {
    __asm__ volatile("movl $0xf0c70f, %%eax" : : : "eax");
    return x * 6364136223846793005u + constant;
}
int main(int argc, char **argv) {
    unsigned long x = argc;
    for (int i = 0; i < 1000; i++) x = step(x);
    int parent = getppid();
    if (argc > 1) x ^= rdrand();
    int code = 0;
    char line[400];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps)) code += strstr(line, "r-xp") && strstr(line, argv[0]);
    printf("%lx %d\\n", x, code);
    return 0;
}
"""
)


@draws
def test_what_only_lies_beside_it(run: Run, tmp_path: Path) -> None:
    """It is computed as ever, goes on to its effect, and its code is one mapping again."""
    program = build(tmp_path / "program", NEIGHBOUR)

    async def main() -> None:
        expected = await executed([program])
        assert expected.stdout.endswith(b" 1\n")
        async with Template([program], size=1, at="effect") as template:
            assert template.stats["stopped_by"] == 110, "getppid"
            for _ in range(3):
                result = await template.run()
                assert (result.returncode, result.stdout) == (0, expected.stdout)

    run(main())


@draws
def test_its_own_faults_are_its_own(run: Run, tmp_path: Path) -> None:
    """A jump to what is no code, in a program that has hidden code."""
    source = DRAWN + "int main(int n, char **v) { return n > 1 ? rdrand() : ((int (*)(void))v)(); }"
    program = build(tmp_path / "program", source)

    async def main() -> None:
        async with Template([program], size=1, at="effect") as template:
            for _ in range(2):
                assert (await template.run()).returncode == -11

    run(main())
