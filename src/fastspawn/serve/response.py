"""Answers as bytes: status line, header fields, chunked framing (RFC 9112).

Nothing here knows a transport. The constant part of every head is built once a second, since
only ``Date`` changes in it (RFC 9110 section 6.6.1).
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Final

# How a head ends with which its connection does (RFC 9112 section 9.3).
CLOSE: Final = b"\r\nConnection: close\r\n\r\n"

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

CHUNK_END: Final = b"\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

_SERVER: Final = b"\r\nServer: fastspawn"

_REASONS: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus} | {
    # The phrases of RFC 9110; the standard library's differ between Python versions.
    413: b"Content Too Large",
}


def http_date(now: float) -> str:
    """An IMF-fixdate (RFC 9110 section 5.6.7) of ``now``, in seconds since the epoch.

    asctime() is in English whatever the locale; email.utils takes 10 ms to import.
    """
    day, month, date, clock, year = time.asctime(time.gmtime(now)).split()
    return f"{day}, {date:0>2} {month} {year} {clock} GMT"


class Heads:
    """The heads of answers of one type. ``refresh`` must be called every second."""

    __slots__ = ("_chunked", "_date", "_plain", "_start", "_type", "keep", "keep_http10", "sized")

    def __init__(self, content_type: str, idle: float = 0.0) -> None:
        self._type = content_type.encode("latin-1")
        self._date = self._start = self._plain = self._chunked = self.sized = b""
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
        self._start = _SERVER + self._date + b"\r\nContent-Type: "
        self._plain = b"HTTP/1.1 200 OK" + self._start + self._type
        self._chunked = self._plain + b"\r\nTransfer-Encoding: chunked"
        self.sized = self._plain + b"\r\nContent-Length: "

    def streamed(self, *, chunked: bool, end: bytes) -> bytes:
        """The head of a 200 of unknown length: chunked, or until the connection closes."""
        return (self._chunked if chunked else self._plain) + end

    def passed_on(
        self, status: int, reason: bytes, fields: list[tuple[bytes, bytes]], end: bytes
    ) -> bytes:
        """The head of an answer with somebody else's fields, and Server and Date if they are not
        among them. ``end``: more fields, each after a CRLF, and how the head ends."""
        names = {name.lower() for name, _ in fields}
        return b"".join(
            (
                b"HTTP/1.1 %d %b" % (status, reason),
                b"" if b"server" in names else _SERVER,
                b"" if b"date" in names else self._date,
                *(b"\r\n%b: %b" % field for field in fields),
                end,
            )
        )

    def whole(
        self, status: int, text: bytes, content_type: bytes, *, end: bytes, body: bool
    ) -> bytes:
        """A whole answer of the server's own; ``body`` is false for HEAD."""
        return b"".join(
            (
                b"HTTP/1.1 %d %b" % (status, _REASONS[status]),
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
        """A whole answer with an error ``status``; ``body`` is false for HEAD.

        ``fields``: more header fields, each after a CRLF.
        """
        return b"".join(
            (
                b"HTTP/1.1 %d " % status,
                _REASONS[status],
                self._start,
                b"text/plain; charset=utf-8",
                fields,
                b"\r\nContent-Length: %d" % len(text),
                end,
                text if body else b"",
            )
        )


def chunk_start(length: int) -> bytes:
    """What stands before ``length`` bytes of chunk data (RFC 9112 section 7.1)."""
    return b"%x\r\n" % length


def reason(status: int) -> bytes:
    """The reason phrase of RFC 9110 section 15."""
    return _REASONS[status]
