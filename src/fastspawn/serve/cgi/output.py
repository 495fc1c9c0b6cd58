"""What a script writes: its header block, read as it comes, and how much body may follow.

``Reader`` is all that an answer is made from; ``HeadParser`` and ``Body`` are its two halves.

RFC 3875 section 6, and what real programs make of it:

- a line that is no field at all (a warning, the ``<!--: spam`` of Python's cgitb) is dropped, as
  Go and lighttpd do, and so is a field that says again what was said, or a length that is none.
  ``Reader.dropped`` tells the operator. Nothing of such a line reaches a client;
- blanks before a colon are taken away and a folded line is joined, as RFC 9112 sections 5.1 and
  5.2 ask of a gateway;
- what would let somebody else write our answer, or would make another answer of it (a control
  character in a field's value, a Transfer-Encoding, two Status or Content-Length that differ) is
  an error (BadOutput, which becomes a 502) and not a guess: RFC 9110 section 5.5. A field that
  restricts what a client may do must not be lost because somebody got a NUL into it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

MAX_HEAD: Final = 65536
"""Bytes of a header block."""
_SHOWN: Final = 60
"""Bytes of a bad line in the message about it."""
_START: Final = 1024
"""Bytes of an output that failed, in the log."""

_NAME: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*:[ \t]*")
_VALUE: Final = re.compile(rb"[\t -~\x80-\xff]*")
_FIELD: Final = re.compile(_NAME.pattern + b"(" + _VALUE.pattern + b")")
_STATUS: Final = re.compile(rb"([2-5]\d\d)(?: ([\t -~\x80-\xff]*))?", re.DOTALL)
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: [\t -~\x80-\xff]*)?", re.DOTALL)
_LENGTH: Final = re.compile(rb"\d{1,18}")
_LOCAL: Final = re.compile(rb"/(?!/)[!-\"$-~]*")
"""An absolute path with a query and without a fragment (RFC 3875 section 6.3.2). A path that
starts with "//" would be read as another host's by every client."""

# The server's to say (RFC 3875 section 6.3.4, RFC 9110 section 7.6.1).
_HOP_BY_HOP: Final = frozenset(b"connection keep-alive proxy-connection te trailer upgrade".split())
_CGI_FIELDS: Final = frozenset({b"content-type", b"location", b"status"})
_ONCE: Final = _CGI_FIELDS | {b"content-length"}

_REASONS: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


class BadOutput(Exception):
    """What is wrong with a script's output, in one line."""


class Incomplete(BadOutput):
    """It ended too early; what came was all right."""


class Dropped:
    """Lines of a header block that were left out."""

    __slots__ = ("_count", "_first")

    def __init__(self) -> None:
        self._count = 0
        self._first = ""

    def add(self, what: str, line: bytes) -> None:
        self._first = self._first or f"{_shown(line)} ({what})"
        self._count += 1

    def __str__(self) -> str:
        """In one line; empty: there are none."""
        more = f", and {self._count - 1} more" if self._count > 1 else ""
        return f"dropped from the header: {self._first}{more}" if self._count else ""


@dataclass
class Head:
    """``fields`` are what goes to the client, without Content-Length.

    ``nph``: the output is a whole HTTP response, of which only the status is known here.
    """

    status: int
    reason: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    length: int | None = None
    """What the script says that its body has, in bytes."""
    local: bytes | None = None
    """The path and query of a local redirect, if nothing follows (section 6.2.2)."""
    nph: bool = False

    @property
    def bodyless(self) -> bool:
        """No body follows, whatever is written (RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5)."""
        return self.status in (204, 205, 304)


