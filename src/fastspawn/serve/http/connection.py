"""One client's connection: what is read when, and answers in the order of the requests.

What the bytes say is ``parser.py``'s.

Memory per connection is bounded: a head by ``max_head``, a body by the process's stdin window
or what an exchange gathers before its turn, requests in advance by ``MAX_AHEAD``, answers by
the transport's high-water mark. Whatever goes above makes the connection stop reading, and one
that does not read is watched for hang-up.

A client that shuts its sending side is still answered; one that closes is gone and its process
is killed. Both look the same (an EOF, or nothing while its last bytes do not fit into our receive
buffer) until something is sent, so something is: a byte of the answer's head, or of the next
chunk's size, ahead of the rest. A peer that is still there takes it as what it is; one that is
not answers with a reset. Within a body that is not in chunks nothing can be sent ahead: there an
EOF is taken for the client's going, unless more of the answer goes out to it. One that is gone
without a word is the kernel's to find (``listen.py``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, cast

from .ends import plain
from .parser import RequestParser
from .response import CONTINUE
from .sock import reset_on_close, unacknowledged

if TYPE_CHECKING:
    from .exchange import Exchange, Upgraded
    from .service import Service
    from .watch import Deadlines

MAX_AHEAD: Final = 16
"""Requests of one client that may wait behind the one being answered."""
_PIECE: Final = 4096
"""Bytes given to the parser at once: it can't be stopped within them."""
_BODY_PIECE: Final = 65536

_STATUS_START: Final = b"HTTP/1.1 "
"""How each answer begins, whatever it will be."""
_ZEROS: Final = 8
"""Leading zeros that any client takes in a chunk's size."""


