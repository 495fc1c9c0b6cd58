"""A request of whose body values go into the command line: a form, read whole before the request
asks for a place. Until then it holds a connection and no more than ``LIMIT`` bytes; the time that a
body has counts. The process finds the body on its standard input all the same, as it came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .exchange import Exchange
from .refused import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .route import Filled

LIMIT: Final = 65536
"""Bytes."""

_URLENCODED: Final = b"application/x-www-form-urlencoded"


class FormExchange(Exchange):
    """What goes before the exchange of a mode; see ``reads_form``."""

    __slots__ = ()

    route: Filled

    def begin(self) -> None:
        self.begun = True
        if self.refusal is None and self.body is not None:
            try:
                check(self.match.fields)
            except Refused as refused:
                self.turn_down(refused)
                return
            if not self.complete:
                if self.expect and not self.body:
                    assert self.connection is not None
                    self.connection.proceed(self)
                return
        self._proceed()

    def feed_eof(self) -> None:
        if self.body is None or self.connection is None:
            super().feed_eof()
            return
        self.complete = True
        self._proceed()

    def _proceed(self) -> None:
        """All is there that the command line needs."""
        if self.refusal is None:
            try:
                self.route.fill(self.match, self.target, b"".join(self.body or ()))
            except Refused as refused:
                self.turn_down(refused)
                return
        super().begin()


def reads_form(kind: type[Exchange]) -> type[Exchange]:
    """``kind``, of which each reads its form first."""
    return type(f"Form{kind.__name__}", (FormExchange, kind), {"__slots__": ()})


def check(fields: Iterable[tuple[bytes, bytes]]) -> None:
    """That the body is a form, by the header's fields. Raises Refused (RFC 9110, section
    15.5.16)."""
    kinds = [value for name, value in fields if name == b"content-type"]
    if len(kinds) != 1 or not _is_form(kinds[0]):
        accepted = b"\r\nAccept: " + _URLENCODED
        raise Refused(415, b"the body has to be %b\n" % _URLENCODED, accepted)
    codings = [value for name, value in fields if name == b"content-encoding"]
    if any(coding.strip().lower() != b"identity" for coding in codings):
        accepted = b"\r\nAccept-Encoding: identity"
        raise Refused(415, b"the body has to be without a content coding\n", accepted)


def _is_form(content_type: bytes) -> bool:
    kind, *parameters = content_type.lower().split(b";")
    if kind.strip() != _URLENCODED:
        return False
    pairs = [parameter.partition(b"=") for parameter in parameters]
    return all(
        value.strip(b' \t"') == b"utf-8" for name, _, value in pairs if name.strip() == b"charset"
    )
