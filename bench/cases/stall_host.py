"""Spawns on an event loop with a ticker of 1 ms on it.

    python -m bench.cases.stall_host WAY COUNT

WAY is one of ways.py that runs on an event loop; here its spawns come one after another, so that
what the ticker waits for is one spawn and never a row of them. Prints JSON: how late each tick
was, in seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from bench.cases.ways import WAYS, Concurrent
from bench.cases.worker import hold_memory

INTERVAL = 0.001
MEMORY_MIB = 100


async def ticks(lags: list[float]) -> None:
    """Until it is cancelled."""
    loop = asyncio.get_running_loop()
    due = time.monotonic() + INTERVAL
    ticked = asyncio.Event()

    def tick() -> None:
        nonlocal due
        now = time.monotonic()
        lags.append(max(0.0, now - due))
        due = now + INTERVAL
        timer[0] = loop.call_later(INTERVAL, tick)

    timer = [loop.call_later(INTERVAL, tick)]
    try:
        await ticked.wait()
    finally:
        timer[0].cancel()


def main() -> None:
    name, count = sys.argv[1], int(sys.argv[2])
    way = WAYS[name][1]()
    assert isinstance(way, Concurrent)
    _memory = hold_memory(MEMORY_MIB)
    way.batch(20, 10.0)
    lags: list[float] = []
    started, wrong = way.alone(count, ticks(lags))
    json.dump({"spawns": started, "wrong": wrong, "lags": lags}, sys.stdout)


if __name__ == "__main__":
    main()
