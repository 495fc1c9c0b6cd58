"""The frames between a pool and its workers, as docs/strategies.md describes them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Final

VERSION: Final = b"1"
FRAME_MAX: Final = 4 << 20
"""Bytes of a frame's payload."""
WINDOW: Final = 65536
"""Bytes of input on their way that the worker has not taken."""
PIECE: Final = 32768
"""Bytes of input in a frame, at most."""
_HEAD: Final = 5


def frame(kind: bytes, payload: bytes) -> bytes:
    """One frame."""
    return kind + len(payload).to_bytes(4, "big") + payload


class Frames:
    """The frames in bytes that come piece by piece."""

    __slots__ = ("_at", "_data")

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    def feed(self, data: bytes) -> None:
        """More has come."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def next(self) -> tuple[bytes, bytes] | None:
        """Kind and payload of the next one that is whole, if there is one. Raises ValueError."""
        data, at = self._data, self._at
        start = at + _HEAD
        if len(data) < start:
            return None
        size = int.from_bytes(data[at + 1 : start], "big")
        if size > FRAME_MAX:
            raise ValueError(f"a frame of {size} bytes")
        if len(data) < start + size:
            return None
        self._at = start + size
        return data[at : at + 1], data[start : start + size]


def group(payload: bytes) -> int:
    """The process group that a worker says to have made. Raises ValueError for what is none, or
    is not to be killed: kill(2) takes 0 for one's own group, and -1 for every process there is."""
    if not payload.isdigit() or len(payload) > 10:
        raise ValueError(f"no process group: {payload!r}")
    pid = int(payload)
    if not 1 < pid < 1 << 31 or pid in (os.getpid(), os.getpgrp()):
        raise ValueError(f"no process group: {payload!r}")
    return pid


def kill_group(pid: int) -> None:
    """``pid`` is from group(); nothing else may come here."""
    group(b"%d" % pid)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
