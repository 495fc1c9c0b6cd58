"""The objects that read standard input stay the program's; what they have read does not."""

from __future__ import annotations

import codecs
import contextlib
import gc
import io
import os
import stat
from typing import Any

_TEXT = io.TextIOWrapper
_READERS = (_TEXT, io.BufferedReader, io.BufferedRandom)


class Input:
    """Whatever may have read ahead from descriptor 0, text before what it reads from."""

    def __init__(self, things: list[Any]) -> None:
        readers = [thing for thing in things if _reads_stdin(thing)]
        self._readers = sorted(readers, key=lambda reader: not isinstance(reader, _TEXT))

    def forget(self) -> None:
        """In the template, whose standard input is at its end: so are they, then."""
        for reader in self._readers:
            with contextlib.suppress(Exception):
                _reset_decoder(reader)
                reader.read()
        self._readers = []


def _reads_stdin(thing: Any) -> bool:
    # By its type: what an object says of its class may be anything, and run anything.
    if not issubclass(type(thing), (*_READERS, codecs.StreamReader)):
        return False
    try:
        return _is_stdin(thing.fileno())
    except Exception:
        return False  # closed, detached, or nothing of the kind


def _is_stdin(fd: int) -> bool:
    """Or a copy of it (csrc/guest/copies.c)."""
    if fd == 0:
        return True
    state = os.fstat(fd)
    of_its_own = not stat.S_ISFIFO(state.st_mode) and not stat.S_ISSOCK(state.st_mode)
    return not of_its_own and os.path.samestat(state, os.fstat(0))


def _reset_decoder(reader: Any) -> None:
    """One that stopped in the middle of a character does not forget it by reading on."""
    if isinstance(reader, codecs.StreamReader):
        reader.reset()
    elif isinstance(reader, _TEXT):
        for part in gc.get_referents(reader):
            if hasattr(part, "decode") and hasattr(part, "getstate"):
                part.reset()
