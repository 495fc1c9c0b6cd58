"""What no real process can be made to do at will: a strategy of the tests' own, in this process."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from fastspawn.serve.config.model import Config
from fastspawn.serve.http.connection import Connection
from fastspawn.serve.http.refusals import PROMPT, TICK
from fastspawn.serve.routes.admission import Admission
from fastspawn.serve.service import Service
from serve.harness import BOUND


class FakeJob:
    def __init__(self, error: BaseException | None) -> None:
        self.output = b""
        self.pid = None
        self.returncode: int | None = None
        self.error = error
        self.timed_out = self.truncated = self.cancelled = False
        self.wall = 0.0

    def cancel(self) -> None:
        self.cancelled = True


class FakeStrategy:
    """Every spawn fails with ``error``; None: its exit status is lost."""

    holds_back = True

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def spawn(self, sink: Any, input: Any) -> FakeJob:
        job = FakeJob(self.error)
        asyncio.get_running_loop().call_soon(sink.on_exit, job)
        return job


async def until(condition: Callable[[], bool]) -> None:
    end = asyncio.get_running_loop().time() + BOUND
    while not condition():
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.001)


async def answer(strategy: Any, config: Config) -> tuple[int, str]:
    """Status, and the whole answer."""
    loop = asyncio.get_running_loop()
    service = Service(config, lambda _: strategy, loop)
    await service.load(config)
    ours, theirs = socket.socketpair()
    transport, _ = await loop.connect_accepted_socket(lambda: Connection(service), theirs)
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.write(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    transport.close()
    await until(lambda: not service.connections)
    assert service.running == 0
    await service.close()
    return int(text.split(" ")[1]), text


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_scarce(number: int) -> None:
    error = OSError(number, os.strerror(number))
    status, text = asyncio.run(answer(FakeStrategy(error), Config(access_log=False)))
    assert status == 503
    assert "\r\nRetry-After: 1\r\n" in text
    assert os.strerror(number) in text


def test_no_memory() -> None:
    status, text = asyncio.run(answer(FakeStrategy(MemoryError()), Config(access_log=False)))
    assert status == 503
    assert "\r\nRetry-After: 1\r\n" in text


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOEXEC, errno.E2BIG, errno.EPERM])
def test_broken(number: int) -> None:
    error = OSError(number, os.strerror(number))
    status, text = asyncio.run(answer(FakeStrategy(error), Config(access_log=False)))
    assert status == 500
    assert "Retry-After" not in text


def test_lost_status() -> None:
    """Somebody else has reaped the process: that is no success."""
    status, text = asyncio.run(answer(FakeStrategy(None), Config(access_log=False)))
    assert status == 500
    assert "lost" in text


class Entrant:
    def __init__(self, name: str, events: list[str]) -> None:
        self.name = name
        self.events = events

    def start(self) -> None:
        self.events.append(f"start {self.name}")

    def overloaded(self) -> None:
        self.events.append(f"refuse {self.name}")


def test_admission() -> None:
    async def run() -> list[str]:
        events: list[str] = []
        admission = Admission(asyncio.get_running_loop(), 2, 3, None)
        entrants = {name: Entrant(name, events) for name in "abcdef"}
        for entrant in entrants.values():
            admission.enter(entrant)
        assert (admission.running, admission.waiting) == (2, 3)
        admission.withdraw(entrants["d"])
        admission.withdraw(entrants["a"])  # which does not wait
        admission.leave()
        admission.leave()
        assert (admission.running, admission.waiting) == (2, 0)
        admission.leave()
        admission.leave()
        assert admission.running == 0
        return events

    assert asyncio.run(run()) == ["start a", "start b", "refuse f", "start c", "start e"]


def test_a_storm_of_refusals_waits_in_order() -> None:
    async def run() -> tuple[list[str], float]:
        events: list[str] = []
        loop = asyncio.get_running_loop()
        admission = Admission(loop, 1, 0, None)
        entrants = [Entrant(str(i), events) for i in range(500)]
        for entrant in entrants:
            admission.enter(entrant)
        assert len(events) == 1 + PROMPT
        admission.withdraw(entrants[300])
        began = loop.time()
        await until(lambda: len(events) == 499)
        return events, loop.time() - began

    events, took = asyncio.run(run())
    assert events == ["start 0", *(f"refuse {i}" for i in range(1, 500) if i != 300)]
    assert took > TICK


def test_few_refusals_are_never_late() -> None:
    async def run() -> None:
        events: list[str] = []
        admission = Admission(asyncio.get_running_loop(), 1, 0, None)
        admission.enter(Entrant("first", events))
        for i in range(100):
            admission.enter(Entrant(str(i), events))
            assert len(events) == 2 + i
            await asyncio.sleep(TICK / 20)

    asyncio.run(run())


def test_an_admission_that_closes_refuses_those_who_still_wait_to_hear_it() -> None:
    async def run() -> list[str]:
        events: list[str] = []
        admission = Admission(asyncio.get_running_loop(), 1, 0, None)
        for i in range(100):
            admission.enter(Entrant(str(i), events))
        admission.close()
        return events

    assert asyncio.run(run()) == ["start 0", *(f"refuse {i}" for i in range(1, 100))]


def test_admission_timeout() -> None:
    async def run() -> list[str]:
        events: list[str] = []
        admission = Admission(asyncio.get_running_loop(), 1, 9, 0.05)
        for name in "abc":
            admission.enter(Entrant(name, events))
        await until(lambda: len(events) == 3)
        admission.enter(Entrant("d", events))
        admission.leave()
        assert admission.running == 1
        admission.close()
        return events

    assert asyncio.run(run()) == ["start a", "refuse b", "refuse c", "start d"]
