"""One request to a script, and its answer.

::

    begin ─> the script is looked up ─> admission ─> start ─> (the body's end) ─> spawn
    output ─> header block ─┬─> head, then body as it comes
                            ├─> a local redirect: another request in this one's place
                            └─> not one: 502

All that a script may write is judged by ``output.py``; here it meets HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastspawn.serve.http import outcome
from fastspawn.serve.http.exchange import HOLD
from fastspawn.serve.http.refused import Refused
from fastspawn.serve.http.response import CHUNK_END, CLOSE, LAST_CHUNK, UNBUFFERED, chunk_start

from .gather import GatheringExchange
from .output import BadOutput, HeadParser, Incomplete, NphParser, Reader

if TYPE_CHECKING:
    from fastspawn.serve.http.exchange import Connection
    from fastspawn.serve.job import Job

    from .gateway import Invocation
    from .output import Head
    from .route import Route

_MAX_REDIRECTS: Final = 10


class CgiExchange(GatheringExchange):
    __slots__ = (
        "_chunks",
        "_location",
        "_reader",
        "invocation",
        "redirects",
    )

    def __init__(
        self,
        connection: Connection,
        route: Route,
        method: bytes,
        target: bytes,
        http10: bool,
        keep: bool,
    ) -> None:
        super().__init__(connection, route, method, target, http10, keep)
        self.invocation: Invocation | None = None
        self.redirects = 0
        """How many local redirects have led here."""

        # Output.
        self._reader: Reader
        """Not set before a script is found: there is no output either."""
        self._chunks = False
        self._location = b""
        """Of a local redirect."""

    # ---- the request

    def begin(self) -> None:
        if self.refusal is None:
            try:
                self.invocation = self.route.gateway.invocation(self)
            except Refused as refused:
                self.turn_down(refused)
                return
            parser = NphParser() if self.invocation.nph else HeadParser()
            self._reader = Reader(parser, head_only=self.head_only)
        super().begin()

    # ---- the answer

    def on_exit(self, job: Any) -> None:
        self._forget_body()
        self.route.admission.leave()
        connection = self.connection
        self.job = None
        if connection is not None:
            if self.held and self.route.delay is not None:
                self.route.delay.discard(self)
            if self.route.gateway.spoils(job):
                self._fail(connection, job)
            elif self.head_sent:
                self._end_stream(connection, job.output)
            else:
                self._conclude(connection, job)
            self.connection = None
        self._log(job)
        if connection is None:
            return
        if self._location:
            self._redirect(connection)
        else:
            connection.done(self)

    @property
    def chunked(self) -> bool:
        return self._chunks

    @property
    def owes(self) -> bool:
        # A script may do more when its answer is complete, and the client leave.
        head = self._reader.head
        return not head.bodyless and (head.length is None or self.sent < head.length)

    def _stream(self, connection: Connection, data: bytes) -> None:
        try:
            body = self._reader.feed(data)
        except BadOutput as bad:
            self._complain(f"{bad}; output: {self._reader.start()!r}")
            self.refuse(502, b"the script's answer is malformed\n")
            return
        if body is None:
            return
        if not self.head_sent:
            self._start_stream(connection, body)
            # What an NPH script has written may be no more than the beginning of its head.
            if self.head_only and not self._reader.head.nph:
                self._suffice(connection)
        elif body:
            self._send(connection, body)

    def _start_stream(self, connection: Connection, data: bytes) -> None:
        self._tell_dropped()
        head = self._reader.head
        self.status = head.status
        self.head_sent = True
        self.sent += len(data)
        if connection.ending or (self.head_only and not self.complete):
            self.keep = False
        if head.nph:
            self.keep = False
            connection.send(data)
            return
        fields = b""
        slow = len(data) < HOLD // 2
        sized = self.head_only or head.bodyless or head.length is not None
        if not sized:
            if self.http10:
                self.keep = False
            else:
                self._chunks = True
                fields = b"\r\nTransfer-Encoding: chunked"
                if data:
                    data = b"".join((chunk_start(len(data)), data, CHUNK_END))
        more = [] if sized or not slow else [UNBUFFERED]
        connection.send(self._head_bytes(head, head.length, fields, more) + data)

    def _send(self, connection: Connection, data: bytes) -> None:
        self.sent += len(data)
        if self._chunks:
            data = b"".join((chunk_start(len(data)), data, CHUNK_END))
        connection.transport.write(data)

    def _end_stream(self, connection: Connection, data: bytes) -> None:
        if body := self._reader.feed(data):
            self._send(connection, body)
        try:
            self._reader.end()
        except BadOutput as bad:
            self._complain(str(bad))
            self.keep = False
            self._cut(connection)
            return
        self._check_excess()
        if self._chunks:
            connection.transport.write(LAST_CHUNK)

    def _conclude(self, connection: Connection, job: Job) -> None:
        """The script has come to its end, and nothing has been sent."""
        try:
            body = self._reader.feed(self.held + job.output)
            self._reader.end()
        except BadOutput as bad:
            # What is malformed is so when it comes, before anybody knows how the script will end.
            failed = outcome.failed(job) and isinstance(bad, Incomplete)
            why = f"it exited with status {job.returncode}: {bad}" if failed else str(bad)
            self._complain(f"{why}; output: {self._reader.start()!r}")
            if failed:
                self._send_failure(connection, outcome.failure(job))
            else:
                self._send_error(connection, 502, b"the script's answer is malformed\n")
            return
        self._tell_dropped()
        head = self._reader.head
        if body is None:
            assert head.local is not None
            self.status = head.status
            if self.redirects < _MAX_REDIRECTS:
                self._location = head.local
            else:
                self._complain("too many local redirects")
                self._send_error(connection, 502, b"too many redirects within the server\n")
            return
        self._check_excess()
        self.status = head.status
        self.sent = len(body)
        if head.nph:
            self.keep = False
            connection.send(body)
            return
        length = head.length
        if length is None and not self.head_only and not head.bodyless:
            length = len(body)
        self._end(connection)
        connection.send(self._head_bytes(head, length, b"", []) + body)

    def _head_bytes(
        self, head: Head, length: int | None, fields: bytes, more: list[tuple[bytes, bytes]]
    ) -> bytes:
        """``length``: of the body. ``self.keep`` is final."""
        if head.status == 204:
            length = None
        elif head.status == 205:
            length = 0
        if length is not None:
            fields += b"\r\nContent-Length: %d" % length
        heads = self.route.heads
        end = (heads.keep_http10 if self.http10 else heads.keep) if self.keep else CLOSE
        if self.about is not None:
            more = more + self.about.fields
        return heads.passed_on(head.status, head.reason, head.fields, fields + end, more)

    def _redirect(self, connection: Connection) -> None:
        """RFC 3875 section 6.2.2: answer another request in the place of this one."""
        method = self.method if self.head_only else b"GET"
        # There is no body any more.
        fields = [
            (name, value)
            for name, value in self.match.fields
            if not name.startswith(b"content-") and name != b"transfer-encoding"
        ]
        other = connection.replace(self, method, self._location, fields)
        if isinstance(other, CgiExchange):
            other.redirects = self.redirects + 1
        other.begin()

    def _fail(self, connection: Connection, job: Job) -> None:
        if self.head_sent:
            self.keep = False
            if data := self._reader.feed(job.output):
                self._send(connection, data)  # its last words
            self._cut(connection)
            return
        if output := self._reader.start(self.held + job.output):
            self._complain(f"it failed; output: {output!r}")
        assert self.invocation is not None
        found, why = self.route.gateway.failure(self.invocation, job)
        if why:
            self._complain(why)
        self._send_failure(connection, found)

    def _cut(self, connection: Connection) -> None:
        # Chunks and a length show by themselves that something is missing.
        head = self._reader.head
        if not self.head_only and not head.bodyless:
            connection.cut(reset=not self._chunks and head.length is None)

    def _tell_dropped(self) -> None:
        if dropped := self._reader.dropped:
            self._complain(dropped)

    def _check_excess(self) -> None:
        if self._reader.excess:
            self._complain("the body is longer than its Content-Length")
