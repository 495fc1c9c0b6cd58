"""What a request costs by exec, as a fork, and by a process that puts itself back: it is run."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from fastspawn._command import Command
from fastspawn._engine import Engine
from fastspawn._limits import Limits
from fastspawn._result import Result
from fastspawn._template import Kind, Template

At = Literal["auto", "main", "effect", "checkpoint", "imports"]
Run = Callable[[], Awaitable[Result]]

PLACES: Final[dict[Kind, str]] = {
    "main": "main",
    "effect": "the first effect",
    "checkpoint": "its checkpoint",
}
_TURNS: Final = 3


@dataclass
class Cost:
    """Of a request: seconds until it has ended, and seconds of CPU of all processes that it took:
    its own, and the one that was forked, or that puts itself back."""

    wall: float
    cpu: float


@dataclass
class Resets:
    """How a program fared that was to put itself back after each request."""

    place: Kind
    why_not: str | None
    """Why requests are forks; None: they are not."""
    stats: dict[str, int]
    """See ``Template.stats``."""
    leaves: dict[str, int]
    """See ``Template.leaves``."""


# ---- CPU time ----


def _children() -> Iterator[int]:
    """Pids."""
    own = os.getpid()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent, *_ = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(parent) == own and state != b"Z":
            yield int(name)


def _cpu_of_children() -> float:
    """Seconds that all children of this process have used, those that are no more as well."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = usage.ru_utime + usage.ru_stime
    for pid in _children():
        with suppress(OSError):  # it has just ended
            used += time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3)
    return used


# ---- the ways ----


async def _cost(run: Run, requests: int) -> Cost:
    cpu, start = _cpu_of_children(), time.perf_counter()
    for _ in range(requests):
        await run()
    wall = time.perf_counter() - start
    return Cost(wall / requests, (_cpu_of_children() - cpu) / requests)


def _in_time(run: Run) -> Run:
    async def timed() -> Result:
        result = await run()
        if result.timed_out:
            raise TimeoutError(f"a run took more than {result.wall:.1f} s")
        return result

    return timed


async def _until_reset(template: Template, run: Run, seconds: float) -> None:
    """Requests, until one of them was a resident's or it is known that none will be."""
    end = time.monotonic() + seconds
    while not template.stats["resets"] and not template.not_reset and time.monotonic() < end:
        await run()


async def _ways(
    stack: AsyncExitStack, command: Command, at: At, timeout: float, effect: bool
) -> tuple[dict[str, Run], Template]:
    """How the program can be run here, and the template that has residents."""

    async def template(at: Any, reset: bool = False) -> Template:
        options: Any = {"size": 1, "at": at, "start_timeout": timeout}
        made = Template(command, **options, fallback=reset, reset=reset)
        return await stack.enter_async_context(made)

    engine = await stack.enter_async_context(Engine(1))
    ways: dict[str, Run] = {"exec": lambda: engine.run(command)}
    ways["fork at main"] = (await template("main")).run
    if effect:
        ways["fork at the first effect"] = (await template("effect")).run
    resets = await template("fixed" if at == "auto" else at, reset=True)
    await _until_reset(resets, _in_time(resets.run), timeout)
    if resets.place == "checkpoint":
        place: At = "imports" if at == "imports" else "checkpoint"
        ways["fork at its checkpoint"] = (await template(place)).run
    if resets.stats["resets"]:
        ways[f"reset to {PLACES[resets.place]}"] = resets.run
    return {name: _in_time(run) for name, run in ways.items()}, resets


async def measure(
    argv: Sequence[str], at: At, requests: int, timeout: float, effect: bool
) -> tuple[dict[str, Cost], Resets]:
    """The best of three turns of each way, and how resets fared.

    ``at``: where residents begin. ``timeout``: seconds that a run may take, and the first reset
    may let wait. ``effect``: there can be forks at the first effect. TemplateError; TimeoutError: a
    run takes longer than that.
    """
    limits = Limits(timeout=timeout)
    quiet = subprocess.DEVNULL
    command = Command(argv, stdout=quiet, stderr=quiet, limits=limits)
    costs: dict[str, Cost] = {}
    async with AsyncExitStack() as stack:
        ways, template = await _ways(stack, command, at, timeout, effect)
        for _ in range(_TURNS):
            for name, run in ways.items():
                cost = await _cost(run, requests)
                best = costs.setdefault(name, cost)
                best.wall, best.cpu = min(best.wall, cost.wall), min(best.cpu, cost.cpu)
        return costs, Resets(template.place, template.not_reset, template.stats, template.leaves)
