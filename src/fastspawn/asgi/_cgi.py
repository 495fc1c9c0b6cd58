"""Mode ``cgi``: RFC 3875 between ASGI and a script. The judging is ``serve/cgi``'s."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fastspawn.serve.cgi.environment import Request
from fastspawn.serve.cgi.output import BadOutput, HeadParser, Incomplete, NphFieldsParser, Reader
from fastspawn.serve.cgi.request import parse_target
from fastspawn.serve.cgi.spool import Spool
from fastspawn.serve.http import outcome
from fastspawn.serve.http.ends import end
from fastspawn.serve.http.match import Match
from fastspawn.serve.http.refused import Refused as BadRequest
from fastspawn.serve.paths import BadPath, split

from ._exchange import Exchange, Fields, Refused, error, own

if TYPE_CHECKING:
    from fastspawn.serve.cgi.gateway import Invocation
    from fastspawn.serve.job import Job
    from fastspawn.serve.routes.route import Route

    from ._messages import Receive, Scope, Send

_MAX_REDIRECTS: Final = 10
_PIECE: Final = 65536
"""Bytes of a body in a file that are handed on at once."""


class CgiExchange(Exchange):
    def __init__(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(route, scope, receive, send)
        self.invocation: Invocation | None = None
        self.length: int | None = None
        """Bytes of the body, if there is one, as far as they are known when the process starts."""
        self._method = scope["method"].encode("ascii", "replace")
        self._spool: Spool | None = None
        """What came of a body without a length, or what is still to be handed on of it."""
        self._pump: asyncio.Future[None] | None = None
        self._redirects = 0
        self._reader: Reader
        """Not set before a script is found: there is no output either."""

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            if self._pump is not None and not self._pump.done():
                self._pump.cancel()
                await asyncio.wait([self._pump])
            if self._spool is not None:
                self._spool.close()

    # ---- the request

    def _fill(self) -> None:
        super()._fill()
        self._invoke(self._target())

    def _invoke(self, target: bytes) -> None:
        """Find the script. Looks into the directory of scripts."""
        invocation = self.invocation = invoke(self, self._scope, self._method, target)
        if invocation.nph:
            # It is to write an answer of the protocol that it is told, which is read here.
            told = invocation.env[b"SERVER_PROTOCOL"]
            invocation.env[b"SERVER_PROTOCOL"] = min(told, b"HTTP/1.1")
        parser = NphFieldsParser() if invocation.nph else HeadParser()
        self._reader = Reader(parser, head_only=self._head_only)

    def _check_size(self) -> None:
        super()._check_size()
        limit = self.route.config.buffer_body
        if self._gathers and limit is not None and self._received > limit:
            raise Refused(413, b"request body too large\n")

    @property
    def _gathers(self) -> bool:
        """Its length is to be told, and only its end tells it."""
        return self._content_length() is None and not self.route.config.stream_chunked

    async def _start(self) -> None:
        self.length = self._content_length()
        if self.length is None and self._gathers:
            if self._more:
                await self._gather()
                return
            if self._first:
                self.length = len(self._first)
        await super()._start()

    async def _gather(self) -> None:
        """The listener keeps the body until its end: it holds a place among those that run, but
        not for ever."""
        spool = self._spool = Spool()
        self._store(self._first)
        self._first = b""
        self._drained.set()
        try:
            await asyncio.wait_for(self._complete(), self.route.config.exec_timeout)
        except asyncio.TimeoutError:
            raise Refused(408, b"the body did not come in time\n") from None
        self.length = spool.length
        if spool.in_memory:
            self._spool = None
            self._first = spool.whole()
            await super()._start()
            return
        spool.rewind()
        self._more = True
        await super()._start()
        self._pump = asyncio.ensure_future(self._hand_on(spool))

    async def _complete(self) -> None:
        while self._more:
            await self._something()

    def _store(self, data: bytes) -> None:
        assert self._spool is not None
        try:
            self._spool.write(data)
        except OSError as error:
            self.warn(f"cannot keep the body: {error.strerror}")
            raise Refused(500, b"the body could not be kept\n") from error

    async def _feed(self, data: bytes) -> None:
        if self._redirects:
            return  # the request that is being answered has none
        if self._spool is None:
            self._hand(data)
            return
        self._store(data)
        if not self._more:
            self._news.set()

    async def _hand_on(self, spool: Spool) -> None:
        try:
            while self._more:
                await self._drained.wait()
                if self._redirects:
                    return
                data = spool.read(_PIECE)
                self._more = bool(data)
                self._hand(data)
        except OSError as error:
            self.warn(f"cannot read the body: {error.strerror}")
            self._stop = Refused(500, b"the body could not be kept\n")
            self._news.set()

    # ---- the answer

    async def _conclude(self, job: Job, data: bytes) -> None:
        gateway = self.route.gateway
        if not gateway.spoils(job):
            await (self._end_stream if self._head_sent else self._all)(data)
            return
        if self._head_sent:
            await self._stream(data)  # its last words
        if start := self._reader.start(data):
            self.warn(f"it failed; output: {start!r}")
        assert self.invocation is not None
        found, why = gateway.failure(self.invocation, job)
        if why:
            self.warn(why)
        raise Refused(*error(found))

    def _malformed(self, bad: BadOutput) -> Refused:
        job = self._ended
        if isinstance(bad, Incomplete) and job is not None and outcome.failed(job):
            self.warn(f"{_exited(job)}: {bad}; output: {self._reader.start()!r}")
            return Refused(*error(outcome.failure(job)))
        self.warn(f"{bad}; output: {self._reader.start()!r}")
        return Refused(502, b"the script's answer is malformed\n")

    async def _stream(self, data: bytes) -> None:
        try:
            body = self._reader.feed(data)
        except BadOutput as bad:
            raise self._malformed(bad) from None
        if body is None:
            return
        if not self._head_sent:
            await self._pass_on(self._reader.head.length)
        await self._body(body)

    async def _end_stream(self, data: bytes) -> None:
        await self._stream(data)
        try:
            self._reader.end()
        except BadOutput as bad:
            self.warn(str(bad))
            raise Refused(502, b"the script's answer is malformed\n") from None
        await self._finish()

    async def _all(self, data: bytes) -> None:
        try:
            body = self._reader.feed(data)
            self._reader.end()
        except BadOutput as bad:
            raise self._malformed(bad) from None
        head = self._reader.head
        if body is None:
            assert head.local is not None
            await self._redirect(head.local)
            return
        length = head.length
        if length is None and not self._head_only and not head.bodyless:
            length = len(body)
        await self._pass_on(length)
        await self._body(body)
        await self._finish()

    async def _finish(self) -> None:
        job = self._ended
        if job is not None and outcome.failed(job):
            self.warn(_exited(job))  # no other log tells it here
        if self._reader.excess:
            self.warn("the body is longer than its Content-Length")
        await self._body(b"", last=True)

    async def _pass_on(self, length: int | None) -> None:
        if dropped := self._reader.dropped:
            self.warn(dropped)
        head = self._reader.head
        if head.status == 204:
            length = None
        elif head.status == 205:
            length = 0
        fields: Fields = [(name.lower(), value) for name, value in head.fields]
        if length is not None:
            fields.append((b"content-length", b"%d" % length))
        await self._head(head.status, fields, self._added.all)

    async def _redirect(self, location: bytes) -> None:
        """RFC 3875 section 6.2.2: answer another request in the place of this one. A path that
        is not this application's is for the client to ask for."""
        try:
            segments = split(location, free=self.route.free)
        except BadPath:
            segments = None
        root = tuple(part for part in self.mounted.split("/") if part)
        if segments is None or segments[: len(root)] != root:
            await self._pass_on(0)
            await self._finish()
            return
        self._redirects += 1
        if self._redirects > _MAX_REDIRECTS:
            self.warn("too many local redirects")
            raise Refused(502, b"too many redirects within the server\n")
        await self._again(location, segments[len(root) :] or ("",))

    async def _again(self, target: bytes, segments: tuple[str, ...]) -> None:
        if not self._head_only:
            self._method = b"GET"
        old = self.match
        # There is no body any more.
        fields = [
            (name, value)
            for name, value in old.fields
            if not name.startswith(b"content-") and name != b"transfer-encoding"
        ]
        self.match = Match(segments, {}, old.argv, old.env, fields)
        self._invoke(target)
        self._first, self._more, self.length = b"", False, None
        self.job = self._ended = None
        self._turn = asyncio.get_running_loop().create_future()
        await self._admitted()
        self._spawn(None)
        await self._answer()


