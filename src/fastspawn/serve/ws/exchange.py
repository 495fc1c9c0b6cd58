"""Mode ``ws``: one process for each WebSocket (RFC 6455).

::

    begin ─> handshake ─> admission ─> start ─> 101
    message ─> a line, or bytes, of stdin          (a slow process: the client waits)
    a line, or bytes, of stdout ─> message         (a slow client: the process waits)
    exit ─> close 1000, or 1011 for a failure
    the client closes or goes ─> stdin ends ─> after the grace TERM, after another KILL

Frames are the library's (``websockets``, its protocol without I/O), and so are its refusals:
1002 for what is no frame, 1009 for a message that is too large.
"""

from __future__ import annotations

import asyncio
import codecs
from typing import TYPE_CHECKING, Any, Final

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from fastspawn.serve.http.exchange import Exchange
from fastspawn.serve.http.outcome import RETRY_AFTER, failed, failure
from fastspawn.serve.http.refused import Refused
from fastspawn.serve.job import STREAM

from .handshake import answer, offered

if TYPE_CHECKING:
    from fastspawn.serve.http.exchange import Connection

    from .route import Route

_FRAGMENT: Final = 65536
"""Bytes, about: a line that is longer is sent in pieces, as it comes."""

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
UNSUPPORTED: Final = 1003
NOT_UTF8: Final = 1007
INTERNAL_ERROR: Final = 1011


