"""What is to become of a message, by how its process ended. Values alone."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

Fate = Literal["done", "again", "dead"]
REJECTED: Final = os.EX_DATAERR
"""The exit status that says so by default: the input was wrong (sysexits.h)."""
BACKOFF: Final = (1.0, 5.0, 30.0, 120.0)


@dataclass(frozen=True)
class Policy:
    """``max_deliver``: how often a message is handed out at most; None: until it is done.

    ``backoff``: seconds after the first failure, the second ...; the last one counts for all that
    follow. ``rejects``: exit statuses by which a process says that it will never do.
    """

    max_deliver: int | None = 5
    backoff: tuple[float, ...] = BACKOFF
    rejects: frozenset[int] = frozenset({REJECTED})

    def exhausted(self, deliveries: int) -> bool:
        """It was handed out more often than it may be: its workers died of it."""
        return self.max_deliver is not None and deliveries > self.max_deliver

    def judge(self, status: int | None, reason: str, deliveries: int) -> Verdict:
        """``reason``: what was wrong; empty: nothing."""
        if not reason:
            return Verdict("done", 0.0)
        last = self.max_deliver is not None and deliveries >= self.max_deliver
        if last or status in self.rejects:
            return Verdict("dead", 0.0)
        return Verdict("again", self.backoff[min(max(deliveries, 1), len(self.backoff)) - 1])


class Verdict(NamedTuple):
    """``delay``: seconds, if it is again."""

    fate: Fate
    delay: float


def why(status: int | None, *, timed_out: bool = False, truncated: bool = False) -> str:
    """What was wrong with a process that has ended, in words; empty: nothing."""
    if status is None:
        ended = "its exit status was lost"
    elif status < 0:
        ended = _signal(-status)
    else:
        ended = f"exit status {status}" if status else ""
    if timed_out:
        return f"it ran longer than --timeout ({ended or 'exit status 0'})"
    if truncated:
        return f"more output than --max-output ({ended or 'exit status 0'})"
    return ended


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def is_its_own(error: OSError | MemoryError) -> bool:
    """No process could be started, and it was the message: its variables are too many (execve(2):
    E2BIG). Anything else is the machine's or the command's, and goes for all messages."""
    return isinstance(error, OSError) and error.errno == errno.E2BIG
