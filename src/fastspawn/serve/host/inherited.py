"""What a server has of its parent, made what it counts on. Comes before all else."""

from __future__ import annotations

import os
import signal
from typing import Final

from fastspawn import _core

_STANDARD: Final = range(1, 32)
"""The others belong to programs, and some of them to libc."""
_OWN: Final = frozenset({signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD})
"""Ignored by every Python, or not to be; children have them at their default."""


ignored: frozenset[int] = frozenset()
"""Signals that children are to ignore, since this process was started so."""


def settle() -> None:
    """On the main thread, before any signal gets a handler."""
    _open_stdio()
    _pass_on()
    _have_children()


def _open_stdio() -> None:
    """Descriptors 0 to 2 are open. A socket that took the number of one that is not would get what
    is meant for the log, and libuv aborts where it closes such a number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _pass_on() -> None:
    """What is ignored stays so in all that is started, as it would (signal(7)) if the server had no
    handler of its own."""
    global ignored
    found = {number for number in _STANDARD if signal.getsignal(number) == signal.SIG_IGN}
    ignored = frozenset(found - _OWN)
    _core.ignore_signals(ignored)


def _have_children() -> None:
    """Children are waited for: with SIGCHLD ignored there are none to be found (waitpid(2)), and
    libuv hears of them by the signal."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
