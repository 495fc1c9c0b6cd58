"""The page that shows the figures, and says where a browser may not go.

The page is ``live.html``, whole: it fetches the figures from its own address and nothing else. Its
policy (Content Security Policy Level 3) allows what stands in the file, by its hash.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .look import look

if TYPE_CHECKING:
    from .meter import Snapshot

PAGE: Final = Path(__file__).with_name("live.html").read_bytes()
PAGE_TYPE: Final = b"text/html; charset=utf-8"
FIGURES_TYPE: Final = b"application/json"
FIGURES: Final = b"figures"
"""The query that asks for them."""


def _hash(name: bytes) -> bytes:
    (text,) = re.findall(rb"<%b>(.*?)</%b>" % (name, name), PAGE, re.DOTALL)
    return b"'sha256-%b'" % b64encode(sha256(text).digest())


_POLICY: Final = b"; ".join(
    (
        b"default-src 'none'",
        b"script-src " + _hash(b"script"),
        b"style-src " + _hash(b"style"),
        b"connect-src 'self'",
        b"img-src data:",  # the empty icon, or the browser asks for one, which is a request
        b"base-uri 'none'",
        b"form-action 'none'",
        b"frame-ancestors 'none'",
        b"require-trusted-types-for 'script'",
        b"trusted-types 'none'",
    )
)
FIELDS: Final = b"".join(
    (
        b"\r\nContent-Security-Policy: " + _POLICY,
        b"\r\nX-Content-Type-Options: nosniff",
        b"\r\nCross-Origin-Resource-Policy: same-origin",
        b"\r\nReferrer-Policy: no-referrer",
    )
)


def render(total: Snapshot) -> bytes:
    """The figures, for the page and for ``fastspawn top``."""
    return json.dumps(look(total)).encode()
