"""The opening handshake of a WebSocket, the server's side (RFC 6455 section 4.2). Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final

from fastspawn.serve.http.origin import named, same
from fastspawn.serve.http.origin import values as _values
from fastspawn.serve.http.refused import Refused

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_UPGRADE: Final = b"\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"


def answer(
    method: bytes,
    http10: bool,
    fields: Sequence[tuple[bytes, bytes]],
    *,
    origins: Sequence[str],
    subprotocols: Sequence[str],
) -> bytes:
    """The head of the answer that opens the WebSocket. Raises Refused.

    ``fields``: names in lower case. ``origins``: of pages that may open it besides those of this
    very host; "*" stands for any. ``subprotocols``: what is spoken here; the client's order
    decides.
    """
    if b"websocket" not in _tokens(fields, b"upgrade") or b"upgrade" not in _tokens(
        fields, b"connection"
    ):
        raise Refused(426, b"only WebSockets are served here\n", _UPGRADE)
    if method != b"GET" or http10:
        raise Refused(400, b"a WebSocket begins with GET and HTTP/1.1\n")
    if _values(fields, b"sec-websocket-version") != [b"13"]:
        raise Refused(426, b"of WebSockets, only version 13 is known\n", _UPGRADE)
    keys = _values(fields, b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise Refused(400, b"one Sec-WebSocket-Key of 16 bytes is needed\n")
    if not (same(fields) or named(fields, origins)):
        raise Refused(403, b"not for pages of other sites\n")
    digest = hashlib.sha1(keys[0] + _GUID, usedforsecurity=False).digest()
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest),
    ]
    name = chosen(fields, subprotocols)
    if name is not None:
        lines.append(b"Sec-WebSocket-Protocol: " + name)
    return b"\r\n".join((*lines, b"", b""))


def offered(end: bytes) -> bytes:
    """How a head with Upgrade ends that would else end so: the option tells proxies that the field
    is for them alone (RFC 9110 section 7.8)."""
    name = b"\r\nConnection: "
    return end.replace(name, name + b"Upgrade, ") if name in end else name + b"Upgrade" + end


def chosen(fields: Sequence[tuple[bytes, bytes]], subprotocols: Sequence[str]) -> bytes | None:
    """The subprotocol that is spoken then; None: none."""
    spoken = [name.encode("ascii") for name in subprotocols]
    for value in _values(fields, b"sec-websocket-protocol"):
        for name in value.split(b","):
            if name.strip() in spoken:
                return name.strip()
    return None


def _tokens(fields: Sequence[tuple[bytes, bytes]], wanted: bytes) -> set[bytes]:
    values = b",".join(_values(fields, wanted))
    return {token.strip().lower() for token in values.split(b",")}


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False
