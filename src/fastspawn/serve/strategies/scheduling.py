"""How the kernel schedules the event loop's thread."""

from __future__ import annotations

import contextlib
import os


def _change(before: str, after: str) -> None:
    # macOS has none of it, musl only the names; a seccomp filter may forbid it.
    with contextlib.suppress(AttributeError, OSError):
        if os.sched_getscheduler(0) == getattr(os, before):
            os.sched_setscheduler(0, getattr(os, after), os.sched_param(0))


def batch() -> None:
    """Let the calling thread wait for a processor instead of preempting one of the children.

    SCHED_BATCH (sched(7)): it has the same share, but wakes up less often, for more at a time. A
    thread that is scheduled in another way than by default stays as it is. Threads and processes
    that it starts from now on are scheduled like it.
    """
    _change("SCHED_OTHER", "SCHED_BATCH")


def normal() -> None:
    """Undo batch()."""
    _change("SCHED_BATCH", "SCHED_OTHER")
