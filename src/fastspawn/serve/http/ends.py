"""Who is at either end of a connection, as the log and commands are told.

A socket of IPv6 that takes IPv4 as well, as systemd's usually do, says ``::ffff:192.0.2.1`` of a
client with the address 192.0.2.1 (RFC 4291 section 2.5.5.2). Whoever compares addresses, or reads
them, means the latter.
"""

from __future__ import annotations

from typing import Any, Final

_MAPPED: Final = "::ffff:"
"""As inet_ntop(3) writes it, with the four numbers after it."""


def plain(address: str) -> str:
    """IPv4 as such."""
    if address.startswith(_MAPPED) and "." in address:
        return address[len(_MAPPED) :]
    return address


def end(name: Any) -> tuple[bytes, int] | None:
    """Address and port, of what a socket or an ASGI server says. None: not known, or a Unix
    socket's."""
    if not isinstance(name, (tuple, list)) or len(name) < 2 or name[1] is None:
        return None
    # Without the zone of an IPv6 address: it means something on this machine only.
    host = plain(str(name[0]).partition("%")[0])
    return host.encode("ascii", "replace"), int(name[1])
