"""Bytes to requests: one ``Connection`` per client, answers in the order of the requests.

llhttp refuses nearly all that could be read in two ways; ``_check_head`` refuses the rest
(what it lets through: no Host or two, transfer codings that nobody undoes here, a transfer
coding in HTTP/1.0, HTTP/0.9 and 2.0, the methods of RTSP and ICE).

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
import fcntl
import socket
import struct
import sys
import termios
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from .exchange import Exchange
from .response import CONTINUE

if TYPE_CHECKING:
    from .service import Service
    from .watch import Deadlines

MAX_AHEAD: Final = 16
"""Requests of one client that may wait behind the one being answered."""
_PIECE: Final = 4096
"""Bytes given to the parser at once: it can't be stopped within them."""
_BODY_PIECE: Final = 65536

# RFC 9110 section 9.3.6 (this is no proxy), and what llhttp parses for other protocols.
_NOT_HTTP: Final = frozenset(
    b"CONNECT SOURCE DESCRIBE ANNOUNCE SETUP PLAY PAUSE TEARDOWN GET_PARAMETER SET_PARAMETER "
    b"REDIRECT RECORD FLUSH PRI".split()
)
_SPECIAL: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})

_STATUS_START: Final = b"HTTP/1.1 "
"""How each answer begins, whatever it will be."""
_ZEROS: Final = 8
"""Leading zeros that any client takes in a chunk's size."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


def _in_kernel(fd: int) -> int:
    """Bytes written to the socket that its peer has not acknowledged (tcp(7), unix(7))."""
    if sys.platform != "linux":
        return 0  # what is before the kernel tells as much, if later
    try:
        number = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4))
    except OSError:  # a TLS transport has closed it, and has not said so yet
        return 0
    return int.from_bytes(number, sys.byteorder)


class _Stop(Exception):
    """Nothing after this is to be parsed. There is no other way to stop the parser."""


class Upgraded(Protocol):
    """What the connection's bytes belong to after a 101."""

    def data_received(self, data: bytes) -> None: ...

    def resumed(self) -> None:
        """The client reads again."""

    def going_away(self) -> None:
        """The server wants to end."""

    def probe(self) -> None:
        """Send something that a peer which is gone answers with a reset."""


