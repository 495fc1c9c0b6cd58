"""The values of a query or a form (https://url.spec.whatwg.org/#urlencoded-parsing), but for the
leniency: what could be read in two ways is refused. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from fastspawn.serve.http.refused import Refused

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9a-f]{2})", re.IGNORECASE)


def values(encoded: bytes, where: str) -> dict[str, str | None]:
    """By name; None: it occurs twice. ``where``: what is encoded, for the client. Raises
    Refused."""
    found: dict[str, str | None] = {}
    for pair in encoded.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            text = _decoded(name, where)
            found[text] = None if text in found else _decoded(value, where)
    return found


def bad(why: str) -> Refused:
    """A request with a value that can't be used."""
    return Refused(400, f"{why}\n".encode())


def _decoded(text: bytes, where: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise bad(f"a bad escape in the {where}")
    try:
        decoded = unquote_to_bytes(text.replace(b"+", b" ")).decode()
    except UnicodeDecodeError as error:
        raise bad(f"the {where} is not UTF-8") from error
    if "\0" in decoded:
        raise bad(f"a NUL in the {where}")
    return decoded
