"""The log of what processes write to standard error: each line with when, whose and which process.

A line is written whole, behind those of others: the beginning of one waits for its end here. One
that is long is cut into pieces, each a line of the log that says so; and of one process no more
than ``MOST`` lines a second are taken. What it writes beyond is read and thrown away, and counted:
a process that is slowed down by its own log answers late, and one that waits for whoever reads the
log perhaps never.

Nothing in a line ends it, moves a cursor or is not UTF-8.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Final

from .access import quotable

if TYPE_CHECKING:
    from fastspawn.serve.config.model import LogFormat

    from .record import Exchange

MOST: Final = 1000
"""Lines a second of one process."""
PIECE: Final = 2048
"""Bytes of a line: what is longer is cut."""
_LONGEST: Final = 4096
"""Bytes of a line of the log: what a pipe keeps together (PIPE_BUF of Linux, pipe(7))."""

Piece = tuple[bytes, bool]
"""Of a line, and whether more of it follows."""
Write = Callable[["int | None", "list[Piece]", int], object]
"""``write(pid, pieces, dropped)``: pieces of lines, and then how many lines nobody gets to see."""


class Lines:
    """Of one process."""

    __slots__ = ("_dropped", "_held", "_left", "_since", "_skipping", "_write")

    def __init__(self, write: Write) -> None:
        self._write = write
        self._held = b""
        """The beginning of a line, at most ``PIECE`` bytes."""
        self._since = 0.0
        self._left = 0
        """How many lines may come, of those of the second that began then."""
        self._dropped = 0
        self._skipping = False
        """The rest of a line is dropped, which has been counted."""

    def feed(self, data: bytes, pid: int | None) -> None:
        """More of what it writes."""
        now = time.monotonic()
        dropped = 0
        if now - self._since >= 1.0:
            self._since, self._left = now, MOST
            dropped, self._dropped = self._dropped, 0
        elif not self._left:
            self._drop(data)
            return
        if dropped:
            self._write(pid, [], dropped)
        if pieces := self._cut(data):
            self._write(pid, pieces, 0)

    def end(self, pid: int | None) -> None:
        """It has ended: what there is of a line is one."""
        held, self._held = self._held, b""
        if held or self._dropped:
            self._write(pid, [(held, False)] if held else [], self._dropped)

    def _cut(self, data: bytes) -> list[Piece]:
        """What is whole of it, as far as there may be more."""
        *lines, rest = data.split(b"\n")
        pieces: list[Piece] = []
        for line in lines:
            held, self._held = self._held, b""
            if self._skipping:
                self._skipping = False
            elif len(pieces) < self._left:
                _divide(held + line, pieces)
            else:
                self._dropped += 1
        if not self._skipping:
            self._hold(rest, pieces)
        self._left = max(self._left - len(pieces), 0)
        return pieces

    def _hold(self, rest: bytes, pieces: list[Piece]) -> None:
        rest = self._held + rest
        if len(rest) > PIECE and len(pieces) >= self._left:
            self._dropped += 1
            self._skipping = True
            rest = b""
        while len(rest) > PIECE:
            piece, rest = _divided(rest, PIECE)
            pieces.append((piece, True))
        self._held = rest

    def _drop(self, data: bytes) -> None:
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            self._dropped += whole.count(b"\n") + (not self._skipping)
            self._held = b""
            self._skipping = False
        if not self._skipping:
            self._hold(rest, [])


def _divide(line: bytes, pieces: list[Piece]) -> None:
    while len(line) > PIECE:
        piece, line = _divided(line, PIECE)
        pieces.append((piece, True))
    pieces.append((line[:-1] if line.endswith(b"\r") else line, False))


def _divided(line: bytes, at: int) -> tuple[bytes, bytes]:
    """In two, but not within a character."""
    for back in range(4):
        if line[at - back] & 0xC0 != 0x80:
            at -= back
            break
    return line[:at], line[at:]


def shown(piece: bytes) -> str:
    """As text of one line: what is not printable, or not UTF-8, is escaped as in Python."""
    text = piece.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\t" else each.encode("unicode_escape").decode()
        for each in text
    )


class ErrorLog:
    """Of a server. ``put`` takes whole lines; ``style`` may change."""

    def __init__(self, put: Callable[[bytes], object], style: LogFormat) -> None:
        self._put = put
        self.style = style

    def lines(self, exchange: Exchange) -> Lines:
        """For the process of a request."""
        about = exchange.about
        return Lines(partial(self._write, exchange.route.title, b"" if about is None else about.id))

    def _write(
        self, title: str, request: bytes, pid: int | None, pieces: list[Piece], dropped: int
    ) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        form = (_json if self.style == "json" else _text)(
            now.replace("+00:00", "Z"), title, request.decode("ascii"), pid
        )
        out: list[bytes] = []
        for piece, more in pieces:
            _add(out, form, piece, more)
        if dropped:
            out.append(form(None, False, dropped))
        self._put(b"".join(out))


Form = Callable[["str | None", bool, int], bytes]
"""``form(text, more, dropped)``: a line of the log."""


def _add(out: list[bytes], form: Form, piece: bytes, more: bool) -> None:
    line = form(shown(piece), more, 0)
    if len(line) <= _LONGEST or len(piece) < 8:
        out.append(line)
    else:
        # Much of it is escaped.
        first, second = _divided(piece, len(piece) // 2)
        _add(out, form, first, True)
        _add(out, form, second, more)


def _text(now: str, title: str, request: str, pid: int | None) -> Form:
    told = f" id={request}" if request else ""
    start = f'{now} "{quotable(title.encode()).decode()}" pid={pid or "-"}{told}'

    def form(text: str | None, more: bool, dropped: int) -> bytes:
        if text is None:
            return f"{start} dropped={dropped}\n".encode()
        return f"{start}{' cut' if more else ''}: {text}\n".encode()

    return form


def _json(now: str, title: str, request: str, pid: int | None) -> Form:
    row: dict[str, object] = {"time": now, "route": title, "pid": pid}
    if request:
        row["id"] = request

    def form(text: str | None, more: bool, dropped: int) -> bytes:
        said: dict[str, object] = {"dropped": dropped} if text is None else {"stderr": text}
        if more:
            said["cut"] = True
        return json.dumps(row | said).encode() + b"\n"

    return form