class HeadParser:
    """Feed it output until it returns what comes after the header block; then ``head`` is set.

    How the output is cut into pieces makes no difference. After BadOutput it is of no use.
    """

    __slots__ = ("_buffer", "_fields", "_joins", "_limit", "_seen", "_used", "dropped", "head")

    def __init__(self, limit: int = MAX_HEAD) -> None:
        self.head: Head | None = None
        self.dropped = Dropped()
        self._limit = limit
        self._buffer = bytearray()
        self._used = 0
        """Bytes of the header block in lines that have been read."""
        self._seen = 0
        """Bytes of the buffer in which there is no line's end."""
        self._fields: list[tuple[bytes, bytes, bytes]] = []
        """Name, name in lower case, value."""
        self._joins = False
        """A folded line would go on with the last of these, and not with a line that is dropped."""

    @property
    def pending(self) -> bytes:
        """The line that has not ended."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> bytes | None:
        """The beginning of the body (maybe empty), or None: there is more of the header block.

        Raises BadOutput.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        while (end := buffer.find(b"\n", max(start, self._seen))) >= 0:
            line = bytes(buffer[start:end])
            self._used += end + 1 - start
            self._seen = start = end + 1
            if self._used > self._limit:
                raise self._too_large()
            if line.endswith(b"\r"):
                line = line[:-1]
            if self._line(line):
                rest = bytes(buffer[start:])
                buffer.clear()
                return self._body(line, rest)
        del buffer[:start]
        self._seen = len(buffer)
        if self._used + len(buffer) > self._limit:
            raise self._too_large()
        return None

    def _line(self, line: bytes) -> bool:
        """Is the header block complete with this line?"""
        if not line:
            self.head = _head_of(self._fields, self.dropped)
            return True
        found = _FIELD.fullmatch(line)
        if found is not None:
            name, value = found.groups()
            self._fields.append((name, name.lower(), value.rstrip(b" \t")))
            self._joins = True
        else:
            self._odd_line(line)
        return False

    def _odd_line(self, line: bytes) -> None:
        if line[0] in b" \t" and self._joins:
            name, lower, before = self._fields[-1]
            self._fields[-1] = name, lower, (before + b" " + _folded(line)).strip(b" ")
        elif _NAME.match(line):
            raise _control(line)
        elif line.startswith(b"HTTP/"):
            self._fields.append((b"Status", b"status", self._status(line)))
        else:
            self.dropped.add("not a header field", line)
            self._joins = False

    def _status(self, line: bytes) -> bytes:
        """Of a script that begins as an NPH script has to: no other status may be made of it."""
        if self._fields or _STATUS_LINE.fullmatch(line) is None:
            raise BadOutput(f"not a header field: {_shown(line)}")
        return line.partition(b" ")[2]

    def _body(self, line: bytes, rest: bytes) -> bytes:
        return rest

    def _too_large(self) -> BadOutput:
        return BadOutput(f"more than {self._limit} bytes of header fields")


class NphParser(HeadParser):
    """Of a script that writes the whole response (section 5): its status line is looked at.

    What ``feed`` returns starts with it.
    """

    __slots__ = ()

    def _line(self, line: bytes) -> bool:
        found = _STATUS_LINE.fullmatch(line)
        if found is None:
            raise BadOutput(f"not a status line of HTTP/1: {_shown(line)}")
        self.head = Head(int(found[1]), nph=True)
        return True

    def _body(self, line: bytes, rest: bytes) -> bytes:
        return line + b"\r\n" + rest


class NphFieldsParser(HeadParser):
    """Likewise, where somebody else writes the response: its status and fields become a head."""

    __slots__ = ()

    def _line(self, line: bytes) -> bool:
        if not self._fields and _STATUS_LINE.fullmatch(line) is None:
            raise BadOutput(f"not a status line of HTTP/1: {_shown(line)}")
        return super()._line(line)


class Body:
    """How much of a script's body its client is sent. ``head_only``: the answer is to a HEAD."""

    __slots__ = ("_left", "_none", "excess")

    def __init__(self, head: Head, *, head_only: bool) -> None:
        # What follows an NPH script's status line is its own business, also for HEAD.
        self._none = not head.nph and (head_only or head.bodyless)
        self._left = head.length
        self.excess = False
        """The script wrote more than it had said."""

    def take(self, data: bytes) -> bytes:
        """The part of ``data`` to be sent: nothing where there is no body, and no more than was
        announced."""
        if self._none:
            return b""
        left = self._left
        if left is None:
            return data
        if len(data) > left:
            self.excess = True
            data = data[:left]
        self._left = left - len(data)
        return data

    @property
    def missing(self) -> bool:
        """At the end: less came than the script had said."""
        return not self._none and bool(self._left)


