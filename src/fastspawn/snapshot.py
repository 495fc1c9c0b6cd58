"""``python -m fastspawn.snapshot explain -- CMD ARG...``: how far a program runs alike.

Starts the program as a template that stops before its first effect, and prints what it had done by
then, what stopped it, and what it came from. Then runs it: whether it can put itself back after a
request (--strategy reset), and what a request costs by exec, as a fork at each place, and so.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from fastspawn import _core  # noqa: F401 - as in aio
from fastspawn._costs import PLACES, Resets, measure
from fastspawn._features import why_no_resident
from fastspawn._imports import launched, why_no_point
from fastspawn._program import why_not_template
from fastspawn._refusals import EARLY, EXIT, TemplateError, reason
from fastspawn._stdout import printing
from fastspawn._syscalls import place_of, stop_of
from fastspawn._template import preload

# csrc/template/snapshot.h
_PAGE, _IN_MAIN = 1 << 16, 1 << 14  # and where in it a process says that it runs main
_HELLO, _REFUSED = 1, 2
_ARGUMENTS: Final = struct.Struct("=6Q")  # behind that
_PATH_MAX: Final = 4096
_STREAMS: Final = ("standard input", "standard output", "standard error")
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


@dataclass
class _Greeting:
    """Of a process that has stopped, or was refused."""

    data: bytes
    what: str
    """That the call is about before which it stopped; empty: not known."""
    opened: list[str]
    """What it has open."""


def _what(pid: int, page: int, value: int) -> str:
    place = place_of(value)
    if place is None:
        return ""
    is_path, index = place
    arguments = _ARGUMENTS.unpack(os.pread(page, _ARGUMENTS.size, _IN_MAIN + 8))
    path = _text_of(pid, arguments[index]) if is_path else ""
    if path:
        return path
    number = arguments[0] & 0xFFFFFFFF  # an empty path: of the descriptor before it
    if number < len(_STREAMS):
        return f"{_STREAMS[number]} (descriptor {number})"
    try:
        return f"{os.readlink(f'/proc/{pid}/fd/{number}')} (descriptor {number})"
    except OSError:
        return "" if number >= 1 << 31 else f"descriptor {number}"


def _text_of(pid: int, address: int) -> str:
    """A string in the memory of a child; empty: there is none."""
    with suppress(OSError, OverflowError), open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        text = memory.read(min(_PATH_MAX, 4096 - address % 4096)) or b""
        if b"\0" not in text:
            text += memory.read(_PATH_MAX) or b""
        return os.fsdecode(text.partition(b"\0")[0])
    return ""


def _opened(pid: int) -> list[str]:
    """The plain files that a child has open, from its standard streams on."""
    found = []
    for name in sorted(os.listdir(f"/proc/{pid}/fd"), key=int):
        with suppress(OSError):
            path = os.readlink(f"/proc/{pid}/fd/{name}")
            if int(name) > 2 and path.startswith("/") and not path.startswith(("/dev/", "/memfd:")):
                found.append(path)
    return found


def _greeting(argv: Sequence[str], timeout: float) -> _Greeting | str:
    """Let the program run to its first effect, and end it there: what it says, or why nothing."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    page, library = os.memfd_create("fastspawn"), os.open(preload(), os.O_RDONLY)
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
                value = _REPLY.unpack_from(data)[3]
                pid = process.pid
                return _Greeting(data, _what(pid, page, value), _opened(pid))
            status = process.wait(timeout)
            return reason(EARLY if any(os.pread(page, 4, _IN_MAIN)) else EXIT, status)
        except (TimeoutError, subprocess.TimeoutExpired):
            return f"it ran for more than {timeout:g} s"
        finally:
            os.close(page)
            process.kill()


@dataclass
class Stop:
    """Where a program stops that runs to its first effect."""

    calls: int
    """That it made before, alike each time."""
    before: str
    """The call before which, and why."""
    of: str
    """What that is about: a path or a descriptor; empty: not known."""


def stop(argv: Sequence[str], timeout: float) -> Stop | str:
    """Of this command line, within so many seconds; or why it does not stop there."""
    greeting = _greeting(argv, timeout)
    return greeting if isinstance(greeting, str) else _stop(greeting)


def _stop(greeting: _Greeting) -> Stop | str:
    kind, _, calls, value = _REPLY.unpack_from(greeting.data)
    if kind != _HELLO:
        return reason(value, 0, greeting.data[_REPLY.size :])
    return Stop(calls - 1, stop_of(value), greeting.what)


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


