"""What a route has that hands its requests to scripts, of mode ``cgi`` or ``ws``: which script a
request is for, and in which surroundings.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastspawn._executable import why_not_executed
from fastspawn.serve.http import outcome
from fastspawn.serve.http.ends import end
from fastspawn.serve.http.refused import Refused
from fastspawn.serve.job import Sink
from fastspawn.serve.paths import Hole
from fastspawn.serve.strategies.command import command_of

from .certificate import variables
from .environment import Request, Script, Settings, environment, of_request
from .request import parse_target
from .scripts import ScriptDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastspawn.serve.config.model import RouteConfig
    from fastspawn.serve.http.about import About
    from fastspawn.serve.http.exchange import Connection
    from fastspawn.serve.http.match import Match
    from fastspawn.serve.job import Job
    from fastspawn.serve.paths import Template
    from fastspawn.serve.strategies.base import Strategy

_ALLOW: Final = b"\r\nAllow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"


class Invocation:
    """A script and its environment, as long as CONTENT_LENGTH is not known."""

    __slots__ = ("argv", "cwd", "env", "nph")

    def __init__(
        self,
        argv: tuple[str | bytes, ...],
        env: dict[bytes, bytes],
        cwd: bytes | None,
        nph: bool,
    ) -> None:
        self.argv = argv
        self.env = env
        self.cwd = cwd
        """None: the route's."""
        self.nph = nph


class Line(Protocol):
    """A command line and an environment."""

    @property
    def argv(self) -> tuple[str, ...]: ...

    @property
    def env(self) -> Mapping[str, str]: ...


class Source(Protocol):
    """The route that it is made for."""

    @property
    def config(self) -> RouteConfig: ...

    @property
    def strategy(self) -> Strategy: ...

    @property
    def template(self) -> Template:
        """Of its path."""

    @property
    def filling(self) -> Line:
        """Its command as it is without a request."""


class Caller(Sink, Protocol):
    """An exchange of the route: what a script learns of its request."""

    @property
    def connection(self) -> Connection | None: ...

    @property
    def match(self) -> Match: ...

    @property
    def about(self) -> About | None: ...

    @property
    def method(self) -> bytes: ...

    @property
    def target(self) -> bytes: ...

    @property
    def http10(self) -> bool: ...

    @property
    def invocation(self) -> Invocation | None:
        """As soon as it has been asked for."""

    @property
    def length(self) -> int | None:
        """Bytes of the body, where it is known; see CONTENT_LENGTH."""


