"""SSL_CLIENT_* and its like: what scripts are told of TLS, and of who has a certificate."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from serve.conftest import Serve
from serve.harness import Client, Server
from serve.test_tls import Authority, connect, options

SHOW = ("sh", "-c", r'printf "Content-Type: text/plain\n\n"; env | grep -a ^SSL_; true')
SUBJECT = (
    r"/C=DE/ST=a \+ b/O=Ex, \"am\"ple/OU=one/OU=two; <three>/DC=org/CN= Jörg #1 /UID=u\\1"
    "/emailAddress=j@example.org/title=Dr/GN=J/SN=Z"
)
NAMES = "DNS:a.example,email:j@example.org,DNS:b.example,IP:127.0.0.1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> tuple[str, str]:
    return authority.sign("server")


def told(client: Client, *fields: str) -> dict[str, str]:
    client.get("/", *fields)
    answer = client.read()
    assert answer.status == 200, answer
    body = answer.body.decode().removeprefix("Content-Type: text/plain\n\n")
    return dict(line.split("=", 1) for line in body.splitlines())


def openssl(cert: str, *words: str) -> dict[str, str]:
    """What it says of a certificate."""
    command = ["openssl", "x509", "-noout", "-in", cert, *words]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return dict(line.split("=", 1) for line in said.splitlines())


def ask(server: Server, authority: Authority, own: tuple[str, str] | None) -> dict[str, str]:
    with connect(server, authority, own) as client:
        return told(client)


@pytest.mark.parametrize("mode", [("--mode", "cgi"), ("--request-env",)], ids=lambda mode: mode[-1])
def test_a_certificate(
    any_way: Serve, authority: Authority, pair: tuple[str, str], mode: tuple[str, ...]
) -> None:
    """As OpenSSL tells of it; the same for each request of the connection."""
    own = authority.sign("whole", subject=SUBJECT, names=NAMES)
    server = any_way(*options(pair), "--ssl-ca-certs", str(authority.cert), *mode, command=SHOW)
    with connect(server, authority, own) as client:
        found = told(client, "SSL-CLIENT-VERIFY: NONE")
        assert told(client, "SSL_CLIENT_S_DN: CN=root") == found
    dates = openssl(own[0], "-dates", "-serial")
    # Characters as they are, which "rfc2253" alone would escape byte by byte.
    dn = openssl(own[0], "-subject", "-issuer", "-nameopt", "rfc2253,-esc_msb")
    assert found == {
        "SSL_PROTOCOL": "TLSv1.3",
        "SSL_CIPHER": found["SSL_CIPHER"],
        "SSL_CIPHER_USEKEYSIZE": "256" if "256" in found["SSL_CIPHER"] else "128",
        "SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_CLIENT_M_VERSION": "3",
        "SSL_CLIENT_M_SERIAL": dates["serial"],
        "SSL_CLIENT_V_START": dates["notBefore"],
        "SSL_CLIENT_V_END": dates["notAfter"],
        "SSL_CLIENT_S_DN": dn["subject"],
        "SSL_CLIENT_I_DN": dn["issuer"],
        "SSL_CLIENT_I_DN_CN": "authority",
        **{
            f"SSL_CLIENT_S_DN_{part}": value
            for part, value in (
                *(("C", "DE"), ("ST", "a + b"), ("O", 'Ex, "am"ple'), ("OU", "one")),
                *(("OU_1", "two; <three>"), ("DC", "org"), ("CN", " Jörg #1 "), ("UID", "u\\1")),
                *(("Email", "j@example.org"), ("T", "Dr"), ("G", "J"), ("S", "Z")),
            )
        },
        "SSL_CLIENT_SAN_DNS_0": "a.example",
        "SSL_CLIENT_SAN_DNS_1": "b.example",
        "SSL_CLIENT_SAN_Email_0": "j@example.org",
    }
    assert found["SSL_CLIENT_S_DN"].startswith("SN=Z,GN=J,title=Dr,emailAddress=")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_need_not_have_one(
    serve: Serve, authority: Authority, pair: tuple[str, str], workers: str, tmp_path: Path
) -> None:
    """But no one else's: who has another authority's is not let in."""
    server = serve(
        *(*options(pair), "--ssl-ca-certs", str(authority.cert), "--ssl-cert-reqs", "optional"),
        *("--mode", "cgi", "--workers", workers),
        command=SHOW,
    )
    assert ask(server, authority, authority.sign("known"))["SSL_CLIENT_S_DN_CN"] == "known"
    found = ask(server, authority, None)
    assert found.pop("SSL_CLIENT_VERIFY") == "NONE"
    assert not any(name.startswith("SSL_CLIENT_") for name in found)
    stranger = Authority(tmp_path).sign("stranger")
    with pytest.raises((OSError, AssertionError)):
        ask(server, authority, stranger)
    assert "Traceback" not in server.errors()


def test_nobody_is_asked(serve: Serve, authority: Authority, pair: tuple[str, str]) -> None:
    server = serve(*options(pair), "--mode", "cgi", command=SHOW)
    found = ask(server, authority, authority.sign("unasked"))
    assert found["SSL_CLIENT_VERIFY"] == "NONE"
    assert found.keys() == {
        *("SSL_PROTOCOL", "SSL_CIPHER", "SSL_CIPHER_USEKEYSIZE", "SSL_CLIENT_VERIFY"),
    }


def test_a_proxy_is_not_its_client(
    start: Serve, authority: Authority, pair: tuple[str, str]
) -> None:
    """Of a request that it has passed on, its own certificate says nothing."""
    server = start(
        *(*options(pair), "--ssl-ca-certs", str(authority.cert), "--mode", "cgi"),
        "--proxy-headers",
        command=SHOW,
    )
    with connect(server, authority, authority.sign("proxy")) as client:
        assert told(client)["SSL_CLIENT_S_DN_CN"] == "proxy"
        assert told(client, "X-Forwarded-For: 192.0.2.1") == {}
        assert told(client, "X-Forwarded-Proto: https") == {}
        assert told(client)["SSL_CLIENT_S_DN_CN"] == "proxy"


def test_without_tls(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor from the server's own environment; what is not of a request stays."""
    for name in ("SSL_CLIENT_VERIFY", "SSL_PROTOCOL", "SSL_CERT_DIR", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "x")
    server = start("--mode", "cgi", "--pass-env", "SSL_*", command=SHOW)
    with server.connect() as client:
        assert told(client, "SSL-CLIENT-VERIFY: SUCCESS") == {
            "SSL_CERT_DIR": "x",
            "SSL_CERT_FILE": "x",
        }
