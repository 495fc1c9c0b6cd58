"""One session: a process, who it is for, and what is on its way between them.

::

    a message ─> a line of stdin             (a slow process: what waits is bounded, then 503)
    a line of stdout ─> whose it is ─> an event of its stream ─> the answer that reads it
                                             (a slow client: the process waits)
    DELETE, idle, the server stops ─> stdin ends ─> after the grace TERM, after another KILL
    exit ─> what was asked for and not answered gets an error

A session holds the place among those that run (``--max-inflight``) for as long as its process does.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastspawn.serve.http.outcome import SHOWN, Failure, failure, how

from .events import Events
from .lines import Lines, TooLong
from .message import CANCELLED, ENDED, BadMessage, failed, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastspawn.serve.http.about import About
    from fastspawn.serve.job import Job

    from .events import Reader, Stream
    from .message import Key, Message

MOST: Final = 256
"""Requests of a session that wait for their responses."""
_COMPLAINTS: Final = 5
"""Lines for the operator about what a process writes that is no message."""


_ENDED: Final = Failure(502, b"the process has ended\n")


class Config(Protocol):
    @property
    def kill_grace(self) -> float: ...

    @property
    def max_message(self) -> int | None: ...

    @property
    def session_buffer(self) -> int: ...


class Route(Protocol):
    @property
    def config(self) -> Config: ...

    @property
    def title(self) -> str:
        """For the operator."""


class Keeper(Protocol):
    """Of the sessions of a route (``sessions.py``)."""

    def used(self, session: Session) -> None:
        """Its client has asked for something."""

    def ended(self, session: Session) -> None:
        """Nobody is to find it any more."""


class Session:
    """The sink of its process. ``old``: all it says is for the one that listens."""

    __slots__ = (
        *("_cancelled", "_complaints", "_config", "_deaf", "_full", "_grace", "_keeper"),
        *("_leaving", "_lines", "_on_end", "_paused", "_tokens", "_waiting", "_waiting_size"),
        *(
            "about",
            "brief",
            "closing",
            "events",
            "job",
            "name",
            "old",
            "pending",
            "readers",
            "route",
        ),
    )

    def __init__(
        self,
        keeper: Keeper,
        route: Route,
        name: str,
        about: About | None,
        on_end: Callable[[Any], None],
        *,
        old: bool = False,
    ) -> None:
        """``name``: its id; empty: for one request alone. ``about``: what is known of the request
        that begins it. ``on_end``: called with the job, once that has ended."""
        self._config = config = route.config
        self.name = name
        self.old = old
        self.brief = old or not name
        """It ends as soon as somebody reads no more."""
        self.route = route
        self.about = about
        self.job: Job | None = None
        self.closing = False
        """Its stdin has ended."""
        self.events = Events(config.session_buffer)
        self.pending: dict[Key, Stream] = {}
        """What the client has asked for, and was not told yet."""
        self.readers: set[Reader] = set()
        self._keeper = keeper
        self._on_end = on_end
        self._tokens: dict[Key, Stream] = {}
        """Whose progress is told."""
        self._cancelled: dict[Key, None] = {}
        """Requests that the client wants no response to any more; there may come one. In their
        order: the oldest of too many are forgotten."""
        self._lines = Lines(config.max_message)
        self._deaf = False
        """Nobody wants to know what the process still says."""
        self._waiting: deque[bytes] = deque()
        """For stdin, while that takes no more."""
        self._waiting_size = 0
        self._full = False
        self._paused = False
        self._leaving = False
        """It is to end when all is answered."""
        self._complaints = 0
        self._grace: asyncio.TimerHandle | None = None

    # ---- from the client

    def take(self, message: Message) -> None:
        """Hand it on to the process, which has been started."""
        assert self.job is not None
        line = message.line + b"\n"
        if self._full:
            self._waiting.append(line)
            self._waiting_size += len(line)
        else:
            self._full = not self.job.write(line)
        self._keeper.used(self)
        if message.cancels in self.pending:
            self._answer_cancelled(message.cancels)

    def ask(self, message: Message, reader: Reader) -> Stream:
        """Likewise, a request: its stream, which ``reader`` reads."""
        assert message.key is not None
        stream = self.pending[message.key] = self.events.open(message.key)
        if message.token is not None and reader.streams:
            self._tokens[message.token] = stream
        self.attach(stream, reader)
        self.take(message)
        return stream

    def expects(self, key: Key | None) -> bool:
        """A response with this id would not be known from that of another request."""
        return key in self.pending or key in self._cancelled

    @property
    def crowded(self) -> bool:
        """The process is too far behind to be told more."""
        most = self._config.max_message
        return len(self.pending) >= MOST or (most is not None and self._waiting_size > most)

    def attach(self, stream: Stream, reader: Reader) -> None:
        self.readers.add(reader)
        self.events.attach(stream, reader)
        self._keeper.used(self)

    def detach(self, stream: Stream, reader: Reader) -> None:
        """It reads no more: it has all, or its client has gone."""
        self.readers.discard(reader)
        self.events.detach(stream, reader)
        self.taken()
        self._keeper.used(self)
        if self.brief:
            self.close()

    def taken(self) -> None:
        """A reader has caught up a bit."""
        self.events.taken()
        if self._paused and not self.events.full:
            self._go_on()

    def close(self) -> None:
        """Let the process end, and nobody find it."""
        self._keeper.ended(self)
        if self.closing:
            return
        self.closing = True
        self._end_own()
        if self.job is not None:
            self.job.write_eof()
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(self._config.kill_grace, self.cancel)

    def close_soon(self) -> None:
        """... when what was asked for is answered. Nobody is told more."""
        self._leaving = True
        if self.pending or self.job is None:
            self._end_own()
        else:
            self.close()

    def cancel(self) -> None:
        """End the process now."""
        self.close()
        self._deaf = True
        if self.job is not None:
            self._go_on()
            self.job.cancel()

    def _go_on(self) -> None:
        self._paused = False
        if self.job is not None:
            self.job.resume_reading()

    def _end_own(self) -> None:
        own = self.events.own
        own.whole = True
        if own.reader is not None:
            own.reader.wake()

    # ---- the process: called by the strategy

    def on_drain(self) -> None:
        self._full = False
        while self._waiting and not self._full and self.job is not None:
            line = self._waiting.popleft()
            self._waiting_size -= len(line)
            self._full = not self.job.write(line)

    def on_output(self, data: bytes) -> None:
        if self._deaf:
            return
        try:
            lines = self._lines.feed(data)
        except TooLong:
            self._complain("a line is longer than --max-message")
            self.cancel()
            return
        for line in lines:
            self._hear(line)
        if self.events.full and self.job is not None:
            self._paused = True
            self.job.pause_reading()

    def on_exit(self, job: Any) -> None:
        if job.output:
            self.on_output(job.output)
        if (rest := self._lines.end()) and not self._deaf:
            self._hear(rest)
        self.job = None
        if self._grace is not None:
            self._grace.cancel()
        elif job.error is None:
            self._complain(f"the process has ended: {how(job)}")
        self.closing = True
        self._keeper.ended(self)
        found = _ENDED if job.error is None else failure(job)
        text = found.text.decode("utf-8", "replace").strip()
        while self.pending:
            key, stream = self.pending.popitem()
            data = failed(key, ENDED, text)
            reader = stream.reader
            if reader is None or not reader.fail(found.status, data, found.fields):
                self.events.add(stream, data, last=True)
        self._end_own()
        self._on_end(job)

    # ---- whose it is

    def _hear(self, line: bytes) -> None:
        try:
            message = parse(line)
        except BadMessage as bad:
            self._complain(f"on standard output, {bad}: {line[:SHOWN]!r}")
            return
        if self.old:
            self.events.add(self.events.own, message.line)
        elif message.kind == "response":
            self._answer(message)
        else:
            stream = self._stream_of(message)
            if not stream.whole and (self.name or stream is not self.events.own):
                self.events.add(stream, message.line)

    def _answer(self, message: Message) -> None:
        stream = self.pending.pop(message.key, None) if message.key is not None else None
        if stream is None:
            if message.key in self._cancelled:
                del self._cancelled[message.key]
                return
            self._complain(f"a response to nothing: {message.line[:SHOWN]!r}")
            return
        if message.error and stream.number == 1:
            self.brief = True  # what was to begin it has failed
        self._end(stream, message.line)

    def _answer_cancelled(self, key: Key | None) -> None:
        """In the place of the process, which should not any more: an answer needs an end."""
        assert key is not None
        self._cancelled[key] = None
        if len(self._cancelled) > MOST:
            del self._cancelled[next(iter(self._cancelled))]
        self._end(self.pending.pop(key), failed(key, CANCELLED, "the request was cancelled"))

    def _end(self, stream: Stream, line: bytes) -> None:
        for token in [token for token, each in self._tokens.items() if each is stream]:
            del self._tokens[token]
        self.events.add(stream, line, last=True)
        if self._leaving and not self.pending:
            self.close()

    def _stream_of(self, message: Message) -> Stream:
        """Where a request or notification of the process goes: with the request that it belongs to,
        as far as that shows; else to who listens; else with the newest request."""
        if message.token is not None and message.token in self._tokens:
            return self._tokens[message.token]
        own = self.events.own
        if own.reader is None:
            for stream in reversed(self.pending.values()):
                if stream.reader is not None and stream.reader.streams:
                    return stream
        return own

    def _complain(self, what: str) -> None:
        """A line for the operator; only the first few of a session."""
        self._complaints += 1
        if self._complaints <= _COMPLAINTS:
            more = " (and no more of this session)" if self._complaints == _COMPLAINTS else ""
            text = f"fastspawn: jsonrpc: {self.route.title}: {what}{more}"
            print(text, file=sys.stderr, flush=True)  # noqa: T201
