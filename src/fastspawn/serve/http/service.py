"""What the connections of a loop share, as a connection knows it: ``service.py`` above is it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio

    from .parser import Routing
    from .watch import Deadlines, Unsent, Watch


class Limits(Protocol):
    """Of those that are configured, what a connection looks at itself."""

    @property
    def max_head(self) -> int:
        """Bytes."""


class Connections(Protocol):
    def add(self, connection: Any, /) -> None: ...

    def discard(self, connection: Any, /) -> None: ...


class Service(Protocol):
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def config(self) -> Limits: ...

    @property
    def routing(self) -> Routing: ...

    @property
    def connections(self) -> Connections:
        """Those that are open."""

    @property
    def half_closes(self) -> bool:
        """One side of a connection can end without the other."""

    @property
    def retiring(self) -> bool:
        """Each request is its connection's last."""

    @property
    def watch(self) -> Watch: ...

    @property
    def idle(self) -> Deadlines:
        """The time limit for the next request ..."""

    @property
    def slow(self) -> Deadlines:
        """... for its head ..."""

    @property
    def body(self) -> Deadlines:
        """... for the next bit of its body ..."""

    @property
    def lingering(self) -> Deadlines:
        """... and for a client that still sends after the last answer."""

    @property
    def unsent(self) -> Unsent: ...
