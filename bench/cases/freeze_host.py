"""One program, started by exec, by fork from its main and from just before its first effect, and
put back to either.

    python -m bench.cases.freeze_host [--forks] COUNT CMD ARG... <INPUT

Each way (with --forks: but those that are put back) runs COUNT processes, 30 at a time, in three
batches; the batches of the ways take turns. Every output is compared with that of one that was
executed. Prints JSON: processes per second and CPU of a process for each way, and where it stopped.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from statistics import median
from subprocess import DEVNULL
from typing import Any

from fastspawn import Command, Engine, Result, Template, TemplateError
from fastspawn._syscalls import stop_of
from fastspawn.snapshot import stop

CONCURRENT = 30
BATCHES = 3
TIMEOUT = 30.0
"""Seconds, for a program to come to its first effect."""

Run = Callable[[], Awaitable[Result]]


async def batch(run: Run, count: int, expected: bytes) -> tuple[float, float, set[int], int]:
    """Processes per second, microseconds of CPU of one, exit statuses, outputs that are wrong."""
    left, cpu, wrong, statuses = count, 0.0, 0, set[int]()

    async def work() -> None:
        nonlocal left, cpu, wrong
        while left > 0:
            left -= 1
            result = await run()
            cpu += result.rusage.ru_utime + result.rusage.ru_stime
            statuses.add(result.returncode)
            wrong += result.stdout != expected

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(min(CONCURRENT, count))))
    return count / (time.perf_counter() - start), cpu / count * 1e6, statuses, wrong


def templates_of(command: Command, engine: Engine, resets: bool) -> dict[str, Template]:
    """By the name of their way."""
    return {
        name + at: Template(command, engine=engine, at=at, reset=bool(name))
        for name in ("", "reset-")[: 1 + resets]
        for at in ("main", "effect")
    }


async def measure(
    argv: list[str], count: int, input: bytes | None = None, resets: bool = True
) -> dict[str, Any]:
    command = Command(argv, stderr=DEVNULL)
    ways: dict[str, Run] = {}
    why: dict[str, str] = {}
    async with Engine() as engine:
        templates = templates_of(command, engine, resets)
        ways["exec"] = partial(engine.run, command, input)
        expected = (await engine.run(command, input)).stdout
        for way, template in templates.items():
            try:
                await template.start()
            except TemplateError as error:
                why[way] = str(error)
                continue
            ways[way] = partial(template.run, input=input)
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        statuses, wrong = set[int](), 0
        for way, run in ways.items():
            # Residents come with the requests; they are what is to be measured.
            await batch(run, CONCURRENT * (5 if way.startswith("reset-") else 1), expected)
        for _ in range(BATCHES):
            for way, run in ways.items():
                rate, cpu, ended, differ = await batch(run, count // BATCHES, expected)
                found[way].append((rate, cpu))
                statuses |= ended
                wrong += differ
        stopped = stop_of(templates["effect"].stats["stopped_by"]) if "effect" in ways else None
        for way in ways.keys() & templates.keys():
            if (forked := templates[way].not_reset) is not None:
                why[way] = forked
                del found[way]  # forks are measured by another way
            await templates[way].close()
    return {
        "ways": {
            way: {
                "per_second": median(rate for rate, _ in series),
                "cpu_us": median(cpu for _, cpu in series),
            }
            for way, series in found.items()
        },
        "why_not": why,
        "stopped": stopped,
        "statuses": sorted(statuses),
        "wrong": wrong,
    }


def main() -> None:
    forks = sys.argv[1] == "--forks"
    count, argv = int(sys.argv[1 + forks]), sys.argv[2 + forks :]
    if shutil.which(argv[0]) is None:
        json.dump({"unavailable": f"no {argv[0]} here"}, sys.stdout)
        return
    stopped = stop(argv, TIMEOUT)
    told = asyncio.run(measure(argv, count, sys.stdin.buffer.read() or None, not forks))
    told["stop"] = stopped if isinstance(stopped, str) else asdict(stopped)
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
