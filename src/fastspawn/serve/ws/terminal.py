"""Mode ``ws`` with ``--pty``: one process for each WebSocket, on a terminal of its own.

Without a subprotocol messages are what is typed, and what is shown: what xterm.js's addon-attach
speaks. Under ``tty``, which is ttyd's, the first byte of a message says what it is::

    from the client                          to the client
    0  what is typed                         0  what is shown
    1  {"columns": 80, "rows": 24}
    2  no more output for now, 3  go on
    {"columns": 80, "rows": 24 ...}

The process begins with the size that the query tells (``?cols=80&rows=24``), so that it need not
wait for a message.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from fastspawn.serve.http.refused import Refused
from fastspawn.serve.job import Terminal

from .exchange import UNSUPPORTED, WsExchange
from .handshake import chosen

if TYPE_CHECKING:
    from fastspawn.serve.http.exchange import Connection

TTY: Final = "tty"
"""The subprotocol."""

_SIZE: Final = (80, 24)
_MOST: Final = 4096
"""Columns or rows: programs have memory for each character."""
_ASKED: Final = re.compile(rb"(?:^|&)(cols|rows)=([^&]*)")


def size_of(query: bytes) -> tuple[int, int]:
    """Columns and rows. Raises Refused."""
    asked: dict[bytes, bytes] = dict(_ASKED.findall(query))
    found = [
        _number(asked[name]) if name in asked else usual
        for name, usual in zip((b"cols", b"rows"), _SIZE, strict=True)
    ]
    if None in found:
        raise Refused(400, b"cols and rows are numbers from 1 to %d\n" % _MOST)
    return found[0] or 0, found[1] or 0


def _number(value: object) -> int | None:
    if isinstance(value, bytes):
        value = int(value) if value.isdigit() and len(value) < 6 else 0
    return value if type(value) is int and 1 <= value <= _MOST else None


class TerminalExchange(WsExchange):
    __slots__ = ("_framed", "_held_up", "_size")

    def _shake_hands(self) -> bytes:
        head = super()._shake_hands()
        self._framed = chosen(self.match.fields, self._subprotocols()) == TTY.encode()
        self._whole = self._framed
        self._held_up = False
        self._size = size_of(self.target.partition(b"?")[2])
        return head

    def _subprotocols(self) -> tuple[str, ...]:
        return (TTY, *self.route.config.ws_subprotocol)

    def _input(self) -> Any:
        return Terminal(*self._size)

    def resumed(self) -> None:
        super().resumed()
        if self._held_up and self.job is not None:
            self.job.pause_reading()

    def _receive(self, connection: Connection, job: Any, data: bytes) -> None:
        if not self._framed:
            super()._receive(connection, job, data)
            return
        what, rest = data[:1], data[1:]
        if what == b"0":
            super()._receive(connection, job, rest)
        elif what == b"2":
            self._held_up = True
            job.pause_reading()
        elif what == b"3":
            self._held_up = False
            if not connection.write_paused:
                job.resume_reading()
        elif what not in (b"1", b"{") or not self._resize(job, rest if what == b"1" else data):
            self._close(connection, UNSUPPORTED, "no message of the subprotocol tty")

    def _resize(self, job: Any, text: bytes) -> bool:
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            return False
        if not isinstance(told, dict):
            return False
        cols, rows = (_number(told.get(name)) for name in ("columns", "rows"))
        if cols is None or rows is None:
            return False
        job.resize(cols, rows)
        return True

    def _pass_on(self, connection: Connection, data: bytes, *, last: bool = False) -> None:
        if not self._framed:
            super()._pass_on(connection, data, last=last)
        elif data:
            self.sent += len(data)
            self._protocol.send_binary(b"0" + data)
            self._flush(connection)
