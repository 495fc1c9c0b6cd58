"""install(): the whole program's subprocesses go through fastspawn.

What is replaced are names in the standard library and in uvloop, each looked up when a process is
started: code that was imported before, and loops that run already, are served as well. Only who
took ``from subprocess import Popen`` before, or made a class from it, keeps what it has.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
from asyncio import unix_events
from collections.abc import Callable
from typing import Any

import uvloop

from fastspawn.aio.process import subprocess_exec, subprocess_shell
from fastspawn.aio.transport import make_transport
from fastspawn.popen import Popen

_WATCHERS = frozenset({
    "ThreadedChildWatcher",
    "PidfdChildWatcher",
    "SafeChildWatcher",
    "MultiLoopChildWatcher",
})  # fmt: skip
"""asyncio's that wait for none but the processes that they were told of."""

_HAS_WATCHERS = hasattr(unix_events, "FastChildWatcher")
"""Until Python 3.14."""

_lock = threading.Lock()
_replaced: list[tuple[Any, str, Any]] = []
_MISSING = object()


def _has_own_watcher() -> bool:
    """Has the program chosen a child watcher that may reap every child, or is not asyncio's?"""
    if not _HAS_WATCHERS:
        return False
    watcher = getattr(asyncio.get_event_loop_policy(), "_watcher", None)
    return watcher is not None and type(watcher).__name__ not in _WATCHERS


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """So that whoever looks sees where it comes from."""
    function.__qualname__ = name
    return function


def _asyncio_transport(original: Callable[..., Any]) -> Callable[..., Any]:
    async def _make_subprocess_transport(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _has_own_watcher():
            return await original(self, *args, **kwargs)
        return await make_transport(self, *args, **kwargs)

    return _named("fastspawn.aio.make_transport", _make_subprocess_transport)


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await function(self, *args, **kwargs)

    return _named(f"fastspawn.aio.{function.__name__}", method)


def _replacements() -> list[tuple[Any, str, Any]]:
    loop: Any = asyncio.SelectorEventLoop
    return [
        (subprocess, "Popen", Popen),
        (
            loop,
            "_make_subprocess_transport",
            _asyncio_transport(loop._make_subprocess_transport),
        ),
        (uvloop.Loop, "subprocess_exec", _method(subprocess_exec)),
        (uvloop.Loop, "subprocess_shell", _method(subprocess_shell)),
    ]


def install() -> None:
    """Let all of this program's subprocesses be started by fastspawn.

    That is subprocess.Popen with all that is built on it (run, check_output ...), and
    asyncio.create_subprocess_exec, create_subprocess_shell, loop.subprocess_exec and
    loop.subprocess_shell on asyncio's and uvloop's event loops. Nothing happens the second time.
    uninstall() takes it back.

    A program that has set an asyncio child watcher which reaps every child (FastChildWatcher), or
    one of its own, keeps it on asyncio's loops.
    """
    with _lock:
        if _replaced:
            return
        for owner, name, new in _replacements():
            _replaced.append((owner, name, vars(owner).get(name, _MISSING)))
            setattr(owner, name, new)


def uninstall() -> None:
    """Take install() back. Processes that run are not affected."""
    with _lock:
        while _replaced:
            owner, name, old = _replaced.pop()
            if old is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, old)


def installed() -> bool:
    """Is install() in force?"""
    return bool(_replaced)