class ToldExchange(Exchange):
    """Mode ``raw`` with ``--request-env``."""

    def __init__(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(route, scope, receive, send)
        self.invocation: Invocation | None = None
        self.length: int | None = None

    def _fill(self) -> None:
        super()._fill()
        method = self._scope["method"].encode("ascii", "replace")
        self.invocation = invoke(self, self._scope, method, self._target())
        self.length = self._content_length()


def invoke(exchange: Exchange, scope: Scope, method: bytes, target: bytes) -> Invocation:
    """What the request runs, and what that is told. Raises Refused."""
    match = exchange.match
    try:
        request = Request(
            method=method,
            target=parse_target(target),
            version=_protocol(scope["http_version"]),
            fields=match.fields,
            remote=end(scope.get("client")),
            local=end(scope.get("server")),
            https=scope.get("scheme") == "https",
        )
        return exchange.route.gateway.invoke(request, match, exchange.mounted.encode())
    except BadRequest as refused:
        if refused.why:
            exchange.warn(refused.why)
        raise own(refused) from None


def _protocol(version: str) -> bytes:
    """RFC 3875 section 4.1.16, where all have a minor number: ASGI's "2" has none, and for some
    servers "1.0" is "1"."""
    return f"HTTP/{version if '.' in version else version + '.0'}".encode()


def _exited(job: Job) -> str:
    return f"it exited with status {job.returncode}"
