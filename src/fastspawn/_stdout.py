"""Standard output of our own commands: whoever reads it may have enough, or have no room."""

from __future__ import annotations

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
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _forget()
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        _forget()
        print(f"{program}: cannot write: {error.strerror}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None


def _forget() -> None:
    """What is buffered goes nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
