"""Prints by how many bytes memory grew, at the most, while much passed through the engine."""

import asyncio
import contextlib
import hashlib
import sys

from common import peak, run, until

from fastspawn import Command, Engine, Limits

BLOCK = bytes(range(256)) * 4096
MIB = len(BLOCK)


async def both_ways(engine: Engine, mib: int) -> None:
    """Through cat: what goes in comes out."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    process = await engine.open(["cat"])
    assert process.stdout is not None

    async def write() -> None:
        for i in range(mib):
            block = i.to_bytes(8, "big") + BLOCK[8:]
            sent.update(block)
            process.stdin.write(block)
            await process.stdin.drain()
        process.stdin.close()

    writing = asyncio.create_task(write())
    size = 0
    while data := await process.stdout.read(1 << 20):
        size += len(data)
        received.update(data)
    await writing
    assert await process.wait() == 0
    assert size == mib * MIB
    assert sent.digest() == received.digest()


async def slow_reader(engine: Engine, mib: int) -> None:
    """The command waits for its reader, and then everything comes."""
    text = 'head -c "$1" /dev/zero; echo written >&2'
    process = await engine.open(["sh", "-c", text, "sh", str(mib * MIB)])
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        await asyncio.wait_for(process.stderr.read(1), 0.3)
    except asyncio.TimeoutError:
        pass
    else:
        raise AssertionError("the command did not wait")
    size = 0
    while data := await process.stdout.read(1 << 16):
        size += len(data)
    assert size == mib * MIB
    assert await process.stderr.read() == b"written\n"
    assert await process.wait() == 0


async def reader_stops(engine: Engine, mib: int) -> None:
    """An endless command whose reader has seen enough."""
    process = await engine.open(["yes"])
    assert process.stdout is not None
    async with process:
        assert await process.stdout.readexactly(8) == b"y\n" * 4
        await asyncio.sleep(0.2)
    assert process.returncode is not None


async def stubborn_flood(engine: Engine, mib: int) -> None:
    """Between TERM and KILL a command may write without end; nobody reads it any more."""
    command = Command(["sh", "-c", 'trap "" TERM; exec yes'], limits=Limits(kill_grace=0.5))
    process = await engine.open(command)
    assert process.stdout is not None
    async with process:
        assert await process.stdout.readexactly(8) == b"y\n" * 4
        await asyncio.sleep(0.1)  # until the reader has enough
    assert process.returncode == -9


async def cancelled_flood(engine: Engine, mib: int) -> None:
    """Nobody ever reads from it."""
    for i in range(50):
        task = asyncio.create_task(engine.open(["yes"]))
        await asyncio.sleep(i * 0.0001)
        if not task.cancel():
            async with await task:
                pass
    await until(lambda: engine.live == 0)


async def unread_input(engine: Engine, mib: int) -> None:
    """A writer that waits for drain() is held while nobody reads."""
    process = await engine.open(["sleep", "60"])
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            process.stdin.write(BLOCK)
            written += MIB
            await process.stdin.drain()

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(write(), 0.2)
    assert written == MIB
    process.kill()
    assert await process.wait() == -9


async def capped(engine: Engine, mib: int) -> None:
    """What is beyond the cap is not kept, however long the command goes on."""
    limits = Limits(max_output=MIB, kill_grace=0.5)
    result = await engine.run(Command(["sh", "-c", 'trap "" TERM; exec yes'], limits=limits))
    assert len(result.stdout) == MIB
    assert (result.truncated, result.returncode) == (True, -9)


async def main(name: str, mib: int) -> int:
    async with Engine(2) as engine:
        await both_ways(engine, 1)
        before = peak()
        await asyncio.wait_for(globals()[name](engine, mib), 60)
        return peak() - before


kind, name, mib = sys.argv[1:]
print(run(kind, main(name, int(mib))))
