"""A new configuration while the server runs: read, checked, put into force."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastspawn.serve.config import settings
from fastspawn.serve.strategies.base import NotStarted

from . import tls
from .outlets import say

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from fastspawn.serve.config.model import Config
    from fastspawn.serve.service import Service
    from fastspawn.serve.strategies.news import News

    from .systemd import Notifier


def why_not(error: Exception) -> str:
    """In a line. Not only what is wrong with a configuration: to read it takes files, memory and
    modules that are not loaded yet, and a server that lacks them goes on as it was."""
    if isinstance(error, (ValueError, OSError, NotStarted)):
        return str(error)
    return f"{type(error).__name__}: {error}"


class Reloader:
    """Puts new configurations into force, one after the other."""

    def __init__(
        self, service: Service, news: News, notifier: Notifier, secure: ssl.SSLContext | None
    ) -> None:
        self._service = service
        self._news = news
        self._secure = secure
        self._notifier = notifier
        self._next: Config | None = None
        self._note = ""
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def reread(self, read: Callable[[], Config]) -> None:
        """At SIGHUP."""
        self._notifier.reloading()
        try:
            config, note = settings.reloaded(self._service.config, read())
        except Exception as error:
            say(f"not reloaded: {why_not(error)}")
            self._notifier.ready()
        else:
            self.ask(config, f"reloaded {config.config}{note}")

    def ask(self, config: Config, note: str = "") -> None:
        """``config`` has been checked. ``note``: what to say when it is in force."""
        self._next, self._note = config, note
        if self._task is None and not self._closed:
            self._task = self._service.loop.create_task(self._load())

    async def _load(self) -> None:
        while (config := self._next) is not None:
            self._next, note = None, self._note
            try:
                with self._news.gathering():
                    await self._service.load(config)
                if self._secure is not None:
                    tls.renew(self._secure, config)
            except Exception as error:
                say(f"not reloaded: {why_not(error)}")
            else:
                if note:
                    say(note)
            self._notifier.ready()
        self._task = None

    async def close(self) -> None:
        """No more of it."""
        self._closed = True
        self._next = None
        if self._task is not None:
            await asyncio.wait([self._task])
