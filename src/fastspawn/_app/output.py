"""Where the answer goes: the standard output that the server reads.

The application's own standard output is its standard error meanwhile: what it prints, and what its
children do, is for the log, and no part of an answer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable


def prepare() -> None:
    """Once: a line is printed when it is one."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


class Output:
    """Takes standard output, until ``give_back``."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd = os.dup(1)
        os.dup2(2, 1)

    def give_back(self) -> None:
        sys.stdout.flush()
        os.dup2(self.fd, 1)
        os.close(self.fd)

    def write_head(self, status: str, fields: Iterable[tuple[str, str]], data: bytes = b"") -> None:
        """``status``: with its reason. ``data``: of the body, if some is there already.

        Nothing may have a line's end in it.
        """
        lines = [f"Status: {status}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in fields]
        lines.append("\r\n")
        self.write("".join(lines).encode("latin-1") + data)

    def write(self, data: bytes) -> None:
        """All of it, at once. Raises OSError when nobody reads any more."""
        written = os.write(self.fd, data)
        if written < len(data):
            view = memoryview(data)
            while written < len(data):
                written += os.write(self.fd, view[written:])
