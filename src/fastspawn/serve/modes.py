"""What a mode is: how a process comes of a request, and how an answer comes of the process.

A mode is added here and in ``config.ModeName``. Its ``Exchange`` overrides what is to happen
with output; its ``spawner`` has the last word on the command line and the environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .exchange import Exchange

if TYPE_CHECKING:
    from .config import ModeName
    from .route import Route
    from .strategy import Job

Spawn = Callable[[Any, Any], "Job"]
"""``spawn(exchange, input)``, ``input`` as for ``Strategy.spawn``. Never blocks, never raises."""


class Mode(NamedTuple):
    exchange: type[Exchange]
    wants_fields: bool
    """The request's header fields are kept for it, in ``exchange.match.fields``."""
    spawner: Callable[[Route], Spawn]
    """Called once per route."""


def _raw(route: Route) -> Spawn:
    """The command of the route, with what the path has put into it."""
    strategy = route.strategy
    if route.ids:
        return _raw_with_id(route)
    if not route.filling.varies:
        return strategy.spawn

    def spawn(exchange: Exchange, input: Any) -> Job:
        match = exchange.match
        return strategy.spawn_as(exchange, input, match.argv, match.env)

    return spawn


def _raw_with_id(route: Route) -> Spawn:
    strategy, filling = route.strategy, route.filling

    def spawn(exchange: Exchange, input: Any) -> Job:
        about = exchange.about
        if filling.varies:
            argv, env = exchange.match.argv, exchange.match.env
        elif about is None or strategy.name == "warm" or strategy.alike:
            # What is started before the request can't know its id.
            return strategy.spawn(exchange, input)
        else:
            argv, env = filling.argv, filling.env
        if about is not None:
            env = {**env, "HTTP_X_REQUEST_ID": about.id.decode("ascii")}
        return strategy.spawn_as(exchange, input, argv, env)

    return spawn


def _cgi(route: Route) -> Spawn:
    """The command of the route, or a script of its directory, as RFC 3875 has it."""
    from .cgi.gateway import Gateway

    gateway = route.gateway = Gateway(route)
    return gateway.spawn


def mode(name: ModeName) -> Mode:
    """What is not asked for is not imported: ws needs what is not always installed."""
    if name == "raw":
        return Mode(Exchange, wants_fields=False, spawner=_raw)
    if name == "cgi":
        from .cgi.exchange import CgiExchange

        return Mode(CgiExchange, wants_fields=True, spawner=_cgi)
    from .websocket import WsExchange

    return Mode(WsExchange, wants_fields=True, spawner=_cgi)
