"""What a child finds: directory, environment, limits, session, signals, descriptors."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fastspawn import Command, Engine, Limits
from support import age, async_poll, script, sh


async def state(engine: Engine, **options: Any) -> dict[str, Any]:
    """What a child finds."""
    result = await engine.run(Command(script("state.py"), **options), check=True)
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["pid"] == result.pid
    return found


async def test_cwd(engine: Engine, tmp_path: Path) -> None:
    assert (await state(engine, cwd=tmp_path))["cwd"] == str(tmp_path.resolve())
    assert (await state(engine))["cwd"] == os.getcwd()


async def test_cwd_comes_before_a_relative_program(engine: Engine, tmp_path: Path) -> None:
    for name in ("one", "two"):
        path = tmp_path / name / "bin" / "prog"
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\necho {name}\n")
        path.chmod(0o755)
    for name in ("one", "two"):
        cwd = tmp_path / name
        for argv, search, directory in (
            (["bin/prog"], os.environ["PATH"], cwd),
            (["prog"], "bin", cwd),
            (["prog"], ":", cwd / "bin"),
        ):
            result = await engine.run(Command(argv, cwd=directory, env={"PATH": search}))
            assert result.stdout.decode() == f"{name}\n"


async def test_cwd_is_followed(engine: Engine, tmp_path: Path, monkeypatch: Any) -> None:
    """A spawner has no working directory of its own."""
    (tmp_path / "sub").mkdir()
    command = Command(["pwd", "-P"], cwd="sub")
    monkeypatch.chdir(tmp_path)
    assert (await engine.run(command)).stdout.decode() == f"{tmp_path.resolve()}/sub\n"


async def test_environment(engine: Engine) -> None:
    env = {"A": "1", "EMPTY": "", "UMLAUT": "\xe4", "SPACE": "a b\nc", "PATH": os.environ["PATH"]}
    result = await engine.run(Command(["env", "-0"], env=env))
    entries = result.stdout.decode().rstrip("\0").split("\0")
    assert dict(entry.split("=", 1) for entry in entries) == env
    result = await engine.run(Command(["/usr/bin/env"], env={}))
    assert result.stdout == b""


async def test_path_of_the_given_environment(engine: Engine, tmp_path: Path) -> None:
    prog = tmp_path / "prog"
    prog.write_text("#!/bin/sh\necho found\n")
    prog.chmod(0o755)
    result = await engine.run(Command(["prog"], env={"PATH": str(tmp_path)}))
    assert result.stdout == b"found\n"


async def test_program_installed_later(engine: Engine, tmp_path: Path) -> None:
    """An answer that is remembered is not believed for ever."""
    first, second = tmp_path / "first", tmp_path / "second"
    command = Command(["prog"], env={"PATH": f"{first}:{second}"})

    async def says(word: str) -> None:
        async def it_does() -> bool:
            return (await engine.run(command)).stdout.decode() == f"{word}\n"

        await async_poll(it_does, f"{word} is found")

    for directory in (second, first):
        directory.mkdir(exist_ok=True)
        (directory / "new").write_text(f"#!/bin/sh\necho {directory.name}\n")
        (directory / "new").chmod(0o755)
        (directory / "new").rename(directory / "prog")
        first.mkdir(exist_ok=True)
        age(first, second)
        await says(directory.name)
    (first / "prog").unlink()
    await says("second")


@pytest.mark.parametrize("umask", [0, 0o27, 0o777])
async def test_umask(engine: Engine, umask: int) -> None:
    assert (await state(engine, umask=umask))["umask"] == umask


async def test_umask_is_inherited(engine: Engine) -> None:
    before = os.umask(0o35)
    try:
        assert (await state(engine))["umask"] == 0o35
    finally:
        os.umask(before)


async def test_rlimits(engine: Engine) -> None:
    rlimits = {resource.RLIMIT_NOFILE: (100, 200), resource.RLIMIT_CPU: (50, 60)}
    assert (await state(engine, limits=Limits(rlimits=rlimits)))["nofile"] == [100, 200]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert (await state(engine))["nofile"] == [soft, hard]
    core = resource.getrlimit(resource.RLIMIT_CORE)
    limits = Limits(rlimits={resource.RLIMIT_CORE: core, resource.RLIMIT_NOFILE: (50, hard)})
    assert (await state(engine, limits=limits))["nofile"] == [50, hard]


async def test_session_and_group(engine: Engine) -> None:
    found = await state(engine)
    assert found["group"] == found["pid"]
    assert found["session"] == os.getsid(0)
    found = await state(engine, start_new_session=True)
    assert found["group"] == found["pid"] == found["session"]


# ---- signals -------------------------------------------------------------------------------------


def by_subprocess(**options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(subprocess.check_output(script("state.py"), **options))
    return found


@pytest.mark.parametrize("restore_signals", [True, False])
async def test_signals_are_those_of_subprocess(restore_signals: bool) -> None:
    """Mask and dispositions, with some of each kind in the parent."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
    dispositions: dict[int, Any] = {
        signal.SIGUSR2: signal.SIG_IGN,
        signal.SIGHUP: signal.SIG_IGN,
        signal.SIGUSR1: lambda *_: None,
        signal.SIGALRM: lambda *_: None,
    }
    handlers = {number: signal.signal(number, handler) for number, handler in dispositions.items()}
    # Python ignores these two, so that a Python program cannot tell.
    dies = [sh(f"kill -{name} $$; echo alive") for name in ("PIPE", "XFSZ")]
    try:
        expected = by_subprocess(restore_signals=restore_signals)
        options: Any = {"stdout": subprocess.PIPE, "restore_signals": restore_signals}
        dead = [subprocess.run(argv, **options) for argv in dies]
        async with Engine(1) as engine:
            found = await state(engine, restore_signals=restore_signals)
            commands = [Command(argv, restore_signals=restore_signals) for argv in dies]
            results = [await engine.run(command) for command in commands]
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert found["blocked"] == expected["blocked"] == [signal.SIGUSR1, signal.SIGTERM]
    assert found["ignored"] == expected["ignored"]
    assert {signal.SIGUSR2, signal.SIGHUP} <= set(found["ignored"])
    assert [result.stdout for result in results] == [other.stdout for other in dead]
    codes = [result.returncode for result in results]
    assert codes == [other.returncode for other in dead]
    assert codes == ([-signal.SIGPIPE, -signal.SIGXFSZ] if restore_signals else [0, 0])