class WsExchange(Exchange):
    """Takes the connection over: see ``http.exchange.Upgraded``."""

    kind = "ws"
    __slots__ = (
        "_decoder",
        "_fragments",
        "_grace",
        "_heard",
        "_is_text",
        "_line",
        "_open_line",
        "_ping",
        "_pinged",
        "_pong",
        "_protocol",
        "_whole",
        "invocation",
        "length",
    )

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
        super().__init__(connection, route, method, target, http10, False)
        self.invocation: Any = None
        """What the route's gateway has found, for it to start."""
        self.length: int | None = None
        self._protocol = Protocol(
            Side.SERVER, state=State.OPEN, max_size=route.config.ws_max_message
        )

        # From the client.
        self._fragments = bytearray()
        """Of the message that is being received. How many there are, no limit says: empty ones
        are to cost nothing."""
        self._is_text = False
        self._whole = route.config.ws_frames == "lines"
        """It is passed on when it is complete. Text always is: it has to be checked."""
        self._pong = b""
        """For when the client reads again: to the last of its pings, as the others need none."""

        # To the client.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line = ""
        """The beginning of a line."""
        self._open_line = False
        """Pieces of it have been sent."""

        # Time.
        self._heard = True
        self._pinged = False
        self._ping: asyncio.TimerHandle | None = None
        self._grace: asyncio.TimerHandle | None = None

    # ---- the beginning

    def begin(self) -> None:
        if self.refusal is None:
            try:
                if self.body is not None:
                    raise Refused(400, b"a WebSocket begins without a body\n")
                self.held = self._shake_hands()
                self.invocation = self.route.gateway.invocation(self)
            except Refused as refused:
                self.turn_down(refused)
                return
        super().begin()

    def _shake_hands(self) -> bytes:
        """The head of the answer. Raises Refused."""
        return answer(
            self.method,
            self.http10,
            self.match.fields,
            origins=self.route.config.ws_origin,
            subprotocols=self._subprotocols(),
        )

    def _subprotocols(self) -> tuple[str, ...]:
        """That are spoken."""
        return self.route.config.ws_subprotocol

    def _input(self) -> Any:
        """Of the process: see ``Strategy.spawn``."""
        return STREAM

    def start(self) -> None:
        connection = self.connection
        assert connection is not None
        self.job = self.route.spawn(self, self._input())
        more = b"" if self.about is None else self.about.end
        head = self.held.removesuffix(b"\r\n\r\n") + self.route.heads.own + more + b"\r\n\r\n"
        self.held = b""
        self.status = 101
        self.head_sent = True
        connection.send(head)
        connection.upgrade(self)
        self._arm(connection)

    def _end(self, connection: Connection) -> bytes:
        end = super()._end(connection)
        return offered(end) if self.status == 426 else end

    @property
    def chunked(self) -> bool:
        return False

    # ---- from the client: called by the connection

    def data_received(self, data: bytes) -> None:
        connection = self.connection
        if connection is None:
            return
        self._heard = True
        self._protocol.receive_data(data)
        events = self._protocol.events_received()
        writes = self._protocol.data_to_send()
        closing = self._protocol.state is not State.OPEN
        if writes and connection.write_paused and not closing:
            self._pong = writes[-1]
        else:
            connection.transport.write(b"".join(writes))
        for event in events:
            if isinstance(event, Frame):
                self._take(event)
        if closing and self.connection is not None:
            # It has closed, or has been told why it must not go on.
            self._leave(connection)

    def resumed(self) -> None:
        if self._pong and self.connection is not None:
            self.connection.transport.write(self._pong)
        self._pong = b""

    def going_away(self) -> None:
        """The server is."""
        if self.connection is not None:
            self._close(self.connection, GOING_AWAY, "")

    def probe(self) -> None:
        # Nobody need answer a pong that was not asked for (RFC 6455 section 5.5.3).
        if self.connection is not None:
            self._protocol.send_pong(b"")
            self._flush(self.connection)

    def _take(self, frame: Frame) -> None:
        connection, job = self.connection, self.job
        if connection is None or job is None:
            return
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_text = frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            return
        data = bytes(frame.data)
        self.received += len(data)
        lines = self.route.config.ws_frames == "lines"
        if lines and not self._is_text:
            self._close(connection, UNSUPPORTED, "only text is known here")
            return
        if self._whole or self._is_text:
            if self._fragments or not frame.fin:
                self._fragments += data
                if not frame.fin:
                    return
                data = bytes(self._fragments)
                self._fragments.clear()
            try:
                if self._is_text:
                    data.decode()
            except UnicodeDecodeError:
                self._close(connection, NOT_UTF8, "")
                return
            if lines:
                data += b"\n"
        self._receive(connection, job, data)

    def _receive(self, connection: Connection, job: Any, data: bytes) -> None:
        """More of what the client has to say."""
        if data and not job.write(data):
            connection.pause_body(self)

    # ---- from the process

    def on_output(self, data: bytes) -> None:
        if self.connection is not None:
            self._pass_on(self.connection, data)

    def on_exit(self, job: Any) -> None:
        self.route.admission.leave()
        if self._grace is not None:
            self._grace.cancel()
        connection = self.connection
        self.job = None
        if connection is not None:
            self._pass_on(connection, job.output, last=True)
            if failed(job):
                reason = failure(job).text.strip()[:120].decode("utf-8", "ignore")
                self._close(connection, INTERNAL_ERROR, reason)
            else:
                self._close(connection, NORMAL, "")
        self._log(job)

    def _pass_on(self, connection: Connection, data: bytes, *, last: bool = False) -> None:
        self.sent += len(data)
        frames = self.route.config.ws_frames
        if frames == "bytes":
            if data:
                self._protocol.send_binary(data)
        elif frames == "text":
            # No message ends within a letter, and what is no text is shown as such.
            if text := self._decoder.decode(data, last):
                self._protocol.send_text(text.encode())
        else:
            *lines, self._line = (self._line + self._decoder.decode(data, last)).split("\n")
            for line in lines:
                self._send_piece(line.removesuffix("\r"), fin=True)
            if last and (self._line or self._open_line):
                self._send_piece(self._line, fin=True)
            elif len(self._line) > _FRAGMENT:
                self._send_piece(self._line, fin=False)
                self._line = ""
        self._flush(connection)

    def _send_piece(self, text: str, *, fin: bool) -> None:
        if self._open_line:
            self._protocol.send_continuation(text.encode(), fin)
        else:
            self._protocol.send_text(text.encode(), fin)
        self._open_line = not fin

    def _flush(self, connection: Connection) -> None:
        connection.transport.write(b"".join(self._protocol.data_to_send()))

    # ---- the end

    def _close(self, connection: Connection, code: int, reason: str) -> None:
        self._protocol.send_close(code, reason)
        self._flush(connection)
        self._leave(connection)

    def _leave(self, connection: Connection) -> None:
        """All has been said. The connection stays until the client has heard it."""
        self._detach()
        self.complete = False
        connection.done(self)

    def drain(self) -> None:
        if self.job is None:
            # Its turn would come when another's has ended, and then nobody would tell it to go.
            self.refuse(503, b"the server is about to end\n", RETRY_AFTER)

    def abandon(self) -> None:
        if self.connection is not None:
            self._detach()

    def _detach(self) -> None:
        self.connection = None
        self.held = b""
        self._fragments.clear()
        if self._ping is not None:
            self._ping.cancel()
        job = self.job
        if job is not None:
            # Nobody reads any more, so nothing is to wait for a reader.
            job.resume_reading()
            job.write_eof()
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(self.route.config.kill_grace, job.cancel)
        elif self.begun and not self.head_sent:
            self.route.admission.withdraw(self)
            self._log(None)

    # ---- whether the client is still there

    def _arm(self, connection: Connection) -> None:
        seconds = self.route.config.ws_ping
        if seconds is not None:
            self._ping = asyncio.get_running_loop().call_later(seconds, self._look, connection)

    def _look(self, connection: Connection) -> None:
        if self._heard:
            self._heard = self._pinged = False
        elif connection.congested:
            pass  # nothing could be heard, or the client is still reading
        elif self._pinged:
            connection.abort()
            return
        else:
            self._protocol.send_ping(b"")
            self._flush(connection)
            self._pinged = True
        self._arm(connection)
