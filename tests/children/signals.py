"""A signal comes to this process while it waits for a child: what happens, line by line.

signals.py CASE MODULE
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

from common import until_sync

case, name = sys.argv[1:]
module: Any = importlib.import_module(name)
# To the parent, once it sleeps: then it waits for this child, which it has started.
PARENT = "until ps -o stat= -p $PPID | grep -q '^[SI]'; do :; done; kill -{} $PPID; "


class Told(Exception):
    """What a handler raises."""


def child_is_gone() -> bool:
    """Reaped by us or left to be; nothing runs."""
    with contextlib.suppress(ChildProcessError):
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return info is not None
    return True


def attempt(what: str, call: Callable[[], Any]) -> None:
    try:
        result = call()
        print(what, getattr(result, "returncode", result), getattr(result, "stdout", None))
    except BaseException as exc:
        print(what, type(exc).__name__)
    until_sync(child_is_gone)


def all_ways(script: str) -> None:
    """Each of them waits in another place."""
    argv = ["sh", "-c", script]
    pipe = module.PIPE
    attempt("run", lambda: module.run(argv))
    attempt("run, pipes", lambda: module.run(argv, capture_output=True))
    attempt("run, one pipe", lambda: module.run(argv, stdout=pipe))
    attempt("run, input", lambda: module.run(argv, input=b"x" * 300_000, stdout=pipe))
    attempt("run, in time", lambda: module.run(argv, capture_output=True, timeout=60))
    attempt("call", lambda: module.call(argv))
    attempt("call, in time", lambda: module.call(argv, timeout=60))
    attempt("Popen", lambda: waited(argv, None))
    attempt("Popen, in time", lambda: waited(argv, 60))


def waited(argv: list[str], timeout: float | None) -> int:
    process = module.Popen(argv)
    try:
        code: int = process.wait(timeout)
        return code
    finally:
        process.kill()
        process.wait()


def interrupted() -> None:
    """Each child would live on."""
    all_ways(PARENT.format("INT") + "exec sleep 100 >/dev/null")


def handled() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGUSR1, lambda *args: seen.append(1))
    all_ways(PARENT.format("USR1") + "echo out; exit 3")
    print(len(seen))


def raised() -> None:
    def handler(*args: object) -> None:
        raise Told

    signal.signal(signal.SIGUSR1, handler)
    all_ways(PARENT.format("USR1") + "exec sleep 100 >/dev/null")


def ignored() -> None:
    """Then nobody gets to know how a child ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    all_ways("exit 3")


warnings.simplefilter("ignore", ResourceWarning)
{"interrupted": interrupted, "handled": handled, "raised": raised, "ignored": ignored}[case]()
