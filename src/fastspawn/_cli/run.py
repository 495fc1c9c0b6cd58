"""``fastspawn run``: one command under limits, and what it used; as timeout(1) and time(1) do.

Standard input, output and errors are ours, and so what a terminal is for the command, too; output
is taken through pipes only if it is counted (--max-output).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from fastspawn._command import Command
from fastspawn._core import INHERIT, Job
from fastspawn._engine import Engine
from fastspawn._limits import Limits
from fastspawn._result import Result
from fastspawn._stdout import printing
from fastspawn.serve.config import values
from fastspawn.serve.config.messages import shown
from fastspawn.serve.config.units import duration, size

TIMED_OUT, FAILED, NOT_EXECUTED, NOT_FOUND = 124, 125, 126, 127
"""Exit statuses, those of timeout(1)."""

_EPILOG: Final = """\
Durations: 30, 30s, 500ms, 5m, 1h30m. Sizes: 4096, 64k, 1M.
Exit status: the command's; 128 and the signal's number, if one ended it; 124, if it had no more
time; 125, if it could not be started with these limits; 126, if it is no program; 127, if it is
not there.
"""
_PROG: Final = "fastspawn run"
_USAGE: Final = f"{_PROG} [options] [--] CMD [ARG...]"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"usage: {_USAGE}\n{_PROG}: error: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Of ``fastspawn run``."""
    made = _Parser(
        prog=_PROG,
        usage=_USAGE,
        description="Run a command in a process group of its own, under limits, and say what it "
        "used. A command that exceeds one is ended: TERM to its group, KILL after --kill-grace.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def add(name: str, convert: Callable[[str], Any], metavar: str, text: str, **more: Any) -> None:
        made.add_argument(name, type=shown(convert), metavar=metavar, help=text, **more)

    time, bytes_ = values.positive(duration), values.positive(size)
    add("--timeout", time, "TIME", "how long it may run (default: none)")
    add("--kill-grace", duration, "TIME", "from TERM to KILL (default: 2s)", default=2.0)
    add("--max-output", bytes_, "SIZE", "of standard output and errors, which are pipes then")
    add("--memory", bytes_, "SIZE", "address space of each process of it (--rlimit as=SIZE)")
    seconds = values.number(1)
    add("--cpu", seconds, "SECONDS", "of each process of it, by the processor (--rlimit cpu=N)")
    text = "a limit as in setrlimit(2), such as nofile=64; may be repeated"
    add("--rlimit", values.rlimit, "NAME=[SOFT:]HARD", text, action="append", default=[])
    add("--cgroup", values.directory, "DIR", "put it into this directory of cgroup version 2")
    add("--cwd", values.directory, "DIR", "working directory")
    made.add_argument("--no-new-privs", action="store_true", help="no program gives it more rights")
    how = made.add_mutually_exclusive_group()
    how.add_argument("-q", "--quiet", action="store_true", help="do not say what it used")
    how.add_argument("--json", action="store_true", help="say it as an object in a line")
    made.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD", help=argparse.SUPPRESS)
    return made


def _parse(args: Sequence[str] | None) -> argparse.Namespace:
    made = parser()
    options = made.parse_args(args)
    argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not argv:
        made.error("a command is expected")
    if argv[0].startswith("-") and options.argv[0] != "--":
        made.error(f"unknown option: {argv[0]}")
    options.argv = argv
    return options


def main(args: Sequence[str] | None = None) -> int:
    """The exit status."""
    with printing(_PROG):
        options = _parse(args)
    try:
        result = asyncio.run(_run(options))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (OSError, ValueError, NotImplementedError) as error:
        return _complain(options, error)
    if not options.quiet:
        _say(_as_line(result) if options.json else _as_words(result))
    return _status(result)


def _complain(options: argparse.Namespace, error: Exception) -> int:
    name, file = options.argv[0], getattr(error, "filename", None)
    why = f"{getattr(error, 'strerror', None) or error}: {file or name}"
    if file is None or file not in (name, options.cwd):
        why = _refused(options) or why
    _say(f"{_PROG}: {why}")
    if file == name and isinstance(error, FileNotFoundError):
        return NOT_FOUND
    return NOT_EXECUTED if file == name and isinstance(error, PermissionError) else FAILED


def _refused(options: argparse.Namespace) -> str | None:
    """Which of the limits and rights that were asked for it cannot have, and why; None: none."""
    from fastspawn.serve.config.model import RouteConfig
    from fastspawn.serve.host import rights

    try:
        rights.check(
            RouteConfig(
                rlimit=_rlimits(options), cgroup=options.cgroup, no_new_privs=options.no_new_privs
            )
        )
    except rights.RightsError as error:
        return str(error)
    return None


def _say(text: str) -> None:
    print(text, file=sys.stderr)


# ---- run it ----


def _rlimits(options: argparse.Namespace) -> tuple[tuple[str, int, int], ...]:
    short = (("as", options.memory), ("cpu", options.cpu))
    return (*options.rlimit, *((name, value, value) for name, value in short if value is not None))


def _command(options: argparse.Namespace) -> Command:
    rlimits = {
        getattr(resource, f"RLIMIT_{name.upper()}"): (soft, hard)
        for name, soft, hard in _rlimits(options)
    }
    return Command(
        options.argv,
        stdout=-1 if options.max_output else None,
        stderr=-1 if options.max_output else None,
        cwd=options.cwd,
        cgroup=options.cgroup,
        no_new_privs=options.no_new_privs,
        death_signal=signal.SIGKILL if sys.platform == "linux" else 0,
        limits=Limits(
            timeout=options.timeout,
            kill_grace=options.kill_grace,
            max_output=options.max_output,
            rlimits=rlimits,
        ),
    )


class _Pass:
    """The sink: output that comes through pipes goes to ours at once. ``foreground``: what gives
    the terminal to whoever runs, and back."""

    def __init__(self, ended: asyncio.Future[Job], foreground: _Foreground | None) -> None:
        self._ended, self._foreground = ended, foreground
        self.job: Job
        self.gone = False

    def on_start(self, job: Job) -> None:
        if self._foreground is not None:
            self._foreground.give(job)

    def on_output(self, data: bytes, fd: int = 1) -> None:
        try:
            while data and not self.gone:
                data = data[os.write(fd, data) :]
        except OSError:  # whoever reads it has had enough
            self.gone = True
            self.job.cancel()

    def on_errors(self, data: bytes) -> None:
        self.on_output(data, 2)

    def on_drain(self) -> None:
        pass

    def on_exit(self, job: Job) -> None:
        if job.error is None:
            self.on_output(job.output)
            self.on_errors(job.errors)
        if not self._ended.done():
            self._ended.set_result(job)


_WANTED_IT: Final = signal.SIGTTIN, signal.SIGTTOU
"""What stops who uses a terminal that another group has."""


class _Foreground:
    """A terminal belongs to one process group at a time; others that read it are stopped
    (termios(3), tcsetpgrp(3)). What a shell does for its jobs.

    It is given by who has it: a shell that lets us go on in the background (``bg``) keeps it."""

    def __init__(self) -> None:
        self._mine = os.getpgrp()
        self._theirs = 0

    @classmethod
    def of_stdin(cls) -> _Foreground | None:
        """None: standard input is no terminal, or not ours now."""
        try:
            return cls() if os.tcgetpgrp(0) == os.getpgrp() else None
        except OSError:
            return None

    def give(self, job: Job) -> None:
        """It has been started, and may be stopped already: its group is its pid."""
        self._theirs = job.pid or 0
        self._hand(self._mine, self._theirs)
        self.look()

    def look(self) -> None:
        """Is it stopped? If that was for the terminal, and we have it, it gets that; else (Ctrl-Z,
        or it has come since) stop likewise, for the shell that waits for us, and go on together.

        Meanwhile the terminal is ours, so that a key is for us: SIGCONT takes back what one has
        left with who is stopped (signal(7))."""
        with contextlib.suppress(OSError):  # it has ended, or the terminal
            found = os.waitid(os.P_PID, self._theirs, os.WSTOPPED | os.WNOHANG)
            if found is None:
                return
            ours = os.tcgetpgrp(0) in (self._mine, self._theirs)
            self._hand(self._theirs, self._mine)
            if found.si_status not in _WANTED_IT or not ours or self._is_to_stop():
                os.kill(0, signal.SIGSTOP)
            os.killpg(self._theirs, signal.SIGCONT)  # at once: it is not reaped yet
            self._hand(self._mine, self._theirs)

    def _is_to_stop(self) -> bool:
        """Has Ctrl-Z come to who was stopped already? Linux tells."""
        with contextlib.suppress(OSError), open(f"/proc/{self._theirs}/status") as status:
            pending = next(line.split()[1] for line in status if line.startswith("ShdPnd:"))
            return bool(int(pending, 16) >> (signal.SIGTSTP - 1) & 1)
        return False

    def _hand(self, giver: int, taker: int) -> None:
        # Taking it back is done from the background: SIGTTOU is blocked, where ignoring it would
        # be inherited by the command.  Stopped between the two calls, we would take it from the
        # shell when it lets us go on: a Ctrl-Z of that moment is told to who has it then.
        had = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU, signal.SIGTSTP})
        with contextlib.suppress(OSError):
            if os.tcgetpgrp(0) == giver:
                os.tcsetpgrp(0, taker)
                if taker != self._mine and signal.SIGTSTP in signal.sigpending():
                    signal.sigwait({signal.SIGTSTP})
                    os.killpg(taker, signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_SETMASK, had)

    def close(self) -> None:
        """As before."""
        self._hand(self._theirs, self._mine)


