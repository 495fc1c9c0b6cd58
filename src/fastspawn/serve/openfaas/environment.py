"""What a function learns of its request: variables as of-watchdog names them, ``Http_Path`` and
``Http_User_Agent`` (getEnvironment in its pkg/watchdog.go).

Of the header fields it passes on all but two kinds: names with anything but letters, digits and
hyphens in them, of which two might become one variable; and those that would be taken for
something else. ``Http_Proxy`` sends the requests of Python's urllib wherever a client wants
(CVE-2016-5385), and ``Http_Query`` from a field looks like the URL's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

_NAME: Final = re.compile(rb"[0-9a-z-]+")
"""Of header fields that become variables, in lower case."""
_WITHHELD: Final = frozenset({b"host", b"trailer", b"transfer-encoding", b"proxy", b"query"})


def variables(
    method: bytes, target: bytes, segments: Sequence[str], fields: Sequence[tuple[bytes, bytes]]
) -> dict[bytes, bytes]:
    """``segments``: of the path, decoded, as ``os.fsdecode`` has bytes. ``fields``: names in lower
    case, in the order of their arrival; of those that come more than once the first one counts."""
    found: dict[bytes, bytes] = {}
    chunked = False
    for name, value in fields:
        if name == b"transfer-encoding":
            chunked = True
        elif name not in _WITHHELD and _NAME.fullmatch(name):
            found.setdefault(_variable(name), value)
    if chunked:
        found.pop(b"Http_Content_Length", None)
        found[b"Http_Transfer_Encoding"] = b"chunked"
    found[b"Http_Method"] = method
    if query := target.partition(b"?")[2]:
        found[b"Http_Query"] = query
    path = "/" + "/".join(segments)
    found[b"Http_Path"] = path.encode(errors="surrogateescape")
    return found


def encoded(env: Mapping[str, str]) -> dict[bytes, bytes]:
    """As the operating system has it."""
    return {
        name.encode(errors="surrogateescape"): value.encode(errors="surrogateescape")
        for name, value in env.items()
    }


def _variable(name: bytes) -> bytes:
    return b"Http_" + b"_".join(part.capitalize() for part in name.split(b"-"))
