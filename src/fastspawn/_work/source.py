"""What a queue is to the worker, whichever server keeps it.

A message that was handed out is the worker's until it is settled: done, given back (for later or
for now), or buried. Whoever does not say that it goes on (``Source.extend``) for ``ack_wait`` loses
it: the server gives it to somebody else. So each is done at least once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PATIENCE: Final = 1.0
"""Seconds that ``get`` waits at most."""
LONGEST: Final = 64 * 1024
"""Bytes of a header's value that still becomes a variable: execve(2) takes twice that."""


class QueueError(Exception):
    """Nothing can be had of the queue; why, in one line."""


class NoReply(Exception):
    """Where a message wants its reply to go, none can; why, in one line. It is the message's own
    fault, and nothing has become of it yet."""


@dataclass(frozen=True)
class Options:
    """What all queues are told. Durations are seconds."""

    ack_wait: float = 30.0
    create: bool = False
    """Make what is not there."""
    subject: str | None = None
    """... of what a stream is made; NATS only."""
    dead_letter: str | None = None
    """Where they go; empty: nowhere; None: the queue's own name for it."""
    reply_to: str | None = None
    reply_header: str | None = None
    """The header or field that names it for each message."""
    body: str = "body"
    """The field of an entry that is standard input; Redis only."""
    delete: bool = False
    """Take a message that is settled out of the stream; Redis only."""
    password: str | None = None
    credentials: str | None = None
    """A file; NATS only."""
    authorities: str | None = None
    """A file of certificates to trust instead of the system's."""


@dataclass(frozen=True)
class Ended:
    """How the process of a message ended."""

    status: int | None
    """As in subprocess; None: it was never started, or nobody knows."""
    reason: str = ""
    """What was wrong, in words; empty: nothing."""
    output: bytes = b""
    errors: bytes = b""
    """The end of its standard error."""


class Message(Protocol):
    """One, while it is the worker's."""

    @property
    def title(self) -> str:
        """For people."""

    @property
    def body(self) -> bytes: ...

    @property
    def deliveries(self) -> int:
        """How often it was handed out, with this time."""

    @property
    def variables(self) -> Mapping[bytes, bytes]:
        """What the process finds of it in its environment."""


class Source(Protocol):
    """A queue, open. What fails for want of a connection is tried again until there is one.

    Raises QueueError where that is in vain.
    """

    @property
    def name(self) -> str:
        """For people, without secrets."""

    @property
    def ack_wait(self) -> float: ...

    @property
    def max_deliver(self) -> int | None:
        """After so many times the server itself hands a message out no more; None: it goes on."""

    @property
    def max_output(self) -> int | None:
        """Bytes of a reply; None: any number."""

    @property
    def figures(self) -> Mapping[str, int]:
        """What it counts itself."""

    async def open(self) -> None:
        """Before all else. QueueError: it is not there, or not as it has to be."""

    async def get(self, room: int) -> Sequence[Message]:
        """At most ``room`` messages, as soon as there are any; none after ``PATIENCE``."""

    def more(self, room: int) -> None:
        """There is room for so many now, while ``get`` waits."""

    async def extend(self, messages: Iterable[Message]) -> None:
        """They are being worked on. Called three times per ``ack_wait``; one that is not told for
        want of a connection is told the next time."""

    def reply_to(self, message: Message) -> Any:
        """Where what its process says is to go; None: nowhere here."""

    async def done(self, message: Message, output: bytes) -> None:
        """With what is to be its reply, where it has one. Raises NoReply."""

    async def again(self, message: Message, delay: float) -> None:
        """It is to be handed out once more, after so many seconds."""

    async def give_back(self, message: Message) -> None:
        """Somebody else may have it, at once; nothing is wrong with it."""

    async def bury(self, message: Message, ended: Ended) -> None:
        """It goes to the dead letters, and is not handed out again."""

    async def stop(self) -> None:
        """Nothing more is asked for; what came since ``get`` is given back."""

    async def close(self) -> None:
        """After ``stop``, or after a failed ``open``."""


def variable(name: str) -> bytes:
    """The variable for a header or a field, as CGI has it for HTTP (RFC 3875 4.1.18)."""
    return b"MESSAGE_HEADER_" + re.sub(r"[^A-Z0-9]", "_", name.upper()).encode()


def of_headers(headers: Iterable[tuple[str, bytes]]) -> dict[bytes, bytes]:
    """Variables for those that can be one."""
    return {
        variable(name): value
        for name, value in headers
        if len(value) <= LONGEST and b"\0" not in value
    }
