"""The C API of a checkpoint, by the examples in C and in Ruby."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import fastspawn
import needs
from conftest import Run
from fastspawn import Command, Engine, Result, Template
from serve.harness import Server
from support import async_poll, at_checkpoint

pytestmark = [needs.templates, needs.compiler]

EXAMPLES = Path(__file__).parents[2] / "examples" / "checkpoint"


def compiled(tmp_path: Path, source: Path) -> Path:
    program = tmp_path / source.stem
    flags = [
        "-std=gnu11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-I",
        fastspawn.get_include(),
        "-o",
        program,
    ]
    assert needs.CC is not None
    subprocess.run([needs.CC, *flags, source], check=True)
    return program


@pytest.fixture(params=["c", "ruby"] if shutil.which("ruby") else ["c"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Command:
    words = tmp_path / "words.txt"
    words.write_text("pear apple fig\n")
    if request.param == "c":
        return Command([compiled(tmp_path, EXAMPLES / "words.c"), words])
    return Command(["ruby", EXAMPLES / "words.rb", words])


INPUTS = [b"apple pear", b"kiwi fig", b"", b"fig fig lime plum"]
ANSWERS = [(0, b""), (0, b"kiwi\n"), (0, b""), (0, b"lime\nplum\n")]


def answer(result: Result) -> tuple[int, bytes]:
    assert result.stderr == b""
    return result.returncode, result.stdout


def test_the_examples(run: Run, command: Command) -> None:
    async def main() -> None:
        async with Engine(1) as engine:
            assert [answer(await engine.run(command, input)) for input in INPUTS] == ANSWERS
        async with Template(command, size=1, at="checkpoint") as template:
            first = await at_checkpoint(template, lambda: template.run(input=INPUTS[0]))
            later = [await template.run(input=input) for input in INPUTS[1:]]
            assert [answer(result) for result in (first, *later)] == ANSWERS
            assert template.stats["checkpoints"] == 1
        for at in ("main", "auto"):
            async with Template(command, size=1, at=at) as template:  # type: ignore[arg-type]
                assert answer(await template.run(input=b"kiwi")) == (0, b"kiwi\n")
                assert template.stats["checkpoints"] == 0

    run(main())


def test_the_examples_behind_the_server(command: Command, tmp_path: Path) -> None:
    options = ("--strategy", "snapshot", "--snapshot-at", "checkpoint", "--spawners", "1")
    argv = tuple(os.fspath(arg) for arg in command.argv)
    server = Server(tmp_path, options, argv)
    try:
        with server.connect() as client:
            for input, (_, output) in zip(INPUTS, ANSWERS, strict=True):
                client.post(input)
                assert client.read().body == output
    finally:
        server.stop()


def test_a_file_that_it_came_from_changes(run: Run, command: Command) -> None:
    async def main() -> None:
        async with Template(command, size=1, at="checkpoint") as template:
            assert answer(await template.run(input=b"kiwi")) == (0, b"kiwi\n")
            Path(str(command.argv[-1])).write_text("kiwi and others\n")

            async def is_new() -> bool:
                return answer(await template.run(input=b"kiwi")) == (0, b"")

            await async_poll(is_new, "it was started anew")

    run(main())


OTHERS = r"""
#define _GNU_SOURCE
#include <fastspawn/checkpoint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
extern char **environ;
int main(int argc, char **argv) {
    char line[20];
    if (fgets(line, sizeof line, stdin)) printf("above %s", line);
    while (argc > 2 && fgets(line, sizeof line, stdin)) continue; /* to its end */
    unsetenv("GONE");
    memset(getenv("SPOILT"), 'x', strlen(getenv("SPOILT")));
    int r = fastspawn_checkpoint(NULL);
    char *const *now = fastspawn_arguments();
    printf("%d %s %s %s %s %s", r, argv[1], now ? now[1] : "-", program_invocation_short_name,
           getenv("GONE") ? getenv("GONE") : "-", getenv("SPOILT"));
    if (fastspawn_checkpoint(NULL) != -ENOTSUP) return 9;
    while (fgets(line, sizeof line, stdin)) printf(" [%s]", line);
    return 0;
}
"""


@pytest.mark.parametrize("to_end", [[], ["to-its-end"]], ids=["some", "all"])
def test_what_is_whose(run: Run, tmp_path: Path, to_end: list[str]) -> None:
    (tmp_path / "others.c").write_text(OTHERS)
    program = compiled(tmp_path, tmp_path / "others.c")
    env = {"GONE": "there", "SPOILT": "sound"}
    command = Command([program, "a", *to_end], env=env)
    left = b"" if to_end else b" [left]"

    async def main() -> None:
        async with Template(command, size=1, at="checkpoint") as template:
            first = await at_checkpoint(template, lambda: template.run(input=b"1\nleft"))
            assert first.stdout == b"above 1\n0 a a others - xxxxx" + left
            for word in ("b", "c", "c"):
                later = await template.run([word], input=b"new")
                assert later.stdout == b"1 a %s others - sound [new]" % word.encode()
            again = await template.run(input=b"")
            assert again.stdout == b"1 a a others - sound"
            assert template.stats["checkpoints"] == 1

    run(main())


def test_none_of_it_elsewhere(run: Run, tmp_path: Path) -> None:
    (tmp_path / "others.c").write_text(OTHERS)
    program = compiled(tmp_path, tmp_path / "others.c")
    env = {"GONE": "there", "SPOILT": "sound"}

    async def main() -> None:
        async with Engine(1) as engine:
            result = await engine.run(Command([program, "a"], env=env), b"")
            assert result.stdout == b"-95 a - others - xxxxx"

    run(main())
