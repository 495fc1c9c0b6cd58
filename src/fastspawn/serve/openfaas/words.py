"""How a process ended, in the words of Go's os/exec, which of-watchdog answers with."""

from __future__ import annotations

import signal


def why(status: int | None, *, timed_out: bool) -> str:
    """Of one that has run and failed: "exit status 1", "signal: killed". ``status``: as in
    subprocess; None: it was lost."""
    if timed_out:
        # That is how a deadline ends it there, whatever it says to SIGTERM here.
        status = -signal.SIGKILL
    if status is None:
        return "wait: no child processes"
    return f"exit status {status}" if status >= 0 else f"signal: {_signal(-status)}"


def _signal(number: int) -> str:
    text = signal.strsignal(number) or ""
    if not text or "real-time" in text.lower():
        return f"signal {number}"
    return text[0].lower() + text[1:] if text[1:2].islower() else text
