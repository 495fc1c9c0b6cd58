"""One request and its answer, whatever the mode: the sink of one process.

::

    begin ─> admission ─> start ─> on_output* ─> on_exit
                │                      │            └ a short answer: head and body in one write
                └ refuse (503)         └ a longer or slower one: head, then more as it comes

The beginning of an output is held back for a few milliseconds (by the engine, or here where a
strategy does not): most processes end soon after it, and then the answer has a length, and its
status tells how the process ended.

While it has a ``connection``, the client is there and waits for this answer. An exchange that
has lost it (client gone, refused half-way) only waits for its process to end.

Here is the request's side, and what is said instead of an answer. What becomes of an output is its
mode's: ``raw.py``, ``cgi``, ``ws``, ``jsonrpc``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from fastspawn.serve.job import STREAM

from .outcome import OVERLOADED
from .response import BODYLESS, CLOSE, line

if TYPE_CHECKING:
    from fastspawn.serve.job import Job

    from .about import About
    from .match import Match
    from .outcome import Failure
    from .refused import Refusal, Refused
    from .route import Route

_GONE: Final = 499
"""In the log only: the client closed the connection, or let its answer lie, before that was
complete."""

HOLD: Final = 65536
"""Bytes of output that are never held back."""

_GATHER: Final = 65536
"""Bytes of a body kept while its request waits for its turn."""

_PIECE: Final = 4096
"""Bytes up to which what came in chunks is put together: a piece costs some 40 bytes itself."""


def gather(body: list[bytes], data: bytes) -> None:
    """One more of the body, which may come byte by byte."""
    if body and len(body[-1]) + len(data) <= _PIECE:
        body[-1] += data
    else:
        body.append(data)


class Transport(Protocol):
    """asyncio's, as far as an answer needs it."""

    def write(self, data: bytes) -> None: ...

    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


class Upgraded(Protocol):
    """What the connection's bytes belong to after a 101."""

    def data_received(self, data: bytes) -> None: ...

    def resumed(self) -> None:
        """The client reads again."""

    def going_away(self) -> None:
        """The server wants to end."""

    def probe(self) -> None:
        """Send something that a peer which is gone answers with a reset."""


class Connection(Protocol):
    """Where an exchange's answer goes (``connection.py``)."""

    @property
    def peer(self) -> bytes:
        """The address at the other end; "-": a Unix socket's."""

    secure: dict[bytes, bytes] | None
    """What scripts are told of its TLS, once one has been."""

    @property
    def transport(self) -> Transport: ...

    @property
    def ending(self) -> bool:
        """The answer being made is the connection's last."""

    @property
    def write_paused(self) -> bool:
        """The client does not read."""

    @property
    def congested(self) -> bool:
        """Nothing is read, or the client does not."""

    def send(self, head: bytes) -> None:
        """Write what starts with a status line."""

    def proceed(self, exchange: Exchange) -> None:
        """The client of ``exchange``, the current one, may now send what it holds back."""

    def pause_body(self, exchange: Exchange) -> None:
        """No more of its body, for now."""

    def resume_body(self, exchange: Exchange) -> None:
        """Undo ``pause_body``, if it was this exchange's."""

    def replace(
        self, exchange: Exchange, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]
    ) -> Exchange:
        """Another request, without a body, to be answered in the place of ``exchange``, which is
        the current one and past answering. The caller begins it."""

    def upgrade(self, upgraded: Upgraded) -> None:
        """What comes from now on is for the current exchange, in another protocol."""

    def cut(self, *, reset: bool) -> None:
        """End the connection in the midst of an answer."""

    def done(self, exchange: Exchange) -> None:
        """The current exchange has been answered, or is past answering."""

    def abort(self) -> None:
        """Close now."""


