"""What an application of ``--wsgi`` or ``--asgi`` is told of its request: what a CGI script would
find in its environment, in one variable, so that its environment stays its own."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from fastspawn._app.request import VARIABLE
from fastspawn.serve.http.refused import Refused

from .environment import Settings
from .gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastspawn.serve.http.match import Match
    from fastspawn.serve.job import Job

    from .environment import Request
    from .gateway import Caller, Invocation, Source

_MOST: Final = 128 * 1024 - len(VARIABLE) - 64
"""Bytes of a variable's value (MAX_ARG_STRLEN of execve(2)), less what a CONTENT_LENGTH takes."""


class ApplicationGateway(Gateway):
    def __init__(self, route: Source) -> None:
        super().__init__(route)
        self._gateway = False
        self._settings = self._make_settings(self._plain)
        self._encoded = _encode(self._plain)

    def invoke(self, request: Request, match: Match, mounted: bytes = b"") -> Invocation:
        invocation = super().invoke(request, match, mounted)
        if sum(map(len, invocation.env.values())) > _MOST // 4 and len(_text(invocation)) > _MOST:
            raise Refused(431, b"header fields too large\n")
        return invocation

    def spawn(self, exchange: Caller, input: Any) -> Job:
        invocation = exchange.invocation
        assert invocation is not None
        if exchange.length is not None:
            invocation.env[b"CONTENT_LENGTH"] = b"%d" % exchange.length
        plain = exchange.match.env
        base = self._encoded if plain is self._plain else _encode(plain)
        env = {**base, VARIABLE: _text(invocation)}
        return self._strategy.spawn_as(exchange, input, invocation.argv, env, invocation.cwd)

    def _make_settings(self, env: Mapping[str, str]) -> Settings:
        return Settings(
            document_root=self._root,
            pass_authorization=self._pass_authorization,
            gateway=False,
        )


def _text(invocation: Invocation) -> bytes:
    said = {name.decode(): value.decode("latin-1") for name, value in invocation.env.items()}
    return json.dumps(said, ensure_ascii=False).encode()


def _encode(env: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
