"""Standard output of our own commands: whoever reads it may have enough, or have no room, or it is
closed from the start."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def printing(program: str) -> Iterator[None]:
    """What is within prints to standard output. Raises SystemExit where that cannot be written: as
    a shell tells of SIGPIPE's victims when the reader has gone, else 1 after a line on stderr.

    All of it is written when this ends: the interpreter's own attempt would come with a traceback.
    """
    complain()
    closed = sys.stdout is None
    if closed:
        sys.stdout = _Closed()
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
            if closed:
                sys.stdout = None
    except BrokenPipeError:
        _forget()
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        _forget()
        print(f"{program}: cannot write: {error.strerror}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None


def complain() -> None:
    """What is for standard error from now on is not for standard output, where the first is closed
    (print takes None, which sys.stderr is then, for the other)."""
    if sys.stderr is None:
        sys.stderr = _Nowhere()


class _Closed(io.TextIOBase):
    def write(self, _text: str) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


def _forget() -> None:
    """What is buffered goes nowhere."""
    if sys.stdout is None:
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
