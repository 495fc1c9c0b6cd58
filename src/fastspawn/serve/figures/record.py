"""What there is to record of a request: all that figures know of exchanges and routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastspawn.serve.job import Job


class Strategy(Protocol):
    """How a route's processes come to be."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str:
        """Where forks begin; empty: nothing forks."""

    @property
    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """What has befallen it, by kind and name: how often."""


class Admission(Protocol):
    """Who may run, of a route's requests."""

    @property
    def running(self) -> int: ...

    @property
    def waiting(self) -> int: ...


class Route(Protocol):
    @property
    def title(self) -> str:
        """Stays the same when the configuration is read again."""

    @property
    def strategy(self) -> Strategy: ...

    @property
    def admission(self) -> Admission: ...


class About(Protocol):
    """What header fields say of a request: each may be empty."""

    referer: bytes
    agent: bytes

    @property
    def id(self) -> bytes: ...

    @property
    def user(self) -> bytes: ...


class Exchange(Protocol):
    """A request that has been answered, or given up."""

    since: float
    """The meter's own: when the request came to its turn, or its process was asked for."""

    @property
    def route(self) -> Route: ...

    @property
    def peer(self) -> bytes:
        """The client's address."""

    @property
    def method(self) -> bytes: ...

    @property
    def target(self) -> bytes:
        """As in the request line."""

    @property
    def http10(self) -> bool: ...

    @property
    def head_only(self) -> bool:
        """The answer is over with its head."""

    @property
    def about(self) -> About | None:
        """None: nobody wanted to know."""

    @property
    def status(self) -> int:
        """499: the client has gone."""

    @property
    def head_sent(self) -> bool: ...

    @property
    def received(self) -> int:
        """Bytes of the request's body."""

    @property
    def sent(self) -> int:
        """Bytes of the answer's body."""

    @property
    def stalled(self) -> bool:
        """The client was given up: it sent nothing, or took nothing, for the time that it has."""


class Recorder(Protocol):
    """Wants to know of each request that has been answered."""

    def record(self, exchange: Exchange, job: Job | None) -> None:
        """``job``: its process; None: there was none."""
