"""What all strategies are to those who use them, and what they have in common.

A strategy starts a route's command with a sink and hands back a job. These are the engine's own
(``fastspawn.Engine``), so that the direct strategy has nothing to add and nothing to pay per
request.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fastspawn import Engine, TemplateError, WorkerError

from . import scheduling
from .news import News, about
from .sharing import Counts, Shares

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from fastspawn.serve.config.model import RouteConfig
    from fastspawn.serve.job import Job, Sink


class Strategy(Protocol):
    """One per route."""

    holds_back: bool
    """Output that is short, and comes from a process that ends soon, is all in ``on_exit``."""

    @property
    def name(self) -> str:
        """Once started: how processes come to be. Where it was to choose, what was chosen ..."""

    @property
    def reason(self) -> str:
        """... and why it was not the better way, in words for the operator; empty: it was."""

    @property
    def kind(self) -> str:
        """Where forks begin now: ``main``, ``effect`` or ``checkpoint``; ``exec``: most requests
        start by exec all the same; empty: nothing forks."""

    @property
    def alike(self) -> bool:
        """Only requests that run the command as it is can have what was prepared for them: a fork,
        a process that waits."""

    @property
    def counts(self) -> Counts:
        """What has befallen it: ``events``, and of residents ``resets`` and ``leaves`` (by system
        call), each by the names that the figures have for it. What is not there does not apply."""

    @property
    def spawn(self) -> Callable[[Sink, Any], Job]:
        """``spawn(sink, input)``: start the route's command as it is.

        ``input``: bytes, None (stdin at /dev/null), ``STREAM`` (``Job.write`` feeds it), or a
        ``Terminal`` (strategy direct only).
        Never blocks and never raises: a failure is ``Job.error`` in ``on_exit``.
        """

    def spawn_as(
        self,
        sink: Sink,
        input: Any,
        argv: Sequence[str | bytes],
        env: Mapping[str, str] | Mapping[bytes, bytes],
        cwd: str | bytes | None = None,
    ) -> Job:
        """Likewise, with what a request makes of the command. ``cwd`` None: the route's.

        Nothing in ``argv`` and ``env`` may contain a NUL.
        """

    async def start(self) -> None:
        """Before the first spawn. OSError: there is no room for it."""

    async def close(self) -> None:
        """End the jobs that are left, and whatever else the strategy holds for itself."""


class NotStarted(Exception):
    """A route's strategy cannot be started; why, in one line."""

    def __init__(self, route: RouteConfig, error: OSError | TemplateError) -> None:
        if isinstance(error, (WorkerError, TemplateError)):
            why = f"--strategy {route.strategy}: {error}"
        else:
            name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            why = f"cannot start the engine: {name}{error.strerror}"
        super().__init__(about([route.title]) + why)


class SharedEngine(Engine):
    """The engine of all routes: started by the first that needs it."""

    def __init__(self, spawners: int | None, *, alone: bool) -> None:
        """``alone``: nothing else runs on the event loop's thread, or starts children from
        there."""
        super().__init__(spawners)
        self._alone = alone
        self._started = False

    async def start(self) -> None:
        if not self._started:
            await super().start()
            self._started = True
            if self._alone:
                scheduling.batch()

    def accompany(self) -> None:
        """From now on the event loop's thread starts children itself."""
        if self._alone:
            self._alone = False
            scheduling.normal()


class Common(NamedTuple):
    """What the strategies of a server have in common."""

    loop: asyncio.AbstractEventLoop
    engine: SharedEngine
    ignores: bool
    """There are signals that children are to ignore, since the server was started so."""
    news: News
    shares: Shares
    looks: set[Callable[[], None]]
    """To be called from time to time: there may be news."""