class Reader:
    """One script's output: ``feed`` it what comes, ``end`` it, and send what it returns.

    ``head_only``: the answer is to a HEAD. After BadOutput only ``start`` is of use.
    """

    __slots__ = ("_body", "_head_only", "_parser", "_start")

    def __init__(self, parser: HeadParser, *, head_only: bool) -> None:
        self._head_only = head_only
        self._parser = parser
        self._body: Body | None = None
        """None until the header block is complete."""
        self._start = b""

    def feed(self, data: bytes) -> bytes | None:
        """The part of the answer's body in ``data`` (maybe empty), or None: there is no answer
        yet, since the header block goes on or what has come is a local redirect so far.

        Raises BadOutput.
        """
        if self._body is None:
            if len(self._start) < _START:
                self._start += data[:_START]
            rest = self._parser.feed(data)
            if rest is None:
                return None
            data = rest
            self._body = Body(self.head, head_only=self._head_only)
        head = self.head
        if head.local is not None:
            if not data:
                return None
            head.local = None  # there is a body: it is for the client (section 6.2.4)
        return self._body.take(data)

    def end(self) -> None:
        """That was all. Raises Incomplete if something is missing."""
        if self._body is None:
            raise Incomplete("it ends within its header")
        if self._body.missing:
            raise Incomplete("the body is shorter than its Content-Length")

    @property
    def head(self) -> Head:
        """To be asked for when ``feed`` has returned some body, or ``end`` has returned."""
        head = self._parser.head
        assert head is not None
        return head

    @property
    def excess(self) -> bool:
        """The script wrote more than it had said."""
        return self._body is not None and self._body.excess

    @property
    def dropped(self) -> str:
        """Which lines of the header block were left out, for the log; empty: none."""
        return str(self._parser.dropped)

    def start(self, more: bytes = b"") -> bytes:
        """What the output begins with, for the log. ``more``: what came without being fed."""
        return (self._start + more)[:_START]


def _folded(line: bytes) -> bytes:
    """What a line adds to the field before it."""
    if _VALUE.fullmatch(line) is None:
        raise _control(line)
    return line.strip(b" \t")


def _control(line: bytes) -> BadOutput:
    return BadOutput(f"a control character in a header field: {_shown(line)}")


def _head_of(given: list[tuple[bytes, bytes, bytes]], odd: Dropped) -> Head:
    known: dict[bytes, bytes] = {}
    dropped: set[bytes] = set()
    fields: list[tuple[bytes, bytes, bytes]] = []
    for name, lower, value in given:
        if lower == b"content-length" and not _LENGTH.fullmatch(value):
            # The framing is the server's, who can do without.
            odd.add("not a Content-Length", value)
            continue
        if lower in _ONCE:
            if lower not in known:
                known[lower] = value
            elif known[lower] != value:
                raise BadOutput(f"more than one {lower.decode()}")
            else:
                odd.add(f"a second {lower.decode()}", value)
                continue
        elif lower == b"transfer-encoding":
            raise BadOutput("a Transfer-Encoding: the framing is the server's")
        elif lower == b"connection":
            dropped.update(option.strip() for option in value.lower().split(b","))
        fields.append((name, lower, value))
    if not known.keys() & _CGI_FIELDS:
        raise BadOutput("none of Content-Type, Location and Status")

    length = None
    if (text := known.get(b"content-length")) is not None:
        length = int(text)
    location = known.get(b"location")
    if location == b"":
        raise BadOutput("an empty Location")
    head = Head(302 if location is not None else 200, length=length)
    if (text := known.get(b"status")) is not None:
        found = _STATUS.fullmatch(text)
        if found is None:
            raise BadOutput(f"not a Status: {_shown(text)}")
        head.status = int(found[1])
        head.reason = found[2] or b""
    elif location is not None and len(fields) == 1 and _LOCAL.fullmatch(location):
        head.local = location
    head.reason = head.reason.strip() or _REASONS.get(head.status, b"")
    # A field that the script needs to be understood is not between two hops.
    dropped = (dropped | _HOP_BY_HOP | {b"status", b"content-length"}) - {
        b"content-type",
        b"location",
    }
    head.fields = [(name, value) for name, lower, value in fields if lower not in dropped]
    return head


def _shown(line: bytes) -> str:
    text = repr(line[:_SHOWN])[1:]
    return f"{text}..." if len(line) > _SHOWN else text
