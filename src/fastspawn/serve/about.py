"""What header fields say of a request besides what it asks for: its id, who sent it, what for.

Nothing here is read unless an option wants it. What only a proxy may say (``X-Forwarded-For``,
``X-Forwarded-Proto``, the id) counts if it comes from an address that is trusted.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from .config import Config

_ID: Final = re.compile(rb"[0-9A-Za-z._~+/=:@-]{1,200}")
"""An id from outside: nothing that a log, a shell or a header takes for syntax."""
_KEPT: Final = 1024
"""Peers whose trust is remembered."""

Fields = list[tuple[bytes, bytes]]
"""Names in lower case."""


class About:
    """Of one request."""

    __slots__ = ("agent", "end", "id", "referer")

    def __init__(self) -> None:
        self.id = b""
        """Empty: ids are not wanted."""
        self.end = b""
        """Fields of the answer, each after a CRLF."""
        self.referer = self.agent = b""


class Reader:
    """``read`` is called for each request, before its route is looked for."""

    def __init__(self, config: Config) -> None:
        self._ids = config.request_id
        self._trusts = lru_cache(_KEPT)(trust(config.forwarded_allow_ips))

    def read(self, peer: bytes, fields: Fields) -> About:
        """``peer``: the address at the other end, "-" for a Unix socket's. ``fields`` has the
        id afterwards, and only that one."""
        about = About()
        ids = []
        for name, value in fields:
            if name == b"x-request-id":
                ids.append(value)
            elif name == b"referer":
                about.referer = value
            elif name == b"user-agent":
                about.agent = value
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


def reader(config: Config) -> Reader | None:
    """None: nothing is to be read."""
    logged = config.access_log and config.log_format != "common"
    return Reader(config) if config.request_id or logged else None


def trust(sources: Sequence[str]) -> Callable[[bytes], bool]:
    """``sources``: addresses, networks, ``unix`` or ``*``; they have been checked."""
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
