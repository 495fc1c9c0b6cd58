"""TLS in mod_ssl's words, where no certificate of tests/serve/test_client_certs.py leads."""

from __future__ import annotations

from typing import Any

import pytest

from fastspawn.serve.cgi.certificate import distinguished, variables


class Session:
    def __init__(self, certificate: Any, version: str | None = "TLSv1.2") -> None:
        self._certificate = certificate
        self._version = version

    def version(self) -> str | None:
        return self._version

    def cipher(self) -> tuple[str, str, int] | None:
        return ("A-B", "TLSv1.2", 256) if self._version else None

    def getpeercert(self) -> Any:
        return self._certificate


BARE = {
    "version": 1,
    "serialNumber": "0A",
    "notBefore": "Nov 29 00:00:00 2026 GMT",
    "notAfter": "Nov 30 00:00:00 2026 GMT",
    "issuer": (),
    "subject": ((("commonName", "a\nb\0c\x7f"), ("userId", "b")), (("1.2.3.4", "odd"),)),
}


def test_what_an_environment_cannot_have() -> None:
    found = variables(Session(BARE))
    assert found[b"SSL_CLIENT_S_DN_CN"] == rb"a\0Ab\00c\7F"
    assert found[b"SSL_CLIENT_S_DN"] == rb"1.2.3.4=odd,UID=b+CN=a\0Ab\00c\7F"
    assert found[b"SSL_CLIENT_I_DN"] == b""
    assert found[b"SSL_CLIENT_VERIFY"] == b"SUCCESS"


@pytest.mark.parametrize("certificate", [None, {}])
def test_no_certificate(certificate: Any) -> None:
    """{}: one that nobody has verified."""
    assert variables(Session(certificate)) == {
        b"SSL_PROTOCOL": b"TLSv1.2",
        b"SSL_CIPHER": b"A-B",
        b"SSL_CIPHER_USEKEYSIZE": b"256",
        b"SSL_CLIENT_VERIFY": b"NONE",
    }
    assert variables(Session(certificate, None)) == {
        b"SSL_PROTOCOL": b"",
        b"SSL_CLIENT_VERIFY": b"NONE",
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        # As `openssl x509 -nameopt rfc2253` writes what was made with -multivalue-rdn.
        (
            (
                (("commonName", "a"), ("userId", "b")),
                (
                    ("stateOrProvinceName", "z"),
                    ("organizationName", "x"),
                    ("organizationalUnitName", "y"),
                ),
            ),
            "OU=y+O=x+ST=z,UID=b+CN=a",
        ),
        (((("commonName", " "),),), r"CN=\ "),
        (((("commonName", "#"),),), r"CN=\#"),
        (((("commonName", 'a=b,c+d"e\\f<g>h;i'),),), r"CN=a=b\,c\+d\"e\\f\<g\>h\;i"),
        (((("commonName", ""),),), "CN="),
    ],
)
def test_distinguished_names(name: Any, text: str) -> None:
    assert distinguished(name) == text
