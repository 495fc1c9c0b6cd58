"""Which route a request belongs to."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from fastspawn.serve.http.added import lines
from fastspawn.serve.http.cors import wanted
from fastspawn.serve.http.refused import Refused
from fastspawn.serve.paths import BadPath, Found, FreePath, Router, split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastspawn.serve.http.about import Reader
    from fastspawn.serve.http.match import Match
    from fastspawn.serve.http.refused import Refusal

    from .own import Maker
    from .route import Route


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
        own: Mapping[bytes, Maker] = MappingProxyType({}),
        about: Reader | None = None,
    ) -> None:
        self.routes = tuple(routes)
        self.nowhere = nowhere
        self.own = own
        self.about = about
        self.sole = routes[0] if len(routes) == 1 and routes[0].plain else None
        self.wants_fields = about is not None or any(
            route.wants_fields or route.cors is not None for route in routes
        )
        self._router: Router[Route] = Router()
        for route in routes:
            self._router.add(route.template, route.config.methods, route)

    def find(
        self, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]] | None
    ) -> tuple[Route, Match | Refusal]:
        """Whose request this is, or how it is to be answered without a process."""
        if method == b"OPTIONS" and fields and (answer := self._preflight(target, fields)):
            return answer
        place = self._look(method, target)
        if not isinstance(place, _Place):
            return self.nowhere, place
        route = place.route
        try:
            return route, route.match(place.segments, place.values, target, fields)
        except Refused as refused:
            return route, (refused.status, refused.text)

    def _look(self, method: bytes, target: bytes) -> _Place | Refusal:
        try:
            segments = split(target)
            found = () if segments is None else self._router.find(method, segments)
            if isinstance(found, Found):
                assert segments is not None
                return _Place(found.what, segments, found.values)
        except FreePath as error:
            return self._look_free(method, target) or (400, f"{error}\n".encode())
        except BadPath as error:
            return 400, f"{error}\n".encode()
        if not found:
            return 404, b"nothing is here\n"
        if method == b"OPTIONS":
            # RFC 9110 section 9.3.7.
            return 204, b"", b"\r\nAllow: " + b", ".join(sorted({*found, b"OPTIONS"}))
        return 405, b"not for this path\n", b"\r\nAllow: " + b", ".join(found)

    def _look_free(self, method: bytes, target: bytes) -> _Place | None:
        """Likewise, of a path that is one only for some; None: not for the route that it has."""
        try:
            segments = split(target, free=True)
        except BadPath:
            return None
        found = () if segments is None else self._router.find(method, segments)
        if not isinstance(found, Found) or not found.what.free:
            return None
        assert segments is not None
        return _Place(found.what, segments, found.values)

    def _preflight(
        self, target: bytes, fields: list[tuple[bytes, bytes]]
    ) -> tuple[Route, Refusal] | None:
        """What a browser is told that asks whether it may send a page's request: by the route that
        the request would be for. None: it does not ask, or that route says nothing of it."""
        method = wanted(fields)
        place = self._look(method, target) if method else None
        if not isinstance(place, _Place) or place.route.cors is None:
            return None
        route = place.route
        status, text, more = place.route.cors.preflight(fields, route.config.methods)
        return route, (status, text, lines(more))


class _Place(NamedTuple):
    """Where a request's path leads."""

    route: Route
    segments: tuple[str, ...]
    values: Mapping[str, str]
