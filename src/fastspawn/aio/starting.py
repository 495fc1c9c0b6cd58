"""The process behind an asyncio transport.

The common arguments are spawned by the core at once. All others, and programs that have put a
class of their own in subprocess.Popen's place, go through Popen, which has a way for each.
"""

from __future__ import annotations

import io
import os
import select
import subprocess
import sys
import time
from subprocess import DEVNULL, PIPE, STDOUT
from typing import IO, Any

from fastspawn import _core
from fastspawn.popen import SHELL, Popen, take_over

_KNOWN = (subprocess.Popen, Popen)
"""What subprocess.Popen is unless someone else replaced it."""

_QUICK = frozenset({"env", "cwd", "start_new_session"})
"""The keyword arguments that need nothing of Popen's constructor."""

Stdio = tuple[Any, Any, Any]
Started = tuple["subprocess.Popen[bytes]", "_core.Child | None"]


def start(args: Any, shell: bool, stdio: Stdio, bufsize: int, options: dict[str, Any]) -> Started:
    """Start it as asyncio's own transport does, with the same exceptions.

    The child is None where nothing becomes readable when it ends.
    """
    if subprocess.Popen in _KNOWN:
        if _is_common(stdio, options):
            return _quick([SHELL, "-c", args] if shell else list(args), stdio, **options)
        cls: Any = Popen
    else:
        cls = subprocess.Popen
    popen = cls(
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


def _quick(
    argv: list[Any],
    stdio: Stdio,
    env: Any = None,
    cwd: Any = None,
    start_new_session: bool = False,
) -> Started:
    sys.audit("subprocess.Popen", argv[0], argv, cwd, env)
    plan = _core.Plan(argv, env=env, cwd=cwd, start_new_session=start_new_session)
    theirs: list[int] = []
    files: list[IO[bytes] | None] = []
    try:
        for target, how in enumerate(stdio):
            _redirect(target, how, theirs, files)
        child = _core.spawn(plan, *theirs)
    except BaseException:
        for file in files:
            if file is not None:
                file.close()
        raise
    finally:
        for fd in {*theirs} - {-1}:
            os.close(fd)
    popen = take_over(child, argv)
    popen.stdin, popen.stdout, popen.stderr = files
    return popen, child


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


def await_end(child: _core.Child | None, timeout: float) -> None:
    """Wait, at most timeout seconds, until the child may have ended."""
    if child is None or child.pidfd < 0:
        time.sleep(min(timeout, 0.001))
        return
    poll = select.poll()
    poll.register(child.pidfd, select.POLLIN)
    poll.poll(timeout * 1000)