async def test_no_handler_runs_in_the_child(run: Any, engine: Engine) -> None:
    """A signal for the parent, while it has children between clone and exec, is the parent's."""
    here = []
    handler = signal.signal(signal.SIGALRM, lambda *_: here.append(os.getpid()))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for _ in range(200):
            assert (await engine.run(["true"])).returncode == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert set(here) == {os.getpid()}


# ---- descriptors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
async def test_nothing_is_inherited(when: str) -> None:
    """Inheritable descriptors that were opened before the engine started, or after."""
    opened = []

    def open_some() -> None:
        for _ in range(200):
            opened.append(os.dup(null))
            os.set_inheritable(opened[-1], True)

    null = os.open(os.devnull, os.O_RDWR)
    try:
        if when == "before":
            open_some()
        async with Engine(2) as engine:
            if when == "after":
                open_some()
            expected = by_subprocess(stdin=subprocess.DEVNULL)["fds"]
            assert expected == [0, 1, 2]
            for _ in range(8):
                assert (await state(engine))["fds"] == expected
    finally:
        for fd in (null, *opened):
            os.close(fd)


async def test_children_do_not_inherit_from_one_another(engine: Engine) -> None:
    """Neither pipes nor anything else of those that run at the same time."""
    command = Command(script("state.py"))

    async def one() -> list[int]:
        held = await engine.open(["cat"])
        async with held:
            found: list[int] = json.loads((await engine.run(command, b"x" * 10)).stdout)["fds"]
            return found

    for fds in await asyncio.gather(*(one() for _ in range(20))):
        assert fds == [0, 1, 2]