class Connection(asyncio.Protocol):
    """``ending``: the answer being made is the connection's last."""

    __slots__ = (
        "_advancing",
        "_ahead",
        "_ahead_paused",
        "_current",
        "_fd",
        "_full",
        "_held",
        "_limit",
        "_parser",
        "_paused",
        "_probed",
        "_rush",
        "_sent_before",
        "_shut",
        "_upgraded",
        "ending",
        "peer",
        "secure",
        "service",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, service: Service) -> None:
        self.service = service
        self.peer = b"-"
        self.secure: dict[bytes, bytes] | None = None
        self.ending = False
        self._fd = -1
        self._limit: Deadlines | None = None
        """The time limit that runs: for the next request, for its head, for lingering."""
        self._parser = RequestParser(self, service.routing)

        # The one being answered, and those behind it.
        self._current: Exchange | None = None
        self._ahead: deque[Exchange] = deque()
        self._advancing = False

        # Reading and writing.
        self._paused = self._ahead_paused = False
        self._full: Exchange | None = None
        """Takes no more of its body for now. That ends with the message, or with its turn if that
        comes later; with the exchange in any case."""
        self._held = b""
        """Received, but not to be parsed before reading goes on."""
        self._rush = False
        """The peer has sent its last byte: read on, it is not much."""
        self._shut = False
        """That last byte has been read."""
        self._probed = 0
        """Bytes sent of the next head, or of leading zeros."""
        self._sent_before = -1
        """Bytes of the answer's body at the last look at a client that has shut its side within
        it, where nothing can be sent ahead; -1: it is no such client."""
        self.write_paused = False
        """The client does not read."""
        self._upgraded: Upgraded | None = None

    # ---- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._fd = transport.get_extra_info("socket").fileno()
        name = transport.get_extra_info("peername")
        if isinstance(name, tuple):
            self.peer = plain(name[0]).encode("ascii", "replace")
        self.service.connections.add(self)
        self.ending = self.service.retiring
        self._wait(self.service.idle)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser.deaf:
            if self._upgraded is not None:
                self._upgraded.data_received(data)
            return
        if self._paused:
            self._held += data
            return
        if len(data) <= _PIECE:
            parser.feed(data)
        else:
            self._parse_pieces(data)
        current = self._current
        if current is not None:
            if not current.begun:
                # The rest of its body is still to come.
                current.begin()
        elif parser.quiet and self._limit is self.service.idle and data.strip(b"\r\n"):
            # Empty lines begin no request: some clients send one behind a body (RFC 9112 section
            # 2.2), and a 408 later would be taken for the next request's answer.
            self._wait(self.service.slow)
        if parser.parsing is not None or self._limit is self.service.body:
            self._time_body()

    def eof_received(self) -> bool:
        current = self._current
        if current is None and not self._ahead:
            return False
        if self._upgraded is not None or not self.service.half_closes:
            return False
        self._shut = self._parser.deaf = True
        parsing = self._parser.parsing
        if parsing is not None and parsing.refusal is None:
            # It will never be complete.
            if parsing is current:
                return False
            self._ahead.remove(parsing)
            self.resume_body(parsing)
        if not self._ahead:
            self.ending = True
        self._time_body()
        self.probe()
        if current is not None and current.head_sent and not current.chunked and current.owes:
            self._sent_before = current.sent
        self.service.watch.hangup(self._fd, self, shut=False)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        service = self.service
        service.connections.discard(self)
        service.watch.forget_hangup(self._fd)
        service.unsent.discard(self)
        self._wait(None)
        current, self._current = self._current, None
        self._ahead.clear()
        self._held = b""
        self._parser.close()
        self._upgraded = self._full = None
        if current is not None:
            current.abandon()

    def pause_writing(self) -> None:
        self.write_paused = True
        self.service.unsent.add(self)
        if self._current is not None:
            self._current.pause()

    def resume_writing(self) -> None:
        self.write_paused = False
        if not self.transport.is_closing():
            self.service.unsent.discard(self)
        if self._current is None:
            self._advance()
        else:
            self._current.go_on()
        if self._upgraded is not None:
            self._upgraded.resumed()

    # ---- from the parser

    @property
    def max_head(self) -> int:
        return self.service.config.max_head

    def enqueue(self, exchange: Exchange) -> None:
        free = self._current is None and not self._ahead
        if free and self._limit is not None:
            # It has come in time, also where an answer before it is still to be taken.
            self._limit.discard(self)
            self._limit = None
        if free and not self.write_paused:
            self._current = exchange
        else:
            self._ahead.append(exchange)
            if len(self._ahead) >= MAX_AHEAD and not self._ahead_paused:
                self._ahead_paused = True
                self._update_reading()

    def received(self, exchange: Exchange) -> None:
        if exchange is self._current:
            if self._full is not None:
                self.resume_body(exchange)
            if not exchange.begun:
                exchange.begin()

    # ---- from the exchange being answered

    def send(self, head: bytes) -> None:
        """Write what starts with a status line."""
        if self._probed:
            head = head[self._probed :]
            self._probed = 0
        self.transport.write(head)

    def upgrade(self, upgraded: Upgraded) -> None:
        """What comes from now on is for the current exchange, in another protocol."""
        self._parser.deaf = True
        self._upgraded = upgraded

    @property
    def congested(self) -> bool:
        """Nothing is read, or the client does not."""
        return self._paused or self.write_paused

    def pause_body(self, exchange: Exchange) -> None:
        """No more of its body, for now."""
        if self._full is not exchange and not self._rush:
            self._full = exchange
            self._update_reading()

    def resume_body(self, exchange: Exchange) -> None:
        """Undo ``pause_body``, if it was this exchange's."""
        if self._full is exchange:
            self._full = None
            self._update_reading()

    def cut(self, *, reset: bool) -> None:
        """End the connection in the midst of an answer."""
        if reset:
            reset_on_close(self.transport.get_extra_info("socket"))
            self.transport.abort()
        else:
            self._close()

    def proceed(self, exchange: Exchange) -> None:
        """The client of ``exchange``, the current one, may now send what it holds back."""
        exchange.expect = False
        self.send(CONTINUE)
        self._time_body()

    def replace(
        self, exchange: Exchange, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]
    ) -> Exchange:
        """Another request, without a body, to be answered in the place of ``exchange``, which is
        the current one and past answering. The caller begins it."""
        # What the client may still be sending belongs to neither.
        keep = exchange.keep and exchange.complete
        other = self._parser.make(method, target, exchange.http10, keep, fields, None)
        other.about, other.peer = exchange.about, exchange.peer
        other.complete = exchange.complete
        self.resume_body(exchange)
        if not other.complete:
            self._parser.parsing = None
            self._parser.deaf = True
            self._time_body()
        self._current = other
        return other

    def done(self, exchange: Exchange) -> None:
        """The current exchange has been answered, or is past answering."""
        self._current = self._upgraded = None
        self._probed = 0
        self._sent_before = -1
        if self._full is not None:
            self.resume_body(exchange)
        if self.ending or not exchange.keep or not exchange.complete:
            self._finish(linger=not exchange.complete)
        elif self._ahead:
            self._advance()
        else:
            self.ending = self.service.retiring
            self._wait(self.service.idle)

    # ---- from the watch

    def expired(self) -> None:
        limit, self._limit = self._limit, None
        if limit is self.service.slow:
            self._parser.spoil(408, b"the request did not come in time\n")
        elif limit is self.service.body:
            if self._parser.parsing is not None:
                self._parser.parsing.stalled = True
            self._parser.spoil(408, b"the request's body did not come in time\n")
        elif limit is self.service.idle:
            self._close()
        elif self.unsent():
            # An answer to a request that was not read to its end: to close would lose the rest.
            self.service.unsent.add(self)
            self._wait(limit)
        else:
            self.transport.abort()

    def unsent(self) -> int:
        return self.transport.get_write_buffer_size() + unacknowledged(self._fd)

    def stalled(self) -> None:
        if self._current is not None:
            self._current.stalled = True
        self.transport.abort()

    def peer_shut(self) -> None:
        # What is still unread fits into the socket's receive buffer, and the EOF after it tells
        # whether the request was complete.
        self._rush = True
        self._full = None
        self._update_reading()

    def peer_gone(self) -> None:
        self.transport.abort()

    def probe(self) -> None:
        current = self._current
        if current is None or self.transport.get_write_buffer_size():
            return  # what is being written does it
        if self._upgraded is not None:
            self._upgraded.probe()
        elif not current.head_sent:
            if byte := _STATUS_START[self._probed : self._probed + 1]:
                self._probed += 1
                self.transport.write(byte)
        elif current.chunked:
            if self._probed < _ZEROS:
                self._probed += 1
                self.transport.write(b"0")
        elif self._sent_before == current.sent:
            self.peer_gone()
        elif self._sent_before >= 0:
            self._sent_before = current.sent

    # ---- from the service

    def reroute(self) -> bool:
        """Have requests to come find their routes as the service has them now. False: not yet."""
        return self._parser.reroute(self.service.routing)

    def exchanges(self) -> Iterator[Exchange]:
        """Those that are not finished."""
        if self._current is not None:
            yield self._current
        yield from self._ahead

    def drain(self) -> None:
        """Close as soon as what is being answered is."""
        self.ending = True
        if self._upgraded is not None:
            self._upgraded.going_away()
        elif self._current is None:
            self._finish(linger=False)
        else:
            self._current.drain()

    def retire(self) -> None:
        """Close with the next answer whose head can still say so."""
        current = self._current
        if not self._ahead and (current is None or not current.head_sent):
            self.ending = True

    def abort(self) -> None:
        """Close now."""
        self.transport.abort()

    # ---- the order of answers

    def _advance(self) -> None:
        # A loop, and not done() -> begin() -> done(): hundreds of requests can come in one
        # piece and all be refused.
        if self._advancing:
            return
        self._advancing = True
        while self._ahead and self._current is None and not self.write_paused:
            exchange = self._current = self._ahead.popleft()
            self._wait(None)
            self._time_body()
            if exchange.complete:
                self.resume_body(exchange)
            if (self._shut or self.service.retiring) and not self._ahead:
                self.ending = True
            if self._ahead_paused and len(self._ahead) < MAX_AHEAD:
                self._ahead_paused = False
                self._update_reading()
            exchange.begin()
        self._advancing = False

    def _finish(self, *, linger: bool) -> None:
        """The last answer has been written. With ``linger``, the client may still be sending.

        To close then would reset the connection, and the client might lose the answer with it
        (RFC 9112 section 9.6): only the sending side is shut, what comes is thrown away.
        """
        self._parser.deaf = True
        self._ahead.clear()
        self._held = b""
        self._full = None
        self._ahead_paused = False
        transport = self.transport
        if transport.is_closing():
            return
        if linger and not self._shut:
            self._update_reading()
            if self.service.half_closes:
                transport.write_eof()
            self._wait(self.service.lingering)
        else:
            self._close()

    def _close(self) -> None:
        """Close when all has been sent. A transport waits for that without end."""
        if self.transport.get_write_buffer_size():
            self.service.unsent.add(self)
        self.transport.close()

    # ---- reading

    def _parse_pieces(self, data: bytes) -> None:
        parser = self._parser
        view = memoryview(data)
        while view and not parser.deaf:
            if self._paused:
                self._held = bytes(view)
                return
            length = _PIECE if parser.parsing is None else _BODY_PIECE
            parser.feed(view[:length])
            view = view[length:]

    def _parse_held(self) -> None:
        if self._full is not None or self._ahead_paused or self.transport.is_closing():
            return
        # There may be none by now: the answer may have ended the connection's requests.
        data, self._held = self._held, b""
        self._paused = False
        self._time_body()
        if data:
            self.data_received(data)
        if not self._paused:
            self.transport.resume_reading()

    def _update_reading(self) -> None:
        watch = self.service.watch
        if paused := self._full is not None or self._ahead_paused:
            # With requests waiting ahead, an EOF behind them says nothing.
            watch.hangup(self._fd, self, shut=not self._ahead_paused and not self._rush)
        if paused == self._paused or self.transport.is_closing():
            return
        if paused:
            self._paused = True
            self._time_body()
            self.transport.pause_reading()
            return
        watch.forget_hangup(self._fd)
        if self._held:
            # Not from within whatever has called: it may be the parser.
            self.service.loop.call_soon(self._parse_held)
        else:
            self._paused = False
            self._time_body()
            self.transport.resume_reading()

    def _time_body(self) -> None:
        """The next bit of a body has its time from now on, if we wait for one.

        We do not while the process takes no more, nor before a client has been told to send.
        """
        parser = self._parser
        parsing = parser.parsing
        if (
            parsing is not None
            and not self._paused
            and not parser.deaf
            and (parsing.received or not parsing.expect)
        ):
            self._wait(self.service.body)
        elif self._limit is self.service.body:
            self._wait(None)

    def _wait(self, limit: Deadlines | None) -> None:
        """Start this time limit in place of the one that runs."""
        if self._limit is not None:
            self._limit.discard(self)
        self._limit = limit
        if limit is not None:
            limit.add(self)
