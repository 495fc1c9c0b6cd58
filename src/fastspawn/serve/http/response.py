"""Answers as bytes: status line, header fields, chunked framing (RFC 9112).

Nothing here knows a transport. The constant part of every head is built once a second, since
only ``Date`` changes in it (RFC 9110 section 6.6.1).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from .added import NOTHING, Added, beside, lines

# How a head ends with which its connection does (RFC 9112 section 9.3).
CLOSE: Final = b"\r\nConnection: close\r\n\r\n"

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

CHUNK_END: Final = b"\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

UNBUFFERED: Final = (b"X-Accel-Buffering", b"no")
"""To nginx, which keeps what comes until it has enough to send, and this field to itself
(https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering)."""

_SERVER: Final = b"\r\nServer: fastspawn"

_REASONS: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus} | {
    # The phrases of RFC 9110; the standard library's differ between Python versions.
    413: b"Content Too Large",
}
BODYLESS: Final = frozenset({204, 205, 304})
"""Statuses of answers that have no body (RFC 9110 section 6.4.1)."""


def http_date(now: float) -> str:
    """An IMF-fixdate (RFC 9110 section 5.6.7) of ``now``, in seconds since the epoch.

    asctime() is in English whatever the locale; email.utils takes 10 ms to import.
    """
    day, month, date, clock, year = time.asctime(time.gmtime(now)).split()
    return f"{day}, {date:0>2} {month} {year} {clock} GMT"


class Heads:
    """The heads of answers of one type. ``refresh`` must be called every second. ``added``: fields
    of all of them."""

    __slots__ = (
        *("_added", "_date", "_server", "_start", "_type", "_typed"),
        *("keep", "keep_http10", "own", "sized", "unbuffered"),
    )

    def __init__(self, content_type: str, idle: float = 0.0, added: Added = NOTHING) -> None:
        self._added = added
        self._server = b"" if b"server" in added.names else _SERVER
        self.own = lines(added.own)
        """Fields, each after a CRLF, of answers that are not a command's."""
        self.unbuffered = lines(beside([UNBUFFERED], added.names))
        """Of an answer that comes slowly."""
        self._type = content_type.encode("latin-1") + lines(added.all)
        self._date = self._start = self._typed = self.sized = b""
        """``sized``: the head of a 200 up to the value of Content-Length."""
        self.keep = self.keep_http10 = b""
        """How a head ends whose connection goes on (RFC 9112 section 9.3)."""
        self.allow(idle)
        self.refresh()

    def allow(self, idle: float) -> None:
        """For how many seconds a connection waits for its next request: clients that know
        Keep-Alive (RFC 2068 section 19.7.1.1) do not use it any later."""
        end = b"\r\nKeep-Alive: timeout=%d\r\n\r\n" % idle
        self.keep = end
        self.keep_http10 = b"\r\nConnection: keep-alive" + end

    def refresh(self) -> None:
        """Take the current time into the heads."""
        date = http_date(time.time()).encode("ascii")
        self._date = b"\r\nDate: " + date
        self._start = self._server + self._date + b"\r\nContent-Type: "
        self._typed = self._start + self._type
        self.sized = b"HTTP/1.1 200 OK%b\r\nContent-Length: " % self._typed

    def answered(self, status: int, length: int, end: bytes) -> bytes:
        """The head of an answer whose body is ``length`` bytes of output; none, if there can be
        none with ``status``."""
        line = b"HTTP/1.1 %d %b" % (status, reason(status))
        if status in BODYLESS:
            none = b"\r\nContent-Length: 0" if status == 205 else b""  # RFC 9112 section 6.3
            return b"".join((line, self._server, self._date, lines(self._added.all), none, end))
        return b"".join((line, self._typed, b"\r\nContent-Length: %d" % length, end))

    def streamed(self, status: int, *, chunked: bool, end: bytes) -> bytes:
        """The head of an answer of unknown length: chunked, or until the connection closes."""
        line = b"HTTP/1.1 %d %b" % (status, reason(status))
        coding = b"\r\nTransfer-Encoding: chunked" if chunked else b""
        return b"".join((line, self._typed, coding, end))

    def passed_on(
        self,
        status: int,
        reason: bytes,
        fields: list[tuple[bytes, bytes]],
        end: bytes,
        more: Sequence[tuple[bytes, bytes]] = (),
    ) -> bytes:
        """The head of an answer with somebody else's fields, and ``more``, Server and Date if they
        are not among them. ``end``: still more, each after a CRLF, and how the head ends."""
        names = {name.lower() for name, _ in fields}
        more = beside([*self._added.all, *beside(more, self._added.names)], names)
        return b"".join(
            (
                b"HTTP/1.1 %d %b" % (status, reason),
                b"" if b"server" in names else self._server,
                b"" if b"date" in names else self._date,
                lines(fields),
                lines(more),
                end,
            )
        )

    def whole(
        self, status: int, text: bytes, content_type: bytes, *, end: bytes, body: bool
    ) -> bytes:
        """A whole answer of the server's own; ``body`` is false for HEAD."""
        return b"".join(
            (
                b"HTTP/1.1 %d %b" % (status, reason(status)),
                self._start,
                content_type,
                b"\r\nContent-Length: %d" % len(text),
                end,
                text if body else b"",
            )
        )

    def refused(
        self, status: int, text: bytes, *, end: bytes, body: bool, fields: bytes = b""
    ) -> bytes:
        """A whole answer with an error ``status``, or one without a body; ``body`` is false for
        HEAD.

        ``fields``: more header fields, each after a CRLF, if ``added`` has none of that name.
        """
        if fields and self._added.names:
            fields = lines(beside(parsed(fields), self._added.names))
        if status in BODYLESS:
            head = b"HTTP/1.1 %d %b" % (status, reason(status))
            return b"".join((head, self._server, self._date, self.own, fields, end))
        return b"".join(
            (
                b"HTTP/1.1 %d %b" % (status, reason(status)),
                self._start,
                b"text/plain; charset=utf-8",
                self.own,
                fields,
                b"\r\nContent-Length: %d" % len(text),
                end,
                text if body else b"",
            )
        )


def parsed(fields: bytes) -> list[tuple[bytes, bytes]]:
    """Names and values of fields that stand each after a CRLF."""
    found = (line.partition(b": ") for line in fields.split(b"\r\n")[1:])
    return [(name, value) for name, _, value in found]


def chunk_start(length: int) -> bytes:
    """What stands before ``length`` bytes of chunk data (RFC 9112 section 7.1)."""
    return b"%x\r\n" % length


def reason(status: int) -> bytes:
    """The reason phrase of RFC 9110 section 15; empty for a status that is not there."""
    return _REASONS.get(status, b"")


def line(status: int, text: bytes) -> bytes:
    """What the body of an answer of the server's own says."""
    return b"%b: %b" % ((b"%d %b" % (status, reason(status))).rstrip(), text)
