"""Mode ``jsonrpc``: MCP's streamable HTTP, before a process that speaks on stdin and stdout.

::

    POST initialize            ─> admission ─> a process ─> its session, and the response
    POST, with the session     ─> a line of stdin ─> 202, or (a request) its stream
    POST, a request without    ─> admission ─> a process for this one ─> its stream
    GET, with the session      ─> what the process says of its own; with Last-Event-ID, the rest of
                                  an answer that broke off
    GET without                ─> the transport before (2024-11-05): a session for as long
    DELETE                     ─> the session's end

A stream is a ``text/event-stream``, or for clients that do not take that, the response alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastspawn.serve.http.exchange import Exchange, gather
from fastspawn.serve.http.outcome import RETRY_AFTER
from fastspawn.serve.http.refused import Refused
from fastspawn.serve.http.response import (
    CHUNK_END,
    CLOSE,
    LAST_CHUNK,
    UNBUFFERED,
    chunk_start,
    reason,
)
from fastspawn.serve.job import STREAM

from .events import COMMENT, Gone, event
from .head import SESSION, Asked, primes, read
from .message import INVALID, BadMessage, Message, failed, parse

if TYPE_CHECKING:
    from fastspawn.serve.http.exchange import Connection

    from .events import Stream
    from .route import Route
    from .session import Session

_PIECE: Final = 65536
"""Bytes, about, of events that are written together."""
_JSON: Final = b"application/json"
_EXPOSED: Final = b"Access-Control-Expose-Headers", SESSION
"""To pages of other sites, which have to say it."""


class JsonrpcExchange(Exchange):
    """``session``: what it has begun, or asks. ``streams``: the client takes more than the
    response."""

    kind = "jsonrpc"
    __slots__ = ("_asked", "_begins", "_message", "_reads", "session", "streams")

    route: Route

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
        self._asked: Asked
        self._message: Message | None = None
        self._begins = False
        """The session: its process is for this request first, and its end is logged with it."""
        self._reads: Stream | None = None
        """Where its events come from."""
        self.session: Session | None = None
        self.streams = False

    # ---- the request

    def begin(self) -> None:
        self.begun = True
        connection = self.connection
        assert connection is not None
        if self.refusal is not None:
            self.refuse(*self.refusal)
            return
        try:
            self._asked = read(self.method, self.target, self.match.fields, self.route.config.cors)
        except Refused as refused:
            self.refuse(refused.status, refused.text, refused.fields)
            return
        self.streams = self._asked.streams
        if self.complete:
            self._received()
        elif self.expect:
            connection.proceed(self)

    def feed(self, data: bytes) -> None:
        self.received += len(data)
        if self.connection is None or self.refusal is not None:
            return
        if self.received > self.route.max_body:
            self.spoil(413, b"request body too large\n")
        else:
            assert self.body is not None
            gather(self.body, data)

    def feed_eof(self) -> None:
        self.complete = True
        if self.connection is not None:
            self._received()

    def _received(self) -> None:
        body, self.body = b"".join(self.body or ()), None
        if self.method == b"POST":
            self._post(body)
        elif self.method == b"GET":
            self._get()
        elif session := self._find():
            session.close()
            self.refuse(204, b"")

    def _find(self) -> Session | None:
        """The session that is asked. None: there is none, and the client has been told."""
        name = self._asked.session
        session = self.route.sessions.find(name)
        if not name:
            self._refuse(400, f"no {SESSION.decode()}: it comes with the answer to initialize")
        elif session is None or session.old is not self._asked.old:
            session = None
            self._refuse(404, "there is no such session (any more)")
        self.session = session
        return session

    # ---- POST

    def _post(self, body: bytes) -> None:
        try:
            message = self._message = parse(body)
        except BadMessage as bad:
            self._refuse(400, str(bad), bad.code)
            return
        if not self._asked.session and message.kind == "request":
            self._begin_session(alone=message.method != "initialize")
            return
        session = self._find()
        if session is None:
            return
        if session.job is None or session.crowded:
            self._refuse(503, "the session's process is behind", fields=RETRY_AFTER)
        elif session.old or message.kind != "request":
            session.take(message)
            self._answer(202, b"", b"text/plain")
        elif session.expects(message.key):
            self._refuse(400, "that id is in use")
        else:
            self._ask(session, message)

    def _ask(self, session: Session, message: Message) -> None:
        connection = self.connection
        assert connection is not None
        self.session = session
        self._reads = stream = session.ask(message, self)
        if self.streams and primes(self._asked.version or message.version) and not self._begins:
            self._send(connection, event(stream.id(stream.begun), b""))

    # ---- GET

    def _get(self) -> None:
        if not self._asked.session:
            self._begin_session(old=True)
            return
        session = self._find()
        if session is None:
            return
        stream = session.events.own
        if self._asked.last:
            try:
                stream = session.events.resume(self._asked.last)
            except Gone:
                self._refuse(410, "what followed that event is not kept any more")
                return
        self._listen(session, stream, b"")

    def _listen(self, session: Session, stream: Stream, first: bytes) -> None:
        connection = self.connection
        assert connection is not None
        self._reads = stream
        session.attach(stream, self)
        self._send(connection, first)
        self.wake()

    # ---- a session's beginning

    def _begin_session(self, *, alone: bool = False, old: bool = False) -> None:
        self._begins = True
        self.session = self.route.sessions.begin(self._ended, self.about, alone=alone, old=old)
        self.route.enter(self)

    def start(self) -> None:
        session = self.session
        assert session is not None
        session.job = self.route.spawn(self, STREAM)
        if self._message is not None:
            self._ask(session, self._message)
        else:
            # A reference that holds wherever a proxy has put this (RFC 3986 section 5.2.2).
            where = b"?sessionId=" + session.name.encode("ascii")
            first = b"event: endpoint\ndata: %b\n\n" % where
            self._listen(session, session.events.own, first)

    def _ended(self, job: Any) -> None:
        """The process of the session that it has begun."""
        self.route.admission.leave()
        self._log(job)

    # ---- the answer: called by the session

    def wake(self) -> None:
        """There may be more of the stream."""
        connection, stream = self.connection, self._reads
        if connection is None or stream is None:
            return
        assert self.session is not None
        old = self.session.old
        parts: list[bytes] = []
        size = 0
        while not connection.write_paused and (found := stream.take()):
            number, data = found
            if not self.streams:
                self._answer(200, data, _JSON)
                return
            part = b"event: message\ndata: %b\n\n" % data if old else event(stream.id(number), data)
            parts.append(part)
            size += len(part)
            if size > _PIECE:
                self._send(connection, b"".join(parts))
                parts.clear()
                size = 0
        if parts:
            self._send(connection, b"".join(parts))
        if stream.finished:
            self._finish(connection)

    def go_on(self) -> None:
        self.wake()
        if self.session is not None and self.connection is not None:
            self.session.taken()

    def replaced(self) -> None:
        if self.connection is not None:
            self._finish(self.connection)

    def fail(self, status: int, data: bytes, fields: bytes) -> bool:
        if self.head_sent or self.connection is None:
            return False
        self._answer(status, data, _JSON, fields)
        return True

    def keep_alive(self) -> None:
        connection = self.connection
        if self.streams and connection is not None and not connection.write_paused:
            self._send(connection, COMMENT)

    # ---- the answer: as it is sent

    @property
    def chunked(self) -> bool:
        return not self.http10

    def _send(self, connection: Connection, data: bytes) -> None:
        """More of a text/event-stream."""
        head = b""
        if not self.head_sent:
            head = self._head(connection)
        self.sent += len(data)
        if data and not self.http10:
            data = b"".join((chunk_start(len(data)), data, CHUNK_END))
        if head:
            connection.send(head + data)
        elif data:
            connection.transport.write(data)

    def _head(self, connection: Connection) -> bytes:
        self.status = 200
        self.head_sent = True
        if connection.ending or self.http10:
            self.keep = False
        coding = b"" if self.http10 else b"\r\nTransfer-Encoding: chunked"
        heads = self.route.heads
        fields = [(b"Content-Type", b"text/event-stream"), (b"Cache-Control", b"no-store")]
        end = coding + (heads.keep if self.keep else CLOSE)
        return heads.passed_on(200, b"OK", fields + self._told(), end, [UNBUFFERED, *self._more])

    def _answer(self, status: int, data: bytes, kind: bytes, fields: bytes = b"") -> None:
        """All of an answer. ``fields``: more, each after a CRLF."""
        connection = self.connection
        assert connection is not None
        self.status = status
        self.sent = len(data)
        end = fields + b"\r\nContent-Length: %d" % len(data) + self._connection_end(connection)
        told = [(b"Content-Type", kind), *(self._told() if status == 200 else ())]
        heads = self.route.heads
        connection.send(heads.passed_on(status, reason(status), told, end, self._more) + data)
        self._detach()
        connection.done(self)

    def _connection_end(self, connection: Connection) -> bytes:
        if not self.keep or not self.complete or connection.ending:
            self.keep = False
            return CLOSE
        return self.route.heads.keep_http10 if self.http10 else self.route.heads.keep

    @property
    def _more(self) -> list[tuple[bytes, bytes]]:
        more = [] if self.about is None else self.about.fields
        return more if self.route.cors is None else [*more, _EXPOSED]

    def _told(self) -> list[tuple[bytes, bytes]]:
        """Of the session that has begun."""
        session = self.session
        if not self._begins or session is None or session.brief:
            return []
        return [(SESSION, session.name.encode("ascii"))]

    def _finish(self, connection: Connection) -> None:
        if not self.head_sent:
            self._send(connection, b"")
        if not self.http10:
            connection.transport.write(LAST_CHUNK)
        self._detach()
        connection.done(self)

    def _refuse(self, status: int, text: str, code: int = INVALID, fields: bytes = b"") -> None:
        """Answer with an error of JSON-RPC."""
        message = self._message
        key = None if message is None or message.kind != "request" else message.key
        self._answer(status, failed(key, code, text), _JSON, fields)

    # ---- the end

    def abandon(self) -> None:
        if self.connection is None:
            return
        if self.method != b"GET" or not self.head_sent:
            super().abandon()
        else:
            self._detach()  # which is how to stop listening

    def _detach(self) -> None:
        self.connection = None
        self.body = None
        session, stream = self.session, self._reads
        if stream is not None and session is not None:
            if self._begins and not self.head_sent and self.status != 200:
                session.brief = True  # nobody has heard of it
            session.detach(stream, self)
            if self._begins:
                return  # the log hears of it when the process has ended
        elif self._begins and session is not None:
            self.route.admission.withdraw(self)
            self.route.sessions.forget(session)
        if self.begun:
            self._log(None)
