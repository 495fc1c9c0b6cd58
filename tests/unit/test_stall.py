"""The event loop goes on while a child is on its way to its program, and keeps nothing of those
that do not get there."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import shutil
import signal
import subprocess
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from fastspawn import _core, aio
from support import LINUX, async_failure, failure, open_fds, same_error

pytestmark = [pytest.mark.skipif(not LINUX, reason="file leases and detached children are Linux's")]


class Held:
    """A program whose exec waits until it is let go: there is a lease on its file."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "held"
        shutil.copy("/bin/echo", self.path)
        self._file = self.path.open("rb")
        # The signal that tells of one who waits: by default it would end us, but not this one.
        fcntl.fcntl(self._file, 10, signal.SIGURG)  # F_SETSIG
        fcntl.fcntl(self._file, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    def let_go(self) -> None:
        self._file.close()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    program = Held(tmp_path)
    yield program
    program.let_go()


@pytest.fixture(autouse=True, params=["clone3", "clone"])
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Those that can leave us running."""
    _core.select_backend(request.param)
    yield
    _core.select_backend(os.environ.get("FASTSPAWN_BACKEND", ""))


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0.001)


async def test_the_loop_goes_on(run: Run, held: Held) -> None:
    task = asyncio.ensure_future(aio.create_subprocess_exec(held.path, "hi", stdout=PIPE))
    await _turns(20)
    assert not task.done()
    held.let_go()
    process = await task
    assert await process.communicate() == (b"hi\n", None)
    assert process.returncode == 0


async def test_others_start_meanwhile(run: Run, held: Held) -> None:
    task = asyncio.ensure_future(aio.create_subprocess_exec(held.path, stdout=DEVNULL))
    process = await aio.create_subprocess_shell("echo other", stdout=PIPE)
    assert await process.communicate() == (b"other\n", None)
    assert not task.done()
    held.let_go()
    assert await (await task).wait() == 0


async def test_cancelled_on_its_way(run: Run, held: Held) -> None:
    """Without a descriptor or a zombie, and without waiting for the exec."""
    before = open_fds()
    task = asyncio.ensure_future(aio.create_subprocess_exec(held.path, stdin=PIPE, stdout=PIPE))
    await _turns(5)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert open_fds() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_loop_closed_on_its_way(held: Held) -> None:
    """Its coroutine is garbage: the child as well."""
    loop = asyncio.new_event_loop()
    coroutines: list[Any] = [aio.create_subprocess_exec(held.path, stdin=PIPE)]

    async def begin() -> None:
        coroutines[0].send(None)

    loop.run_until_complete(begin())
    loop.close()
    coroutines.clear()
    gc.collect()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


async def test_a_hundred_at_a_time(run: Run) -> None:
    """More than are ever on their way: the others are started in the waiting way."""
    processes = await asyncio.gather(
        *(aio.create_subprocess_exec("echo", str(i), stdout=PIPE) for i in range(100))
    )
    outputs = await asyncio.gather(*(process.communicate() for process in processes))
    assert [int(out) for out, _ in outputs] == list(range(100))


async def test_many_open_files(run: Run) -> None:
    """The table is then not copied."""
    with contextlib.ExitStack() as files:
        low = files.enter_context(open(os.devnull))
        for number in range(1024, 1034):
            os.dup2(low.fileno(), number)
            files.callback(os.close, number)
        process = await aio.create_subprocess_exec("echo", "hi", stdout=PIPE)
        assert await process.communicate() == (b"hi\n", None)


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        (["/no/such/program"], {}),
        (["no-such-program"], {}),
        (["/"], {}),
        ([os.devnull], {}),
        (["true"], {"cwd": "/no/such/directory"}),
        (["true"], {"cwd": os.devnull}),
        (["true"], {"env": {"A=B": "c"}}),
        (["nul\0"], {}),
    ],
)
async def test_same_failure(run: Run, argv: list[str], options: dict[str, Any]) -> None:
    before = open_fds()
    ours = await async_failure(aio.create_subprocess_exec(*argv, stdout=PIPE, **options))
    theirs = failure(lambda: subprocess.Popen(argv, stdout=PIPE, **options))
    assert same_error(ours, theirs)
    ours.__traceback__ = theirs.__traceback__ = None
    assert open_fds() == before


# ---- the binding --------------------------------------------------------------------------------


def test_start_ends_once() -> None:
    start = _core.start(_core.Plan(["true"]))
    assert start is not None
    assert start.fd >= 0
    assert start.end().wait() == 0
    assert start.fd == -1
    with pytest.raises(ValueError, match="it has ended"):
        start.end()


def test_a_start_that_is_dropped(held: Held) -> None:
    start = _core.start(_core.Plan([str(held.path)]))
    assert start is not None
    del start
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
