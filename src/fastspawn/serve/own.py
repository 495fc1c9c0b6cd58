"""What the server answers itself, without a process: whether it lives, whether it is ready, and
its figures.

Such a path goes before every route, as it stands in the request line (without the query). These
answers are neither queued nor logged nor counted: they are there when all places are taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import Config
    from .meter import Snapshot

_TEXT: Final = b"text/plain; charset=utf-8"
_FIELDS: Final = b"\r\nCache-Control: no-store"
_ALLOW: Final = b"\r\nAllow: GET, HEAD"


class OwnExchange(Exchange):
    """Of a request for one of the server's own paths."""

    __slots__ = ()

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

    def reply(self, status: int, text: bytes, content_type: bytes = _TEXT) -> None:
        """The answer, unless the client has gone meanwhile."""
        connection = self.connection
        if connection is None:
            return
        self.status = status
        self.sent = len(text)
        connection.send(
            self.route.heads.whole(
                status,
                text,
                content_type,
                end=_FIELDS + self._end(connection),
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
        connection = self.connection
        assert connection is not None
        if connection.service.leaving:
            self.reply(503, b"draining\n")
        else:
            self.reply(200, b"ready\n")


class MetricsExchange(OwnExchange):
    """All there is to count, of all workers."""

    __slots__ = ()

    def answer(self) -> None:
        connection = self.connection
        assert connection is not None
        figures = connection.service.figures
        assert figures is not None
        figures.ask(self._tell)

    def _tell(self, total: Snapshot) -> None:
        from . import metrics

        self.reply(200, metrics.render(total), metrics.CONTENT_TYPE)


def answers(config: Config) -> Mapping[bytes, type[OwnExchange]]:
    """What answers which path."""
    found: dict[bytes, type[OwnExchange]] = {}
    for path, kind in (
        (config.health_path, HealthExchange),
        (config.ready_path, ReadyExchange),
        (config.metrics_path, MetricsExchange),
    ):
        if path is not None:
            found[path.encode("ascii")] = kind
    return found
