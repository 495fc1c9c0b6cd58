"""An engine in a process that has memory for what a command writes, and not for a copy of it."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

from fastspawn import Command, Engine

MB = 1 << 20


def used() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


async def main() -> None:
    async with Engine(spawners=1) as engine:
        await engine.run(Command(["true"]))
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used() + 350 * MB, before[1]))
        try:
            await engine.run(Command(["head", "-c", str(150 * MB), "/dev/zero"]))
        except MemoryError:
            print("no memory")
        resource.setrlimit(resource.RLIMIT_AS, before)
        result = await engine.run(Command(["echo", "next"]))
        print(result.stdout, engine.stats["running"])


asyncio.run(main())
