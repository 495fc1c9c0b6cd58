"""Which sites' pages may read a route's answers: the CORS protocol of the Fetch standard, the
server's side (https://fetch.spec.whatwg.org/#http-cors-protocol). Pure.

A browser sends a page's request and keeps the answer from the page unless it is told otherwise; it
asks first (the preflight) where the request is one that no form could make. So nothing here
refuses a request but a preflight: what is to be kept from other sites' pages is for the command, or
a proxy, to check.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

Fields = list[tuple[bytes, bytes]]
"""Names as they are sent, or in lower case in a request."""
Answer = tuple[int, bytes, Fields]
"""Status, text and header fields."""

ORIGIN: Final = b"Access-Control-Allow-Origin"
CREDENTIALS: Final = b"Access-Control-Allow-Credentials"
_NAMES: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z, \t-]*")
"""RFC 9110 section 5.6.2, with commas."""


class Cors:
    """Of one route. ``fixed``: what all its answers say. ``varies``: they say more, by request."""

    __slots__ = ("_any", "_credentials", "_named", "_seconds", "fixed", "varies")

    def __init__(self, origins: Sequence[str], *, credentials: bool, max_age: float) -> None:
        """``origins``: as browsers write them, or ``*``, which can't be with ``credentials``.
        ``max_age``: seconds for which a preflight's answer holds."""
        self._any = "*" in origins
        self._named = frozenset(origin.encode("ascii") for origin in origins) - {b"*"}
        self._credentials = [(CREDENTIALS, b"true")] if credentials else []
        self._seconds = int(max_age)
        self.varies = not self._any and len(self._named) > 1
        self.fixed: Fields = [(b"Vary", b"Origin")]
        if not self.varies:
            # No Vary: it is the same whoever asks.
            origin = b"*" if self._any else next(iter(self._named))
            self.fixed = [(ORIGIN, origin), *self._credentials]

    def more(self, fields: Fields) -> Fields:
        """What the answer to this request says besides ``fixed``. ``fields``: the request's."""
        origin = _sole(fields, b"origin")
        if not self.varies or origin not in self._named:
            return []
        return [(ORIGIN, origin), *self._credentials]

    def preflight(self, fields: Fields, methods: Sequence[str] | None) -> Answer:
        """``methods`` None: any. That which is asked for is among them."""
        origin = _sole(fields, b"origin")
        if not self._any and origin not in self._named:
            return 403, b"not for pages of other sites\n", []
        allowed = wanted(fields) if methods is None else ", ".join(methods).encode()
        answer: Fields = [(b"Access-Control-Allow-Methods", allowed)]
        names = b", ".join(
            value for name, value in fields if name == b"access-control-request-headers"
        )
        if names and _NAMES.fullmatch(names):
            answer.append((b"Access-Control-Allow-Headers", names))
        # A page from the Internet that asks for something on the client's own network
        # (https://wicg.github.io/private-network-access/): only for sites that have a name.
        private = _sole(fields, b"access-control-request-private-network")
        if private == b"true" and origin in self._named:
            answer.append((b"Access-Control-Allow-Private-Network", b"true"))
        answer.append((b"Access-Control-Max-Age", b"%d" % self._seconds))
        return 204, b"", answer


def wanted(fields: Fields) -> bytes:
    """The method that a preflight asks for; empty: it is none."""
    if not _sole(fields, b"origin"):
        return b""
    method = _sole(fields, b"access-control-request-method")
    return method if re.fullmatch(rb"[A-Za-z-]+", method) else b""


def _sole(fields: Fields, wanted: bytes) -> bytes:
    """The value of a field that there is once; else empty."""
    found = [value.strip() for name, value in fields if name == wanted]
    return found[0] if len(found) == 1 else b""
