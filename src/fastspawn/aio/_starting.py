"""The process behind an asyncio transport.

The common arguments are started by the core, and the loop goes on until the program executes or
has failed to. All others, and programs that have put a class of their own in subprocess.Popen's
place, go through Popen, which has a way for each, and waits.
"""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
from subprocess import DEVNULL, PIPE, STDOUT
from typing import IO, Any, NamedTuple

from fastspawn import _core
from fastspawn._popen import SHELL, is_replaced, popen_class, take_over

_QUICK = frozenset({"env", "cwd", "start_new_session"})
"""The keyword arguments that need nothing of Popen's constructor."""

Stdio = tuple[Any, Any, Any]


class Begun(NamedTuple):
    """A child that executes its program, and what its Popen is made of."""

    child: _core.Child
    args: Any
    files: list[IO[bytes] | None]
    had_turn: bool
    """Did the loop go on meanwhile?"""

    def popen(self) -> subprocess.Popen[bytes]:
        """Made after the transport, so that a collector finalizes the transport first."""
        popen = take_over(self.child, self.args, text_mode=False)
        popen.stdin, popen.stdout, popen.stderr = self.files
        return popen


def start(
    args: Any, shell: bool, stdio: Stdio, bufsize: int, options: dict[str, Any]
) -> tuple[subprocess.Popen[bytes], _core.Child | None]:
    """Start it as asyncio's own transport does, with the same exceptions.

    The child is None where nothing becomes readable when it ends.
    """
    popen = popen_class()(
        args,
        shell=shell,
        stdin=stdio[0],
        stdout=stdio[1],
        stderr=stdio[2],
        universal_newlines=False,
        bufsize=bufsize,
        **options,
    )
    return popen, getattr(popen, "_core_child", None) or _core.adopt(popen.pid)


async def begin(
    loop: asyncio.AbstractEventLoop, args: Any, shell: bool, stdio: Stdio, options: dict[str, Any]
) -> Begun | None:
    """The same without holding up the loop; None if it needs start()."""
    if is_replaced() or not _is_common(stdio, options):
        return None
    return await _begin(loop, args, shell, stdio, **options)


def _is_common(stdio: Stdio, options: dict[str, Any]) -> bool:
    for how in stdio:
        if how is not None and (type(how) is not int or how not in (PIPE, DEVNULL, STDOUT)):
            return False
    return (
        stdio[0] != STDOUT
        and stdio[1] != STDOUT
        and (stdio[2] != STDOUT or stdio[1] is not None)
        and _QUICK.issuperset(options)
        and type(options.get("start_new_session", False)) is bool
    )


async def _begin(
    loop: asyncio.AbstractEventLoop,
    args: Any,
    shell: bool,
    stdio: Stdio,
    env: Any = None,
    cwd: Any = None,
    start_new_session: bool = False,
) -> Begun:
    argv = [SHELL, "-c", args] if shell else list(args)
    sys.audit("subprocess.Popen", argv[0], argv, cwd, env)
    plan = _core.Plan(argv, env=env, cwd=cwd, start_new_session=start_new_session)
    theirs: list[int] = []
    files: list[IO[bytes] | None] = []
    had_turn = False
    try:
        try:
            for target, how in enumerate(stdio):
                _redirect(target, how, theirs, files)
            begun = _core.start(plan, *theirs)
            child = _core.spawn(plan, *theirs) if begun is None else None
        finally:
            for fd in {*theirs} - {-1}:
                os.close(fd)
        if begun is not None:
            had_turn = begun.fd >= 0
            if had_turn:
                await _readable(loop, begun.fd)
            child = begun.end()
        assert child is not None
    except BaseException:
        begun = None  # killed and reaped, whoever still has the traceback
        for file in files:
            if file is not None:
                file.close()
        raise
    return Begun(child, args, files, had_turn)


async def _readable(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    """Wait until it is, or at its end."""
    waiter = loop.create_future()
    loop.add_reader(fd, _wake, waiter)
    try:
        await waiter
    finally:
        if not loop.is_closed():
            loop.remove_reader(fd)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _redirect(target: int, how: Any, theirs: list[int], files: list[IO[bytes] | None]) -> None:
    """Open what becomes the child's descriptor ``target``, and our end of it."""
    file = None
    if how is None:
        theirs.append(-1)
    elif how == STDOUT:
        theirs.append(theirs[1])
    elif how == DEVNULL:
        theirs.append(os.open(os.devnull, os.O_RDWR))
    else:
        read, write = os.pipe()
        theirs.append(write if target else read)
        file = io.FileIO(read if target else write, "rb" if target else "wb")
    files.append(file)


def await_end(child: _core.Child | None, timeout: float) -> bool:
    """Wait, at most timeout seconds, until the child may have ended; True: it has."""
    if child is None or child.pidfd < 0:
        time.sleep(min(timeout, 0.001))
        return False
    return child.await_end(timeout)
