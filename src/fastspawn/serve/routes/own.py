"""What the server answers itself, without a process: whether it lives, whether it is ready, and
its figures, for machines and on a page for people.

Such a path goes before every route, as it stands in the request line (without the query). These
answers are neither queued nor logged nor counted: they are there when all places are taken.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from fastspawn.serve.http.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastspawn.serve.config.model import Config
    from fastspawn.serve.figures.meter import Snapshot
    from fastspawn.serve.figures.tally import Figures
    from fastspawn.serve.http.exchange import Connection
    from fastspawn.serve.http.route import Route

    Maker = Callable[[Connection, Route, bytes, bytes, bool, bool], Exchange]
    """``maker(connection, route, method, target, http10, keep)``."""

_TEXT: Final = b"text/plain; charset=utf-8"
_FIELDS: Final = b"\r\nCache-Control: no-store"
_ALLOW: Final = b"\r\nAllow: GET, HEAD"


class Server(Protocol):
    """What there is to tell of."""

    @property
    def leaving(self) -> bool:
        """It will stop soon."""

    @property
    def figures(self) -> Figures | None: ...


class OwnExchange(Exchange):
    """Of a request for one of the server's own paths."""

    __slots__ = ("_server",)

    def __init__(
        self,
        server: Server,
        connection: Connection,
        route: Route,
        method: bytes,
        target: bytes,
        http10: bool,
        keep: bool,
    ) -> None:
        super().__init__(connection, route, method, target, http10, keep)
        self._server = server

    def begin(self) -> None:
        self.begun = True
        connection = self.connection
        assert connection is not None
        if self.refusal is not None:
            self.refuse(*self.refusal)
        elif self.method not in (b"GET", b"HEAD"):
            self.refuse(405, b"only to be read\n", _ALLOW)
        else:
            self.answer()

    def answer(self) -> None:
        """Send the answer, now or later."""
        raise NotImplementedError

    def reply(
        self, status: int, text: bytes, content_type: bytes = _TEXT, fields: bytes = b""
    ) -> None:
        """The answer, unless the client has gone meanwhile. ``fields``: more, each after a CRLF."""
        connection = self.connection
        if connection is None:
            return
        self.status = status
        self.sent = 0 if self.head_only else len(text)
        connection.send(
            self.route.heads.whole(
                status,
                text,
                content_type,
                end=_FIELDS + fields + self._end(connection),
                body=not self.head_only,
            )
        )
        self.connection = None
        connection.done(self)

    def abandon(self) -> None:
        self.connection = None


class HealthExchange(OwnExchange):
    """The event loop turns: that is all."""

    __slots__ = ()

    def answer(self) -> None:
        self.reply(200, b"ok\n")


class ReadyExchange(OwnExchange):
    """More requests are welcome."""

    __slots__ = ()

    def answer(self) -> None:
        if self._server.leaving:
            self.reply(503, b"draining\n")
        else:
            self.reply(200, b"ready\n")


class MetricsExchange(OwnExchange):
    """All there is to count, of all workers."""

    __slots__ = ()

    def answer(self) -> None:
        figures = self._server.figures
        assert figures is not None
        figures.ask(self._tell)

    def _tell(self, total: Snapshot) -> None:
        from fastspawn.serve.figures import metrics

        self.reply(200, metrics.render(total), metrics.CONTENT_TYPE)


class LiveExchange(OwnExchange):
    """The same for people: a page, and what it shows."""

    __slots__ = ()

    def answer(self) -> None:
        from fastspawn.serve.figures import live

        figures = self._server.figures
        assert figures is not None
        if live.FIGURES in self.target.partition(b"?")[2].split(b"&"):
            figures.ask(self._tell)
        else:
            self.reply(200, live.PAGE, live.PAGE_TYPE, live.FIELDS)

    def _tell(self, total: Snapshot) -> None:
        from fastspawn.serve.figures import live

        self.reply(200, live.render(total), live.FIGURES_TYPE, live.FIELDS)


def answers(config: Config, server: Server) -> Mapping[bytes, Maker]:
    """What answers which path, for ``server``. To be called when files may be read."""
    if config.live_path is not None:
        from fastspawn.serve.figures import live  # noqa: F401
    found: dict[bytes, Maker] = {}
    for path, kind in (
        (config.health_path, HealthExchange),
        (config.ready_path, ReadyExchange),
        (config.metrics_path, MetricsExchange),
        (config.live_path, LiveExchange),
    ):
        if path is not None:
            found[path.encode("ascii")] = partial(kind, server)
    return found
