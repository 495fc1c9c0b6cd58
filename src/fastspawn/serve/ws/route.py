"""What a route is to a WebSocket: ``routes/route.py`` is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from fastspawn.serve.http import route

if TYPE_CHECKING:
    from fastspawn.serve.config.model import RouteConfig


class Gateway(Protocol):
    def invocation(self, exchange: Any) -> Any:
        """What the request asks for. Raises Refused."""


class Route(route.Route, Protocol):
    @property
    def config(self) -> RouteConfig: ...

    @property
    def gateway(self) -> Gateway: ...
