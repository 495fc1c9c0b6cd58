"""Spawns many times through one entry point and tells, as JSON, what that left behind.

python many_async.py exec|shell|popen|run|installed asyncio|uvloop COUNT
"""

import asyncio
import gc
import json
import os
import sys
import time
from asyncio.subprocess import PIPE
from pathlib import Path

import uvloop

import fastspawn
from fastspawn import aio

WIDTH = 10


async def by_exec() -> bytes:
    process = await aio.create_subprocess_exec("echo", "hi", stdin=PIPE, stdout=PIPE)
    return (await process.communicate())[0]


async def by_shell() -> bytes:
    process = await aio.create_subprocess_shell("echo hi", stdout=PIPE)
    return (await process.communicate())[0]


async def by_popen() -> bytes:
    process = await aio.create_subprocess_exec("echo", "hi", stdout=PIPE, umask=0o22)
    return (await process.communicate())[0]


async def by_run() -> bytes:
    result = await aio.run(["echo", "hi"])
    return result.stdout


async def by_installed() -> bytes:
    process = await asyncio.create_subprocess_exec("echo", "hi", stdout=PIPE)
    return (await process.communicate())[0]


def now() -> dict[str, int]:
    gc.collect()
    rss = Path("/proc/self/statm").read_text().split()[1]
    try:
        children = 0 if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None else 1
    except ChildProcessError:
        children = 0
    return {
        "fds": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "children": children,
        "rss": int(rss) * os.sysconf("SC_PAGESIZE"),
    }


async def spawn(entry: str, count: int) -> None:
    call = globals()[f"by_{entry}"]

    async def some() -> None:
        for _ in range(count // WIDTH):
            if await call() != b"hi\n":
                raise AssertionError("not what echo says")

    await asyncio.gather(*(some() for _ in range(WIDTH)))
    # The last child may be an instant from its end, where a pipe closes before the process.
    await asyncio.sleep(0)


def main(entry: str, kind: str, count: int) -> None:
    if entry == "installed":
        fastspawn.install()
    loop = uvloop.new_event_loop() if kind == "uvloop" else asyncio.new_event_loop()
    loop.run_until_complete(spawn(entry, max(WIDTH * 30, count // 10)))
    before = now()
    loop.run_until_complete(spawn(entry, count))
    after = now()
    deadline = time.monotonic() + 45
    while after["fds"] != before["fds"] and time.monotonic() < deadline:
        loop.run_until_complete(asyncio.sleep(0.001))
        after = now()
    loop.close()
    json.dump({name: after[name] - before[name] for name in before}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
