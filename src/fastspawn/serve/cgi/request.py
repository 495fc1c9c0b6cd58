"""The target of a request, but for its path (which ``paths.py`` decodes and checks)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from fastspawn.serve.http.refused import Refused

_ABSOLUTE: Final = re.compile(rb"[A-Za-z][0-9A-Za-z+.-]*://([^/?]*)(.*)", re.DOTALL)
_QUERY: Final = re.compile(rb"[!-\"$-~]*")
"""Visible ASCII but for "#"."""
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]{2,}\]|[0-9A-Za-z._-]*)(?::\d{0,5})?")


@dataclass(frozen=True)
class Target:
    """Path and query as they were sent; nothing is decoded (RFC 3875 section 4.1.7)."""

    raw: bytes
    """Both of them."""
    query: bytes
    authority: bytes | None
    """Of a target in absolute form, where it counts instead of Host (RFC 9112 section 3.2.2)."""


def parse_target(target: bytes) -> Target:
    """Raises Refused."""
    authority = None
    if not target.startswith(b"/"):
        found = _ABSOLUTE.fullmatch(target)
        if found is None:
            raise Refused(400, b"not a path\n")
        authority, target = found.groups()
        if not target.startswith(b"/"):
            target = b"/" + target
    query = target.partition(b"?")[2]
    if query and not _QUERY.fullmatch(query):
        raise Refused(400, b"malformed query\n")
    return Target(target, query, authority)


def host_name(value: bytes) -> bytes:
    """The name or address (an IPv6 one in brackets) in a Host field, which may be empty.

    Raises Refused. Stricter than RFC 3986: no characters that mean something to a shell, HTML or
    SQL, since scripts trust SERVER_NAME.
    """
    found = _HOST.fullmatch(value)
    if found is None:
        raise Refused(400, b"malformed Host\n")
    return found[1]
