"""An application that finds fault with its server, by the words of the ASGI specification (3.0;
HTTP 2.4, "HTTP Connection Scope" to "Disconnect"; lifespan 2.0), and hands on what is right."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

NAME = re.compile(rb"[0-9a-z!#$%&'*+.^_`|~-]+")


def validated(application: Application) -> Application:
    async def validator(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        kind = scope["type"]
        assert type(scope) is dict
        assert type(scope["state"]) is dict
        _check_version(scope["asgi"])
        if kind == "lifespan":
            await application(scope, receive, send)
            return
        assert kind == "http", kind
        _check_http(scope)
        await application(scope, _Receiver(receive), send)

    return validator


def _check_version(asgi: Any) -> None:
    assert type(asgi) is dict
    assert asgi["version"] == "3.0"
    assert re.fullmatch(r"2\.\d", asgi["spec_version"]), asgi


def _check_http(scope: dict[str, Any]) -> None:
    assert scope["http_version"] in ("1.0", "1.1", "2")
    assert type(scope["method"]) is str
    assert scope["method"] == scope["method"].upper() != ""
    assert scope["scheme"] in ("http", "https")
    assert type(scope["path"]) is str
    assert scope["path"].startswith(scope["root_path"] + "/")
    assert type(scope["raw_path"]) is bytes
    assert b"?" not in scope["raw_path"]
    assert type(scope["query_string"]) is bytes
    assert type(scope["root_path"]) is str
    for name, value in scope["headers"]:
        assert type(name) is type(value) is bytes
        assert NAME.fullmatch(name), name
        assert value == value.strip(), value
    for place in (scope["client"], scope["server"]):
        if place is not None:
            host, port = place
            assert type(host) is str
            assert type(port) is int
    assert all(type(value) is dict for value in scope["extensions"].values())


class _Receiver:
    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False
        self._gone = False

    async def __call__(self) -> Message:
        message = await self._receive()
        assert type(message) is dict
        if message["type"] == "http.disconnect":
            self._gone = True
            assert message == {"type": "http.disconnect"}
            return message
        assert message.keys() <= {"type", "body", "more_body"}
        assert message["type"] == "http.request"
        assert not self._ended, "more of a body that had ended"
        assert not self._gone, "a body of a client that is gone"
        assert type(message.get("body", b"")) is bytes
        assert type(message.get("more_body", False)) is bool
        self._ended = not message.get("more_body", False)
        return message
