"""A request that is answered, with an error by its own fault most often, before any process is
started for it."""

from __future__ import annotations

Refusal = tuple[int, bytes] | tuple[int, bytes, bytes]
"""Status, text and perhaps more header fields: see ``Exchange.refuse``."""


class Refused(Exception):
    """The request's own fault: ``status``, a line for the client, and more header fields, each
    after a CRLF. ``why``: for the log, where a client is told less than the operator wants to know;
    one line."""

    def __init__(self, status: int, text: bytes, fields: bytes = b"", why: str = "") -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text
        self.fields = fields
        self.why = why
