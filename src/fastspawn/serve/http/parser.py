"""Bytes to requests: llhttp, and the exchanges that are made of what it finds.

Nothing here reads or writes. Bytes are fed; the connection is told of each request when its head
is complete, and when all of it is. llhttp is stopped by raising within it and in no other way: so
nothing is made of what comes once the parser is ``deaf``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from fastspawn.serve.paths import written

from .about import About
from .exchange import Connection
from .head import NOT_HTTP, SPECIAL, check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .about import Reader
    from .exchange import Exchange
    from .match import Match
    from .refused import Refusal
    from .route import Route


class Routing(Protocol):
    """Whose requests are whose (``routes/routing.py``). Does not change."""

    @property
    def sole(self) -> Route | None:
        """Of all requests: ``find`` need not be asked."""

    @property
    def nowhere(self) -> Route:
        """Of requests that are refused before a route is found."""

    @property
    def own(self) -> Mapping[bytes, Callable[[Any, Any, bytes, bytes, bool, bool], Exchange]]:
        """What the server answers itself: path to maker, as ``Route.exchange``."""

    @property
    def about(self) -> Reader | None:
        """Reads what else the fields say, if that is wanted."""

    @property
    def wants_fields(self) -> bool: ...

    def find(
        self, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]] | None
    ) -> tuple[Route, Match | Refusal]:
        """Whose request this is, or how it is to be answered without a process."""


class Receiver(Connection, Protocol):
    """Hears of the requests."""

    @property
    def max_head(self) -> int:
        """Bytes."""

    def enqueue(self, exchange: Exchange) -> None:
        """A request's head is complete."""

    def received(self, exchange: Exchange) -> None:
        """... and so is the request."""

    def data_received(self, data: bytes) -> None:
        """These are not HTTP's any more."""


class _Stop(Exception):
    """Nothing after this is to be parsed. There is no other way to stop the parser. It is the
    context of what that raises, the first time, unless an exception is being handled meanwhile."""


