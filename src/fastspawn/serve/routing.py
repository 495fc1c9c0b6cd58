"""Which route a request belongs to."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from .filling import BadValue
from .paths import BadPath, Found, FreePath, Router, split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .about import Reader
    from .own import OwnExchange
    from .route import Match, Route

Refusal = tuple[int, bytes] | tuple[int, bytes, bytes]
"""Status, text and perhaps more header fields: see ``Exchange.refuse``."""


class Routing:
    """The routes of a server, as one configuration has them. Does not change.

    ``sole``: the route of all requests, where there is only one and it wants to know nothing of
    them; then ``find`` need not be asked. ``nowhere``: where requests belong that are refused
    before a route is found; it starts nothing. ``own``: the paths that the server answers
    itself. ``about``: reads what else the fields say, if that is wanted. ``wants_fields``: some
    route does, or ``about``.
    """

    __slots__ = ("_router", "about", "nowhere", "own", "routes", "sole", "wants_fields")

    def __init__(
        self,
        routes: Sequence[Route],
        nowhere: Route,
        own: Mapping[bytes, type[OwnExchange]] = MappingProxyType({}),
        about: Reader | None = None,
    ) -> None:
        self.routes = tuple(routes)
        self.nowhere = nowhere
        self.own = own
        self.about = about
        self.sole = routes[0] if len(routes) == 1 and routes[0].plain else None
        self.wants_fields = about is not None or any(route.wants_fields for route in routes)
        self._router: Router[Route] = Router()
        for route in routes:
            self._router.add(route.template, route.config.methods, route)

    def find(
        self, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]] | None
    ) -> tuple[Route, Match] | Refusal:
        """Whose request this is, or how it is to be refused."""
        try:
            segments = split(target)
            found = () if segments is None else self._router.find(method, segments)
            if isinstance(found, Found):
                assert segments is not None
                route = found.what
                return route, route.match(segments, found.values, fields)
        except FreePath as error:
            return self._find_free(method, target, fields) or (400, f"{error}\n".encode())
        except (BadPath, BadValue) as error:
            return 400, f"{error}\n".encode()
        if found:
            return 405, b"not for this path\n", b"\r\nAllow: " + b", ".join(found)
        return 404, b"nothing is here\n"

    def _find_free(
        self, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]] | None
    ) -> tuple[Route, Match] | None:
        """Likewise, of a path that is one only for some; None: not for the route that it has."""
        try:
            segments = split(target, free=True)
        except BadPath:
            return None
        found = () if segments is None else self._router.find(method, segments)
        if not isinstance(found, Found) or not found.what.free:
            return None
        assert segments is not None
        return found.what, found.what.match(segments, found.values, fields)
