"""Streams that the program writes to: what they hold is written once, by whose it is."""

from __future__ import annotations

import contextlib
import gc
import io
import sys
import weakref
from collections.abc import Iterable
from typing import Any

_TEXT = io.TextIOWrapper
_WRITERS = (_TEXT, io.BufferedWriter, io.BufferedRandom, io.BufferedRWPair)


class Output:
    def __init__(self, things: Iterable[Any]) -> None:
        # The program may still close them by letting them go.
        self._above = [weakref.ref(stream) for stream in _writers(things)]

    def standard(self) -> tuple[Any, Any] | None:
        """sys.stdout and sys.stderr, if nothing else holds back what the program has written, and
        no code of its own runs when these are flushed."""
        texts = sys.stdout, sys.stderr
        if not all(map(_is_plain, texts)):
            return None
        plain = {id(part) for text in texts for part in (text, text.buffer)}
        return texts if all(id(reference()) in plain for reference in self._above) else None

    def flush(self, things: Iterable[Any] = ()) -> None:
        """All that was made above, and what is named."""
        above = (reference() for reference in self._above)
        for stream in _writers([*above, *things]):
            with contextlib.suppress(Exception):
                stream.flush()


def _writers(things: Iterable[Any]) -> list[Any]:
    """Those that are open, text before what it is written to."""
    found = [thing for thing in things if issubclass(type(thing), _WRITERS) and _is_open(thing)]
    return sorted(found, key=lambda stream: not isinstance(stream, _TEXT))


def _is_open(stream: Any) -> bool:
    try:
        return bool(stream.writable())
    except Exception:
        return False  # closed, or detached


def _is_plain(text: Any) -> bool:
    if type(text) is not _TEXT:
        return False
    try:
        below = text.buffer
    except ValueError:
        return False  # detached
    if type(below) is io.BufferedWriter:
        below = below.raw
    return type(below) is io.FileIO  # at once, if unbuffered


def flush_standard() -> bool:
    """As the interpreter will at its end; false: that will fail."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except Exception:
        return False
    return True


def in_order(things: list[Any]) -> list[Any]:
    """For their finalizers: as they were made, but streams last, each before what it writes to."""
    streams = {id(thing): thing for thing in things if isinstance(thing, io.IOBase)}
    order: list[Any] = []

    def visit(stream: Any) -> None:
        if streams.pop(id(stream), None) is not None:
            for part in _parts(stream):
                visit(part)
            order.append(stream)

    others = [thing for thing in things if id(thing) not in streams]
    while streams:
        visit(next(iter(streams.values())))
    return [*others, *reversed(order)]


def _parts(stream: Any) -> Iterable[Any]:
    for part in gc.get_referents(stream):
        if type(part) is dict:
            yield from part.values()
        else:
            yield part
