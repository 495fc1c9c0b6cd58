"""Many spawns through each entry point: the same descriptors and threads after them, no zombie,
and no more memory."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

import fastspawn
import needs
from fastspawn import PIPE, Engine, aio
from support import open_fds, own_threads, script

WARM_UP, MANY = 200, 400
GROWTH = 1 << 20
"""Bytes of resident memory that so many may add."""

pytestmark = needs.proc


class Held:
    """What this process holds. A sanitizer keeps what was freed, so there memory is not asked."""

    def __init__(self) -> None:
        gc.collect()
        self.fds, self.threads = open_fds(), own_threads()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory = (
            0 if os.environ.get("FASTSPAWN_SANITIZE") else pages * os.sysconf("SC_PAGESIZE")
        )

    def check(self) -> None:
        now = Held()
        assert now.fds == self.fds
        assert now.threads == self.threads
        assert now.memory - self.memory < GROWTH
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def popen() -> None:
    with fastspawn.Popen(["echo", "hi"], stdout=PIPE) as process:
        assert process.communicate() == (b"hi\n", None)


def run() -> None:
    assert fastspawn.run(["echo", "hi"], capture_output=True).stdout == b"hi\n"


@pytest.mark.parametrize("one", [popen, run])
def test_synchronous(one: Callable[[], None]) -> None:
    for _ in range(WARM_UP):
        one()
    held = Held()
    for _ in range(MANY):
        one()
    held.check()


async def _measured(one: Callable[[], Awaitable[object]]) -> None:
    async def some(count: int) -> None:
        for _ in range(count):
            await one()

    async def at_once(count: int) -> None:
        await asyncio.gather(*(some(count // 4) for _ in range(4)))

    await at_once(WARM_UP)
    held = Held()
    await at_once(MANY)
    held.check()


async def _aio_exec() -> None:
    process = await aio.create_subprocess_exec("echo", "hi", stdout=PIPE)
    assert await process.communicate() == (b"hi\n", None)


async def _aio_run() -> None:
    assert (await aio.run(["echo", "hi"])).stdout == b"hi\n"


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("one", [_aio_exec, _aio_run])
def test_on_a_loop(runner: Callable[..., None], one: Callable[[], Awaitable[object]]) -> None:
    runner(_measured(one))


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_engine(runner: Callable[..., None]) -> None:
    async def main() -> None:
        async with Engine(2) as engine:

            async def one() -> None:
                assert (await engine.run(["echo", "hi"])).stdout == b"hi\n"

            await _measured(one)

    runner(main())


GIB = 10
ROOM = 2 << 20
"""KiB that others may take meanwhile."""


@contextmanager
def no_overcommit(limit: int) -> Iterator[None]:
    """The kernel promises so many KiB and no more (proc_sys_vm(5)), to anybody on this machine."""
    mode, size, ratio = (
        Path("/proc/sys/vm", f"overcommit_{name}") for name in ("memory", "kbytes", "ratio")
    )
    limits = ratio if int(size.read_text()) == 0 else size  # one of them is 0
    before = {file: file.read_text() for file in (mode, limits)}
    try:
        size.write_text(f"{limit}\n")
        mode.write_text("2\n")
        yield
    finally:
        for file, text in before.items():
            file.write_text(text)


def promised() -> int:
    """KiB, to all processes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Committed_AS:"))


@needs.root
@pytest.mark.skipif(
    not os.environ.get("LONG"), reason="changes what all of the machine is promised"
)
def test_a_parent_that_cannot_be_copied() -> None:
    with no_overcommit(promised() + (GIB << 20) + ROOM):
        subprocess.run(script("large.py", GIB), check=True)
