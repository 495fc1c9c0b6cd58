"""Mode ``cgi``: RFC 3875 between ASGI and a script. The judging is ``serve/cgi``'s."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from fastspawn.serve import outcome
from fastspawn.serve.cgi.environment import Request
from fastspawn.serve.cgi.output import (
    BadOutput,
    HeadParser,
    Incomplete,
    NphFieldsParser,
    Reader,
)
from fastspawn.serve.cgi.request import Refused as CgiRefused
from fastspawn.serve.cgi.request import parse_target
from fastspawn.serve.cgi.spool import Spool
from fastspawn.serve.paths import BadPath, split
from fastspawn.serve.route import Match

from .exchange import Exchange, Fields, Refused, error

if TYPE_CHECKING:
    from fastspawn.serve.cgi.gateway import Invocation
    from fastspawn.serve.route import Route
    from fastspawn.serve.strategy import Job

    from .app import Receive, Scope, Send

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

    def _prepare(self) -> None:
        super()._prepare()
        query = self._scope.get("query_string", b"")
        self._invoke(self.raw_target + b"?" + query if query else self.raw_target)

    def _invoke(self, target: bytes) -> None:
        """Find the script. Looks into the directory of scripts."""
        scope = self._scope
        try:
            request = Request(
                method=self._method,
                target=parse_target(target),
                version=b"HTTP/" + scope["http_version"].encode(),
                fields=self.match.fields,
                remote=_address(scope.get("client")),
                local=_address(scope.get("server")),
                https=scope.get("scheme") == "https",
            )
            invocation = self.route.gateway.invoke(request, self.match, self.mounted.encode())
        except CgiRefused as refused:
            if refused.why:
                self._warn(refused.why)
            lines = [line.split(b": ", 1) for line in refused.fields.split(b"\r\n") if line]
            fields = [(name.lower(), value) for name, value in lines]
            raise Refused(refused.status, refused.text, fields) from None
        self.invocation = invocation
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
            self._warn(f"cannot keep the body: {error.strerror}")
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
            self._warn(f"cannot read the body: {error.strerror}")
            self._stop = Refused(500, b"the body could not be kept\n")
            self._news.set()

    # ---- the answer

    def _spoiled(self, job: Job) -> bool:
        return self.route.gateway.spoils(job)

    def _malformed(self, bad: BadOutput) -> Refused:
        job = self._ended
        if isinstance(bad, Incomplete) and job is not None and outcome.failed(job):
            self._warn(f"{_exited(job)}: {bad}; output: {self._reader.start()!r}")
            return Refused(*error(outcome.failure(job)))
        self._warn(f"{bad}; output: {self._reader.start()!r}")
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
            self._warn(str(bad))
            raise Refused(502, b"the script's answer is malformed\n") from None
        await self._finish()

    async def _whole(self, data: bytes) -> None:
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
            self._warn(_exited(job))  # no other log tells it here
        if self._reader.excess:
            self._warn("the body is longer than its Content-Length")
        await self._body(b"", last=True)

    async def _pass_on(self, length: int | None) -> None:
        if dropped := self._reader.dropped:
            self._warn(dropped)
        head = self._reader.head
        if head.status == 204:
            length = None
        elif head.status == 205:
            length = 0
        fields: Fields = [(name.lower(), value) for name, value in head.fields]
        if length is not None:
            fields.append((b"content-length", b"%d" % length))
        await self._head(head.status, fields)

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
            self._warn("too many local redirects")
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

    def _failure(self, job: Job) -> outcome.Failure:
        assert self.invocation is not None
        found, why = self.route.gateway.failure(self.invocation, job)
        if why:
            self._warn(why)
        return found

    def _complain(self, output: bytes) -> None:
        if start := self._reader.start(output):
            self._warn(f"it failed; output: {start!r}")


def _exited(job: Job) -> str:
    return f"it exited with status {job.returncode}"


def _address(name: Any) -> tuple[bytes, int] | None:
    """None: not known, or a Unix socket's."""
    if not name or name[1] is None:
        return None
    # Without the zone of an IPv6 address: it means something on this machine only.
    return str(name[0]).partition("%")[0].encode("ascii", "replace"), int(name[1])
