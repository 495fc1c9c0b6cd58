"""What a mode is: how a process comes of a request, and how an answer comes of the process.

A mode is added here and in ``config.ModeName``. Its exchange says what is to happen with output;
its ``spawner`` has the last word on the command line and the environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fastspawn.serve.http.form import reads_form
from fastspawn.serve.http.judged import JudgedExchange
from fastspawn.serve.http.raw import RawExchange

if TYPE_CHECKING:
    from fastspawn.serve.cgi.gateway import Gateway
    from fastspawn.serve.config.model import RouteConfig
    from fastspawn.serve.http.exchange import Exchange
    from fastspawn.serve.job import Job
    from fastspawn.serve.jsonrpc.sessions import Sessions
    from fastspawn.serve.paths import Template
    from fastspawn.serve.strategies.base import Strategy

    from .filling import Filling

Spawn = Callable[[Any, Any], "Job"]
"""``spawn(exchange, input)``, ``input`` as for ``Strategy.spawn``. Never blocks, never raises."""


class Route(Protocol):
    """What a mode has to know of a route (``route.py``), and leave with it."""

    gateway: Gateway
    """Of modes cgi and ws."""
    sessions: Sessions | None
    """Of mode jsonrpc."""

    @property
    def title(self) -> str: ...

    @property
    def config(self) -> RouteConfig: ...

    @property
    def ids(self) -> bool:
        """The command is told its request's."""

    @property
    def strategy(self) -> Strategy: ...

    @property
    def template(self) -> Template: ...

    @property
    def filling(self) -> Filling: ...


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
        elif about is None or strategy.alike:
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
    from fastspawn.serve.cgi.gateway import Gateway

    gateway = route.gateway = Gateway(route)
    return gateway.spawn


def _application(route: Route) -> Spawn:
    """An application, which is told of the request apart from its environment."""
    from fastspawn.serve.cgi.application import ApplicationGateway

    gateway = route.gateway = ApplicationGateway(route)
    return gateway.spawn


def _function(route: Route) -> Spawn:
    """The command of the route, told of the request as of-watchdog tells it."""
    from fastspawn.serve.openfaas.environment import encoded, variables

    strategy, plain = route.strategy, route.filling.env
    common = encoded(plain)

    def spawn(exchange: Exchange, input: Any) -> Job:
        match = exchange.match
        base = common if match.env is plain else encoded(match.env)
        env = base | variables(exchange.method, exchange.target, match.segments, match.fields)
        return strategy.spawn_as(exchange, input, match.argv, env)

    return spawn


def _jsonrpc(route: Route) -> Spawn:
    """The command of the route, for a session of it."""
    from fastspawn.serve.jsonrpc.sessions import Sessions

    route.sessions = Sessions(route)
    strategy, filling = route.strategy, route.filling

    def spawn(exchange: Any, input: Any) -> Job:
        if filling.varies:
            match = exchange.match
            return strategy.spawn_as(exchange.session, input, match.argv, match.env)
        return strategy.spawn(exchange.session, input)

    return spawn


def mode(config: RouteConfig, *, form: bool) -> Mode:
    """``form``: the route's command wants values of a form."""
    chosen = _mode(config)
    if form:
        return Mode(reads_form(chosen.exchange), wants_fields=True, spawner=chosen.spawner)
    return chosen


def _mode(config: RouteConfig) -> Mode:
    """What is not asked for is not imported: ws needs what is not always installed."""
    if config.mode == "raw" and config.request_env:
        from fastspawn.serve.cgi.told import ToldExchange

        return Mode(ToldExchange, wants_fields=True, spawner=_cgi)
    if config.mode == "raw":
        judged = config.status or config.error_body != "message"
        exchange = JudgedExchange if judged else RawExchange
        return Mode(exchange, wants_fields=False, spawner=_raw)
    if config.application is not None:
        from fastspawn.serve.cgi.exchange import CgiExchange

        return Mode(CgiExchange, wants_fields=True, spawner=_application)
    if config.mode == "cgi":
        from fastspawn.serve.cgi.exchange import CgiExchange

        return Mode(CgiExchange, wants_fields=True, spawner=_cgi)
    if config.mode in ("streaming", "serializing"):
        from fastspawn.serve.openfaas.exchange import Serializing, Streaming

        kind = Streaming if config.mode == "streaming" else Serializing
        return Mode(kind, wants_fields=True, spawner=_function)
    if config.mode == "jsonrpc":
        from fastspawn.serve.jsonrpc.exchange import JsonrpcExchange

        return Mode(JsonrpcExchange, wants_fields=True, spawner=_jsonrpc)
    if config.pty:
        from fastspawn.serve.ws.terminal import TerminalExchange

        return Mode(TerminalExchange, wants_fields=True, spawner=_cgi)
    from fastspawn.serve.ws.exchange import WsExchange

    return Mode(WsExchange, wants_fields=True, spawner=_cgi)
