"""A request whose body is gathered before its process starts, since its length is wanted.

A body with a Content-Length is handed on as it comes, as in mode ``raw``. One without is kept
to its end (``spool.py``) while its request holds a place among those that run: what waits for
a client is bounded as processes are. With ``--stream-chunked`` it is handed on without one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fastspawn.serve.http.exchange import Exchange
from fastspawn.serve.job import STREAM

from .spool import Spool

if TYPE_CHECKING:
    from fastspawn.serve.http.exchange import Connection

    from .route import Route

_PIECE: Final = 65536
"""Bytes of a body in a file that are handed on at once."""


class GatheringExchange(Exchange):
    kind = "cgi"
    __slots__ = ("_late", "_pumping", "_spool", "length")

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
        self.length: int | None = None
        """Bytes of the body, if there is one, as far as they are known when the process starts."""
        self._spool: Spool | None = None
        """What is there of a body without a length, or is still to be handed on."""
        self._late: asyncio.TimerHandle | None = None
        self._pumping = False
        """It is being read from a file."""

    def start(self) -> None:
        self.length = self.match.length
        if self.length is None and self.body is not None and not self.route.config.stream_chunked:
            self._gather()
            return
        super().start()

    def feed(self, data: bytes) -> None:
        spool = self._spool
        if spool is None:
            super().feed(data)
            if self.job is None and self.connection is not None and self._too_large():
                # Before its turn: refusals in the midst of the admission's own work would nest.
                self.spoil(413, b"request body too large\n")
            return
        self.received += len(data)
        if self.connection is None:
            return
        if self._too_large():
            self.spoil(413, b"request body too large\n")
            return
        try:
            spool.write(data)
        except OSError as error:
            self._complain(f"cannot keep the body: {error.strerror}")
            self.spoil(500, b"the body could not be kept\n")

    def feed_eof(self) -> None:
        if self._spool is None:
            super().feed_eof()
            return
        self.complete = True
        if self.connection is not None:
            self._gathered(self._spool)

    def _unsized(self) -> bool:
        return self.match.length is None

    def _too_large(self) -> bool:
        if self.received > self.route.max_body:
            return True
        config = self.route.config
        limit = config.buffer_body
        if limit is None or self.received <= limit or config.stream_chunked:
            return False
        return self._unsized()

    def _gather(self) -> None:
        """Keep the body until its end, which tells CONTENT_LENGTH."""
        connection = self.connection
        assert connection is not None
        body, self.body = self.body or [], None
        self._spool = Spool()
        self.received = 0
        timeout = self.route.config.exec_timeout
        if timeout is not None and not self.complete:
            # It holds a place among those that run.
            self._late = asyncio.get_running_loop().call_later(timeout, self._too_late)
        if self.expect and not body and not self.complete:
            connection.proceed(self)
        for data in body:
            self.feed(data)
            if self.connection is None:
                return
        if self.complete:
            self._gathered(self._spool)
        else:
            connection.resume_body(self)

    def _gathered(self, spool: Spool) -> None:
        connection = self.connection
        assert connection is not None
        self._stop_waiting()
        self.length = spool.length
        if spool.in_memory:
            self._spool = None
            self._spawn(connection, spool.whole())
            return
        try:
            spool.rewind()
        except OSError as error:
            self._complain(f"cannot keep the body: {error.strerror}")
            self.refuse(500, b"the body could not be kept\n")
            return
        self._spawn(connection, STREAM)
        self._pumping = True
        self._pump(spool)

    def _pump(self, spool: Spool) -> None:
        """Hand on what is in the file, until it is all or the script has enough for now."""
        job = self.job
        assert job is not None
        while True:
            try:
                data = spool.read(_PIECE)
            except OSError as error:
                self._complain(f"cannot read the body: {error.strerror}")
                self.refuse(500, b"the body could not be kept\n")
                return
            if not data:
                self._forget_body()
                job.write_eof()
                return
            if not job.write(data):
                return

    def _too_late(self) -> None:
        self._late = None
        self.spoil(408, b"the body did not come in time\n")

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _forget_body(self) -> None:
        self._stop_waiting()
        self._pumping = False
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    def _detach(self) -> None:
        waiting = self._spool is not None and self.job is None
        self._forget_body()
        super()._detach()
        if waiting:
            # For its body, in a place that no process has taken.
            self.route.admission.leave()

    def on_drain(self) -> None:
        if not self._pumping:
            super().on_drain()
        elif self._spool is not None:
            self._pump(self._spool)
