"""The ways to spawn: which there are, how one is chosen, and that each does the same."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastspawn import Command, Engine, Limits, _core
from support import LINUX, async_failure, failure, same_error, sh

PINNED = os.environ.get("FASTSPAWN_BACKEND")

ALL = ["clone3", "clone", "vfork", "posix_spawn", "fork"]
EVERYWHERE = "posix_spawn"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    _core.select_backend(PINNED)


def test_names() -> None:
    names = _core.backends()
    assert [name for name in ALL if name in names] == names  # in order of preference
    assert EVERYWHERE in names
    if LINUX:
        assert {"vfork", "fork"} <= set(names)


def test_the_suite_runs_on_the_one_that_was_asked_for() -> None:
    assert _core.backend() == (PINNED or _core.backends()[0])


@pytest.mark.parametrize("name", _core.backends())
async def test_each(name: str, tmp_path: Path) -> None:
    """Pinned, no other one is tried: what works was done by it."""
    _core.select_backend(name)
    assert _core.backend() == name
    async with Engine(2) as engine:
        results = await asyncio.gather(*(engine.run(["echo", str(i)]) for i in range(30)))
        assert [int(result.stdout) for result in results] == list(range(30))
        result = await engine.run(sh("cat; echo err >&2; exit 3"), b"text")
        assert (result.stdout, result.stderr, result.returncode) == (b"text", b"err\n", 3)
        # What not every one can do by itself.
        command = Command(
            sh("umask; ulimit -n; pwd -P"),
            umask=0o27,
            cwd=tmp_path,
            limits=Limits(rlimits={resource.RLIMIT_NOFILE: (99, 99)}),
            start_new_session=True,
        )
        lines = (await engine.run(command)).stdout.decode().split("\n")
        assert lines == ["0027", "99", str(tmp_path.resolve()), ""]
        error = await async_failure(engine.run(["/nowhere/program"]))
        assert same_error(error, FileNotFoundError(2, os.strerror(2), "/nowhere/program"))
        error = await async_failure(engine.run(Command(["true"], cwd="/nowhere")))
        assert same_error(error, FileNotFoundError(2, os.strerror(2), "/nowhere"))
        result = await engine.run(Command(["sleep", "60"], limits=Limits(timeout=0.05)))
        assert (result.timed_out, result.returncode) == (True, -signal.SIGTERM)
    child = _core.spawn(Command(["true"], stdout=None, stderr=None))
    assert child.wait() == 0
    assert _core.backend() == name


@pytest.mark.parametrize("nothing", [None, ""])
def test_back_to_choosing(nothing: Any) -> None:
    _core.select_backend(EVERYWHERE)
    assert _core.backend() == EVERYWHERE
    _core.select_backend(nothing)
    assert _core.backend() == _core.backends()[0]
    _core.select_backend()
    assert _core.backend() == _core.backends()[0]


@pytest.mark.parametrize("name", ["nonsense", "CLONE3", "clone3 ", "\xe4"])
async def test_unknown(name: str) -> None:
    """It raises, and so does all that would spawn, until another one is chosen."""
    engine = Engine(1)
    plan = Command(["true"], stdout=None, stderr=None)
    message = re.escape(f"FASTSPAWN_BACKEND={name}: unknown (choose from: ")
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            _core.select_backend(name)
        for call in (_core.backend, lambda: _core.spawn(plan)):
            assert re.match(message, str(failure(call)))
        assert re.match(message, str(await async_failure(engine.start())))
    _core.select_backend(EVERYWHERE)
    assert _core.backend() == EVERYWHERE
    assert _core.spawn(plan).wait() == 0
    async with engine:
        assert (await engine.run(["echo", "hi"])).stdout == b"hi\n"


@pytest.mark.parametrize("name", [5, b"clone3", ["clone3"]], ids=repr)
def test_no_name(name: Any) -> None:
    assert type(failure(lambda: _core.select_backend(name))) in (TypeError, AttributeError)


USE = """
import asyncio, sys, fastspawn
async def main():
    async with fastspawn.Engine(1) as engine:
        print((await engine.run(["echo", fastspawn._core.backend()])).stdout.decode(), end="")
try:
    asyncio.run(main())
except ValueError as error:
    sys.exit(str(error))
"""


def use(backend: str | None) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "FASTSPAWN_BACKEND"}
    if backend is not None:
        env["FASTSPAWN_BACKEND"] = backend
    return subprocess.run([sys.executable, "-c", USE], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("name", [None, "", *_core.backends()])
def test_environment(name: str | None) -> None:
    done = use(name)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{name or _core.backends()[0]}\n"


def test_wrong_environment() -> None:
    """One line that says what is wrong and what there is; the import itself goes well."""
    done = use("nonsense")
    assert (done.returncode, done.stdout) == (1, "")
    names = ", ".join(_core.backends())
    assert done.stderr == f"FASTSPAWN_BACKEND=nonsense: unknown (choose from: {names})\n"
