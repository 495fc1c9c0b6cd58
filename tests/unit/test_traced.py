"""A child that somebody traces (strace, a debugger) and has ended: its status goes to whoever
traces it first, who may take his time (ptrace(2)). Until then nobody is told, and nobody spins."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fastspawn
from fastspawn import Command, Engine, Limits, _popen, aio
from fastspawn.aio import _transport
from support import BOUND, LINUX, async_poll, poll, script

pytestmark = pytest.mark.skipif(not LINUX, reason="PTRACE_SEIZE is Linux's")

HELD = 0.3
"""Seconds that its end is kept from us."""


class Tracer:
    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def trace(self, pid: int) -> None:
        self._process = subprocess.Popen(
            script("tracer.py", pid), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "traces\n":
            pytest.skip("nothing may be traced here")

    def let_go(self) -> None:
        if self._process is not None:
            self._process.communicate("\n")
            self._process = None


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    tracer = Tracer()
    yield tracer
    tracer.let_go()


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


class Calls:
    """Counts those of a function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.count = 0
        function = getattr(owner, name)

        def counted(*args: Any) -> Any:
            self.count += 1
            return function(*args)

        monkeypatch.setattr(owner, name, counted)

    def few_in(self, seconds: float, nap: float) -> bool:
        """No more than two for each nap."""
        return self.count <= 2 * seconds / nap + 10


async def test_on_a_loop(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    process = await aio.create_subprocess_exec("cat", stdin=subprocess.PIPE)
    tracer.trace(process.pid)
    assert process.stdin is not None
    process.stdin.close()
    await async_poll(lambda: is_zombie(process.pid), "its end")
    looks = Calls(monkeypatch, _transport.SubprocessTransport, "_reap")
    started = time.monotonic()
    waiting = asyncio.ensure_future(process.wait())
    await asyncio.sleep(HELD)
    assert not waiting.done()
    assert looks.few_in(time.monotonic() - started, _transport.NAP[0])
    tracer.let_go()
    assert await waiting == 0


def test_a_wait_with_a_timeout(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    with fastspawn.Popen(["cat"], stdin=subprocess.PIPE) as process:
        tracer.trace(process.pid)
        assert process.stdin is not None
        process.stdin.close()
        poll(lambda: is_zombie(process.pid), "its end")
        looks = Calls(monkeypatch, _popen, "monotonic")
        started = time.monotonic()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(HELD)
        assert looks.few_in(time.monotonic() - started, _popen.TRACED_NAP)
        waiting = threading.Thread(target=process.wait, args=(BOUND,))
        waiting.start()
        tracer.let_go()
        waiting.join()
        assert process.returncode == 0


async def test_it_is_killed_all_the_same(engine: Engine, tracer: Tracer) -> None:
    """TERM is for whoever traces it; KILL, as after a deadline's grace, is not."""
    process = await engine.open(Command(["sleep", "60"], limits=Limits(kill_grace=0.01)))
    tracer.trace(process.pid)
    process.cancel()
    await async_poll(lambda: is_zombie(process.pid), "its end")
    assert process.returncode is None
    tracer.let_go()
    assert await process.wait() == -9


async def test_a_pipe_that_somebody_else_has_meanwhile(engine: Engine, tracer: Tracer) -> None:
    """The drain is over before its status can be had: that is all that is waited for then."""
    command = Command(["sh", "-c", "sleep 1000 & echo $!; read x"], limits=Limits(drain=0.01))
    process = await engine.open(command)
    assert process.stdout is not None
    assert process.stdin is not None
    other = int(await process.stdout.readline())
    try:
        tracer.trace(process.pid)
        process.stdin.close()
        await async_poll(lambda: is_zombie(process.pid), "its end")
        await asyncio.sleep(HELD)
        tracer.let_go()
        assert await asyncio.wait_for(process.wait(), BOUND) == 1
    finally:
        os.kill(other, signal.SIGKILL)
