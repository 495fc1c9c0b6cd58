"""What a connection's TLS tells scripts, in mod_ssl's words (its documentation, "Environment
Variables"): ``SSL_PROTOCOL``, ``SSL_CIPHER`` and, of the client's certificate, ``SSL_CLIENT_*``.

Pure: it asks an object like ``ssl.SSLObject`` and makes values of what that says. None of it is the
client's own word: the certificate was verified in the handshake, or there is none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SHORT: Final = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "givenName": "GN",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "street",
    "surname": "SN",
    "userId": "UID",
}
"""OpenSSL's short names of attributes, where they are not the long ones, which ``ssl`` has."""
_PARTS: Final = {
    **{name: name for name in ("C", "ST", "L", "O", "OU", "CN", "UID", "DC")},
    "title": "T",
    "initials": "I",
    "GN": "G",
    "SN": "S",
    "description": "D",
    "emailAddress": "Email",
}
"""Attributes that have variables of their own, and what these end with."""
_SPECIAL: Final = re.compile(r'[,+"\\<>;]|^[ #]| $')
"""To be escaped in a distinguished name (RFC 2253 section 2.4)."""
_CONTROL: Final = re.compile(r"[\0-\x1f\x7f]")

_Name = tuple[tuple[tuple[str, str], ...], ...]
"""As ``ssl.SSLObject.getpeercert`` has it: of each level, its attributes."""


class Session(Protocol):
    """``ssl.SSLObject``, of which the handshake is done."""

    def version(self) -> str | None: ...

    def cipher(self) -> tuple[str, str, int] | None: ...

    def getpeercert(self) -> Any: ...


def variables(session: Session) -> dict[bytes, bytes]:
    """Of every request on the connection."""
    found = {"SSL_PROTOCOL": session.version() or ""}
    cipher = session.cipher()
    if cipher is not None:
        found |= {"SSL_CIPHER": cipher[0], "SSL_CIPHER_USEKEYSIZE": str(cipher[2])}
    certificate = session.getpeercert()
    if certificate:
        found |= {"SSL_CLIENT_VERIFY": "SUCCESS", **dict(_of(certificate))}
    else:
        found["SSL_CLIENT_VERIFY"] = "NONE"
    return {name.encode(): _shown(value).encode() for name, value in found.items()}


def _of(certificate: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "SSL_CLIENT_M_VERSION", str(certificate["version"])
    yield "SSL_CLIENT_M_SERIAL", certificate["serialNumber"]
    yield "SSL_CLIENT_V_START", certificate["notBefore"]
    yield "SSL_CLIENT_V_END", certificate["notAfter"]
    for variable, field in (("S", "subject"), ("I", "issuer")):
        variable = f"SSL_CLIENT_{variable}_DN"  # noqa: PLW2901
        yield variable, distinguished(certificate[field])
        yield from _numbered(
            (f"{variable}_{_PARTS[short]}", value)
            for short, value in _attributes(certificate[field])
            if short in _PARTS
        )
    counts: dict[str, int] = {}
    for kind, value in certificate.get("subjectAltName", ()):
        kind = {"DNS": "DNS", "email": "Email"}.get(kind)  # noqa: PLW2901
        if kind is not None:
            counts[kind] = counts.get(kind, -1) + 1
            yield f"SSL_CLIENT_SAN_{kind}_{counts[kind]}", value


def distinguished(name: _Name) -> str:
    """RFC 2253: the last level first. As OpenSSL writes it, but for characters that are not ASCII,
    which stay."""
    return ",".join(
        "+".join(f"{_SHORT.get(long, long)}={_escaped(value)}" for long, value in reversed(level))
        for level in reversed(name)
    )


def _attributes(name: _Name) -> Iterator[tuple[str, str]]:
    for level in name:
        for long, value in level:
            yield _SHORT.get(long, long), value


def _numbered(values: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The second of a name gets ``_1``, and so on."""
    counts: dict[str, int] = {}
    for name, value in values:
        count = counts[name] = counts.get(name, -1) + 1
        yield (f"{name}_{count}" if count else name), value


def _escaped(value: str) -> str:
    return _SPECIAL.sub(lambda found: "\\" + found[0], value)


def _shown(value: str) -> str:
    """What no environment can have, and what would end a line for who reads one."""
    return _CONTROL.sub(lambda found: f"\\{ord(found[0]):02X}", value)
