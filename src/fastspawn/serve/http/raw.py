"""Mode ``raw``: what a process writes is the answer's body, and its exit status is the status.

An output that has come to its end before anything of it is sent has a length; a longer or slower
one goes out in chunks, or to HTTP/1.0 until the connection closes. The answer to a HEAD is over
with its head: a process that has not ended by then is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from .exchange import HOLD, Exchange
from .outcome import SHOWN, failure, how
from .response import CHUNK_END, CLOSE, LAST_CHUNK, chunk_start

if TYPE_CHECKING:
    from fastspawn.serve.job import Job

    from .exchange import Connection


class RawExchange(Exchange):
    __slots__ = ()

    hastens: ClassVar = True
    """A proxy is told to pass on at once what comes slowly."""

    def on_exit(self, job: Any) -> None:
        self.route.admission.leave()
        connection = self.connection
        self.job = None
        if connection is not None:
            if self.held and self.route.delay is not None:
                self.route.delay.discard(self)
            self._finish(connection, job)
            self.connection = None
            if self.route.log is not None:
                self._log(job)
            connection.done(self)
        elif self.route.log is not None:
            self._log(job)

    def _finish(self, connection: Connection, job: Job) -> None:
        """All of the answer, or the rest of it."""
        if job.returncode != 0 or job.timed_out or job.truncated:
            self._fail(connection, job)
        elif self.head_sent:
            self._end_stream(connection, job.output)
        else:
            self._answer(connection, self._whole(job))

    def _whole(self, job: Job) -> bytes:
        """All the output of a process that has ended before any of it was sent."""
        return self.held + job.output if self.held else job.output

    def _answer(self, connection: Connection, output: bytes) -> None:
        self.status = 200
        head = b"%b%d%b" % (self.route.heads.sized, len(output), self._end(connection))
        self._send_sized(connection, head, output)

    def _stream(self, connection: Connection, data: bytes) -> None:
        if not self.head_only:
            self.sent += len(data)
        if not self.head_sent:
            self._start_stream(connection, data)
            if self.head_only:
                self._suffice(connection)
        elif self.http10:
            connection.transport.write(data)
        else:
            # Not writelines(): in asyncio of Python 3.12 and 3.13.0 it ignores the high-water mark.
            connection.transport.write(b"".join((chunk_start(len(data)), data, CHUNK_END)))

    @property
    def _start_status(self) -> int:
        """Of an answer that begins before its process has ended."""
        return 200

    def _start_stream(self, connection: Connection, data: bytes) -> None:
        self.status = status = self._start_status
        self.head_sent = True
        heads = self.route.heads
        more = b"" if self.about is None else self.about.end
        if self.hastens and len(data) < HOLD // 2:
            more += heads.unbuffered
        if self.http10:
            self.keep = False
            head = heads.streamed(status, chunked=False, end=more + CLOSE)
            connection.send(head if self.head_only else head + data)
            return
        # The request may end before its answer does: only then is the connection kept.
        if connection.ending or (self.head_only and not self.complete):
            self.keep = False
        end = more + (heads.keep if self.keep else CLOSE)
        head = heads.streamed(status, chunked=True, end=end)
        if not self.head_only:
            head = b"".join((head, chunk_start(len(data)), data, CHUNK_END))
        connection.send(head)

    def _end_stream(self, connection: Connection, data: bytes) -> None:
        self.sent += len(data)
        if self.http10:
            if data:
                connection.transport.write(data)
        elif data:
            connection.transport.write(
                b"".join((chunk_start(len(data)), data, CHUNK_END, LAST_CHUNK))
            )
        else:
            connection.transport.write(LAST_CHUNK)

    def _fail(self, connection: Connection, job: Job) -> None:
        """The process did not do its work: an error, or a broken answer if one has begun."""
        if self.head_sent:
            self._break_off(connection, job)
        else:
            self._tell(job, self._whole(job))
            self._send_failure(connection, failure(job))

    def _break_off(self, connection: Connection, job: Job) -> None:
        """Nothing can be said any more but that it is not complete."""
        self.keep = False
        if job.output and not self.http10:
            # Its last words.
            self.sent += len(job.output)
            connection.transport.write(
                b"".join((chunk_start(len(job.output)), job.output, CHUNK_END))
            )
        self._cut(connection)

    def _tell(self, job: Job, output: bytes) -> None:
        """Tell the operator what a process that failed had to say, if it is not the client who is
        told."""
        if output:
            self._complain(f"{how(job)}; output: {output[:SHOWN]!r}")
