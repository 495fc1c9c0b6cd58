"""Starts processes while it has GIB of memory, and the kernel promises no second time as much.

large.py GIB

A copy of this process is refused (that is tried first), so whatever starts one does without.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import sys
from collections.abc import Awaitable, Callable

import uvloop

import fastspawn
from fastspawn import PIPE, Engine, Template, WarmPool, aio

HI = ["echo", "hi"]
OFTEN = 20


def popen() -> bytes:
    with fastspawn.Popen(HI, stdout=PIPE) as process:
        return process.communicate()[0]


def run() -> bytes:
    return fastspawn.run(HI, stdout=PIPE, check=True).stdout


async def aio_exec() -> bytes:
    process = await aio.create_subprocess_exec(*HI, stdout=PIPE)
    return (await process.communicate())[0]


async def engine() -> bytes:
    async with Engine() as started:
        return (await started.run(HI)).stdout


async def warm() -> bytes:
    async with Engine() as started, WarmPool(["cat"], engine=started) as pool:
        return (await pool.run(input=b"hi\n")).stdout


async def template() -> bytes:
    async with Engine() as started, Template(HI, engine=started) as made:
        return (await made.run()).stdout


def refused() -> bool:
    """Whether a copy of this process is."""
    try:
        pid = os.fork()
    except OSError as error:
        return error.errno == errno.ENOMEM
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return False


async def many(one: Callable[[], Awaitable[bytes]]) -> None:
    for _ in range(OFTEN):
        assert await one() == b"hi\n", one


def main() -> None:
    size = int(sys.argv[1]) << 30
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, size, mmap.PAGESIZE):
        memory[at] = 1
    assert refused()
    for each in (popen, run):
        assert [each() for _ in range(OFTEN)] == [b"hi\n"] * OFTEN, each
    for loop in (asyncio.run, uvloop.run):
        for one in (aio_exec, engine, warm, template):
            loop(many(one))
    assert refused()


main()
