"""What a route is to its sessions: ``routes/route.py`` is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fastspawn.serve.http import route

if TYPE_CHECKING:
    from fastspawn.serve.config.model import RouteConfig

    from .sessions import Sessions


class Route(route.Route, Protocol):
    @property
    def config(self) -> RouteConfig: ...

    @property
    def sessions(self) -> Sessions: ...
