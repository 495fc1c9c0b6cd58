"""The head of a request in mode ``jsonrpc``: what is asked for, or why not. Pure.

As MCP's streamable HTTP has it (https://modelcontextprotocol.io/specification/2025-11-25/basic/
transports): POST a message, GET what the server says of its own, DELETE the session.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import parse_qs

from fastspawn.serve.http.origin import here, named
from fastspawn.serve.http.refused import Refused

Fields = Sequence[tuple[bytes, bytes]]
"""Names in lower case."""

SESSION: Final = b"Mcp-Session-Id"
_METHODS: Final = b"GET, POST, DELETE"
_VISIBLE: Final = re.compile(rb"[!-~]{1,256}")
_PRIMED: Final = "2025-11-25"
"""From this version on, clients know an event without data."""


class Asked(NamedTuple):
    session: str
    """Empty: none."""
    streams: bool
    """The client takes server-sent events."""
    plain: bool
    """It takes JSON."""
    last: bytes
    """The id of the last event that it has; empty: it resumes nothing."""
    version: str
    """Of MCP; empty: it does not say."""
    old: bool = False
    """The session is named in the target: the transport of MCP's version 2024-11-05."""


def read(method: bytes, target: bytes, fields: Fields, origins: Sequence[str]) -> Asked:
    """``origins``: sites whose pages may ask, besides those of this machine. Raises Refused."""
    if method not in (b"GET", b"POST", b"DELETE"):
        raise Refused(405, b"not for a session\n", b"\r\nAllow: " + _METHODS)
    if not (here(fields) or named(fields, origins)):
        raise Refused(403, b"not for pages of other sites\n")
    types = _types(fields, b"accept")
    streams = b"text/event-stream" in types
    silent = all(name != b"accept" for name, _ in fields)
    plain = silent or bool(types & {b"application/json", b"application/*", b"*/*"})
    if method == b"GET" and not streams:
        raise Refused(406, b"what is here is a text/event-stream\n")
    if method == b"POST":
        if not (streams or plain):
            raise Refused(406, b"answers are application/json or text/event-stream\n")
        if _types(fields, b"content-type") != {b"application/json"}:
            raise Refused(415, b"a message is application/json\n")
    session = _sole(fields, b"mcp-session-id")
    query = parse_qs(target.partition(b"?")[2].decode("ascii", "replace"))
    old = not session and "sessionId" in query
    return Asked(
        query["sessionId"][0] if old else session.decode("ascii"),
        streams,
        plain,
        _sole(fields, b"last-event-id"),
        _sole(fields, b"mcp-protocol-version").decode("ascii"),
        old,
    )


def primes(version: str) -> bool:
    """A client of that version can be told an id before there is anything to say."""
    return re.fullmatch(r"\d{4}-\d\d-\d\d", version, re.ASCII) is not None and version >= _PRIMED


def _types(fields: Fields, wanted: bytes) -> set[bytes]:
    values = b",".join(value for name, value in fields if name == wanted)
    return {
        kind.strip().lower()
        for each in values.split(b",")
        for kind, _, rest in [each.partition(b";")]
        if kind.strip() and not re.search(rb"(?i)(^|;)\s*q=0(\.0*)?\s*($|;)", rest)
    }


def _sole(fields: Fields, wanted: bytes) -> bytes:
    found = [value.strip() for name, value in fields if name == wanted]
    if not found:
        return b""
    if len(found) > 1 or not _VISIBLE.fullmatch(found[0]):
        raise Refused(400, b"%b is one word\n" % wanted)
    return found[0]
