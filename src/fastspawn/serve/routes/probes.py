"""``/_/health`` and ``/_/ready``, answered as of-watchdog does: to GET, mostly without a word."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from fastspawn.serve.http.response import reason

from .own import OwnExchange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastspawn.serve.config.model import Config
    from fastspawn.serve.http.exchange import Connection
    from fastspawn.serve.http.route import Route as Nowhere

    from .own import Maker, Server
    from .route import Route

_HEALTH: Final = b"/_/health"
_READY: Final = b"/_/ready"


class _Probe(OwnExchange):
    __slots__ = ()

    def begin(self) -> None:
        if self.refusal is None and self.method != b"GET":
            self.begun = True
            self.tell(405)
        else:
            super().begin()

    def tell(self, status: int, text: bytes = b"") -> None:
        """Answer."""
        connection = self.connection
        assert connection is not None
        self.status = status
        fields = [(b"Content-Length", b"%d" % len(text))]
        if text:
            fields.append((b"Content-Type", b"text/plain; charset=utf-8"))
        head = self.route.heads.passed_on(status, reason(status), fields, self._end(connection))
        self._send_sized(connection, head, text)
        self.connection = None
        connection.done(self)


class FunctionHealth(_Probe):
    """The function is there."""

    __slots__ = ()

    def answer(self) -> None:
        if self._server.leaving:
            self.tell(503)
        else:
            self.tell(200, b"OK")


class FunctionReady(_Probe):
    """It would take a request: there is a place, and the function itself says so if it is asked."""

    __slots__ = ("_functions", "_path")

    def __init__(
        self,
        functions: Sequence[Route],
        path: str | None,
        server: Server,
        connection: Connection,
        route: Nowhere,
        method: bytes,
        target: bytes,
        http10: bool,
        keep: bool,
    ) -> None:
        super().__init__(server, connection, route, method, target, http10, keep)
        self._functions = functions
        self._path = path

    def answer(self) -> None:
        if self._server.leaving:
            self.tell(503)
        elif any(_full(route) for route in self._functions):
            self.tell(429)
        elif self._path is None:
            self.tell(200)
        else:
            connection = self.connection
            assert connection is not None
            self.connection = None
            connection.replace(self, b"GET", self._path.encode("ascii"), []).begin()


def _full(route: Route) -> bool:
    """The next request would be refused. Where they may wait, that is not a question of places."""
    return route.config.queue == 0 and route.admission.running >= route.config.max_inflight


def answers(config: Config, server: Server, routes: Sequence[Route]) -> Mapping[bytes, Maker]:
    """What answers which path, for ``server`` with ``routes``."""
    if not config.openfaas:
        return {}
    return {
        _HEALTH: partial(FunctionHealth, server),
        _READY: partial(FunctionReady, routes, config.function_ready_path, server),
    }
