"""What cannot be started raises what subprocess.run raises."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastspawn import Command, Engine
from support import async_failure, failure, own_children, same_error

Options = dict[str, Any]
CASES: list[Callable[[Path], Options]] = []


def case(make: Callable[[Path], Options]) -> Callable[[Path], Options]:
    CASES.append(make)
    return make


def program(path: Path, text: str, mode: int = 0o755) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def searching(*path: Path | str, name: str = "prog", **options: Any) -> Options:
    return {"args": [name], "env": {"PATH": ":".join(map(str, path))}, **options}


# ---- ENOENT ----


@case
def missing(at: Path) -> Options:
    return {"args": [str(at / "missing")]}


@case
def missing_path(at: Path) -> Options:
    return {"args": [at / "missing", "arg"]}


@case
def missing_bytes(at: Path) -> Options:
    return {"args": [os.fsencode(at / "missing")]}


@case
def missing_on_path(at: Path) -> Options:
    return searching(at, "/nowhere")


@case
def missing_relative(at: Path) -> Options:
    return {"args": ["./missing"], "cwd": at}


@case
def missing_executable(at: Path) -> Options:
    return {"args": ["echo"], "executable": at / "missing"}


@case
def missing_interpreter(at: Path) -> Options:
    return {"args": [program(at / "prog", "#!/nowhere/interpreter\n")]}


@case
def missing_interpreter_on_path(at: Path) -> Options:
    return searching(program(at / "prog", "#!/nowhere/interpreter\n").parent)


@case
def dangling_link(at: Path) -> Options:
    (at / "link").symlink_to("missing")
    return {"args": [at / "link"]}


@case
def empty_path(at: Path) -> Options:
    return searching("", cwd=at)


# ---- EACCES ----


@case
def not_executable(at: Path) -> Options:
    return {"args": [program(at / "prog", "#!/bin/sh\n", 0o644)]}


@case
def directory(at: Path) -> Options:
    return {"args": [at]}


@case
def no_name(at: Path) -> Options:
    return {"args": [""]}


@case
def not_executable_then_missing(at: Path) -> Options:
    return searching(program(at / "prog", "#!/bin/sh\n", 0o644).parent, "/nowhere")


@case
def missing_then_directory(at: Path) -> Options:
    (at / "prog").mkdir()
    return searching("/nowhere", at)


@case
def interpreter_is_not_executable(at: Path) -> Options:
    interpreter = program(at / "interpreter", "", 0o644)
    return {"args": [program(at / "prog", f"#!{interpreter}\n")]}


@case
def interpreter_is_a_directory(at: Path) -> Options:
    return {"args": [program(at / "prog", f"#!{at}\n")]}


# ---- ENOEXEC ----


@case
def no_format(at: Path) -> Options:
    return {"args": [program(at / "prog", "echo hi\n")]}


@case
def empty_file(at: Path) -> Options:
    return {"args": [program(at / "prog", "")]}


@case
def no_interpreter(at: Path) -> Options:
    return {"args": [program(at / "prog", "#!\n")]}


@case
def no_format_on_path(at: Path) -> Options:
    return searching(program(at / "prog", "").parent)


# ---- others ----


@case
def below_a_file(at: Path) -> Options:
    return {"args": [program(at / "file", "") / "prog"]}


@case
def below_a_file_on_path(at: Path) -> Options:
    return searching("/nowhere", program(at / "file", ""))


@case
def file_on_path_then_missing(at: Path) -> Options:
    return searching(program(at / "file", ""), "/nowhere")


@case
def loop_of_links(at: Path) -> Options:
    (at / "loop").symlink_to("loop")
    return {"args": [at / "loop"]}


@case
def loop_of_interpreters(at: Path) -> Options:
    for name, other in (("one", "two"), ("two", "one")):
        program(at / name, f"#!{at}/{other}\n")
    return {"args": [at / "one"]}


@case
def long_argument(at: Path) -> Options:
    return {"args": ["true", "x" * 10_000_000]}


@case
def long_environment(at: Path) -> Options:
    return {"args": ["true"], "env": {"A": "x" * 10_000_000, "PATH": os.environ["PATH"]}}


@case
def many_arguments(at: Path) -> Options:
    return {"args": ["true", *["x" * 1000] * 10_000]}


@case
def long_name(at: Path) -> Options:
    return {"args": ["x" * 300]}


@case
def long_path(at: Path) -> Options:
    return {"args": ["/x" * 5000]}


# ---- the working directory ----


@case
def cwd_is_missing(at: Path) -> Options:
    return {"args": ["true"], "cwd": at / "missing"}


@case
def cwd_is_missing_bytes(at: Path) -> Options:
    return {"args": ["true"], "cwd": os.fsencode(at / "missing")}


@case
def cwd_is_a_file(at: Path) -> Options:
    return {"args": ["true"], "cwd": str(program(at / "file", ""))}


@case
def cwd_is_a_loop(at: Path) -> Options:
    (at / "loop").symlink_to("loop")
    return {"args": ["true"], "cwd": at / "loop"}


@case
def cwd_is_empty(at: Path) -> Options:
    return {"args": ["true"], "cwd": ""}


@case
def cwd_and_program_are_missing(at: Path) -> Options:
    return {"args": [at / "prog"], "cwd": at / "missing"}


@case
def cwd_is_there_but_the_program_is_not(at: Path) -> Options:
    return {"args": [at / "prog"], "cwd": at}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
async def test_same_error(engine: Engine, make: Callable[[Path], Options], tmp_path: Path) -> None:
    options = make(tmp_path)
    expected = failure(lambda: subprocess.run(**options))
    assert isinstance(expected, OSError)
    command = Command(options.pop("args"), **options)
    # Again: an answer that was remembered is no other one.
    for _ in range(2):
        assert same_error(await async_failure(engine.run(command)), expected)
        assert same_error(await async_failure(engine.run(command, b"input")), expected)
        assert same_error(await async_failure(engine.open(command)), expected)
    assert engine.stats["running"] == engine.live == 0
    assert own_children() == {}


FOUND: list[Callable[[Path], None]] = []


def found(make: Callable[[Path], None]) -> Callable[[Path], None]:
    FOUND.append(make)
    return make


@found
def after_nothing(at: Path) -> None:
    pass


@found
def after_one_that_is_not_executable(at: Path) -> None:
    program(at / "prog", "#!/bin/sh\n", 0o644)


@found
def after_a_directory(at: Path) -> None:
    (at / "prog").mkdir(parents=True)


@found
def after_one_of_no_format(at: Path) -> None:
    program(at / "prog", "")


@found
def after_one_without_interpreter(at: Path) -> None:
    program(at / "prog", "#!/nowhere/interpreter\n")


@pytest.mark.parametrize("make", FOUND, ids=lambda make: make.__name__)
async def test_the_search_goes_on(
    engine: Engine, make: Callable[[Path], None], tmp_path: Path
) -> None:
    """Where subprocess finds a program in the second directory, so do we."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    make(tmp_path / "first")
    program(tmp_path / "second" / "prog", "#!/bin/sh\necho $0\n")
    options = searching(tmp_path / "first", tmp_path / "second")
    expected: Any = subprocess.check_output(**options)
    assert expected == os.fsencode(tmp_path / "second" / "prog") + b"\n"
    command = Command(options.pop("args"), **options)
    for _ in range(2):
        assert (await engine.run(command)).stdout == expected


