"""``python -m fastspawn.snapshot explain -- CMD ARG...``: how far a program runs alike.

Starts the program as a template that stops before its first effect, and prints what it had done by
then, what stopped it, what it came from, and what a request costs by exec, from main, and from
there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from fastspawn._program import why_not_template
from fastspawn._stdout import printing
from fastspawn._syscalls import stop_of
from fastspawn.command import Command
from fastspawn.engine import Engine
from fastspawn.result import Result
from fastspawn.template import _EARLY, _EXIT, Template, TemplateError, _preload, _reason

# csrc/snapshot.h
_PAGE, _IN_MAIN = 1 << 16, 1 << 14  # and where in it a process says that it runs main
_HELLO, _REFUSED = 1, 2
_REPLY: Final = struct.Struct("=IIIi")
_INPUT: Final = struct.Struct("=QQQqqII")


# ---- a template process of our own ----


def _files(data: bytes) -> list[tuple[str, bool]]:
    """The inputs that a template process tells of: path, and whether it was there."""
    files, at = [], 0
    while at + _INPUT.size <= len(data):
        _, inode, _, _, _, size, _ = _INPUT.unpack_from(data, at)
        start = at + _INPUT.size
        files.append((os.fsdecode(data[start : start + size - 1]), inode != 0))
        at += (_INPUT.size + size + 7) & ~7
    return files


def _greeting(argv: Sequence[str], timeout: float) -> bytes | str:
    """Let the program run to its first effect, and end it there: what it says, or why nothing."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    page, library = os.memfd_create("fastspawn"), os.open(_preload(), os.O_RDONLY)
    os.ftruncate(page, _PAGE)
    fds = (theirs.fileno(), page, library)
    others = [os.environ["LD_PRELOAD"]] if "LD_PRELOAD" in os.environ else []
    env = {
        **os.environ,
        "LD_PRELOAD": ":".join([f"/proc/self/fd/{library}", *others]),
        "FASTSPAWN_SNAPSHOT": ",".join(map(str, (*fds, len(argv), 1))),
    }
    with (
        ours,
        subprocess.Popen(
            argv, env=env, pass_fds=fds, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as process,
    ):
        theirs.close()
        os.close(library)
        ours.settimeout(timeout)
        try:
            data = ours.recv(1 << 17)
            if len(data) >= _REPLY.size:
                return data
            status = process.wait(timeout)
            return _reason(_EARLY if any(os.pread(page, 4, _IN_MAIN)) else _EXIT, status)
        except (TimeoutError, subprocess.TimeoutExpired):
            return f"it ran for more than {timeout:g} s"
        finally:
            os.close(page)
            process.kill()


# ---- what a request costs ----


async def _cost(run: Callable[[], Awaitable[Result]], rounds: int) -> tuple[float, float]:
    start, cpu = time.perf_counter(), 0.0
    for _ in range(rounds):
        usage = (await run()).rusage
        cpu += usage.ru_utime + usage.ru_stime
    return (time.perf_counter() - start) / rounds, cpu / rounds


async def _costs(command: Command, rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds for a run, one after the other, and of the processor in it; the best of three rounds
    of each, in turn."""
    costs: dict[str, tuple[float, float]] = {}
    async with (
        Engine(1) as engine,
        Template(command, size=1, at="main") as main,
        Template(command, size=1, at="effect") as effect,
    ):
        ways = {
            "exec": lambda: engine.run(command),
            "fork at main": main.run,
            "fork at the first effect": effect.run,
        }
        for _ in range(3):
            for name, run in ways.items():
                cost = await _cost(run, rounds)
                costs[name] = min(cost, costs.get(name, cost))
    return costs


# ---- the command ----


def _say(text: str = "") -> None:
    print(text)  # noqa: T201


def _complain(text: str, status: int) -> int:
    print(f"fastspawn.snapshot: {text}", file=sys.stderr)  # noqa: T201
    return status


def _say_files(title: str, paths: list[str]) -> None:
    _say(f"{title} ({len(paths)}):")
    for path in paths:
        _say(f"  {path}")


def _explain(argv: list[str], rounds: int, timeout: float) -> int:
    path = shutil.which(argv[0])
    if path is None:
        return _complain(f"{argv[0]}: no such program", 2)
    reason = why_not_template(path)
    if reason is not None:
        _say(f"no template: {reason}")
        return 1
    data = _greeting(argv, timeout)
    if isinstance(data, str):
        _say(f"no stop before an effect: {data}")
        return 1
    kind, _, calls, value = _REPLY.unpack_from(data)
    if kind != _HELLO:
        _say(f"no stop before an effect: {_reason(value, 0)}")
        return 1
    files = _files(data[_REPLY.size :])
    _say(f"runs alike for {calls - 1} system calls, and stops before")
    _say(f"  {stop_of(value)}")
    _say_files("came from", [name for name, there in files if there])
    _say_files("looked for, and did not find", [name for name, there in files if not there])
    if rounds:
        _say(
            "a request, one after the other, in microseconds (its process's CPU time in brackets):"
        )
        command = Command(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name, (wall, cpu) in asyncio.run(_costs(command, rounds)).items():
            _say(f"  {wall * 1e6:8.0f} ({cpu * 1e6:.0f})  {name}")
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 if the program cannot be stopped there, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m fastspawn.snapshot", description=__doc__.partition("\n\n")[2]
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    explain = commands.add_parser("explain", help="how far a program runs alike, and what for")
    explain.add_argument(
        "--rounds", type=int, default=200, metavar="N", help="runs to time (default: 200; 0: none)"
    )
    explain.add_argument(
        "--timeout", type=float, default=5.0, metavar="SECONDS", help="to its stop (default: 5)"
    )
    explain.add_argument("argv", nargs="+", metavar="CMD", help="the program and its arguments")
    with printing("fastspawn.snapshot"):
        options = parser.parse_args(args)
        try:
            return _explain(options.argv, options.rounds, options.timeout)
        except BrokenPipeError:
            raise
        except (OSError, TemplateError) as error:
            return _complain(str(error), 1)


if __name__ == "__main__":
    sys.exit(main())
