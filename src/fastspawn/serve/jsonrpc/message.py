"""JSON-RPC 2.0 messages (https://www.jsonrpc.org/specification) as they pass through here. Pure.

Nothing of a message is changed but that it gets to be one line, as the stdio transport of MCP wants
it: what is read of it is whose it is.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, Literal, NamedTuple

Key = tuple[str, "str | float"]
"""An id: 1 and "1" are two."""

INVALID: Final = -32600
"""A message that is none (section 5.1)."""
PARSE: Final = -32700
ENDED: Final = -32000
"""Of those that are left to servers: no answer will come."""
CANCELLED: Final = -32800
"""As language servers have it."""


class BadMessage(ValueError):
    """What is wrong, in a line."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Message(NamedTuple):
    kind: Literal["request", "notification", "response"]
    line: bytes
    """Without its end."""
    key: Key | None = None
    """Of a request, and of what it answers; None: an error that answers nothing in particular."""
    method: str = ""
    token: Key | None = None
    """Of a request, what progress of it will be told by; of a notification of progress, that."""
    cancels: Key | None = None
    """The request that is not to be answered any more."""
    error: bool = False
    """Of a response."""
    version: str = ""
    """Of MCP: what ``initialize`` asks for."""


def parse(data: bytes) -> Message:
    """Raises BadMessage."""
    value = _load(data)
    if isinstance(value, list):
        raise BadMessage(INVALID, "batches are not taken: one message at a time")
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise BadMessage(INVALID, "not a message of JSON-RPC 2.0")
    # Line ends are space between tokens: JSON has none within strings (RFC 8259 section 7).
    line = data.strip().replace(b"\r", b" ").replace(b"\n", b" ")
    if "method" in value:
        return _call(value, line)
    error = "error" in value
    if "id" not in value or error == ("result" in value):
        raise BadMessage(INVALID, "neither a request nor a notification nor a response")
    key = None if error and value["id"] is None else _key(value["id"])
    return Message("response", line, key, error=error)


def failed(key: Key | None, code: int, text: str) -> bytes:
    """An error response, a line."""
    error = {"code": code, "message": text}
    value = {"jsonrpc": "2.0", "id": None if key is None else key[1], "error": error}
    return json.dumps(value, separators=(",", ":")).encode()


def _load(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadMessage(PARSE, "not JSON") from None


def _refuse(name: str) -> None:
    raise ValueError(name)


def _call(value: dict[str, Any], line: bytes) -> Message:
    method, params = value["method"], value.get("params")
    if not isinstance(method, str) or "result" in value or "error" in value:
        raise BadMessage(INVALID, "neither a request nor a notification nor a response")
    named = params if isinstance(params, dict) else {}
    if "id" not in value:
        progress = method == "notifications/progress"
        token = _maybe(named.get("progressToken")) if progress else None
        cancelled = method == "notifications/cancelled"
        cancels = _maybe(named.get("requestId")) if cancelled else None
        return Message("notification", line, None, method, token, cancels)
    meta = named.get("_meta")
    token = _maybe(meta.get("progressToken")) if isinstance(meta, dict) else None
    version = named.get("protocolVersion") if method == "initialize" else ""
    version = version if isinstance(version, str) else ""
    return Message("request", line, _key(value["id"]), method, token, version=version)


def _key(value: object) -> Key:
    found = _maybe(value)
    if found is None:
        raise BadMessage(INVALID, "an id is a string or a number")
    return found


def _maybe(value: object) -> Key | None:
    if isinstance(value, str):
        return "text", value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) != math.inf:
        return "number", value
    return None
