"""One program, started by exec, by fork from its main, and from just before its first effect.

    python -m bench.cases.freeze_host COUNT CMD ARG...

Each way runs COUNT processes, 30 at a time, in three batches; the batches of the three ways take
turns. Prints JSON: processes per second and CPU of a process for each way, and where it stopped.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median
from subprocess import DEVNULL
from typing import Any

from fastspawn import Command, Engine, Result, Template, TemplateError
from fastspawn._syscalls import stop_of

CONCURRENT = 30
BATCHES = 3

Run = Callable[[], Awaitable[Result]]


async def batch(run: Run, count: int) -> tuple[float, float, set[int]]:
    """Processes per second, microseconds of CPU of one, exit statuses."""
    left, cpu, statuses = count, 0.0, set[int]()

    async def work() -> None:
        nonlocal left, cpu
        while left > 0:
            left -= 1
            result = await run()
            cpu += result.rusage.ru_utime + result.rusage.ru_stime
            statuses.add(result.returncode)

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(min(CONCURRENT, count))))
    return count / (time.perf_counter() - start), cpu / count * 1e6, statuses


async def measure(argv: list[str], count: int) -> dict[str, Any]:
    command = Command(argv, stderr=DEVNULL)
    ways: dict[str, Run] = {}
    why: dict[str, str] = {}
    stats: dict[str, int] = {}
    async with Engine() as engine:
        templates = {at: Template(command, engine=engine, at=at) for at in ("main", "effect")}
        ways["exec"] = lambda: engine.run(command)
        for at, template in templates.items():
            try:
                await template.start()
            except TemplateError as error:
                why[at] = str(error)
                continue
            ways[at] = template.run
            stats = template.stats
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        statuses: set[int] = set()
        for run in ways.values():
            await batch(run, CONCURRENT)
        for _ in range(BATCHES):
            for way, run in ways.items():
                rate, cpu, ended = await batch(run, count // BATCHES)
                found[way].append((rate, cpu))
                statuses |= ended
        for at in ways.keys() & templates.keys():
            await templates[at].close()
    return {
        "ways": {
            way: {
                "per_second": median(rate for rate, _ in series),
                "cpu_us": median(cpu for _, cpu in series),
            }
            for way, series in found.items()
        },
        "why_not": why,
        "stopped": stop_of(stats["stopped_by"]) if "effect" in ways else None,
        "statuses": sorted(statuses),
    }


def main() -> None:
    count, argv = int(sys.argv[1]), sys.argv[2:]
    if shutil.which(argv[0]) is None:
        json.dump({"unavailable": f"no {argv[0]} here"}, sys.stdout)
        return
    json.dump(asyncio.run(measure(argv, count)), sys.stdout)


if __name__ == "__main__":
    main()