async def test_many_errors(engine: Engine, tmp_path: Path) -> None:
    """And successes between them."""

    async def one(i: int) -> None:
        if i % 10 == 0:
            assert (await engine.run(["echo", str(i)])).stdout == f"{i}\n".encode()
        else:
            path = str(tmp_path / f"missing{i}")
            error = await async_failure(engine.run([path]))
            assert same_error(error, FileNotFoundError(2, os.strerror(2), path))

    for i in range(0, 1000, 20):
        await asyncio.gather(*(one(j) for j in range(i, i + 20)))


async def test_program_that_is_being_written(engine: Engine, tmp_path: Path) -> None:
    """ETXTBSY, where the system has it, is told as subprocess tells it."""
    path = tmp_path / "prog"
    path.write_bytes(Path("/bin/sh").read_bytes())
    path.chmod(0o755)
    argv: list[Any] = [path, "-c", "echo hi"]

    def outcome(call: Callable[[], Any]) -> Exception | Any:
        try:
            return call().stdout
        except OSError as error:
            return error

    with path.open("ab"):
        expected = outcome(lambda: subprocess.run(argv, stdout=subprocess.PIPE))
        if isinstance(expected, OSError):
            assert same_error(await async_failure(engine.run(argv)), expected)
    assert (await engine.run(argv)).stdout == b"hi\n"


async def test_written_programs_are_never_busy(run: Any, tmp_path: Path) -> None:
    """Programs are written and run at once while others are spawned: none of those may hold a
    copy of the descriptor that the program was written through (golang/go#22315)."""
    program = Path("/bin/sh").read_bytes()

    def write(path: Path) -> None:
        path.write_bytes(program)
        path.chmod(0o755)

    async def one(engine: Engine, name: str) -> None:
        path = tmp_path / name
        for i in range(30):
            await asyncio.to_thread(write, path)
            result = await engine.run([path, "-c", f"echo {i}"])
            assert result.stdout == f"{i}\n".encode()
            path.unlink()

    async with Engine(4) as engine:
        await asyncio.gather(*(one(engine, f"prog{i}") for i in range(8)))
