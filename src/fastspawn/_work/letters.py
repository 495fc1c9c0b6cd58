"""What a dead letter says of its message. Values alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .source import Ended

TAIL: Final = 4096
"""Bytes of standard error that are kept, the last ones."""


def about(
    stream: str, group: str, message_id: str, deliveries: int, ended: Ended
) -> list[tuple[str, bytes]]:
    """Names and values, in their order; the status as in subprocess, where there was one."""
    status = [] if ended.status is None else [("status", str(ended.status).encode())]
    return [
        ("reason", ended.reason.encode()),
        *status,
        ("deliveries", str(deliveries).encode()),
        ("stream", stream.encode()),
        ("group", group.encode()),
        ("id", message_id.encode()),
        ("stderr", ended.errors[-TAIL:]),
    ]


def one_line(text: bytes) -> str:
    r"""As a header can have it: what is not printable ASCII as in JSON (``\n``, ``\u00e4``)."""
    return json.dumps(text.decode(errors="backslashreplace"))[1:-1]
