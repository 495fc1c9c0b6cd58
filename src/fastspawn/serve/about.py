"""What header fields say of a request besides what it asks for: its id, who sent it, what for.

Nothing here is read unless an option wants it. What only a proxy may say (``X-Forwarded-For``,
``X-Forwarded-Proto``, the id) counts if it comes from an address that is trusted.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from .config import Config

_ID: Final = re.compile(rb"[0-9A-Za-z._~+/=:@-]{1,200}")
"""An id from outside: nothing that a log, a shell or a header takes for syntax."""
_BRACKETED: Final = re.compile(rb"\[([^]]*)\](?::[0-9]+)?")
_SCHEMES: Final = {b"https": True, b"wss": True, b"http": False, b"ws": False}
_KEPT: Final = 1024
"""Peers whose trust is remembered."""

Fields = list[tuple[bytes, bytes]]
"""Names in lower case."""


class About:
    """Of one request."""

    __slots__ = ("agent", "end", "https", "id", "peer", "referer")

    def __init__(self) -> None:
        self.id = b""
        """Empty: ids are not wanted."""
        self.end = b""
        """Fields of the answer, each after a CRLF."""
        self.referer = self.agent = b""
        self.peer = b""
        """The client's address, as the proxy says; empty: it says nothing that counts."""
        self.https: bool | None = None
        """Likewise, how the client came to the proxy."""


class Reader:
    """``read`` is called for each request, before its route is looked for."""

    def __init__(self, config: Config) -> None:
        self._ids = config.request_id
        self._proxied = config.proxy_headers
        self._trusts = lru_cache(_KEPT)(trust(config.forwarded_allow_ips))

    def read(self, peer: bytes, fields: Fields) -> About:
        """``peer``: the address at the other end, "-" for a Unix socket's. ``fields`` has the
        id afterwards, and only that one."""
        about = About()
        ids, hops, schemes = [], [], []
        for name, value in fields:
            if name == b"x-request-id":
                ids.append(value)
            elif name == b"referer":
                about.referer = value
            elif name == b"user-agent":
                about.agent = value
            elif name == b"x-forwarded-for":
                hops.append(value)
            elif name == b"x-forwarded-proto":
                schemes.append(value)
        if self._proxied and (hops or schemes) and self._trusts(peer):
            about.peer = self._origin(b",".join(hops))
            about.https = _SCHEMES.get(b",".join(schemes).rpartition(b",")[2].strip().lower())
        if self._ids:
            if len(ids) == 1 and _ID.fullmatch(ids[0]) and self._trusts(peer):
                about.id = ids[0]
            else:
                about.id = os.urandom(16).hex().encode()
                if ids:
                    fields[:] = [each for each in fields if each[0] != b"x-request-id"]
                fields.append((b"x-request-id", about.id))
            about.end = b"\r\nX-Request-Id: " + about.id
        return about

    def _origin(self, hops: bytes) -> bytes:
        """The last hop that is not trusted itself, or the first of all. What is before it is
        anybody's word, and so is what is before something that is no address."""
        found = b""
        for hop in reversed(hops.split(b",")):
            address = _address(hop.strip())
            if address is None:
                break
            found = address
            if not self._trusts(found):
                break
        return found


def _address(hop: bytes) -> bytes | None:
    """Without a port. None: not an address ("unknown", "_hidden")."""
    bracketed = _BRACKETED.fullmatch(hop)
    if bracketed is not None:
        hop = bracketed[1]
    elif hop.count(b":") == 1:
        hop = hop.partition(b":")[0]
    try:
        from ipaddress import ip_address

        return str(ip_address(hop.decode("ascii"))).encode()
    except ValueError:
        return None


def reader(config: Config) -> Reader | None:
    """None: nothing is to be read."""
    logged = config.access_log and config.log_format != "common"
    wanted = config.request_id or config.proxy_headers or logged
    return Reader(config) if wanted else None


def trust(sources: Sequence[str]) -> Callable[[bytes], bool]:
    """``sources``: addresses, networks, ``unix`` or ``*``; they have been checked."""
    from ipaddress import ip_address, ip_network

    everyone, unix = "*" in sources, "unix" in sources
    networks: list[IPv4Network | IPv6Network] = [
        ip_network(source, strict=False) for source in sources if source not in ("*", "unix")
    ]

    def trusts(peer: bytes) -> bool:
        if everyone:
            return True
        if peer == b"-":
            return unix
        try:
            address = ip_address(peer.partition(b"%")[0].decode("ascii"))
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in networks)

    return trusts
