"""What a route is to an exchange: ``routes/route.py`` is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastspawn.serve.job import Job

    from .cors import Cors
    from .match import Match
    from .outcome import Verdict
    from .response import Heads
    from .watch import Delay


class Admission(Protocol):
    def leave(self) -> None:
        """Give the place back in which ``start`` was called."""

    def withdraw(self, entrant: Any) -> None:
        """Forget one that may be waiting."""


class Recorder(Protocol):
    """Wants to know of each request that has been answered."""

    def record(self, exchange: Any, job: Any) -> None:
        """``job``: its process, which has ended; None: there was none."""


class Judge(Protocol):
    @property
    def start(self) -> int:
        """The status of an answer that begins before its process ends."""

    def judge(self, job: Any) -> Verdict:
        """What a process that has ended has come to."""


class Route(Protocol):
    """Whose request it is (``routes/route.py``)."""

    @property
    def admission(self) -> Admission: ...

    @property
    def heads(self) -> Heads: ...

    @property
    def cors(self) -> Cors | None:
        """None: nothing is said to pages of other sites."""

    @property
    def delay(self) -> Delay | None:
        """Holds back the beginning of an output; None: the strategy does."""

    @property
    def log(self) -> Recorder | None: ...

    @property
    def max_body(self) -> int: ...

    @property
    def exchange(self) -> Callable[[Any, Any, bytes, bytes, bool, bool], Any]:
        """Makes its exchanges: ``exchange(connection, route, method, target, http10, keep)``."""

    @property
    def enter(self) -> Callable[[Any], None]:
        """``enter(exchange)``: ask for a place. ``start`` or ``overloaded`` follows."""

    @property
    def spawn(self) -> Callable[[Any, Any], Job]:
        """``spawn(exchange, input)``: its process. ``input``: as in ``Strategy.spawn``."""


class Filled(Route, Protocol):
    """One that puts values of a request's body into its command."""

    def fill(self, match: Match, target: bytes, body: bytes) -> None:
        """Put them into ``match``. Raises Refused."""


class Judging(Route, Protocol):
    """One that says what exit statuses are in HTTP."""

    @property
    def judge(self) -> Judge: ...
