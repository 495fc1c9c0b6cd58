"""Try something in a child: a filter may end who calls, and what is set is set for good."""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

_PATIENCE: Final = 10.0
"""Seconds for a child."""


@dataclass(frozen=True)
class Outcome:
    """``error``: the errno, 0 for none; ``why``: in words, None if it worked."""

    error: int = 0
    why: str | None = None

    @property
    def works(self) -> bool:
        return self.why is None


def attempt(act: Callable[[], object]) -> Outcome:
    """What comes of ``act``: it works if it returns, and does not if it raises something, or ends
    its process. To be called in a process of one thread."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _try(act, writer)
    os.close(writer)
    try:
        if not select.select([reader], [], [], _PATIENCE)[0]:
            os.kill(pid, signal.SIGKILL)
            said = ""
        else:
            said = os.read(reader, 4096).decode()
    finally:
        os.close(reader)
        _, status = os.waitpid(pid, 0)
    return _outcome(said, os.waitstatus_to_exitcode(status))


def _outcome(said: str, status: int) -> Outcome:
    number, _, why = said.partition(" ")
    if said:
        return Outcome(int(number), why or None)
    if status == -signal.SIGKILL:
        return Outcome(0, f"it did not return within {_PATIENCE:g} s")
    name = signal.Signals(-status).name if status < 0 else f"status {status}"
    return Outcome(0, f"whoever calls it is ended ({name})")


def _try(act: Callable[[], object], writer: int) -> NoReturn:
    """What was said is written whole: less than a pipe holds."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            act()
            said = "0"
        except OSError as error:
            said = f"{error.errno or 0} {error.strerror or error}"
        except Exception as error:
            said = f"0 {type(error).__name__}: {error}"
        os.write(writer, said.encode())
    finally:
        os._exit(0)
