"""The check of a request's head: what llhttp lets through and is refused all the same.

No Host or two, transfer codings that nobody undoes here, a transfer coding in HTTP/1.0, HTTP/0.9
and 2.0, the methods of RTSP and ICE; all else that could be read in two ways llhttp has refused
itself. Pure: values in, a verdict out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

NOT_HTTP: Final = frozenset(
    # RFC 9110 section 9.3.6 (this is no proxy), and what llhttp parses for other protocols.
    b"CONNECT SOURCE DESCRIBE ANNOUNCE SETUP PLAY PAUSE TEARDOWN GET_PARAMETER SET_PARAMETER "
    b"REDIRECT RECORD FLUSH PRI".split()
)
SPECIAL: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})
"""Fields, by their names in lower case, that say something of the body."""

Verdict = tuple[tuple[int, bytes] | None, bool, bool]
"""How to refuse the request, None: not at all; it has a body; its client holds the body back until
it is told to send it. A refusal leaves out what comes after its cause."""


def check(
    method: bytes,
    version: str,
    hosts: int,
    special: Sequence[tuple[bytes, bytes]],
    max_body: int,
) -> Verdict:
    """``hosts``: how many Host fields there are. ``special``: the fields named in ``SPECIAL``, in
    order. A head of HTTP/1.1 with one Host, no such field and a method that is not in ``NOT_HTTP``
    need not be checked."""
    if version not in ("1.1", "1.0"):
        return (505, b"HTTP/1.1 and HTTP/1.0 are spoken here\n"), False, False
    if method in NOT_HTTP:
        return (501, b"not an HTTP method for this server\n"), False, False
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return (400, b"one Host field is needed\n"), False, False  # RFC 9112 section 3.2
    body = expects = False
    refusal = None
    for name, value in special:
        if name == b"content-length":
            length = int(value)
            if length > max_body:
                refusal = 413, b"request body too large\n"
            elif length:
                body = True
        elif name == b"transfer-encoding":
            if version == "1.0":  # RFC 9112 section 6.1
                refusal = 400, b"a transfer coding in HTTP/1.0\n"
            elif value.strip().lower() != b"chunked":
                refusal = 501, b"of transfer codings, only chunked is known\n"
            else:
                body = True
        elif version == "1.1":  # RFC 9110 section 10.1.1: to be ignored in HTTP/1.0
            if value.strip().lower() != b"100-continue":
                refusal = 417, b"of expectations, only 100-continue is known\n"
            else:
                expects = True
        if refusal is not None:
            break
    return refusal, body, expects
