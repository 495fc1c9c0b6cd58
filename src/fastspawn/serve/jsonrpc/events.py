"""What a session has to say to its client: events of a few streams, numbered, and kept for a client
that comes back (``Last-Event-ID``). Pure.

::

    stream 0        what the process says of its own (a GET listens)
    stream 1, 2 ... what belongs to a request, its response at the end (the answer to its POST)

All that a session keeps is bounded, and what is oldest goes first; only what is still to be sent to
a client that is there is kept beyond that, and then the process has to wait (``full``).
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from .message import Key

_ID: Final = re.compile(rb"(\d{1,15})-(\d{1,15})", re.ASCII)
_COST: Final = 200
"""Bytes that keeping an event costs besides it, about."""


class Gone(Exception):
    """Not (all) of what follows that event is kept any more."""


class Reader(Protocol):
    """An answer in the making: where a stream's events go."""

    @property
    def streams(self) -> bool:
        """It takes more than the response."""

    def wake(self) -> None:
        """There may be something for it: see ``Stream.take``."""

    def replaced(self) -> None:
        """Its client has come once more, for the same."""

    def fail(self, status: int, data: bytes, fields: bytes) -> bool:
        """There will be no response, but ``data``, the error in its place: answer so, with more
        header ``fields``. False: the answer has begun, and this is an event of it."""

    def keep_alive(self) -> None:
        """Say something, for nobody to take the connection for idle."""


class Stream:
    """``request``: whose; None: nobody's."""

    __slots__ = ("_dropped", "_kept", "_next", "begun", "number", "reader", "request", "whole")

    def __init__(self, number: int, begun: int, request: Key | None) -> None:
        self.number = number
        self.begun = begun
        """The number of the session's last event before it."""
        self.request = request
        self.reader: Reader | None = None
        self.whole = False
        """The response is there: nothing follows."""
        self._kept: deque[tuple[int, bytes]] = deque()
        self._next = 0
        """Which of them the reader has not taken yet."""
        self._dropped = begun

    def id(self, number: int) -> bytes:
        """Of an event, within the session."""
        return b"%d-%d" % (self.number, number)

    def take(self) -> tuple[int, bytes] | None:
        """The next event for the reader: its number, and a message."""
        if self._next == len(self._kept):
            return None
        self._next += 1
        return self._kept[self._next - 1]

    @property
    def finished(self) -> bool:
        """The reader has all there will be."""
        return self.whole and self._next == len(self._kept)

    @property
    def empty(self) -> bool:
        return not self._kept

    def add(self, number: int, data: bytes) -> None:
        self._kept.append((number, data))

    def drop(self) -> int:
        """Forget the oldest event. Its size; -1: it is still to be sent."""
        if self.reader is not None and not self._next:
            return -1
        number, data = self._kept.popleft()
        self._next -= self._next > 0
        self._dropped = number
        return len(data)

    def rewind(self, number: int) -> None:
        """Have the next reader get what follows that event. Raises Gone."""
        if number < self._dropped and self.request is not None:
            raise Gone  # but of a session's own, better some than none: nobody waits for one answer
        self._next = sum(each <= number for each, _ in self._kept)


class Events:
    """Of one session. ``most``: bytes that are kept."""

    __slots__ = ("_last", "_most", "_order", "_size", "_streams", "_streams_made", "own")

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._last = 0
        self._order: deque[Stream] = deque()
        """Whose the kept events are, the oldest first."""
        self.own = Stream(0, 0, None)
        self._streams = {0: self.own}
        self._streams_made = 0

    def open(self, request: Key) -> Stream:
        self._streams_made += 1
        stream = Stream(self._streams_made, self._last, request)
        self._streams[stream.number] = stream
        return stream

    def attach(self, stream: Stream, reader: Reader) -> None:
        """Its events go there from now on. The caller wakes the reader."""
        before, stream.reader = stream.reader, reader
        if before is not None:
            before.replaced()

    def detach(self, stream: Stream, reader: Reader) -> None:
        if stream.reader is reader:
            stream.reader = None
            self._trim()

    def resume(self, last: bytes) -> Stream:
        """``last``: the id of the last event that the client has. Raises Gone."""
        found = _ID.fullmatch(last)
        stream = self._streams.get(int(found[1])) if found else None
        if found is None or stream is None or not stream.begun <= int(found[2]) <= self._last:
            raise Gone
        stream.rewind(int(found[2]))
        return stream

    def add(self, stream: Stream, data: bytes, *, last: bool = False) -> None:
        """A message. ``last``: nothing follows in this stream."""
        self._last += 1
        stream.add(self._last, data)
        stream.whole = stream.whole or last
        self._order.append(stream)
        self._size += len(data) + _COST
        if stream.reader is not None:
            stream.reader.wake()
        self._trim()

    def taken(self) -> None:
        """A reader has caught up a bit."""
        self._trim()

    @property
    def full(self) -> bool:
        """A client that is there has to take some before more is to come."""
        return self._size > self._most

    def _trim(self) -> None:
        while self._order and self._size > self._most:
            stream = self._order[0]
            size = stream.drop()
            if size < 0:
                return
            self._order.popleft()
            self._size -= size + _COST
            if stream.whole and stream.empty:
                self._streams.pop(stream.number, None)


def event(name: bytes, data: bytes) -> bytes:
    """As server-sent events are written (the HTML standard, section 9.2.6). ``name``: its id.
    ``data``: a line; empty: the client learns the id, and no more."""
    return b"id: %b\nevent: message\ndata: %b\n\n" % (name, data)


COMMENT: Final = b":\n\n"
"""What keeps a connection from looking idle."""
