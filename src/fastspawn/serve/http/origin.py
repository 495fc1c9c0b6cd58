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


def values(fields: Fields, wanted: bytes) -> list[bytes]:
    return [value.strip() for name, value in fields if name == wanted]


def same(fields: Fields) -> bool:
    """Of that host which is asked, or there is no page."""
    hosts = [host.lower() for host in values(fields, b"host")]
    return all(
        origin.lower() in (scheme + host for host in hosts for scheme in (b"http://", b"https://"))
        for origin in values(fields, b"origin")
    )


def here(fields: Fields) -> bool:
    """Likewise, and it is no name that somebody may just have made one of this machine's (DNS
    rebinding)."""
    hosts = [host.lower() for host in values(fields, b"host")]
    local = all(_LOCAL.fullmatch(host) for host in hosts)
    return same(fields) and (local or not values(fields, b"origin"))


def named(fields: Fields, origins: Sequence[str]) -> bool:
    """Of one of ``origins``; "*" stands for any."""
    allowed = {each.lower().encode("ascii") for each in origins}
    return "*" in origins or all(origin.lower() in allowed for origin in values(fields, b"origin"))