class Connection(asyncio.Protocol):
    """``ending``: the answer being made is the connection's last."""

    __slots__ = (
        "_advancing",
        "_ahead",
        "_ahead_paused",
        "_current",
        "_deaf",
        "_fd",
        "_fields",
        "_full",
        "_held",
        "_hosts",
        "_limit",
        "_parser",
        "_parsing",
        "_paused",
        "_probed",
        "_progress",
        "_quiet",
        "_routing",
        "_rush",
        "_sent_before",
        "_shut",
        "_special",
        "_target",
        "_upgrade",
        "_upgraded",
        "ending",
        "peer",
        "service",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, service: Service) -> None:
        self.service = service
        self._routing = service.routing
        self.peer = b"-"
        self.ending = False
        self._fd = -1
        self._limit: Deadlines | None = None
        """The time limit that runs: for the next request, for its head, for lingering."""

        # The request being parsed.
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._parsing: Exchange | None = None
        self._target = b""
        self._hosts = 0
        self._special: list[tuple[bytes, bytes]] = []
        self._fields: list[tuple[bytes, bytes]] | None = None
        """All of them, where a route wants them."""
        self._upgrade = b""
        """The field that frames the body of a request that offers an upgrade."""
        self._progress = False
        self._quiet = 0
        """Bytes received since the last head or bit of a body was complete."""
        self._deaf = False
        """Nothing more is to be parsed."""
        if self._routing.wants_fields:
            self._fields = []

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
            self.peer = name[0].encode("ascii", "replace")
        self.service.connections.add(self)
        self.ending = self.service.retiring
        self._wait(self.service.idle)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            if self._upgraded is not None:
                self._upgraded.data_received(data)
            return
        if self._paused:
            self._held += data
            return
        if len(data) <= _PIECE:
            self._parse(data)
        else:
            self._parse_pieces(data)
        current = self._current
        if current is not None:
            if not current.begun:
                # The rest of its body is still to come.
                current.begin()
        elif self._quiet and self._limit is self.service.idle:
            self._wait(self.service.slow)
        if self._parsing is not None or self._limit is self.service.body:
            self._time_body()

    def eof_received(self) -> bool:
        current = self._current
        if current is None and not self._ahead:
            return False
        if self._upgraded is not None or not self.service.half_closes:
            return False
        self._shut = self._deaf = True
        parsing = self._parsing
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
        self._deaf = True
        self._parser = self._parsing = self._upgraded = self._full = None
        if current is not None:
            current.abandon()

    def pause_writing(self) -> None:
        self.write_paused = True
        self.service.unsent.add(self)
        if self._current is not None and self._current.job is not None:
            self._current.job.pause_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        if not self.transport.is_closing():
            self.service.unsent.discard(self)
        if self._current is None:
            self._advance()
        elif self._current.job is not None:
            self._current.job.resume_reading()
        if self._upgraded is not None:
            self._upgraded.resumed()

    # ---- from the parser

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._parsing is not None:
            return  # a trailer field (RFC 9110 section 6.5): nobody asked for it
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name in _SPECIAL:
            self._special.append((name, value))
        if self._fields is not None:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        if self._deaf:
            raise _Stop
        if self._parsing is not None:
            return  # _parse_upgrade_body's own
        parser = self._parser
        assert parser is not None
        version = parser.get_http_version()
        routing = self._routing
        route = routing.sole
        fields = self._fields
        about = None
        if fields is not None:
            self._fields = []
            if routing.about is not None:
                about = routing.about.read(self.peer, fields)
        if routing.own and (own := routing.own.get(self._target.partition(b"?")[0])):
            exchange: Exchange = own(
                self,
                routing.nowhere,
                parser.get_method(),
                self._target,
                version != "1.1",
                parser.should_keep_alive(),
            )
        elif route is None:
            exchange = self._make_exchange(
                parser.get_method(),
                self._target,
                version != "1.1",
                parser.should_keep_alive(),
                fields,
            )
        else:
            exchange = Exchange(
                self,
                route,
                parser.get_method(),
                self._target,
                version != "1.1",
                parser.should_keep_alive(),
            )
        if about is not None:
            exchange.about = about
            exchange.peer = about.peer or exchange.peer
        self._parsing = exchange
        self._target = b""
        self._progress = True
        hosts, self._hosts = self._hosts, 0
        special = self._special
        if version != "1.1" or hosts != 1 or special or exchange.method in _NOT_HTTP:
            self._special = []
            refusal = self._check_head(exchange, version, hosts, special)
            if refusal is not None:
                exchange.refusal = refusal
                exchange.keep = False
        self._enqueue(exchange)
        if exchange.refusal is not None and (not exchange.keep or exchange.body is not None):
            exchange.keep = False
            self._deaf = True
            raise _Stop
        if exchange.body is not None and parser.should_upgrade():
            # The parser would take what follows for another protocol, and not for a body.
            self._upgrade = next(
                b"%b: %b\r\n" % field for field in special if field[0] != b"expect"
            )

    def on_body(self, data: bytes) -> None:
        self._progress = True
        if self._deaf:
            raise _Stop
        assert self._parsing is not None
        self._parsing.feed(data)

    def on_message_complete(self) -> None:
        self._progress = True
        if self._upgrade:
            return
        exchange, self._parsing = self._parsing, None
        if self._deaf or exchange is None:
            raise _Stop
        if not exchange.keep:
            self._deaf = True
        exchange.feed_eof()
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
        self._deaf = True
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
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
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
        other = self._make_exchange(method, target, exchange.http10, keep, fields)
        other.about, other.peer = exchange.about, exchange.peer
        other.complete = exchange.complete
        self.resume_body(exchange)
        if not other.complete:
            self._parsing = None
            self._deaf = True
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
            self._spoil(408, b"the request did not come in time\n")
        elif limit is self.service.body:
            if self._parsing is not None:
                self._parsing.stalled = True
            self._spoil(408, b"the request's body did not come in time\n")
        elif limit is self.service.idle:
            self._close()
        elif self.unsent():
            # An answer to a request that was not read to its end: to close would lose the rest.
            self.service.unsent.add(self)
            self._wait(limit)
        else:
            self.transport.abort()

    def unsent(self) -> int:
        return self.transport.get_write_buffer_size() + _in_kernel(self._fd)

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
        """Have requests to come find their routes as the service has them now.

        False: not yet. The one whose head is being received belongs to the old ones, since its
        fields may not have been kept.
        """
        if self._target:
            return False
        self._routing = self.service.routing
        self._fields = [] if self._routing.wants_fields else None
        return True

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

    def retire(self) -> None:
        """Close with the next answer whose head can still say so."""
        current = self._current
        if not self._ahead and (current is None or not current.head_sent):
            self.ending = True

    def abort(self) -> None:
        """Close now."""
        self.transport.abort()

    # ---- parsing

    def _parse(self, data: bytes | memoryview) -> None:
        parser = self._parser
        if parser is None:
            return
        try:
            parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            # The offer is not taken up (RFC 9110 section 7.8): the request's body may follow,
            # and other requests.
            if self._upgrade:
                self._parse_upgrade_body()
            rest = data[upgrade.args[0] :]
            if self._upgraded is not None:
                self._upgraded.data_received(bytes(rest))
            elif rest:
                self._parse(rest)
                return
        except HttpParserError:
            if not self._deaf:
                self._spoil(400, b"malformed request\n")
            return
        if self._progress:
            self._progress = False
            self._quiet = 0
        else:
            self._quiet += len(data)
            if self._quiet > self.service.config.max_head and not self._deaf:
                if self._parsing is None:
                    self._spoil(431, b"request header fields too large\n")
                else:
                    self._spoil(400, b"chunk extension or trailer fields too large\n")

    def _parse_upgrade_body(self) -> None:
        head = b"POST / HTTP/1.1\r\n%b\r\n" % self._upgrade
        self._upgrade = b""
        self._parser = HttpRequestParser(self)
        self._parser.feed_data(head)
        self._target = b""

    def _parse_pieces(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self._deaf:
            if self._paused:
                self._held = bytes(view)
                return
            length = _PIECE if self._parsing is None else _BODY_PIECE
            self._parse(view[:length])
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

    def _make_exchange(
        self,
        method: bytes,
        target: bytes,
        http10: bool,
        keep: bool,
        fields: list[tuple[bytes, bytes]] | None,
    ) -> Exchange:
        """The exchange of the route that is asked for, or one that will be refused."""
        found = self._routing.find(method, target, fields)
        if isinstance(found[0], int):
            exchange = Exchange(self, self._routing.nowhere, method, target, http10, keep)
            exchange.refusal = found
        else:
            route, match = found
            exchange = route.exchange(self, route, method, target, http10, keep)
            exchange.match = match
        return exchange

    def _check_head(
        self,
        exchange: Exchange,
        version: str,
        hosts: int,
        special: list[tuple[bytes, bytes]],
    ) -> tuple[int, bytes] | None:
        """Note what the head says of the body; why to refuse the request, or None."""
        if version not in ("1.1", "1.0"):
            return 505, b"HTTP/1.1 and HTTP/1.0 are spoken here\n"
        if exchange.method in _NOT_HTTP:
            return 501, b"not an HTTP method for this server\n"
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            return 400, b"one Host field is needed\n"  # RFC 9112 section 3.2
        for name, value in special:
            if name == b"content-length":
                length = int(value)
                if length > exchange.route.max_body:
                    return 413, b"request body too large\n"
                if length:
                    exchange.body = []
            elif name == b"transfer-encoding":
                if version == "1.0":  # RFC 9112 section 6.1
                    return 400, b"a transfer coding in HTTP/1.0\n"
                if value.strip().lower() != b"chunked":
                    return 501, b"of transfer codings, only chunked is known\n"
                exchange.body = []
            elif version == "1.1":  # RFC 9110 section 10.1.1: to be ignored in HTTP/1.0
                if value.strip().lower() != b"100-continue":
                    return 417, b"of expectations, only 100-continue is known\n"
                exchange.expect = True
        return None

    def _spoil(self, status: int, text: bytes) -> None:
        """What the client sends makes no sense: its last answer will say so."""
        self._deaf = True
        exchange = self._parsing
        if exchange is not None:
            exchange.spoil(status, text)
            return
        nowhere = self._routing.nowhere
        exchange = Exchange(self, nowhere, b"-", self._target or b"-", False, False)
        exchange.refusal = status, text
        self._enqueue(exchange)
        if exchange is self._current:
            exchange.begin()

    # ---- the order of answers

    def _enqueue(self, exchange: Exchange) -> None:
        if self._current is None and not self._ahead and not self.write_paused:
            self._current = exchange
            self._wait(None)
        else:
            self._ahead.append(exchange)
            if len(self._ahead) >= MAX_AHEAD and not self._ahead_paused:
                self._ahead_paused = True
                self._update_reading()

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
        self._deaf = True
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
        parsing = self._parsing
        if (
            parsing is not None
            and not self._paused
            and not self._deaf
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
