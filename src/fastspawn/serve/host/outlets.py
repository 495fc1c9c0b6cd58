"""Standard output and standard error of a server, to which it writes without ever waiting.

Both may be pipes that nobody reads: an event loop that waited there would answer nobody, nor see
a signal either. So all lines go through a ``fastspawn._core.Outlet``, a bounded queue with a thread
that waits: those of the access log, and whatever Python writes to ``sys.stderr`` (ours, the
loop's exception handler, warnings). What has no room is dropped and counted, and one line says so
when it goes on.
"""

from __future__ import annotations

import io
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO, cast

from fastspawn import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

_CAPACITY: Final = 4 << 20
"""Bytes that may wait, of each."""
_PATIENCE: Final = 2.0
"""Seconds for a reader to take what waits at the end."""


class _Outlet:
    """One of the two, and what has been said of it."""

    def __init__(self, fd: int, title: str) -> None:
        self.outlet = _core.Outlet(fd, _CAPACITY)
        self.title = title
        self.said = 0
        """Lost lines that have been told of."""
        self.failed = False
        """... and that it cannot be written to."""

    @property
    def dropped(self) -> int:
        """Lines."""
        return self.outlet.state[1]

    def news(self) -> str:
        """What there is to say of it now; may be empty."""
        queued, dropped, error = self.outlet.state
        lost = dropped - self.said
        if error:
            told, self.failed = self.failed, True
            return "" if told else f"cannot write {self.title}: {os.strerror(error)}"
        if not lost or queued > _CAPACITY / 2:
            return ""
        self.said, self.failed = dropped, False
        return f"dropped {lost} line{'s' * (lost != 1)} of {self.title}: nobody took them"


class Outlets:
    """Of one process: opened when they are asked for, ``close`` comes last."""

    def __init__(self) -> None:
        self._access: _Outlet | None = None
        self._errors: _Outlet | None = None
        self._instead: TextIO | None = None
        """What sys.stderr was."""

    def access(self) -> _core.Outlet | None:
        """Standard output, for the access log; None: it is not open."""
        if self._access is None:
            fd = _fileno(sys.stdout)
            self._access = None if fd is None else _Outlet(fd, "the access log")
        return None if self._access is None else self._access.outlet

    def errors(self) -> _core.Outlet | None:
        """Standard error, once it was taken; None: it is not open."""
        return None if self._errors is None else self._errors.outlet

    def take_stderr(self) -> None:
        """From now on what is written to sys.stderr waits for nobody."""
        fd = _fileno(sys.stderr)
        if fd is not None:
            self._errors = _Outlet(fd, "standard error")
            self._instead = sys.stderr
            sys.stderr = cast("TextIO", _Text(self._errors.outlet, sys.stderr))

    def dropped(self) -> dict[str, int]:
        """Lines, by what they were for."""
        known = {"access": self._access, "errors": self._errors}
        return {name: each.dropped for name, each in known.items() if each is not None}

    def look(self) -> None:
        """Say what was lost, once that is over. To be called now and then."""
        for each in (self._access, self._errors):
            news = "" if each is None else each.news()
            if news:
                say(news)

    @property
    def waiting(self) -> bool:
        """There may be something for ``look`` to say."""
        return any(each and each.dropped > each.said for each in (self._access, self._errors))

    def close(self) -> None:
        """Have everything written that can be."""
        if self._instead is not None:
            sys.stderr.flush()
            sys.stderr, self._instead = self._instead, None
        end = time.monotonic() + _PATIENCE
        for each in (self._access, self._errors):
            if each is not None:
                each.outlet.close(max(end - time.monotonic(), 0.0))
        self._access = self._errors = None


def say(text: str) -> None:
    """Tell the operator, in one line."""
    print(f"fastspawn: {text}", file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def opened() -> Iterator[Outlets]:
    """Of this process, until it leaves."""
    outlets = Outlets()
    outlets.take_stderr()
    try:
        yield outlets
    finally:
        outlets.close()


class _Text(io.TextIOBase):
    """In the place of sys.stderr. Hands on whole lines, and the rest when it is flushed."""

    def __init__(self, outlet: _core.Outlet, instead: TextIO) -> None:
        self._outlet = outlet
        self._instead = instead
        self._held = ""

    def write(self, text: str) -> int:
        whole, newline, self._held = (self._held + text).rpartition("\n")
        self._put(whole + newline)
        return len(text)

    def flush(self) -> None:
        held, self._held = self._held, ""
        self._put(held)

    def _put(self, text: str) -> None:
        if text:
            self._outlet.put(text.encode(self._instead.encoding, "backslashreplace"))

    def fileno(self) -> int:
        return self._instead.fileno()

    def isatty(self) -> bool:
        return self._instead.isatty()

    def writable(self) -> bool:
        return True


def _fileno(stream: TextIO | None) -> int | None:
    """None: it was not open when the interpreter started, or is no file."""
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None
