"""Lets processes run out (RLIMIT_NPROC): BlockingIOError, and all is well again afterwards."""

import asyncio
import errno
import os
import resource
import sys
import time

import common
import uvloop  # noqa: F401 - while it can be read

from fastspawn import Command, Engine, _core


def check(outcome: object) -> None:
    assert isinstance(outcome, BlockingIOError), outcome
    assert (outcome.errno, outcome.filename) == (errno.EAGAIN, None)


def spawn_fails(plan: Command) -> OSError:
    try:
        _core.spawn(plan)
    except OSError as error:
        return error
    raise AssertionError("it was started")


async def main() -> None:
    # The superuser may start any number.
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    plan = Command(["true"], stdout=None, stderr=None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    async with Engine(2) as engine:
        assert (await engine.run(["echo", "hi"])).stdout == b"hi\n"
        process = await engine.open(["cat"])

        # One that is put off runs when there is room again, if that is within two seconds.
        for _ in range(20):
            before = engine.stats["retried"]
            resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
            late = asyncio.ensure_future(engine.run(["cat"], b"late"))
            await common.until(lambda: engine.stats["retried"] > before or late.done())  # noqa: B023
            resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
            (outcome,) = await asyncio.gather(late, return_exceptions=True)
            if not isinstance(outcome, BlockingIOError):
                break
        assert outcome.stdout == b"late"

        resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
        for _ in range(10_000 if os.environ.get("LONG") else 100):
            check(spawn_fails(plan))
        runs = [engine.run(["cat"], b"text") for _ in range(20)]
        opens = [engine.open(["cat"]) for _ in range(20)]
        started = time.monotonic()
        for error in await asyncio.gather(*runs, *opens, return_exceptions=True):
            check(error)
        assert time.monotonic() - started < 45  # they wait together; in turn it takes 80
        stats = engine.stats
        assert (stats["running"], stats["pending"], engine.live) == (1, 0, 1)

        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
        process.stdin.write(b"still here")
        process.stdin.close()
        assert process.stdout is not None
        assert await process.stdout.read() == b"still here"
        assert await process.wait() == 0
        assert _core.spawn(plan).wait() == 0
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return
    raise AssertionError("a child is left")


(kind,) = sys.argv[1:]
common.run(kind, main())
print("ok")
