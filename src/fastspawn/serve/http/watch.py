"""What every connection needs from time, without a timer for each.

Connections of one kind have the same time limit, so they expire in the order in which they
came: a dict per kind is enough, filled and emptied at the price of a dict operation per
request, looked through from its old end once a second.

And the other thing: a transport that does not read does not notice that its peer has gone.
Connections in that state are polled for it together, and asked now and then to send something
that a peer which is gone answers with a reset.
"""

from __future__ import annotations

import asyncio
import math
import select
import time
from collections.abc import Callable
from typing import Final, Protocol

_PERIOD: Final = 0.2
"""Seconds between polls."""
_FIRST_PROBE: Final = 0.4
"""Seconds until the first probe. Each next one comes after twice the time."""

# Not known on macOS, where POLLHUP says as much.
_PEER_SHUT: Final[int] = getattr(select, "POLLRDHUP", 0)


class Watched(Protocol):
    def expired(self) -> None:
        """The time limit has passed. The connection is no longer watched for time."""

    def peer_shut(self) -> None:
        """The peer will send nothing more, or is gone. No longer watched for hang-up."""

    def peer_gone(self) -> None:
        """The peer has reset or fully closed. No longer watched for hang-up."""

    def probe(self) -> None:
        """Send the peer something, if there is anything to send."""


class _Peer:
    """A connection that is watched for hang-up."""

    __slots__ = ("connection", "delay", "due")

    def __init__(self, connection: Watched, now: float) -> None:
        self.connection = connection
        self.delay = _FIRST_PROBE
        self.due = now + self.delay


class Deadlines:
    """Connections with the same time limit: ``seconds``, and up to one more."""

    __slots__ = ("_due", "_now", "seconds")

    def __init__(self, now: Callable[[], float], seconds: float) -> None:
        self._now = now
        self.seconds = seconds
        """May be changed. Those that are here before keep their time, and may keep back others
        that came after them with less."""
        self._due: dict[Watched, float] = {}

    def add(self, connection: Watched) -> None:
        self._due[connection] = self._now() + self.seconds

    def discard(self, connection: Watched) -> None:
        self._due.pop(connection, None)

    def __contains__(self, connection: Watched) -> bool:
        return connection in self._due

    def expire(self, now: float) -> None:
        """Drop those whose time is up and tell them."""
        expired = []
        for connection, due in self._due.items():
            if due > now:
                break
            expired.append(connection)
        for connection in expired:
            if self._due.pop(connection, None) is not None:
                connection.expired()


class Sender(Protocol):
    def unsent(self) -> int:
        """Bytes of which its peer has not said that it has them."""

    def stalled(self) -> None:
        """The peer took nothing of them for the time it has. No longer watched for that."""


class Unsent:
    """Connections that have more to send than their peers take: ``seconds`` without any progress,
    and up to two more."""

    __slots__ = ("_now", "_senders", "seconds")

    def __init__(self, now: Callable[[], float], seconds: float) -> None:
        self._now = now
        self.seconds = seconds
        """May be changed."""
        self._senders: dict[Sender, tuple[int, float]] = {}

    def add(self, sender: Sender) -> None:
        if sender not in self._senders:
            self._senders[sender] = -1, self._now()

    def discard(self, sender: Sender) -> None:
        self._senders.pop(sender, None)

    def look(self) -> None:
        """To be called once a second."""
        now = self._now()
        for sender, (before, since) in list(self._senders.items()):
            # It only changes if some was taken: who is watched here is not given more, or for a
            # moment only.
            left = sender.unsent()
            if left != before:
                self._senders[sender] = left, now
            elif now - since >= self.seconds:
                del self._senders[sender]
                sender.stalled()


class Delayed(Protocol):
    def release(self) -> None:
        """The delay has passed."""


class Delay:
    """Releases each after ``seconds`` and no more than as much again, with one timer for all; of
    infinite ones none."""

    __slots__ = ("_due", "_loop", "_seconds", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._due: dict[Delayed, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, delayed: Delayed) -> None:
        if self._seconds == math.inf:
            return
        self._due[delayed] = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._release)

    def discard(self, delayed: Delayed) -> None:
        self._due.pop(delayed, None)

    def close(self) -> None:
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _release(self) -> None:
        self._timer = None
        now = self._loop.time()
        ripe = []
        for delayed, due in self._due.items():
            if due > now:
                break
            ripe.append(delayed)
        for delayed in ripe:
            del self._due[delayed]
        if self._due:
            self._timer = self._loop.call_later(self._seconds, self._release)
        for delayed in ripe:
            delayed.release()


class Watch:
    """One per event loop."""

    __slots__ = ("_deadlines", "_loop", "_on_second", "_peers", "_poll", "_poll_timer", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._deadlines: list[Deadlines] = []
        self._on_second: list[Callable[[], None]] = []
        self._poll = select.poll()
        self._peers: dict[int, _Peer] = {}
        self._poll_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def every_second(self, callback: Callable[[], None]) -> None:
        self._on_second.append(callback)

    def deadlines(self, seconds: float) -> Deadlines:
        made = Deadlines(self._loop.time, seconds)
        self._deadlines.append(made)
        return made

    def start(self) -> None:
        # Just after the wall clock's second changes, which is what Date and the log show.
        self._timer = self._loop.call_later(1.001 - time.time() % 1, self._second)

    def close(self) -> None:
        for timer in (self._timer, self._poll_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._poll_timer = None
        self._peers.clear()

    def hangup(self, fd: int, connection: Watched, *, shut: bool) -> None:
        """Call ``peer_gone`` (and with ``shut``, ``peer_shut``) when it happens, once."""
        if fd not in self._peers:
            self._peers[fd] = _Peer(connection, self._loop.time())
        self._poll.register(fd, _PEER_SHUT if shut else 0)
        if self._poll_timer is None:
            self._poll_timer = self._loop.call_later(_PERIOD, self._look)

    def forget_hangup(self, fd: int) -> None:
        """Must come before ``fd`` is closed."""
        if self._peers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _look(self) -> None:
        self._poll_timer = None
        for fd, events in self._poll.poll(0):
            peer = self._peers.get(fd)
            if peer is None:
                continue
            connection = peer.connection
            self.forget_hangup(fd)
            if events & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                connection.peer_gone()
            else:
                connection.peer_shut()
        now = self._loop.time()
        for peer in list(self._peers.values()):
            if peer.due <= now:
                peer.delay *= 2
                peer.due = now + peer.delay
                peer.connection.probe()
        if self._peers and self._poll_timer is None:
            self._poll_timer = self._loop.call_later(_PERIOD, self._look)

    def _second(self) -> None:
        self.start()
        now = self._loop.time()
        for callback in self._on_second:
            callback()
        for deadlines in self._deadlines:
            deadlines.expire(now)