class Exchange:
    """``keep``: the connection outlives this exchange. ``target`` as in the request line."""

    kind: ClassVar = "raw"
    """The mode, for the operator."""

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

        self.refusal: Refusal | None = None
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
            gather(self.body, data)
            if self.received > _GATHER:
                connection.pause_body(self)

    def feed_eof(self) -> None:
        """The request is complete, after its turn has come."""
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
        """Answer without a process, with an error most often, and cancel it if there is one.

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

    def turn_down(self, refused: Refused) -> None:
        """It is its turn, and its own fault that no process is started for it."""
        self.begun = True
        if refused.why:
            self._complain(refused.why)
        self.refuse(refused.status, refused.text, refused.fields)

    def drain(self) -> None:
        """The server wants to end, and waits for this one: most end by themselves."""

    def abandon(self) -> None:
        """The client has gone."""
        if self.connection is not None:
            self.status = _GONE
            self._detach()

    def pause(self) -> None:
        """The client does not read."""
        if self.job is not None:
            self.job.pause_reading()

    def go_on(self) -> None:
        """... now it does."""
        if self.job is not None:
            self.job.resume_reading()

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
            self._spawn(connection, None)
        elif self.complete:
            self._spawn(connection, b"".join(body))
        else:
            job = self._spawn(connection, STREAM)
            if self.expect and not body:
                connection.proceed(self)
            ready = True
            for data in body:
                ready = job.write(data)
            if ready:
                connection.resume_body(self)

    def _spawn(self, connection: Connection, input: Any) -> Job:
        job = self.job = self.route.spawn(self, input)
        if connection.write_paused:
            job.pause_reading()  # since the 100 Continue: ``pause`` had no job then
        return job

    def overloaded(self) -> None:
        self.refuse(OVERLOADED.status, OVERLOADED.text, OVERLOADED.fields)

    # ---- the process: called by the strategy

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
            if len(self.held) > HOLD:
                delay.discard(self)
                self.release()
            return
        self._stream(connection, data)

    def release(self) -> None:
        """The process lives on: stream."""
        connection = self.connection
        if connection is not None:
            data, self.held = self.held, b""
            self._stream(connection, data)

    # ---- the answer: its mode's

    def on_exit(self, job: Any) -> None:
        raise NotImplementedError

    @property
    def chunked(self) -> bool:
        """Once the head is sent: the body goes out in chunks."""
        return not self.http10

    @property
    def owes(self) -> bool:
        """Once the head is sent: the client waits for more of the body."""
        return True

    def _stream(self, connection: Connection, data: bytes) -> None:
        """More of an output whose end is not known."""
        raise NotImplementedError

    def _cut(self, connection: Connection) -> None:
        # The client must see that it is not complete: chunks end without the last one; a body
        # that ends with the connection needs a reset, since an orderly close would look like its
        # end.
        connection.cut(reset=self.http10)

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

    def _suffice(self, connection: Connection) -> None:
        """The answer to a HEAD is out. What its process still writes is nobody's."""
        self._detach()
        connection.done(self)

    def _send_failure(self, connection: Connection, found: Failure) -> None:
        self._send_error(connection, found.status, found.text, found.fields)

    def _send_error(
        self, connection: Connection, status: int, text: bytes, fields: bytes = b""
    ) -> None:
        text = b"" if status in BODYLESS else line(status, text)
        self.status = status
        self.sent = 0 if self.head_only else len(text)
        connection.send(
            self.route.heads.refused(
                status,
                text,
                end=self._end(connection),
                body=not self.head_only,
                fields=fields,
            )
        )

    def _send_sized(self, connection: Connection, head: bytes, body: bytes) -> None:
        """``head`` says how long the body is, to a HEAD as well."""
        if not self.head_only:
            self.sent = len(body)
            head += body
        connection.send(head)

    def _complain(self, what: str) -> None:
        """A line for the operator. Nothing in it ends the line or moves a cursor."""
        where = f"{self.method.decode('ascii', 'replace')} {self.target.decode('ascii', 'replace')}"
        print(f"fastspawn: {self.kind}: {where}: {what}", file=sys.stderr, flush=True)  # noqa: T201

    def _log(self, job: Job | None) -> None:
        log = self.route.log
        if log is not None:
            log.record(self, job)
