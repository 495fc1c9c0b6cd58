"""``fastspawn bench``: what a process costs on this machine, by each way to start it.

A look, not a measurement to publish: that is ``make bench`` of the source, with servers, peers and
load generators.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import fastspawn
from fastspawn._command import Command
from fastspawn._engine import Engine
from fastspawn._refusals import TemplateError
from fastspawn._stdout import printing
from fastspawn._template import Template

_PROG: Final = "fastspawn bench"
_ROUNDS: Final = 10
"""Turns that the ways take, so that a slow moment of the machine hits all of them."""
_QUIET: Final[dict[str, Any]] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)

_EPILOG: Final = """\
One run after the other, each to its end, with no input and output. Less is better; the last column
is how much faster than subprocess.run. Comparisons of servers are made by `make bench`, in the
source.
"""


def parser() -> argparse.ArgumentParser:
    """Of ``fastspawn bench``."""
    made = argparse.ArgumentParser(
        prog=_PROG,
        usage=f"{_PROG} [options] [--] [CMD ARG...]",
        description="What a process costs on this machine, by each way to start it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--runs", type=_count, default=300, metavar="N", help="of each way (default: 300)"
    )
    made.add_argument("--json", action="store_true", help="print an object")
    made.add_argument(
        "argv", nargs=argparse.REMAINDER, metavar="CMD", help="the program (default: true)"
    )
    return made


def _count(text: str) -> int:
    if not text.isdecimal() or not _ROUNDS <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least {_ROUNDS}")
    return int(text)


def main(args: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 1 if the program cannot be run, 2 for wrong arguments."""
    made = parser()
    with printing(_PROG):
        options = made.parse_args(args)
        argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv or ["true"]
        if not argv or (argv[0].startswith("-") and options.argv[0] != "--"):
            made.error(f"unknown option: {argv[0]}" if argv else "a command is expected")
        if shutil.which(argv[0]) is None:
            made.error(f"{argv[0]}: no such program")
        try:
            times, without = asyncio.run(_measure(argv, options.runs))
        except OSError as error:
            print(f"{_PROG}: {argv[0]}: {error.strerror}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        show = _show_data if options.json else _show
        show(argv, {name: statistics.median(each) for name, each in times.items()}, without)
    return 0


# ---- the ways ----


async def _ways(
    argv: Sequence[str], stack: AsyncExitStack
) -> tuple[dict[str, Callable[[], Awaitable[object]]], dict[str, str]]:
    """By name; and why some are none here."""
    command = Command(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    engine = await stack.enter_async_context(Engine(1))

    async def by_subprocess() -> None:
        subprocess.run(argv, check=False, **_QUIET)  # noqa: ASYNC221  (this is what it costs)

    async def by_run() -> None:
        fastspawn.run(argv, **_QUIET)

    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "subprocess.run": by_subprocess,
        "fastspawn.run": by_run,
        "Engine.run (direct)": lambda: engine.run(command),
    }
    templates: dict[str, dict[str, Any]] = {
        "Template at main (snapshot)": {"at": "main"},
        "Template at its first effect": {"at": "effect"},
        "Template, reset": {"at": "main", "reset": True},
    }
    without = {}
    for name, options in templates.items():
        template = Template(command, size=1, **options)
        why = await _why_not(template, stack)
        if why is None:
            ways[name] = template.run
        else:
            without[name] = why
    return ways, without


async def _why_not(template: Template, stack: AsyncExitStack) -> str | None:
    try:
        await stack.enter_async_context(template)
    except TemplateError as error:
        return str(error)
    await _warm_up(template)
    return template.not_reset


async def _warm_up(template: Template) -> None:
    """Residents are made beside the first runs."""
    for _ in range(20):
        await template.run()
        if template.stats.get("resets") or template.not_reset is not None:
            break


async def _measure(argv: Sequence[str], runs: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of each run, by way."""
    async with AsyncExitStack() as stack:
        ways, without = await _ways(argv, stack)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(_ROUNDS):
            for name, run in ways.items():
                for _ in range(runs // _ROUNDS):
                    start = time.perf_counter()
                    await run()
                    times[name].append(time.perf_counter() - start)
        return times, without


# ---- what came of it ----


def _say(text: str) -> None:
    print(text)


def _show(argv: Sequence[str], medians: dict[str, float], without: dict[str, str]) -> None:
    first = next(iter(medians.values()))
    _say(f"{shlex.join(argv)}: microseconds for a run, half of them took less\n")
    for name, median in medians.items():
        _say(f"  {name:<30} {median * 1e6:9,.0f}   {first / median:5.1f}x")
    for name, why in without.items():
        _say(f"  {name:<30}         -   {why}")


def _show_data(argv: Sequence[str], medians: dict[str, float], without: dict[str, str]) -> None:
    data = {"command": list(argv), "median_seconds": medians, "without": without}
    json.dump(data, sys.stdout, indent=2)
    _say("")
