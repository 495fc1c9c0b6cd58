"""A function's answer. In mode streaming its output is the body, and its status is lost: 200
whatever becomes of it. In mode serializing all of it is waited for, and a function that fails is a
500 that says how it ended.

Where no function ran, or ours are the limits that ended it, the answers are ours, too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastspawn.serve.http import route
from fastspawn.serve.http.outcome import how
from fastspawn.serve.http.raw import RawExchange

from .words import why

if TYPE_CHECKING:
    from fastspawn.serve.config.model import RouteConfig
    from fastspawn.serve.http.exchange import Connection
    from fastspawn.serve.job import Job

_REFUSED: Final = [
    (b"Content-Type", b"text/plain"),
    (b"X-Openfaas-Internal", b"faas-middleware"),
]
"""Fields of concurrency-limiter's (openfaas/faas-middleware), as Go writes their names."""


class Route(route.Route, Protocol):
    @property
    def config(self) -> RouteConfig: ...


class _Function(RawExchange):
    __slots__ = ()

    kind = "openfaas"
    hastens = False  # of-watchdog does not
    route: Route

    def overloaded(self) -> None:
        connection = self.connection
        if connection is None:
            return
        places = self.route.config.max_inflight
        text = b"Concurrent request limit exceeded. Max concurrent requests: %d\n" % places
        self._send_whole(connection, 429, b"Too Many Requests", _REFUSED, text)
        self._detach()
        connection.done(self)

    def _send_whole(
        self,
        connection: Connection,
        status: int,
        reason: bytes,
        fields: list[tuple[bytes, bytes]],
        text: bytes,
    ) -> None:
        self.status = status
        end = self._end(connection)
        fields = [*fields, (b"Content-Length", b"%d" % len(text))]
        head = self.route.heads.passed_on(status, reason, fields, end)
        self._send_sized(connection, head, text)


def _ran(job: Job) -> bool:
    return job.error is None and not job.truncated


class Streaming(_Function):
    __slots__ = ()

    def _fail(self, connection: Connection, job: Job) -> None:
        if not _ran(job):
            super()._fail(connection, job)
            return
        self._complain(how(job))
        if self.head_sent:
            self._end_stream(connection, job.output)
        else:
            self._answer(connection, self._whole(job))


class Serializing(_Function):
    __slots__ = ("_begun_at", "_output")

    def begin(self) -> None:
        self._begun_at = time.monotonic()
        self._output: list[bytes] = []
        super().begin()

    def on_output(self, data: bytes) -> None:
        if self.connection is not None:
            self._output.append(data)

    def _answer(self, connection: Connection, output: bytes) -> None:
        self._report(connection, 200, b"OK", b"".join((*self._output, output)))

    def _fail(self, connection: Connection, job: Job) -> None:
        if _ran(job):
            self._complain(how(job))
            text = why(job.returncode, timed_out=job.timed_out)
            self._report(connection, 500, b"Internal Server Error", text.encode())
        else:
            super()._fail(connection, job)

    def _report(self, connection: Connection, status: int, reason: bytes, text: bytes) -> None:
        seconds = time.monotonic() - self._begun_at
        fields = [
            (b"Content-Type", self.route.config.content_type.encode()),
            (b"X-Duration-Seconds", b"%f" % seconds),
        ]
        self._send_whole(connection, status, reason, fields, text)

    def _detach(self) -> None:
        self._output = []
        super()._detach()

    def on_exit(self, job: Any) -> None:
        super().on_exit(job)
        self._output = []
