"""asyncio's subprocess functions, for any event loop in any thread.

The same signatures, results and exceptions as in asyncio.subprocess, on asyncio and on uvloop,
without child watchers, SIGCHLD or threads. Every argument of subprocess.Popen is accepted on both.
Only for preexec_fn does the loop wait until the program executes, as asyncio's does.
``run`` is the short form: a whole command in one call, started and collected by an engine's
threads.
"""

from __future__ import annotations

from fastspawn import _core  # noqa: F401 - first: of what can't be, the package says it in a line
from fastspawn.aio._process import (
    Process,
    create_subprocess_exec,
    create_subprocess_shell,
    subprocess_exec,
    subprocess_shell,
)
from fastspawn.aio._short import run

__all__ = [
    "Process",
    "create_subprocess_exec",
    "create_subprocess_shell",
    "run",
    "subprocess_exec",
    "subprocess_shell",
]
