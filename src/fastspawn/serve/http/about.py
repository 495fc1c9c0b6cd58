"""What header fields say of a request besides what it asks for: its id, who sent it, what for.

Nothing here is read unless an option wants it. What only a proxy may say (``X-Forwarded-For``,
``X-Forwarded-Proto``, the user, the id) counts if it comes from an address that is trusted.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from .added import lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from fastspawn.serve.config.model import Config

_ID: Final = re.compile(rb"[0-9A-Za-z._~+/=:@-]{1,200}")
"""An id from outside: nothing that a log, a shell or a header takes for syntax."""
_USER: Final = re.compile(rb"[^\0-\x1f\x7f]{1,256}")
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
"""RFC 9110 section 5.6.2, within bounds."""
_BRACKETED: Final = re.compile(rb"\[([^]]*)\](?::[0-9]+)?")
_SCHEMES: Final = {b"https": True, b"wss": True, b"http": False, b"ws": False}
_MAPPED_BITS: Final = 96
"""Of an IPv6 address that is an IPv4 one, those before it."""
_NAMES: Final = ("*", "unix")
_KEPT: Final = 1024
"""Peers whose trust is remembered."""

Fields = list[tuple[bytes, bytes]]
"""Names in lower case."""


class About:
    """Of one request."""

    __slots__ = ("agent", "auth", "end", "fields", "https", "id", "peer", "referer", "user")

    def __init__(self) -> None:
        self.id = b""
        """Empty: ids are not wanted. Not all are told: some are for the log alone."""
        self.fields: Fields = []
        """Of the answer ..."""
        self.end = b""
        """... and as they are sent, each after a CRLF."""
        self.referer = self.agent = b""
        self.peer = b""
        """The client's address, as the proxy says; empty: it says nothing that counts."""
        self.https: bool | None = None
        """Likewise, how the client came to the proxy."""
        self.user = self.auth = b""
        """Likewise, who it is, and by what scheme it has proved that."""

    @property
    def proxied(self) -> bool:
        """Another one's request than that of who has connected."""
        return bool(self.peer or self.user) or self.https is not None

    def answer(self, fields: Fields) -> None:
        """The answer has these as well."""
        self.fields += fields
        self.end += lines(fields)


class Reader:
    """``read`` is called for each request, before its route is looked for."""

    def __init__(self, config: Config) -> None:
        self._ids = config.request_id
        self._logs = config.logs_errors
        self._proxied = config.proxy_headers
        self._trusts = lru_cache(_KEPT)(trust(config.forwarded_allow_ips))
        self._user, self._auth = (
            None if name is None else name.encode()
            for name in (config.remote_user_header, config.auth_type_header)
        )

    def read(self, peer: bytes, fields: Fields) -> About:
        """``peer``: the address at the other end, "-" for a Unix socket's. ``fields`` has the
        id afterwards, and only that one; and no user that is not believed."""
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
        if self._user is not None:
            self._identify(about, peer, fields)
        if self._ids:
            if len(ids) == 1 and _ID.fullmatch(ids[0]) and self._trusts(peer):
                about.id = ids[0]
            else:
                about.id = os.urandom(16).hex().encode()
                if ids:
                    fields[:] = [each for each in fields if each[0] != b"x-request-id"]
                fields.append((b"x-request-id", about.id))
            about.answer([(b"X-Request-Id", about.id)])
        elif self._logs:
            about.id = os.urandom(8).hex().encode()
        return about

    def _identify(self, about: About, peer: bytes, fields: Fields) -> None:
        """Who the client is. Of two users none is believed: one may be the client's own word, to
        which the proxy has added its own instead of replacing it."""
        users = [value for name, value in fields if name == self._user]
        auths = [value for name, value in fields if name == self._auth]
        if len(users) == 1 and _USER.fullmatch(users[0]) and self._trusts(peer):
            about.user = users[0]
            said = auths if self._auth is not None else _schemes(fields)
            if len(said) == 1 and _TOKEN.fullmatch(said[0]):
                about.auth = said[0]
        kept = {self._user if about.user else None, self._auth if about.auth else None}
        ours = {self._user, self._auth}
        # Programs do not tell "_" from "-" (RFC 3875 section 4.1.18), and proxies pass it on.
        fields[:] = [
            each for each in fields if each[0] in kept or each[0].replace(b"_", b"-") not in ours
        ]

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


def _schemes(fields: Fields) -> list[bytes]:
    """RFC 3875 section 4.1.1."""
    return [value.partition(b" ")[0] for name, value in fields if name == b"authorization"]


def _address(hop: bytes) -> bytes | None:
    """Without a port, and without the zone of an IPv6 address, which means something where it was
    written only, and may be any text of any length. None: not an address ("unknown", "_hidden")."""
    bracketed = _BRACKETED.fullmatch(hop)
    if bracketed is not None:
        hop = bracketed[1]
    elif hop.count(b":") == 1:
        hop = hop.partition(b":")[0]
    try:
        from ipaddress import ip_address

        address = ip_address(hop.decode("ascii"))
        plain = str(getattr(address, "ipv4_mapped", None) or address)
        return plain.partition("%")[0].encode()
    except ValueError:
        return None


def reader(config: Config) -> Reader | None:
    """None: nothing is to be read."""
    logged = config.access_log and config.log_format != "common"
    wanted = config.request_id or config.proxy_headers or logged or config.logs_errors
    return Reader(config) if wanted else None


def _plain(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """IPv4 as such, as addresses are."""
    from ipaddress import IPv4Network

    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def trust(sources: Sequence[str]) -> Callable[[bytes], bool]:
    """``sources``: addresses, networks, ``unix`` or ``*``; they have been checked."""
    from ipaddress import ip_address, ip_network

    everyone, unix = "*" in sources, "unix" in sources
    networks: list[IPv4Network | IPv6Network] = [
        _plain(ip_network(source, strict=False)) for source in sources if source not in _NAMES
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
