"""Processes whose parents have ended, where this one is their next parent: as process 1 (of a
container), or as a subreaper (PR_SET_CHILD_SUBREAPER(2const)). Somebody has to reap them.

The kernel gives an orphan to the main thread, and those that the engine starts are children of its
own threads. So what is a child of the main thread and is not known to it is an orphan. Linux.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Container
from contextlib import suppress
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
_WNOTHREAD: Final = 0x20000000
"""Only the children of the calling thread (wait4(2))."""


def become_subreaper() -> None:
    """Raises OSError."""
    if sys.platform != "linux":
        raise OSError(0, "not on this system")
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), zero, zero, zero):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def come_here(*, subreaper: bool) -> bool:
    """Orphans become children of this process."""
    return sys.platform == "linux" and (subreaper or os.getpid() == 1)


def reap(own: Container[int] = ()) -> None:
    """Reap the orphans that have ended. ``own``: children that somebody else here waits for.

    To be called on the main thread, now and then.
    """
    ended = os.WEXITED | os.WNOHANG | _WNOTHREAD
    with suppress(ChildProcessError):
        while (found := os.waitid(os.P_ALL, 0, ended | os.WNOWAIT)) is not None:
            if found.si_pid in own:
                return  # behind it there may be others: the next time
            os.waitid(os.P_PID, found.si_pid, ended)