class Gateway:
    """One per route. Raises OSError or ValueError for a directory that can't be served."""

    def __init__(self, route: Source) -> None:
        config = route.config
        self.spoils: Callable[[Job], bool] = (
            outcome.failed if config.cgi_exit == "strict" else outcome.stopped
        )
        """In ``on_exit``: the way it ended makes the script's answer none, complete or not."""
        self._strategy = route.strategy
        self._directory = directory_of(config)
        root = config.document_root
        if root is not None:
            self._root: bytes | None = os.fsencode(os.path.abspath(root))
        else:
            self._root = None if self._directory is None else self._directory.root
        self._file = b"" if self._directory is not None else _program(route)
        self._cwd = config.cwd
        self._sandbox = config.sandbox or ()
        segments = route.template.segments
        self._depth = (
            len(segments) - 1
            if isinstance(segments[-1], Hole) and segments[-1].rest
            else len(segments)
        )
        """Segments of a path that name the script; the others are PATH_INFO."""
        self._gateway = config.mode != "raw"
        self._pass_authorization = config.pass_authorization
        self._extra_names = [name for name, _ in config.set_env]
        self._plain = route.filling.env
        self._settings = self._make_settings(self._plain)

    def invocation(self, exchange: Caller) -> Invocation:
        """What the request asks for. Raises Refused. Looks into the directory of scripts."""
        match = exchange.match
        return self.invoke(self._request(exchange, match), match)

    def invoke(self, request: Request, match: Match, mounted: bytes = b"") -> Invocation:
        """Likewise. ``mounted``: the path before the part of it that ``match`` knows."""
        if request.method == b"TRACE":
            # It would show a script's page what the browser has added to the request.
            raise Refused(405, b"not for scripts\n", _ALLOW)
        path = [part.encode(errors="surrogateescape") for part in match.segments]
        if self._directory is None:
            script = self._split(path)
            argv: tuple[str | bytes, ...] = match.argv
            cwd = None
        else:
            if self._depth:
                script = self._directory.find_below(path, self._depth)
            else:
                script = self._directory.find(path)
            argv = (*self._sandbox, script.file)
            # RFC 3875 section 7.2.
            cwd = os.path.dirname(script.file) if self._cwd is None else None
        if mounted:
            script = replace(script, name=mounted + script.name)
        env = environment(request, script, self._settings_for(match.env))
        name = os.path.basename(script.file)
        return Invocation(argv, env, cwd, name.startswith(b"nph-"))

    def spawn(self, exchange: Caller, input: Any) -> Job:
        """Start what ``invocation`` has found."""
        invocation = exchange.invocation
        assert invocation is not None
        env = invocation.env
        if exchange.length is not None:
            # The operator may have set it.
            env.setdefault(b"CONTENT_LENGTH", b"%d" % exchange.length)
        return self._strategy.spawn_as(exchange, input, invocation.argv, env, invocation.cwd)

    def failure(self, invocation: Invocation, job: Job) -> tuple[outcome.Failure, str]:
        """The error that answers for a script that has ``failed``; and, if it was never started,
        why, in a line for the log: no client is told of files."""
        found = outcome.failure(job)
        if job.error is None or found.passing:
            return found, ""
        name = os.fsdecode(invocation.argv[0])
        search = os.fsdecode(invocation.env.get(b"PATH", b"")) or None
        program = shutil.which(name, path=search) or name
        why = why_not_executed(program, invocation.cwd or self._cwd, search)
        if why is None:
            why = getattr(job.error, "strerror", None) or str(job.error)
        else:
            found = found._replace(text=b"the script could not be executed: the log says why\n")
        return found, f"cannot start {program}: {why}"

    def _split(self, segments: list[bytes]) -> Script:
        name, rest = segments[: self._depth], segments[self._depth :]
        return Script(
            name=b"".join(b"/" + segment for segment in name),
            path_info=b"".join(b"/" + segment for segment in rest),
            file=self._file,
        )

    def _request(self, exchange: Caller, match: Match) -> Request:
        connection = exchange.connection
        assert connection is not None
        transport, about = connection.transport, exchange.about
        remote = end(transport.get_extra_info("peername"))
        https = transport.get_extra_info("sslcontext") is not None
        secure, user, auth = _secure(connection) if https else {}, b"", b""
        if about is not None:
            remote = (about.peer, 0) if about.peer else remote
            https = https if about.https is None else about.https
            user, auth = about.user, about.auth
            if about.proxied:
                secure = {}  # of the proxy, which is not the client
        return Request(
            method=exchange.method,
            target=parse_target(exchange.target),
            version=b"HTTP/1.0" if exchange.http10 else b"HTTP/1.1",
            fields=match.fields,
            remote=remote,
            local=end(transport.get_extra_info("sockname")),
            https=https,
            user=user,
            auth=auth,
            secure=secure,
        )

    def _settings_for(self, env: Mapping[str, str]) -> Settings:
        return self._settings if env is self._plain else self._make_settings(env)

    def _make_settings(self, env: Mapping[str, str]) -> Settings:
        encoded = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
        # The server may have been started by a script itself.
        encoded = {name: value for name, value in encoded.items() if not of_request(name)}
        extra = {os.fsencode(name): os.fsencode(env[name]) for name in self._extra_names}
        return Settings(
            base=encoded,
            extra=extra,
            document_root=self._root,
            pass_authorization=self._pass_authorization,
            gateway=self._gateway,
        )


def _secure(connection: Connection) -> dict[bytes, bytes]:
    if connection.secure is None:
        connection.secure = variables(connection.transport.get_extra_info("ssl_object"))
    return connection.secure


def directory_of(config: RouteConfig) -> ScriptDirectory | None:
    """None: the route has a command. Raises OSError or ValueError."""
    if config.cgi_dir is None:
        return None
    return ScriptDirectory(config.cgi_dir, config.cgi_link_dir)


def _program(route: Source) -> bytes:
    program = route.filling.argv[len(route.config.sandbox or ()) :]
    try:
        return os.fsencode(command_of(route.config, program).resolve())
    except (OSError, ValueError):
        # Not there (any more). Each request will say so.
        return os.fsencode(program[0])
