"""Of which site a request's page is, and whether that may ask (RFC 6454). Pure.

A browser lets any page send some requests anywhere, and says only which site the page is of. Other
clients say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

Fields = Sequence[tuple[bytes, bytes]]
"""Names in lower case."""

_LOCAL: Final = re.compile(rb"(localhost|[0-9.]+|\[[0-9a-f:.]+\])(:\d+)?")
"""Hosts that no DNS server has a say in."""
_PORTS: Final = {b"http": b":80", b"https": b":443"}
"""Those that need not be named. Browsers do not; some proxies do, in the Host that they send on."""


def values(fields: Fields, wanted: bytes) -> list[bytes]:
    return [value.strip() for name, value in fields if name == wanted]


def same(fields: Fields) -> bool:
    """Of that host which is asked, or there is no page."""
    hosts = values(fields, b"host")
    here = {_plain(b"%b://%b" % (scheme, host)) for host in hosts for scheme in _PORTS}
    return all(_plain(origin) in here for origin in values(fields, b"origin"))


def here(fields: Fields) -> bool:
    """Likewise, and it is no name that somebody may just have made one of this machine's (DNS
    rebinding)."""
    hosts = [host.lower() for host in values(fields, b"host")]
    local = all(_LOCAL.fullmatch(host) for host in hosts)
    return same(fields) and (local or not values(fields, b"origin"))


def _plain(origin: bytes) -> bytes:
    """Of those that are the same (RFC 6454 section 4), the shortest."""
    origin = origin.lower()
    return origin.removesuffix(_PORTS.get(origin.partition(b"://")[0], b""))


def named(fields: Fields, origins: Sequence[str]) -> bool:
    """Of one of ``origins``; "*" stands for any."""
    allowed = {each.lower().encode("ascii") for each in origins}
    return "*" in origins or all(origin.lower() in allowed for origin in values(fields, b"origin"))
