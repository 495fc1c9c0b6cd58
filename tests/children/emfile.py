"""Lets descriptors run out at every step of a spawn, and of the start of an engine."""

import asyncio
import errno
import os
import resource
import sys
import traceback
import warnings
from collections.abc import Awaitable
from typing import Any

from common import run

from fastspawn import Command, Engine, Process, _core

# That a process which had threads forks is intended.
warnings.simplefilter("ignore", DeprecationWarning)

# A program needs a few descriptors of its own to start; those are never the ones that lack.
SPARE = [os.open(os.devnull, os.O_RDONLY) for _ in range(9)]

SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)


def limit(count: int) -> None:
    """Numbers from here on are not to be had."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, HARD))


def lowest_free() -> int:
    os.close(fd := os.open(os.devnull, os.O_RDONLY))
    return fd


def is_scarcity(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


async def starting() -> int:
    """An engine starts, or says that it cannot; returns how often it could not."""
    failures = 0
    free = lowest_free()
    for k in range(17):
        engine = Engine(2)
        limit(free + k)
        try:
            await engine.start()
        except OSError as error:
            if not is_scarcity(error):
                raise
            failures += 1
        else:
            await engine.close()
        limit(SOFT)
        assert lowest_free() == free
        async with engine:
            assert (await engine.run(["echo", "hi"])).stdout == b"hi\n"
    return failures


async def running(count: int) -> int:
    """Commands run, or say that they cannot, when a spawner's table has numbers below `count`."""
    failures = 0
    async with Engine(1) as engine:
        assert (await engine.run(["cat"], b"text")).stdout == b"text"
        before = sorted(os.listdir("/dev/fd"))
        limit(count)
        runs: list[Awaitable[Any]] = [engine.run(["cat"], b"text") for _ in range(8)]
        opens: list[Awaitable[Any]] = [engine.open(["cat"]) for _ in range(2)]
        for outcome in await asyncio.gather(*runs, *opens, return_exceptions=True):
            if isinstance(outcome, BaseException):
                assert is_scarcity(outcome), outcome
                failures += 1
            elif isinstance(outcome, Process):
                outcome.stdin.close()
                assert await outcome.wait() == 0
            else:
                assert outcome.stdout == b"text"
        limit(SOFT)
        assert sorted(os.listdir("/dev/fd")) == before
        for _ in range(10):
            assert (await engine.run(["cat"], b"text")).stdout == b"text"
    return failures


def in_child(kind: str, count: int) -> int:
    """Each limit in a process of its own, and all at once: a spawn is tried for 2 s."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os._exit(10 if run(kind, running(count)) else 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def spawning() -> int:
    """On the caller's path: at once."""
    failures = 0
    free = lowest_free()
    plan = Command(["true"], stdout=None, stderr=None)
    for k in range(17):
        limit(free + k)
        try:
            child = _core.spawn(plan)
        except OSError as error:
            if not is_scarcity(error):
                raise
            failures += 1
        else:
            assert child.wait() == 0
        limit(SOFT)
        assert lowest_free() == free
        assert _core.spawn(plan).wait() == 0
    return failures


(kind,) = sys.argv[1:]
# Without a descriptor for the child there still is its process id.
assert spawning() < 17
assert 0 < run(kind, starting()) < 17
pids = [in_child(kind, count) for count in range(3 + len(SPARE), 40)]
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
assert set(codes) == {0, 10}, codes
print("ok")