async def _run(options: argparse.Namespace) -> Result:
    loop = asyncio.get_running_loop()
    command = _command(options)
    foreground = _Foreground.of_stdin()
    try:
        async with Engine(1) as engine:
            ended: asyncio.Future[Job] = loop.create_future()
            sink = _Pass(ended, foreground)
            sink.job = job = engine.submit(command, sink, INHERIT, notify=True)
            for number in (signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, job.cancel)
            if foreground is not None:
                loop.add_signal_handler(signal.SIGCHLD, foreground.look)
            return Result.of(command.argv, await ended)
    finally:
        if foreground is not None:
            foreground.close()


# ---- what came of it ----


def _status(result: Result) -> int:
    if result.timed_out:
        return TIMED_OUT
    return result.returncode if result.returncode >= 0 else 128 - result.returncode


def _used(result: Result) -> dict[str, float]:
    usage = result.rusage
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "wall": round(result.wall, 6),
        "user": round(usage.ru_utime, 6),
        "system": round(usage.ru_stime, 6),
        "max_rss": usage.ru_maxrss * unit,
    }


def _as_line(result: Result) -> str:
    return json.dumps(
        {
            "returncode": result.returncode,
            "timed_out": result.timed_out,
            "truncated": result.truncated,
            **_used(result),
        }
    )


def _as_words(result: Result) -> str:
    code = result.returncode
    how = f"exit status {code}"
    if code < 0:
        try:
            how = signal.Signals(-code).name
        except ValueError:
            how = f"signal {-code}"
    if result.timed_out:
        how += " after --timeout"
    if result.truncated:
        how += ", more than --max-output"
    used = _used(result)
    return (
        f"{_PROG}: {how}; {used['wall']:.3f} s, processor {used['user']:.3f} s user "
        f"{used['system']:.3f} s system, memory {used['max_rss'] / (1 << 20):.1f} MB"
    )
