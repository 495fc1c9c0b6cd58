"""One request and its answer, between ASGI's messages and a process.

::

    run ─> the body's first message ─> admission ─> spawn ─┬─> listen: body, then disconnect
           (or all of a form)                              └─> answer: output ─> send

``listen`` is a task of its own. It waits where the process does not read, ``answer`` where the
client does not (in ``send``), and then the process waits for both in its pipes. A client that
has gone ends the process, and so does a server that cancels the call.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from fastspawn.serve.figures.errors import shown
from fastspawn.serve.http import outcome
from fastspawn.serve.http.added import beside
from fastspawn.serve.http.cors import wanted
from fastspawn.serve.http.ends import plain
from fastspawn.serve.http.form import check
from fastspawn.serve.http.match import Match
from fastspawn.serve.http.refused import Refused as BadRequest
from fastspawn.serve.http.response import BODYLESS, UNBUFFERED, line
from fastspawn.serve.job import STREAM
from fastspawn.serve.paths import BadPath, split

if TYPE_CHECKING:
    from fastspawn.serve.figures.errors import Piece
    from fastspawn.serve.job import Job
    from fastspawn.serve.routes.route import Route

    from ._messages import Receive, Scope, Send

Fields = list[tuple[bytes, bytes]]

_LOG: Final = logging.getLogger("fastspawn.asgi")
_ERRORS: Final = logging.getLogger("fastspawn.asgi.stderr")
"""What processes write to standard error, with ``stderr`` "log"."""

_HIGH: Final = 65536
"""Bytes of output that may wait for the client before the process does."""
_HOLD: Final = 0.01
"""Seconds for which the beginning of an answer is held back, for all of it to come, where the
strategy does not do it."""


class Aborted(RuntimeError):
    """The process failed within its answer. Raised through the server, which has no other way to
    be told that the answer must not look complete."""


class Refused(Exception):
    """The answer is an error: ``status``, and a line for the client."""

    def __init__(self, status: int, text: bytes, fields: Fields | None = None) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text
        self.fields = fields or []


class Gone(Exception):
    """The client has."""


class Exchange:
    """Mode ``raw``. It is the admission's entrant and the job's sink."""

    def __init__(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        self.route = route
        self._scope = scope
        self._receive = receive
        self._send = send
        self._head_only = scope["method"] == "HEAD"
        self.match: Match
        """What there is to know of the request, as in the server."""

        loop = asyncio.get_running_loop()
        self._turn: asyncio.Future[bool] = loop.create_future()
        """True: there is a place for it."""
        self._placed = False
        """It has a place that no process has taken yet."""

        # The request's body.
        self._first = b""
        self._more = False
        """There is more of it than ``_first``."""
        self._received = 0

        # The process.
        self.job: Job | None = None
        self._ended: Job | None = None
        """The same, after its end."""
        self._output: deque[bytes] = deque()
        self._waiting = 0
        """Bytes of output that were not taken yet."""
        self._news = asyncio.Event()
        """Output, the end, the client's going or the request's spoiling."""
        self._drained = asyncio.Event()
        """The process reads on."""

        self._added = self.route.added
        self._more_fields: Fields = []
        """Of the answer, besides."""
        self._stop: Exception | None = None
        """What has come of listening to the client."""
        self._head_sent = False

    async def run(self) -> None:
        """The whole call. Raises Aborted."""
        listener = None
        try:
            self._prepare()
            form = self.route.filling.form
            if form:
                await self._read_form()
            self._fill()
            if not form:
                await self._begin()
            listener = asyncio.ensure_future(self._listen())
            await self._admitted()
            await self._start()
            await self._answer()
        except Gone:
            pass
        except Refused as refused:
            self._drop()
            if self._head_sent:
                raise Aborted(refused.text.decode()) from None
            await self._refuse(refused)
        finally:
            self._drop()
            if listener is not None and not listener.done():
                listener.cancel()
                # What was handed to the server has to be taken back before this call ends.
                await asyncio.wait([listener])

    # ---- the request

    def _prepare(self) -> None:
        """Refuse what can be refused before anything is started."""
        scope = self._scope
        if scope["method"] == "CONNECT":
            # This is no proxy (RFC 9110 section 9.3.6), and some servers make a path of its target.
            raise Refused(501, b"not an HTTP method for this server\n")
        raw = scope.get("raw_path")
        target = quote(scope["path"]).encode() if raw is None else raw.partition(b"?")[0]
        try:
            segments = split(target, free=self.route.free)
        except BadPath as error:
            raise Refused(400, f"{error}\n".encode()) from error
        if segments is None:
            raise Refused(404, b"nothing is here\n")
        # Blanks around a value are none of it (RFC 9110 section 5.5), which not all servers know.
        fields = [
            (bytes(name).lower(), bytes(value).strip(b" \t")) for name, value in scope["headers"]
        ]
        self._consider(fields)
        # Servers and frameworks do not agree whether the path includes where this is mounted
        # (it does, by the specification of 2023).
        root = tuple(part for part in scope.get("root_path", "").split("/") if part)
        self.mounted = "".join("/" + part for part in root)
        if segments[: len(root)] == root:
            segments = segments[len(root) :] or ("",)
        self.raw_target = target
        filling = self.route.filling
        self.match = Match(segments, {}, filling.argv, filling.env, fields)
        length = self._content_length()
        if length is not None and length > self.route.max_body:
            raise Refused(413, b"request body too large\n")

    async def _read_form(self) -> None:
        """All of the body, if there is one: values of it go into the command."""
        await self._begin()
        if not self._first and not self._more:
            return
        try:
            check(self.match.fields)
        except BadRequest as refused:
            raise own(refused) from None
        try:
            await asyncio.wait_for(self._read_on(), self.route.config.exec_timeout)
        except asyncio.TimeoutError:
            raise Refused(408, b"the body did not come in time\n") from None

    async def _read_on(self) -> None:
        pieces = [self._first]
        while self._more:
            data, self._more = await self._read()
            pieces.append(data)
        self._first = b"".join(pieces)

    def _fill(self) -> None:
        """Now it is known what there is to run. Raises Refused."""
        query = self._scope.get("query_string", b"")
        body = self._first if self.route.filling.form else b""
        match = self.match
        try:
            match.argv, match.env = self.route.filling.fill(match.values, query, body)
        except BadRequest as refused:
            raise own(refused) from None

    def _target(self) -> bytes:
        """Path and query, as they were sent."""
        query = self._scope.get("query_string", b"")
        return self.raw_target + b"?" + query if query else self.raw_target

    def _consider(self, fields: Fields) -> None:
        """What there is to say to pages of other sites. Raises Refused for a preflight: that is
        answered without a process."""
        cors = self.route.cors
        if cors is None:
            return
        self._more_fields = cors.more(fields)
        if self._scope["method"] == "OPTIONS" and wanted(fields):
            status, text, answer = cors.preflight(fields, None)
            raise Refused(status, text, answer)

    def _content_length(self) -> int | None:
        for name, value in self.match.fields:
            if name == b"content-length":
                if not value.isdigit():
                    raise Refused(400, b"malformed Content-Length\n")
                return int(value)
        return None

    async def _begin(self) -> None:
        """The first message tells whether there is a body, which fields need not in HTTP/2."""
        self._first, self._more = await self._read()

    async def _read(self) -> tuple[bytes, bool]:
        """More of the body, and whether that was not the last. Raises Gone and Refused."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Gone
        data: bytes = message.get("body", b"")
        self._received += len(data)
        self._check_size()
        return data, message.get("more_body", False)

    def _check_size(self) -> None:
        if self._received > self.route.max_body:
            raise Refused(413, b"request body too large\n")

    async def _admitted(self) -> None:
        """Wait for a place. Raises Refused if there is none."""
        self.route.admission.enter(self)
        while not self._turn.done():
            await self._something()
        if not self._turn.result():
            raise Refused(*error(outcome.OVERLOADED))

    def start(self) -> None:
        self._placed = True
        self._turn.set_result(True)
        self._news.set()

    def overloaded(self) -> None:
        self._turn.set_result(False)
        self._news.set()

    async def _start(self) -> None:
        if self._more:
            self._spawn(STREAM)
        else:
            self._spawn(self._first or None)

    def _spawn(self, input: Any) -> None:
        self._placed = False
        job = self.job = self.route.spawn(self, input)
        if input is STREAM and self._first and not job.write(self._first):
            self._drained.clear()
        else:
            self._drained.set()

    async def _listen(self) -> None:
        """Hand on the body, then wait for the client to go."""
        try:
            while self._more:
                # Before there is a process as well: what comes for it must wait.
                await self._drained.wait()
                data, self._more = await self._read()
                await self._feed(data)
            await self._receive_end()
        except Exception as stop:
            # Whatever it is: a middleware may end the call so. Here and not where it is noticed:
            # that may be waiting for the client.
            self._stop = stop
            self._cancel()
            self._news.set()

    async def _receive_end(self) -> None:
        """All of the request has come. Raises Gone when the client goes."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Gone
        # What else there is to say, no specification knows.

    async def _feed(self, data: bytes) -> None:
        """More of the body, before which ``_more`` has been set."""
        self._hand(data)

    def _hand(self, data: bytes) -> None:
        job = self.job
        assert job is not None
        if self._ended is not None:
            return
        if data and not job.write(data):
            self._drained.clear()
        if not self._more:
            job.write_eof()

    # ---- the process: its sink

    def on_output(self, data: bytes) -> None:
        if data and self.job is not None and self._stop is None:
            self._output.append(data)
            self._waiting += len(data)
            if self._waiting > _HIGH:
                self.job.pause_reading()
            self._news.set()

    def on_drain(self) -> None:
        self._drained.set()

    def on_exit(self, job: Job) -> None:
        self.route.admission.leave()
        self._ended = job
        self._drained.set()
        self._news.set()

    def _cancel(self) -> None:
        self._output.clear()
        if self.job is not None and self._ended is None:
            # Nobody reads any more, so nothing is to wait for a reader.
            self.job.resume_reading()
            self.job.cancel()

    def _drop(self) -> None:
        """Hold nothing any more: neither a process nor a place nor one to come."""
        if self.job is not None:
            self._cancel()
            self.job = None
        elif self._placed:
            self._placed = False
            self.route.admission.leave()
        elif not self._turn.done():
            self.route.admission.withdraw(self)

    # ---- the answer

    async def _something(self) -> None:
        """Wait for any news. Raises what the client's side has come to."""
        if self._stop is None:
            await self._news.wait()
            self._news.clear()
        if self._stop is not None:
            raise self._stop

    def _taken(self) -> bytes:
        """The output that is there."""
        self._news.clear()
        data = b"".join(self._output)
        self._output.clear()
        paused = self._waiting > _HIGH
        self._waiting = 0
        if paused and self.job is not None:
            self.job.resume_reading()
        return data

    async def _answer(self) -> None:
        while self._ended is None and not self._output:
            await self._something()
        if self.route.delay is not None and self._ended is None:
            await self._hold()
        while self._ended is None:
            await self._stream(self._taken())
            if self._head_only and self._head_sent:
                # What its process still writes is nobody's.
                await self._body(b"", last=True)
                return
            await self._something()
        await self._conclude(self._ended, self._taken() + self._ended.output)

    async def _conclude(self, job: Job, data: bytes) -> None:
        """The answer, or the rest of it. Raises Refused."""
        verdict = self.route.judge.judge(job)
        if self._head_sent:
            if verdict.good:
                await self._end_stream(data)
                return
            await self._stream(data)  # its last words
            raise Refused(verdict.status, verdict.text or b"%b\n" % outcome.how(job).encode())
        if verdict.status >= 500 and data:
            self.warn(f"{outcome.how(job)}; output: {data[: outcome.SHOWN]!r}")
        if verdict.text is not None:
            raise Refused(*error(verdict))
        await self._whole(data, verdict.status)

    async def _hold(self) -> None:
        """Most processes end soon after their first output; and some say by their exit what it
        is."""
        holds = self.route.config.holds
        end = asyncio.get_running_loop().time() + (_HOLD if holds is None else holds)
        while self._ended is None and self._waiting <= _HIGH:
            left = end - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(
                    self._something(), None if left == math.inf else max(left, 0)
                )
            except asyncio.TimeoutError:
                break

    async def _stream(self, data: bytes) -> None:
        """More of an answer whose end is not known."""
        if not self._head_sent:
            fields = [self._content_type()]
            if len(data) < _HIGH:
                fields += beside([UNBUFFERED], self._added.names)
            await self._head(self.route.judge.start, fields, self._added.all)
        if data:
            await self._body(data)

    async def _end_stream(self, data: bytes) -> None:
        await self._body(data, last=True)

    async def _whole(self, data: bytes, status: int) -> None:
        """All of an answer."""
        fields = [self._content_type(), (b"content-length", b"%d" % len(data))]
        if status in BODYLESS:
            data = b""
            fields = [(b"content-length", b"0")] if status == 205 else []
        await self._head(status, fields, self._added.all)
        await self._body(data, last=True)

    def _content_type(self) -> tuple[bytes, bytes]:
        return b"content-type", self.route.config.content_type.encode("latin-1")

    async def _head(self, status: int, fields: Fields, more: Fields) -> None:
        """``more``: fields that are added, where there is none of their name."""
        self._head_sent = True
        names = {name for name, _ in fields}
        more = beside(more + self._more_fields, names)
        fields = fields + [(name.lower(), value) for name, value in more]
        await self._send({"type": "http.response.start", "status": status, "headers": fields})

    async def _body(self, data: bytes, *, last: bool = False) -> None:
        if self._head_only:
            data = b""
        if data or last:
            await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def _refuse(self, refused: Refused) -> None:
        text = line(refused.status, refused.text)
        fields = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
            *((name.lower(), value) for name, value in refused.fields),
        ]
        if refused.status in BODYLESS:
            text, fields = b"", list(refused.fields)
        await self._head(refused.status, fields, self._added.own)
        await self._body(text, last=True)

    def warn(self, what: str) -> None:
        _LOG.warning("%s %s: %s", self._scope["method"], quote(self._scope["path"]), what)

    def tell_errors(self, pid: int | None, pieces: list[Piece], dropped: int) -> None:
        """Lines of the process's standard error, whose request servers log with its client."""
        host, port = self._scope.get("client") or ("-", None)
        client = plain(host) if port is None else f"{plain(host)}:{port}"
        whose = client, self._scope["method"], quote(self._scope["path"]), pid or "-"
        for piece, more in pieces:
            _ERRORS.warning("%s %s %s pid=%s%s: %s", *whose, " cut" if more else "", shown(piece))
        if dropped:
            _ERRORS.warning("%s %s %s pid=%s dropped=%d", *whose, dropped)


def own(refused: BadRequest) -> Refused:
    """What the server's rooms refuse."""
    lines = [line.split(b": ", 1) for line in refused.fields.split(b"\r\n") if line]
    return Refused(refused.status, refused.text, [(name.lower(), value) for name, value in lines])


def error(failure: outcome.Failure | outcome.Verdict) -> tuple[int, bytes, Fields]:
    """As ``Refused`` takes it."""
    fields = [(b"retry-after", b"1")] if failure.passing else []
    return failure.status, failure.text or b"", fields
