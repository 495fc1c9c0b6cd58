"""Exit handlers: those that were registered above a checkpoint are the template's own.

They undo what was done above (a temporary directory, a lock, a connection), which the next request
still needs. So they run once, when the template ends.

Three of the standard library's own stand for whatever there will be by the end: they run at the end
of each request, too, for what was made below.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import weakref
from typing import Any


class _Listener:
    """Compares unequal to all handlers, and remembers them."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def __eq__(self, other: object) -> bool:
        self.heard.append(other)
        return False

    __hash__ = None  # type: ignore[assignment]


def _handlers() -> list[Any]:
    listener: Any = _Listener()
    atexit.unregister(listener)
    return listener.heard  # type: ignore[no-any-return]


def _general() -> list[Any]:
    """The standard library's, of the modules that there are."""
    finalize: Any = weakref.finalize
    of = {"logging": "shutdown", "multiprocessing.util": "_exit_function"}
    found = [getattr(sys.modules.get(module), name, None) for module, name in of.items()]
    return [finalize._exitfunc, *found]


class Exits:
    def __init__(self) -> None:
        finalize: Any = weakref.finalize
        general = _general()
        self.general = [handler for handler in _handlers() if handler in general]
        self._above = [info for info in finalize._registry.values() if info.atexit]
        for info in self._above:
            info.atexit = False

    def restore(self) -> None:
        for info in self._above:
            info.atexit = True

    def run(self) -> None:
        """In the template, at its end."""
        self.restore()
        handlers: Any = atexit
        with contextlib.suppress(BaseException):
            handlers._run_exitfuncs()
