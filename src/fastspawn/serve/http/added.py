"""The header fields that a route adds to its answers (``--header``, ``--cors``). Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from .cors import CREDENTIALS, ORIGIN

Fields = list[tuple[bytes, bytes]]

_OF_BODY: Final = frozenset({b"etag", b"last-modified", b"expires"})
_KEPT_OUT: Final = (b"no-store", b"no-cache")
"""Of caches."""


class Added:
    """``all``: to what a command has answered. ``own``: to what the server says itself, an error
    most often: nothing that describes the command's output, or lets a cache keep what took its
    place. ``names``: in lower case."""

    __slots__ = ("all", "names", "own")

    def __init__(self, given: Sequence[tuple[str, str]], fixed: Fields) -> None:
        """``given``: by the operator, checked. ``fixed``: of the CORS protocol."""
        added = [(name.encode("ascii"), value.encode("ascii")) for name, value in given]
        self.all: Fields = [*added, *fixed]
        self.own: Fields = [*(each for each in added if not _of_body(*each)), *fixed]
        self.names = frozenset(name.lower() for name, _ in self.all)


NOTHING: Final = Added((), [])


def lines(fields: Fields) -> bytes:
    """Each after a CRLF."""
    return b"".join(b"\r\n%b: %b" % field for field in fields)


def beside(fields: Sequence[tuple[bytes, bytes]], names: Collection[bytes]) -> Fields:
    """Those of ``fields`` that somebody else, who has set ``names`` (in lower case), has not."""
    if ORIGIN.lower() in names:
        names = {*names, CREDENTIALS.lower()}  # that is one statement
    return [(name, v) for name, v in fields if name.lower() == b"vary" or name.lower() not in names]


def _of_body(name: bytes, value: bytes) -> bool:
    name = name.lower()
    if name == b"cache-control":
        return not any(word in value.lower() for word in _KEPT_OUT)
    return name in _OF_BODY or (
        name.startswith(b"content-") and not name.startswith(b"content-security-")
    )
