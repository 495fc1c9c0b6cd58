"""The target of a request, taken apart: what is ambiguous or hostile in it is refused here.

A path is decoded once, and then no part of the server looks at the encoded one again. What
decoding would hide is refused: an encoded slash (it would become a separator), NUL (it would
end the path for the system) and other control characters (a script that copies them into a
header field would let the client write the next one), and the dot segments that every client
removes by itself (RFC 3986 section 6.2.2.3), so that only those with bad intent send them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

_PATH: Final = re.compile(rb"/[!-\"$->@-~]*")
"""Visible ASCII but for "?" and "#"."""
_QUERY: Final = re.compile(rb"[!-\"$-~]*")
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#@]*)((?:[/?].*)?)", re.DOTALL)
_NO_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(rb"[\0-\x1f\x7f]")
_DOTS: Final = re.compile(rb"/\.\.?(?:/|\Z)")
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]{2,}\]|[0-9A-Za-z._-]*)(?::\d{0,5})?")


class Refused(Exception):
    """The request's own fault: ``status`` and a line for the client."""

    def __init__(self, status: int, text: bytes) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


@dataclass(frozen=True)
class Target:
    """``path`` is decoded; ``query`` is not (RFC 3875 section 4.1.7)."""

    raw: bytes
    """Path and query as they were sent."""
    path: bytes
    query: bytes
    authority: bytes | None
    """Of a target in absolute form, where it counts instead of Host (RFC 9112 section 3.2.2)."""


def parse_target(target: bytes) -> Target:
    """A target in origin or absolute form. Raises Refused (400, or 404 for an encoded slash)."""
    authority = None
    if not target.startswith(b"/"):
        found = _ABSOLUTE.fullmatch(target)
        if found is None:
            raise Refused(400, b"not a path\n")
        authority, target = found.groups()
        if not target.startswith(b"/"):
            target = b"/" + target
    path, mark, query = target.partition(b"?")
    if not _PATH.fullmatch(path) or (mark and not _QUERY.fullmatch(query)):
        raise Refused(400, b"malformed target\n")
    if b"%" in path:
        if _NO_ESCAPE.search(path):
            raise Refused(400, b"malformed escape in the path\n")
        slashes = path.count(b"/")
        path = unquote_to_bytes(path)
        if _CONTROL.search(path):
            raise Refused(400, b"control character in the path\n")
        if path.count(b"/") != slashes:
            raise Refused(404, b"encoded slash in the path\n")
    if b"/." in path and _DOTS.search(path):
        raise Refused(400, b"dot segment in the path\n")
    return Target(target, path, query, authority)


def host_name(value: bytes) -> bytes:
    """The name or address (an IPv6 one in brackets) in a Host field, which may be empty.

    Raises Refused. Stricter than RFC 3986: no characters that mean something to a shell, HTML or
    SQL, since scripts trust SERVER_NAME.
    """
    found = _HOST.fullmatch(value)
    if found is None:
        raise Refused(400, b"malformed Host\n")
    return found[1]
