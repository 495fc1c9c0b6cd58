"""The command line: from ``argv`` to a ``Config``, to listening sockets, to a running server.

Whatever can be wrong is found before the first request: one line on standard error and exit
status 2.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Final, NoReturn, TypeVar

from fastspawn import _core

from . import listen, server, units, workers
from .config import Config
from .strategy import command_of

T = TypeVar("T")

_DESCRIPTION: Final = """\
Serve a command over HTTP: every request gets a process of its own. The request's body is the
command's standard input, its standard output is the answer.
"""
_EPILOG: Final = """\
Durations: 30, 30s, 500ms, 5m. Sizes: 4096, 64k, 1M. "none" takes a limit away.
"""
_USAGE: Final = "python -m fastspawn.serve [options] [--] [CMD ARG...]"


class UsageError(Exception):
    """What is wrong with the command line, in one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "))


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m fastspawn.serve``. Returns the exit status."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except (UsageError, listen.ListenError, server.StartError) as error:
        print(f"fastspawn: error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130


def parse(argv: Sequence[str]) -> Config:
    """The configuration that ``argv`` (without the program's name) asks for.

    Raises UsageError; SystemExit for --help and --version. Looks at nothing but the words.
    """
    return _parse(argv)[0]


def check(config: Config) -> None:
    """That the command could be started. Raises UsageError."""
    try:
        _core.backend()
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        command_of(config).resolve()
    except (TypeError, ValueError) as error:
        raise UsageError(f"command: {error}") from error
    except OSError as error:
        if config.cwd is not None and error.filename == config.cwd:
            raise UsageError(f"--cwd {config.cwd}: {error.strerror}") from error
        raise UsageError(f"cannot run {config.command[0]}: {error.strerror}") from error


def _run(argv: Sequence[str]) -> int:
    config, options, worker_fds = _parse(argv)
    if worker_fds is not None:
        socks = [listen.adopt(fd, config.backlog) for fd in worker_fds]
        link = socket.socket(fileno=os.dup(0))
        server.serve(
            config,
            socks,
            ready=lambda: workers.report_ready(link),
            stopping=lambda: None,
            lifeline=link,
        )
        return 0

    check(config)
    socks = listen.listen(config)
    where = ", ".join(map(listen.name, socks))

    def ready() -> None:
        count = "" if config.workers == 1 else f"{config.workers} workers, "
        print(  # noqa: T201
            f"fastspawn {_version()} serving `{shlex.join(config.command)}` on {where} "
            f"({config.strategy}, {config.loop}, {count}pid {os.getpid()})",
            file=sys.stderr,
            flush=True,
        )

    def stopping() -> None:
        if config.uds is not None:
            listen.unlink(config.uds)

    if config.workers == 1:
        server.serve(config, socks, ready=ready, stopping=stopping)
        return 0
    if config.fd is None:
        shares = [listen.multiply(sock, config.workers, config.backlog) for sock in socks]
    else:
        # Somebody else's, and perhaps still in use by others.
        shares = [[sock] * config.workers for sock in socks]
    return workers.Supervisor(
        config,
        options,
        [list(share) for share in zip(*shares, strict=True)],
        ready=ready,
        stopping=stopping,
    ).run()


def _parse(argv: Sequence[str]) -> tuple[Config, list[str], list[int] | None]:
    """The configuration, the words that were options, and a worker's sockets."""
    parser = _parser()
    options, command = _split(parser, list(argv))
    values, unknown = parser.parse_known_args(options)
    if unknown:
        _refuse_unknown(parser, unknown[0])
    given = vars(values)
    worker_fds: list[int] | None = given.pop("worker_fds")
    if worker_fds is None:
        _exclude(given, options)
    if command:
        given["command"] = tuple(command)
    given["loop"] = _loop(given["loop"])
    return Config(**given), options, worker_fds


def _split(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[list[str], list[str]]:
    """Options, up to the first word that is none; and the command, with options of its own."""
    # argparse.REMAINDER would take a mistyped option for the command.
    takes_value = {
        option: action.nargs != 0 for action in parser._actions for option in action.option_strings
    }
    i = 0
    while i < len(argv) and argv[i].startswith("-") and argv[i] != "-":
        if argv[i] == "--":
            return argv[:i], argv[i + 1 :]
        i += 2 if takes_value.get(argv[i], False) else 1
    return argv[:i], argv[i:]


def _refuse_unknown(parser: argparse.ArgumentParser, word: str) -> NoReturn:
    option = word.partition("=")[0]
    known = [each for action in parser._actions for each in action.option_strings]
    close = difflib.get_close_matches(option, known, 1)
    hint = f"did you mean {close[0]}?" if close else "see --help"
    raise UsageError(f"unknown option {option}: {hint}")


def _exclude(given: dict[str, Any], options: Sequence[str]) -> None:
    """Refuse more than one way to say where to listen."""
    used = {word.partition("=")[0] for word in options}
    ways = [
        way
        for way in ("--fd", "--uds", "--host", "--port")
        if way in used and not (way == "--port" and "--host" in used)
    ]
    if len(ways) > 1:
        raise UsageError(f"{ways[0]} and {ways[1]} exclude each other")
    if given["fd"] == 0 or given["fd"] in (1, 2):
        raise UsageError(f"--fd {given['fd']}: 0, 1 and 2 are the standard streams")


def _loop(name: str) -> str:
    if name != "auto":
        if name == "uvloop" and find_spec("uvloop") is None:
            raise UsageError("--loop uvloop: uvloop is not installed")
        return name
    return "asyncio" if find_spec("uvloop") is None else "uvloop"


def _parser() -> _Parser:
    parser = _Parser(
        prog="fastspawn.serve",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32),
    )
    default = {field.name: field.default for field in fields(Config)}

    def group(title: str) -> Callable[..., None]:
        section = parser.add_argument_group(title)

        def add(option: str, text: str, **more: Any) -> None:
            name = option[2:].replace("-", "_")
            more.setdefault("default", default.get(name, argparse.SUPPRESS))
            section.add_argument(option, help=text, **more)

        return add

    add = group("where to listen")
    add("--host", "address or name (default: 127.0.0.1)", metavar="HOST", type=_host)
    add("--port", "0: any that is free (default: 8001)", metavar="PORT", type=_int(0, 65535))
    add("--uds", "a Unix socket instead", metavar="PATH", type=_path)
    add("--fd", "an inherited socket instead", metavar="FD", type=_int(0, 1 << 20))
    add("--backlog", "connections not yet accepted (default: 2048)", metavar="N", type=_int(1))

    add = group("processes")
    add("--workers", "server processes on the same port (default: 1)", metavar="N", type=_int(1))
    add("--loop", "event loop (default: auto)", choices=("auto", "uvloop", "asyncio"),
        default="auto")  # fmt: skip
    add("--strategy", "direct: the C engine; subprocess: asyncio's own (default: direct)",
        choices=("direct", "subprocess"))  # fmt: skip
    add("--spawners", "the engine's threads (default: by the number of cores)", metavar="N",
        type=_int(1, 1024))  # fmt: skip

    add = group("the command")
    add("--mode", "raw: standard output is the body (default: raw)", choices=("raw",))
    add("--cwd", "its working directory", metavar="DIR", type=_path)
    add("--stderr", "inherit: the server's; discard; merge: into the answer "
        "(default: inherit)", choices=("inherit", "discard", "merge"))  # fmt: skip
    add("--content-type", "of the answer (default: text/plain; charset=utf-8)", metavar="TYPE",
        type=_field_value)  # fmt: skip

    add = group("limits")
    add("--max-inflight", "processes at once (default: 256)", metavar="N", type=_int(1))
    add("--queue", "requests that may wait for one; more get 503 (default: 4096)", metavar="N",
        type=_int(0))  # fmt: skip
    add("--queue-timeout", "how long they may wait, then 503 (default: 30s)", metavar="TIME",
        type=_limit(_positive))  # fmt: skip
    add("--exec-timeout", "how long a process may run, then 504 (default: 60s)", metavar="TIME",
        type=_limit(_positive))  # fmt: skip
    add("--kill-grace", "from TERM to KILL (default: 2s)", metavar="TIME", type=_duration)
    add("--drain-timeout", "how long to wait, once the process has exited, for others that "
        "keep its output open (default: 50ms)", metavar="TIME", type=_duration)  # fmt: skip
    add("--max-output", "bytes of output (default: none)", metavar="SIZE",
        type=_limit(_positive_size))  # fmt: skip
    add("--max-body", "bytes of a request's body; more get 413 (default: none)", metavar="SIZE",
        type=_limit(_size))  # fmt: skip

    add = group("connections")
    add("--keep-alive-timeout", "how long to wait for another request (default: 5s)",
        metavar="TIME", type=_positive)  # fmt: skip
    add("--header-timeout", "how long a request's head may take, then 408 (default: 10s)",
        metavar="TIME", type=_positive)  # fmt: skip
    add("--graceful-timeout", "how long, after a signal, requests may take to finish "
        "(default: 30s)", metavar="TIME", type=_limit(_duration))  # fmt: skip

    add = group("other")
    add("--access-log", "a line per request on standard output (default: on)",
        action=argparse.BooleanOptionalAction)  # fmt: skip
    add("--version", "print the version and exit", action="version",
        version=f"fastspawn {_version()}")  # fmt: skip
    # The supervisor's word to a worker.
    parser.add_argument("--worker-fds", type=_fds, help=argparse.SUPPRESS)
    return parser


# ---- values: argparse shows the message of an ArgumentTypeError


def _wrong(message: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(message)


def _int(least: int, most: int = 1 << 31) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or not least <= int(text) <= most:
            span = f"from {least} to {most}" if most < 1 << 31 else f"of at least {least}"
            raise _wrong(f"{text!r} is not a number {span}")
        return int(text)

    return convert


def _duration(text: str) -> float:
    try:
        return units.duration(text)
    except ValueError as error:
        raise _wrong(str(error)) from error


def _positive(text: str) -> float:
    seconds = _duration(text)
    if seconds <= 0:
        raise _wrong("must be more than 0")
    return seconds


def _size(text: str) -> int:
    try:
        return units.size(text)
    except ValueError as error:
        raise _wrong(str(error)) from error


def _positive_size(text: str) -> int:
    count = _size(text)
    if count <= 0:
        raise _wrong("must be more than 0")
    return count


def _limit(convert: Callable[[str], T]) -> Callable[[str], T | None]:
    return lambda text: None if text == "none" else convert(text)


def _host(text: str) -> str:
    if not text or "/" in text or any(char.isspace() for char in text):
        raise _wrong(f"{text!r} is not a host")
    return text.removeprefix("[").removesuffix("]")


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise _wrong(f"{text!r} is not a path")
    return text


def _field_value(text: str) -> str:
    """RFC 9110 section 5.5, without obs-text."""
    if not re.fullmatch(r"[!-~](?:[ \t!-~]*[!-~])?", text, re.ASCII):
        raise _wrong(f"{text!r} is not a media type")
    return text


def _fds(text: str) -> list[int]:
    return [_int(3, 1 << 20)(fd) for fd in text.split(",")]


def _version() -> str:
    try:
        return version("fastspawn")
    except PackageNotFoundError:
        return "(not installed)"