class RequestParser:
    """Of one connection. ``close`` it."""

    __slots__ = (
        "_connection",
        "_fields",
        "_hosts",
        "_llhttp",
        "_progress",
        "_routing",
        "_special",
        "_target",
        "_upgrade",
        "deaf",
        "parsing",
        "quiet",
    )

    def __init__(self, connection: Receiver, routing: Routing) -> None:
        self._connection = connection
        self._routing = routing
        self._llhttp: HttpRequestParser | None = HttpRequestParser(self)
        self.deaf = False
        """Nothing more is to be parsed."""
        self.parsing: Exchange | None = None
        """The request whose head is complete and whose end has not come."""
        self.quiet = 0
        """Bytes received since the last head or bit of a body was complete."""
        self._progress = False
        self._target = b""
        self._hosts = 0
        self._special: list[tuple[bytes, bytes]] = []
        self._fields: list[tuple[bytes, bytes]] | None = [] if routing.wants_fields else None
        """All of them, where a route wants them."""
        self._upgrade = b""
        """The field that frames the body of a request that offers an upgrade."""

    # ---- from the connection

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes."""
        llhttp = self._llhttp
        if llhttp is None:
            return
        parsed = -1
        try:
            llhttp.feed_data(data)
        except HttpParserUpgrade as upgrade:
            parsed = upgrade.args[0]
        except HttpParserError as error:
            cause = error.__context__
            if isinstance(error, HttpParserCallbackError) and not isinstance(
                cause, (_Stop, type(None))
            ):
                # A fault of ours, and not the client's: for the log, and it ends the connection.
                raise
            if not self.deaf:
                self.spoil(400, b"malformed request\n")
            return
        if parsed >= 0:
            # The offer is not taken up (RFC 9110 section 7.8): the request's body may follow,
            # and other requests.
            if self._upgrade:
                self._parse_upgrade_body()
            rest = data[parsed:]
            if self.deaf:
                self._connection.data_received(bytes(rest))
            elif rest:
                self.feed(rest)
                return
        if self._progress:
            self._progress = False
            self.quiet = 0
        else:
            self.quiet += len(data)
            if self.quiet > self._connection.max_head and not self.deaf:
                if self.parsing is None:
                    self.spoil(431, b"request header fields too large\n")
                else:
                    self.spoil(400, b"chunk extension or trailer fields too large\n")

    def spoil(self, status: int, text: bytes) -> None:
        """What the client sends makes no sense: its last answer will say so."""
        self.deaf = True
        exchange = self.parsing
        if exchange is not None:
            exchange.spoil(status, text)
            return
        nowhere = self._routing.nowhere
        exchange = nowhere.exchange(
            self._connection, nowhere, b"-", self._target or b"-", False, False
        )
        exchange.refusal = status, text
        self._connection.enqueue(exchange)
        self._connection.received(exchange)

    def make(
        self,
        method: bytes,
        target: bytes,
        http10: bool,
        keep: bool,
        fields: list[tuple[bytes, bytes]] | None,
        about: About | None,
    ) -> Exchange:
        """The exchange of the route that is asked for, or one that will be refused. ``about``: what
        else is known, to which a route may add."""
        exchange: Exchange
        route, match = self._routing.find(method, target, fields)
        if isinstance(match, tuple):
            make = self._routing.nowhere.exchange
            exchange = make(self._connection, route, method, target, http10, keep)
            exchange.refusal = match
        else:
            exchange = route.exchange(self._connection, route, method, target, http10, keep)
            exchange.match = match
        cors = route.cors
        if cors is not None and cors.varies:
            exchange.about = about = about or About()
            about.answer(cors.more(fields or []))
        return exchange

    def reroute(self, routing: Routing) -> bool:
        """Have requests to come find their routes by ``routing``.

        False: not yet. The one whose head is being received belongs to the old ones, since its
        fields may not have been kept.
        """
        if self._target:
            return False
        self._routing = routing
        self._fields = [] if routing.wants_fields else None
        return True

    def close(self) -> None:
        """Let go of the connection."""
        self.deaf = True
        self._llhttp = self.parsing = None
        del self._connection

    def _parse_upgrade_body(self) -> None:
        head = b"POST / HTTP/1.1\r\n%b\r\n" % self._upgrade
        self._upgrade = b""
        self._llhttp = HttpRequestParser(self)
        self._llhttp.feed_data(head)
        self._target = b""

    # ---- from llhttp

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.parsing is not None:
            return  # a trailer field (RFC 9110 section 6.5): nobody asked for it
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name in SPECIAL:
            self._special.append((name, value))
        if self._fields is not None:
            # llhttp leaves blanks after a value there (RFC 9112 section 5.1).
            self._fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.deaf:
            raise _Stop
        if self.parsing is not None:
            return  # _parse_upgrade_body's own
        llhttp = self._llhttp
        assert llhttp is not None
        connection = self._connection
        version = llhttp.get_http_version()
        routing = self._routing
        route = routing.sole
        fields = self._fields
        about = None
        if fields is not None:
            self._fields = []
            if routing.about is not None:
                about = routing.about.read(connection.peer, fields)
        exchange: Exchange
        if routing.own and (own := routing.own.get(written(self._target))):
            exchange = own(
                connection,
                routing.nowhere,
                llhttp.get_method(),
                self._target,
                version != "1.1",
                llhttp.should_keep_alive(),
            )
        elif route is None:
            exchange = self.make(
                llhttp.get_method(),
                self._target,
                version != "1.1",
                llhttp.should_keep_alive(),
                fields,
                about,
            )
        else:
            exchange = route.exchange(
                connection,
                route,
                llhttp.get_method(),
                self._target,
                version != "1.1",
                llhttp.should_keep_alive(),
            )
        if about is not None:
            exchange.about = about
            exchange.peer = about.peer or exchange.peer
        self.parsing = exchange
        self._target = b""
        self._progress = True
        hosts, self._hosts = self._hosts, 0
        special = self._special
        if version != "1.1" or hosts != 1 or special or exchange.method in NOT_HTTP:
            self._special = []
            refusal, body, exchange.expect = check(
                exchange.method, version, hosts, special, exchange.route.max_body
            )
            if body:
                exchange.body = []
            if refusal is not None:
                exchange.refusal = refusal
                exchange.keep = False
        connection.enqueue(exchange)
        if exchange.refusal is not None and (not exchange.keep or exchange.body is not None):
            exchange.keep = False
            self.deaf = True
            raise _Stop
        if exchange.body is not None and llhttp.should_upgrade():
            # llhttp would take what follows for another protocol, and not for a body.
            self._upgrade = next(
                b"%b: %b\r\n" % field for field in special if field[0] != b"expect"
            )

    def on_body(self, data: bytes) -> None:
        self._progress = True
        if self.deaf:
            raise _Stop
        assert self.parsing is not None
        self.parsing.feed(data)

    def on_message_complete(self) -> None:
        self._progress = True
        if self._upgrade:
            return
        exchange, self.parsing = self.parsing, None
        if self.deaf or exchange is None:
            raise _Stop
        if not exchange.keep:
            self.deaf = True
        if exchange.begun:
            exchange.feed_eof()
        else:
            exchange.complete = True  # before its turn it has nobody to tell
        self._connection.received(exchange)
