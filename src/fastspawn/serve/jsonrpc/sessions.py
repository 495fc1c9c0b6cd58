"""The sessions of a route."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Protocol

from .session import Config, Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastspawn.serve.http.about import About

_KEEP_ALIVE: Final = 15.0
"""Seconds between signs of life on answers that are long in coming: proxies give up after 30 or
60."""


class Timed(Protocol):
    """What it needs to know of the route."""

    @property
    def config(self) -> TimedConfig: ...

    @property
    def title(self) -> str: ...


class TimedConfig(Config, Protocol):
    @property
    def session_timeout(self) -> float | None: ...


class Sessions:
    """One per route, and on one event loop."""

    __slots__ = ("_all", "_idle", "_idle_timer", "_known", "_leaving", "_ping", "_route")

    def __init__(self, route: Timed) -> None:
        self._route = route
        self._known: dict[str, Session] = {}
        """By id: those that can be found."""
        self._all: set[Session] = set()
        """Those that have a process, or will."""
        self._idle: OrderedDict[Session, float] = OrderedDict()
        """Those that nobody reads from, and since when; in that order."""
        self._idle_timer: asyncio.TimerHandle | None = None
        self._ping: asyncio.TimerHandle | None = None
        self._leaving = False

    def begin(
        self,
        on_end: Callable[[Any], None],
        about: About | None,
        *,
        alone: bool = False,
        old: bool = False,
    ) -> Session:
        """``alone``: for one request, and nobody is to find it."""
        name = "" if alone else secrets.token_urlsafe(24)

        def ended(job: Any) -> None:
            self._all.discard(session)
            on_end(job)

        session = Session(self, self._route, name, about, ended, old=old)
        self._all.add(session)
        if name:
            self._known[name] = session
        if self._leaving:
            session.close_soon()
        if self._ping is None:
            self._ping = asyncio.get_running_loop().call_later(_KEEP_ALIVE, self._keep_alive)
        return session

    def forget(self, session: Session) -> None:
        """It will have no process."""
        self._all.discard(session)
        self.ended(session)

    def find(self, name: str) -> Session | None:
        return self._known.get(name)

    def drain(self) -> None:
        """End each when it has answered what was asked for; likewise those to come."""
        self._leaving = True
        for session in list(self._all):
            session.close_soon()

    def abort(self) -> None:
        """End all processes."""
        for session in list(self._all):
            session.cancel()

    # ---- from a session

    def used(self, session: Session) -> None:
        self._idle.pop(session, None)
        seconds = self._route.config.session_timeout
        if session.readers or session.closing or seconds is None:
            return
        loop = asyncio.get_running_loop()
        self._idle[session] = loop.time()
        if self._idle_timer is None:
            self._idle_timer = loop.call_later(seconds, self._expire)

    def ended(self, session: Session) -> None:
        self._known.pop(session.name, None)
        self._idle.pop(session, None)

    # ---- time

    def _expire(self) -> None:
        self._idle_timer = None
        seconds = self._route.config.session_timeout
        assert seconds is not None
        loop = asyncio.get_running_loop()
        while self._idle:
            session, since = next(iter(self._idle.items()))
            if since + seconds > loop.time():
                self._idle_timer = loop.call_at(since + seconds, self._expire)
                return
            session.close()

    def _keep_alive(self) -> None:
        self._ping = None
        for session in self._all:
            for reader in list(session.readers):
                reader.keep_alive()
        if self._all:
            self._ping = asyncio.get_running_loop().call_later(_KEEP_ALIVE, self._keep_alive)
