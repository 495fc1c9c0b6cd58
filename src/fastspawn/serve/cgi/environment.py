"""The environment of a script: the meta-variables of RFC 3875 section 4.1, and little else.

What comes from the server's own environment is in ``Settings.base``, and little. Everything is
bytes: that is what both ends have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fastspawn.serve.http.refused import Refused

from .request import Target, host_name

_NAME: Final = re.compile(rb"[0-9A-Za-z-]+")
"""Of header fields that become variables: no "_", which a "-" of another field would turn into
as well, and nothing that a shell would take for syntax."""
_FORBIDDEN: Final = re.compile(rb"[\0\r\n]")

_WITHHELD: Final = frozenset(
    # Between client and server only (RFC 9110 section 7.6.1), or for the server to act on.
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade expect "
    # They have variables of their own (RFC 3875 section 4.1.18).
    b"content-length content-type "
    # HTTP_PROXY means something else to many programs (httpoxy, CVE-2016-5385).
    b"proxy".split()
)
_CREDENTIALS: Final = frozenset({b"authorization", b"proxy-authorization"})


_OF_REQUEST: Final = frozenset(
    b"PATH_INFO PATH_TRANSLATED CONTENT_LENGTH CONTENT_TYPE HTTPS REMOTE_PORT "
    b"AUTH_TYPE REMOTE_USER REMOTE_IDENT SSL_PROTOCOL SSL_CIPHER SSL_CIPHER_USEKEYSIZE".split()
)


def of_request(variable: bytes) -> bool:
    """It is not set for every request, and no request may be given one that it does not have."""
    return variable in _OF_REQUEST or variable.startswith(b"SSL_CLIENT_")


@dataclass(frozen=True)
class Request:
    """What the environment is made of.

    ``fields``: names in lower case, in the order of their arrival. ``remote`` and ``local``:
    address and port (0: not known), None for a Unix socket. ``length``: bytes of the body, None if
    there is none or its length is not known. ``user`` and ``auth``: as somebody who is trusted has
    found out; empty: nobody has. ``secure``: variables that tell of TLS.
    """

    method: bytes
    target: Target
    version: bytes
    fields: Sequence[tuple[bytes, bytes]]
    remote: tuple[bytes, int] | None = None
    local: tuple[bytes, int] | None = None
    https: bool = False
    length: int | None = None
    user: bytes = b""
    auth: bytes = b""
    secure: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Script:
    """``name`` and ``path_info`` are parts of the decoded path, ``file`` is the program."""

    name: bytes
    path_info: bytes
    file: bytes


@dataclass(frozen=True)
class Settings:
    """What is the same for all requests.

    ``base`` comes before the meta-variables and ``extra`` after: the operator's word is the
    last, and no client can overrule it.
    """

    base: Mapping[bytes, bytes] = field(default_factory=dict)
    extra: Mapping[bytes, bytes] = field(default_factory=dict)
    document_root: bytes | None = None
    pass_authorization: bool = False
    software: bytes = b"fastspawn"
    gateway: bool = True
    """It is a CGI script: what makes a program answer as one is set."""


def environment(request: Request, script: Script, settings: Settings) -> dict[bytes, bytes]:
    """All variables of one request. Raises Refused for a Host that is not one.

    AUTH_TYPE and REMOTE_USER are set where a proxy has authenticated the client, and REMOTE_IDENT
    never: the server authenticates nobody, and must not say that it did (RFC 3875 sections 4.1.1,
    4.1.10 and 4.1.11).
    """
    env = dict(settings.base)
    fields = request.fields
    named = _named_by_connection(fields)
    host = request.target.authority
    headers: dict[bytes, bytes] = {}
    for name, value in fields:
        if _FORBIDDEN.search(value):
            raise Refused(400, b"malformed header field\n")
        if name == b"content-type":
            _append(env, b"CONTENT_TYPE", value, b", ")
            continue
        if name in _WITHHELD or name in named or not _NAME.fullmatch(name):
            continue
        if name in _CREDENTIALS and not settings.pass_authorization:
            continue
        if name == b"host" and host is None:
            host = value
        variable = b"HTTP_" + name.upper().replace(b"-", b"_")
        # RFC 9110 section 5.3, RFC 6265 section 5.4.
        _append(headers, variable, value, b"; " if name == b"cookie" else b", ")
    if request.target.authority is not None:
        headers[b"HTTP_HOST"] = request.target.authority
    env |= headers

    local, remote, target = request.local, request.remote, request.target
    if settings.gateway:
        env[b"GATEWAY_INTERFACE"] = b"CGI/1.1"
        env[b"SCRIPT_FILENAME"] = script.file
    env[b"SERVER_SOFTWARE"] = settings.software
    env[b"SERVER_PROTOCOL"] = request.version
    env[b"SERVER_NAME"] = host_name(host or b"") or _bracketed(local)
    if local is not None:
        env[b"SERVER_PORT"] = b"%d" % local[1]
        env[b"SERVER_ADDR"] = local[0]
    else:
        env[b"SERVER_PORT"] = b"443" if request.https else b"80"
    if request.https:
        env[b"HTTPS"] = b"on"
    env |= request.secure
    if request.user:
        env[b"REMOTE_USER"] = request.user
        if request.auth:
            env[b"AUTH_TYPE"] = request.auth
    env[b"REQUEST_SCHEME"] = b"https" if request.https else b"http"
    env[b"REQUEST_METHOD"] = request.method
    env[b"REQUEST_URI"] = target.raw
    env[b"QUERY_STRING"] = target.query
    # Without a look-up of the name, the address is its substitute (RFC 3875 section 4.1.9).
    env[b"REMOTE_ADDR"] = env[b"REMOTE_HOST"] = b"" if remote is None else remote[0]
    if remote is not None and remote[1]:
        env[b"REMOTE_PORT"] = b"%d" % remote[1]
    if request.length is not None:
        env[b"CONTENT_LENGTH"] = b"%d" % request.length
    env[b"SCRIPT_NAME"] = script.name
    if script.path_info:
        # Section 4.1.5 allows to leave an empty one out, and some tell the two apart.
        env[b"PATH_INFO"] = script.path_info
    root = settings.document_root
    if root is not None:
        env[b"DOCUMENT_ROOT"] = root
        if script.path_info:
            env[b"PATH_TRANSLATED"] = root.rstrip(b"/") + script.path_info
    env.update(settings.extra)
    return env


def _named_by_connection(fields: Sequence[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The fields that are between the client and this server only (RFC 9110 section 7.6.1)."""
    options = [value for name, value in fields if name == b"connection"]
    if not options:
        return frozenset()
    names = b",".join(options).lower().split(b",")
    # Host is not to be taken away.
    return frozenset(name.strip() for name in names) - {b"host"}


def _append(env: dict[bytes, bytes], variable: bytes, value: bytes, between: bytes) -> None:
    before = env.get(variable)
    env[variable] = value if before is None else before + between + value


def _bracketed(local: tuple[bytes, int] | None) -> bytes:
    if local is None:
        return b"localhost"
    address = local[0]
    return b"[%b]" % address if b":" in address else address