def _say_alike(argv: list[str], timeout: float) -> bool:
    """How far it runs alike; False: it cannot be stopped there."""
    greeting = _greeting(argv, timeout)
    if isinstance(greeting, str):
        _say(f"no stop before an effect: {greeting}")
        return False
    stop = _stop(greeting)
    if isinstance(stop, str):
        _say(f"no stop before an effect: {stop}")
        return False
    files = _files(greeting.data[_REPLY.size :])
    _say(f"runs alike for {stop.calls} system calls, and stops before")
    _say(f"  {stop.before}")
    if stop.of:
        _say(f"  of {stop.of}")
    _say("a fork at main repeats these calls; one that begins there repeats none of them")
    if greeting.opened:
        _say_files("but opens anew what is open there", greeting.opened)
    _say_files("came from", [name for name, there in files if there])
    _say_files("looked for, and did not find", [name for name, there in files if not there])
    return True


def _say_resets(resets: Resets) -> None:
    """Whether it puts itself back, what that takes, and what it leaves at."""
    stats, done = resets.stats, resets.stats["resets"]
    if stats["reset_error"]:
        _say(f"no reset: it cannot be reset here: {why_no_resident(stats['reset_error'])}")
    elif resets.why_not:
        _say(f"no reset: {resets.why_not}")
    elif not done:
        _say("no reset: no process of it was ready for a request in time")
    if done:
        calls, pages, ns = (stats[f"reset_{each}"] / done for each in ("calls", "pages", "ns"))
        _say(f"resets to {PLACES[resets.place]}, after {done} of {stats['forked']} requests")
        _say(f"  {calls:.0f} system calls in a request, which cost a signal each")
        _say(f"  {pages:.0f} pages to put back, which takes {ns / 1000:.1f} microseconds")
    for call, times in resets.leaves.items():
        _say(f"  left at {call} in {times} of {stats['forked']} requests")


def _say_costs(argv: list[str], options: argparse.Namespace, effect: bool) -> bool:
    """False: nothing can be said, for a reason that is."""
    found = measure(argv, options.snapshot_at, options.rounds, options.timeout, effect)
    try:
        costs, resets = asyncio.run(found)
    except TemplateError as error:
        _say(f"no template: {error}")
        return False
    except TimeoutError as error:
        _say(f"no costs: {error}")
        return False
    _say_resets(resets)
    _say("a request, one after the other, in microseconds (CPU time of all its processes), and how")
    _say("many times as fast as exec:")
    for name, cost in costs.items():
        gain = costs["exec"].wall / cost.wall
        _say(f"  {cost.wall * 1e6:8.0f} ({cost.cpu * 1e6:.0f}) {gain:5.1f}x  {name}")
    return True


def _why_not_imports(argv: list[str]) -> str | None:
    try:
        return why_no_point(launched(argv))
    except ValueError as error:
        return str(error)


def _explain(argv: list[str], options: argparse.Namespace) -> int:
    path = shutil.which(argv[0])
    if path is None:
        return _complain(f"{argv[0]}: no such program", 2)
    why_not = why_not_template(path)
    if why_not is None and options.snapshot_at == "imports":
        why_not = _why_not_imports(argv)
    if why_not is not None:
        _say(f"no template: {why_not}")
        return 1
    alike = _say_alike(argv, options.timeout)
    told = options.rounds <= 0 or _say_costs(argv, options, alike)
    return 0 if alike and told else 1


def _rounds(text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 999999")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d*)?|\.\d+", text, re.ASCII) or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return float(text)


def add_options(explain: argparse.ArgumentParser) -> None:
    """Those of ``explain``."""
    explain.add_argument(
        "--rounds",
        type=_rounds,
        default=200,
        metavar="N",
        help="runs to time (default: 200; 0: none)",
    )
    explain.add_argument(
        "--timeout",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="to its stop, and for a run (default: 5)",
    )
    explain.add_argument(
        "--snapshot-at",
        choices=("auto", "main", "effect", "checkpoint", "imports"),
        default="auto",
        help="where processes that are reset begin, as of the server (default: auto)",
    )
    explain.add_argument(
        "argv", nargs=argparse.REMAINDER, metavar="CMD", help="the program and its arguments"
    )


def explain(parser: argparse.ArgumentParser, args: Sequence[str] | None, name: str) -> int:
    """Of a parser that has its options, in the words of the program of this name."""
    with printing(name):
        options = parser.parse_args(args)
        parted = options.argv[:1] == ["--"]
        argv = options.argv[parted:]
        if not argv:
            parser.error("a command is expected")
        if argv[0].startswith("-") and not parted:
            parser.error(f"unknown option: {argv[0]}")
        try:
            return _explain(argv, options)
        except BrokenPipeError:
            raise
        except (OSError, TemplateError) as error:
            return _complain(str(error), 2)


def main(args: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 if the program cannot be stopped there, or a run does not end, 2 for
    what cannot be run."""
    parser = argparse.ArgumentParser(
        prog="python -m fastspawn.snapshot", description=__doc__.partition("\n\n")[2]
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_options(commands.add_parser("explain", help="how far a program runs alike, and what for"))
    return explain(parser, args, "fastspawn.snapshot")


if __name__ == "__main__":
    sys.exit(main())
