"""One request and its answer: the sink of one process.

::

    begin ─> admission ─> start ─> on_output* ─> on_exit
                │                      │            └ a short answer: head and body in one write
                └ refuse (503)         └ a longer or slower one: head, then chunks as they come

The beginning of an output is held back for a few milliseconds (by the engine, or here where a
strategy does not): most processes end soon after it, and then the answer has a length, and its
status tells how the process ended. The answer to a HEAD is over with its head: a process that has
not ended by then is.

While it has a ``connection``, the client is there and waits for this answer. An exchange that
has lost it (client gone, refused half-way) only waits for its process to end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .outcome import OVERLOADED, failure
from .response import (
    CHUNK_END,
    CLOSE,
    LAST_CHUNK,
    chunk_start,
    reason,
)
from .strategy import STREAM

if TYPE_CHECKING:
    from .about import About
    from .outcome import Failure
    from .protocol import Connection
    from .route import Match, Route
    from .strategy import Job

_RETRY_AFTER: Final = b"\r\nRetry-After: 1"
"""Seconds (RFC 9110 section 10.2.3)."""

_GONE: Final = 499
"""In the log only: the client closed the connection, or let its answer lie, before that was
complete."""

_HOLD: Final = 65536
"""Bytes of output that are never held back."""

_GATHER: Final = 65536
"""Bytes of a body kept while its request waits for its turn."""


class Exchange:
    """``keep``: the connection outlives this exchange. ``target`` as in the request line."""

    __slots__ = (
        "about",
        "begun",
        "body",
        "complete",
        "connection",
        "expect",
        "head_only",
        "head_sent",
        "held",
        "http10",
        "job",
        "keep",
        "match",
        "method",
        "peer",
        "received",
        "refusal",
        "route",
        "sent",
        "since",
        "stalled",
        "status",
        "target",
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
        self.match: Match
        """What the route knows of this request: not set where there is but one route for all."""
        self.since: float
        """The meter's, if there is one."""
        self.connection: Connection | None = connection
        self.about: About | None = None
        """None: nobody wants to know more."""
        self.peer = connection.peer
        self.route = route
        self.method = method
        self.target = target
        self.http10 = http10
        self.keep = keep
        self.head_only = method == b"HEAD"

        self.refusal: tuple[int, bytes] | tuple[int, bytes, bytes] | None = None
        """What the request's head has earned it, for when its turn comes: see ``refuse``."""
        self.begun = False
        self.complete = False
        """The request has been received to its end."""
        self.expect = False
        """The client waits for 100 Continue."""
        self.body: list[bytes] | None = None
        """None: the request has no body. Else what came of it before the process did."""
        self.received = 0
        """Bytes of the request's body."""
        self.stalled = False
        """The client was given up: it sent nothing, or took nothing, for the time that it has."""

        self.job: Job | None = None
        self.held = b""
        """Output that has come, its head not being sent yet."""
        self.status = 0
        self.head_sent = False
        self.sent = 0
        """Bytes of the answer's body."""

    # ---- the request: called by the connection

    def begin(self) -> None:
        """Everything before on this connection has been answered."""
        self.begun = True
        if self.refusal is not None:
            self.refuse(*self.refusal)
        else:
            self.route.enter(self)

    def feed(self, data: bytes) -> None:
        """More of the request's body."""
        self.received += len(data)
        connection = self.connection
        if connection is None or self.refusal is not None:
            return
        if self.received > self.route.max_body:
            self.spoil(413, b"request body too large\n")
        elif self.job is not None:
            if not self.job.write(data):
                connection.pause_body(self)
        else:
            assert self.body is not None
            self.body.append(data)
            if self.received > _GATHER:
                connection.pause_body(self)

    def feed_eof(self) -> None:
        """The request is complete."""
        self.complete = True
        if self.job is not None and self.connection is not None:
            self.job.write_eof()

    def spoil(self, status: int, text: bytes) -> None:
        """The request has turned out bad after its head: refuse it now or when its turn comes."""
        self.keep = False
        if self.begun:
            self.refuse(status, text)
        else:
            self.refusal = status, text
            self.body = None

    def refuse(self, status: int, text: bytes, fields: bytes = b"") -> None:
        """Answer with an error and cancel the process, if there is one.

        ``fields``: more header fields, each after a CRLF.
        """
        connection = self.connection
        if connection is None:
            return
        if self.head_sent:
            self.keep = False
            self._cut(connection)
        else:
            self._send_error(connection, status, text, fields)
        self._detach()
        connection.done(self)

    def abandon(self) -> None:
        """The client has gone."""
        if self.connection is not None:
            self.status = _GONE
            self._detach()

    def _detach(self) -> None:
        self.connection = None
        self.body = None
        if self.held and self.route.delay is not None:
            self.held = b""
            self.route.delay.discard(self)
        if self.job is not None:
            # Nobody reads any more, so nothing is to wait for a reader.
            self.job.resume_reading()
            self.job.cancel()
        elif self.begun:
            self.route.admission.withdraw(self)
            self._log(None)

    # ---- called by the admission

    def start(self) -> None:
        connection = self.connection
        assert connection is not None
        body, self.body = self.body, None
        if body is None:
            self.job = self.route.spawn(self, None)
        elif self.complete:
            self.job = self.route.spawn(self, b"".join(body))
        else:
            job = self.job = self.route.spawn(self, STREAM)
            if self.expect and not body:
                connection.proceed(self)
            ready = True
            for data in body:
                ready = job.write(data)
            if ready:
                connection.resume_body(self)

    def overloaded(self) -> None:
        self.refuse(OVERLOADED.status, OVERLOADED.text, _RETRY_AFTER)

    # ---- the answer: called by the strategy

    @property
    def chunked(self) -> bool:
        """Once the head is sent: the body goes out in chunks."""
        return not self.http10

    @property
    def owes(self) -> bool:
        """Once the head is sent: the client waits for more of the body."""
        return True

    def on_drain(self) -> None:
        if self.connection is not None:
            self.connection.resume_body(self)

    def on_output(self, data: bytes) -> None:
        connection = self.connection
        if connection is None or not data:
            return  # an empty chunk would be the last one
        delay = self.route.delay
        if not self.head_sent and delay is not None:
            if not self.held:
                delay.add(self)
            self.held += data
            if len(self.held) > _HOLD:
                delay.discard(self)
                self.release()
            return
        self._stream(connection, data)

    def _stream(self, connection: Connection, data: bytes) -> None:
        """More of an output whose end is not known."""
        self.sent += len(data)
        if not self.head_sent:
            self._start_stream(connection, data)
            if self.head_only:
                self._suffice(connection)
        elif self.http10:
            connection.transport.write(data)
        else:
            # Not writelines(): in asyncio of Python 3.12 and 3.13.0 it ignores the high-water mark.
            connection.transport.write(b"".join((chunk_start(len(data)), data, CHUNK_END)))

    def release(self) -> None:
        """The process lives on: stream."""
        connection = self.connection
        if connection is not None:
            data, self.held = self.held, b""
            self._stream(connection, data)

    def on_exit(self, job: Any) -> None:
        self.route.admission.leave()
        connection = self.connection
        self.job = None
        if connection is not None:
            if self.held and self.route.delay is not None:
                self.route.delay.discard(self)
            if job.returncode != 0 or job.timed_out or job.truncated:
                self._fail(connection, job)
            elif self.head_sent:
                self._end_stream(connection, job.output)
            else:
                self._answer(connection, self.held + job.output if self.held else job.output)
            self.connection = None
            if self.route.log is not None:
                self._log(job)
            connection.done(self)
        elif self.route.log is not None:
            self._log(job)

    # ---- sending

    def _end(self, connection: Connection) -> bytes:
        """How a head ends that announces what becomes of the connection."""
        if self.keep and self.complete and not connection.ending:
            heads = self.route.heads
            end = heads.keep_http10 if self.http10 else heads.keep
        else:
            self.keep = False
            end = CLOSE
        return end if self.about is None else self.about.end + end

    def _answer(self, connection: Connection, output: bytes) -> None:
        self.status = 200
        self.sent = length = len(output)
        head = b"%b%d%b" % (self.route.heads.sized, length, self._end(connection))
        connection.send(head if self.head_only else head + output)

    def _start_stream(self, connection: Connection, data: bytes) -> None:
        self.status = 200
        self.head_sent = True
        heads = self.route.heads
        more = b"" if self.about is None else self.about.end
        if self.http10:
            self.keep = False
            head = heads.streamed(chunked=False, end=more + CLOSE)
            connection.send(head if self.head_only else head + data)
            return
        # The request may end before its answer does: only then is the connection kept.
        if connection.ending or (self.head_only and not self.complete):
            self.keep = False
        head = heads.streamed(chunked=True, end=more + (heads.keep if self.keep else CLOSE))
        if not self.head_only:
            head = b"".join((head, chunk_start(len(data)), data, CHUNK_END))
        connection.send(head)

    def _suffice(self, connection: Connection) -> None:
        """The answer to a HEAD is out. What its process still writes is nobody's."""
        self._detach()
        connection.done(self)

    def _end_stream(self, connection: Connection, data: bytes) -> None:
        self.sent += len(data)
        if self.http10:
            if data:
                connection.transport.write(data)
        elif data:
            connection.transport.write(
                b"".join((chunk_start(len(data)), data, CHUNK_END, LAST_CHUNK))
            )
        else:
            connection.transport.write(LAST_CHUNK)

    def _fail(self, connection: Connection, job: Job) -> None:
        """The process did not do its work: an error, or a broken answer if one has begun."""
        if self.head_sent:
            self.keep = False
            if job.output and not self.http10:
                # Its last words.
                self.sent += len(job.output)
                connection.transport.write(
                    b"".join((chunk_start(len(job.output)), job.output, CHUNK_END))
                )
            self._cut(connection)
        else:
            self._send_failure(connection, failure(job))

    def _send_failure(self, connection: Connection, found: Failure) -> None:
        fields = _RETRY_AFTER if found.passing else b""
        self._send_error(connection, found.status, found.text, fields)

    def _send_error(
        self, connection: Connection, status: int, text: bytes, fields: bytes = b""
    ) -> None:
        text = b"%d %b: %b" % (status, reason(status), text)
        self.status = status
        self.sent = len(text)
        connection.send(
            self.route.heads.refused(
                status,
                text,
                end=self._end(connection),
                body=not self.head_only,
                fields=fields,
            )
        )

    def _cut(self, connection: Connection) -> None:
        # The client must see that it is not complete: chunks end without the last one; a body
        # that ends with the connection needs a reset, since an orderly close would look like its
        # end.
        connection.cut(reset=self.http10)

    def _log(self, job: Job | None) -> None:
        log = self.route.log
        if log is not None:
            log.record(self, job)
