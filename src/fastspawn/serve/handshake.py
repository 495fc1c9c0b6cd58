"""The opening handshake of a WebSocket, the server's side (RFC 6455 section 4.2). Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_UPGRADE: Final = b"\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"


class NotWebSocket(Exception):
    """How the request is to be refused. ``fields``: more header fields, each after a CRLF."""

    def __init__(self, status: int, text: bytes, fields: bytes = b"") -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text
        self.fields = fields


def answer(
    method: bytes,
    http10: bool,
    fields: Sequence[tuple[bytes, bytes]],
    *,
    origins: Sequence[str],
    subprotocols: Sequence[str],
) -> bytes:
    """The head of the answer that opens the WebSocket. Raises NotWebSocket.

    ``fields``: names in lower case. ``origins``: of pages that may open it besides those of this
    very host; "*" stands for any. ``subprotocols``: what is spoken here; the client's order
    decides.
    """
    if b"websocket" not in _tokens(fields, b"upgrade") or b"upgrade" not in _tokens(
        fields, b"connection"
    ):
        raise NotWebSocket(426, b"only WebSockets are served here\n", _UPGRADE)
    if method != b"GET" or http10:
        raise NotWebSocket(400, b"a WebSocket begins with GET and HTTP/1.1\n")
    if _values(fields, b"sec-websocket-version") != [b"13"]:
        raise NotWebSocket(426, b"of WebSockets, only version 13 is known\n", _UPGRADE)
    keys = _values(fields, b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise NotWebSocket(400, b"one Sec-WebSocket-Key of 16 bytes is needed\n")
    if not _may(fields, origins):
        raise NotWebSocket(403, b"not for pages of other sites\n")
    digest = hashlib.sha1(keys[0] + _GUID, usedforsecurity=False).digest()
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest),
    ]
    spoken = [name.encode("ascii") for name in subprotocols]
    offered = [
        name.strip()
        for value in _values(fields, b"sec-websocket-protocol")
        for name in value.split(b",")
    ]
    for name in offered:
        if name in spoken:
            lines.append(b"Sec-WebSocket-Protocol: " + name)
            break
    return b"\r\n".join((*lines, b"", b""))


def _values(fields: Sequence[tuple[bytes, bytes]], wanted: bytes) -> list[bytes]:
    return [value.strip() for name, value in fields if name == wanted]


def _tokens(fields: Sequence[tuple[bytes, bytes]], wanted: bytes) -> set[bytes]:
    values = b",".join(_values(fields, wanted))
    return {token.strip().lower() for token in values.split(b",")}


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False


def _may(fields: Sequence[tuple[bytes, bytes]], origins: Sequence[str]) -> bool:
    """A browser lets any page open a WebSocket anywhere, with the cookies of where it goes, and
    says only which site the page is of (RFC 6455 section 10.2). Other clients say nothing."""
    for origin in _values(fields, b"origin"):
        name = origin.lower()
        here = _values(fields, b"host")[0].lower()
        if name in (b"http://" + here, b"https://" + here) or "*" in origins:
            continue
        if name not in [each.lower().encode("ascii") for each in origins]:
            return False
    return True
