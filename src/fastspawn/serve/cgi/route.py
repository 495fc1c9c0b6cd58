"""What a route is to the requests that it hands to scripts: ``routes/route.py`` is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fastspawn.serve.http import route

if TYPE_CHECKING:
    from fastspawn.serve.config.model import RouteConfig

    from .gateway import Gateway


class Told(route.Judging, Protocol):
    """One whose commands are told of their requests, and answer in mode ``raw``."""

    @property
    def gateway(self) -> Gateway: ...


class Route(route.Route, Protocol):
    @property
    def config(self) -> RouteConfig: ...

    @property
    def gateway(self) -> Gateway: ...
