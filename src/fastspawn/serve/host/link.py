"""What a supervisor and a worker say to each other, over a pair of sockets.

A message is a byte for its kind, a number of four bytes, and, for a configuration or figures, as
many bytes.
Either side learns by the end of the stream that the other has gone.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from fastspawn.serve.figures.tally import COUNTS, TOTAL

if TYPE_CHECKING:
    import asyncio

    from fastspawn.serve.config.model import Config

_HEAD: Final = struct.Struct("!cI")

CONFIG: Final = b"c"
"""From the supervisor: what to serve. The first message, and another after a reload."""
RETIRE: Final = b"x"
"""From the supervisor: another worker serves in this one's place."""
INSIST: Final = b"i"
"""From the supervisor: it was told to end once more. No second signal: one that is still to be
delivered is the same as two."""
READY: Final = b"r"
"""From a worker: it serves."""

NEWS: Final = b"s"
"""From a worker: something to say to the operator, in one line (``news.py``)."""

TAKEN: Final = b"l"
"""From a worker: how much of it is taken (``routes/taken.py``)."""

_LONG: Final = frozenset({CONFIG, NEWS, TAKEN, COUNTS, TOTAL})
"""The messages that are more than a number."""


def message(kind: bytes, number: int = 0) -> bytes:
    return _HEAD.pack(kind, number)


def config_message(config: Config) -> bytes:
    # Only ever read by a process that this one has started, from a socket nobody else has.
    import pickle

    data = pickle.dumps(config)
    return _HEAD.pack(CONFIG, len(data)) + data


def json_message(kind: bytes, value: Any) -> bytes:
    import json

    data = json.dumps(value).encode()
    return _HEAD.pack(kind, len(data)) + data


def _read(kind: bytes, body: bytes) -> Any:
    if kind == CONFIG:
        import pickle

        return pickle.loads(body)
    import json

    return json.loads(body)


class Inbox:
    """Bytes to messages."""

    def __init__(self) -> None:
        self._data = b""

    def add(self, data: bytes) -> Iterator[tuple[bytes, Any]]:
        """The messages that are complete now: kind, and number or what there is instead."""
        self._data += data
        while len(self._data) >= _HEAD.size:
            kind, number = _HEAD.unpack_from(self._data)
            long = kind in _LONG
            end = _HEAD.size + (number if long else 0)
            if len(self._data) < end:
                return
            body, self._data = self._data[_HEAD.size : end], self._data[end:]
            yield kind, _read(kind, body) if long else number


class Upstream:
    """A worker's end of the link."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._inbox = Inbox()
        self._outbox = b""
        self._blocked = False
        """It does not take more of the outbox now."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def first_config(self) -> Config | None:
        """Wait for the configuration. None: the supervisor has gone."""
        while data := self._sock.recv(65536):
            for kind, value in self._inbox.add(data):
                assert kind == CONFIG
                config: Config = value
                return config
        return None

    def send(self, kind: bytes, number: int = 0) -> None:
        self._send(message(kind, number))

    def send_json(self, kind: bytes, value: Any) -> None:
        self._send(json_message(kind, value))

    @property
    def blocked(self) -> bool:
        """The supervisor does nothing but read, and does not: it is stopped, say."""
        return self._blocked

    def _send(self, data: bytes) -> None:
        self._outbox += data
        self._flush()

    def _flush(self) -> None:
        """As far as it is taken; without a loop that would hear of more, all of it."""
        flags = 0 if self._loop is None else socket.MSG_DONTWAIT
        try:
            while self._outbox:
                self._outbox = self._outbox[self._sock.send(self._outbox, flags) :]
        except BlockingIOError:
            pass
        except OSError:  # it has gone, as the link's end will say
            self._outbox = b""
        if self._loop is not None and bool(self._outbox) != self._blocked:
            self._blocked = bool(self._outbox)
            if self._blocked:
                self._loop.add_writer(self._sock, self._flush)
            else:
                self._loop.remove_writer(self._sock)

    def open(
        self,
        loop: asyncio.AbstractEventLoop,
        heard: Callable[[bytes, Any], None],
        ended: Callable[[], None],
    ) -> None:
        """From now on tell ``heard`` of messages, and ``ended`` when the supervisor has gone; and
        wait for nobody to send."""

        def read() -> None:
            try:
                data = self._sock.recv(65536)
            except InterruptedError:
                return
            except OSError:
                data = b""
            if not data:
                self.close(loop)
                ended()
                return
            for kind, value in self._inbox.add(data):
                heard(kind, value)

        self._loop = loop
        loop.add_reader(self._sock, read)
        for kind, value in self._inbox.add(b""):
            heard(kind, value)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._sock)
        if self._blocked:
            loop.remove_writer(self._sock)
        self._loop, self._outbox, self._blocked = None, b"", False
