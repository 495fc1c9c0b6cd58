"""--proxy-headers, and a real HAProxy before the server."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import needs
from serve.conftest import Serve
from serve.harness import BOUND, Client, Response, Server, poll
from serve.test_cli import assert_refused, run

HAPROXY = needs.which("haproxy")

SHOW = r"""printf 'Content-Type: text/plain\n\n'
echo "$REMOTE_ADDR ${REMOTE_PORT:+port} ${HTTPS:-off} $REQUEST_SCHEME"
"""
CGI = ("--mode", "cgi")
PROXIED = (*CGI, "--proxy-headers")


def shown(answer: Response) -> str:
    assert answer.status == 200, answer
    return answer.body.decode().strip()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((), "127.0.0.1 port off http"),
        (("X-Forwarded-For: 192.0.2.1",), "192.0.2.1  off http"),
        (("X-Forwarded-Proto: https",), "127.0.0.1 port on https"),
        (("X-Forwarded-Proto: HTTP",), "127.0.0.1 port off http"),
        (("X-Forwarded-Proto: http, https",), "127.0.0.1 port on https"),
        (("X-Forwarded-Proto: gopher",), "127.0.0.1 port off http"),
        # The last one that is not trusted.
        (("X-Forwarded-For: 192.0.2.1, 192.0.2.2",), "192.0.2.2  off http"),
        (("X-Forwarded-For: 192.0.2.1, 10.1.2.3",), "192.0.2.1  off http"),
        (("X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2, 10.1.2.3"),
         "192.0.2.2  off http"),
        (("X-Forwarded-For: 10.0.0.1, 10.1.2.3",), "10.0.0.1  off http"),
        # Ports, brackets, and what is no address.
        (("X-Forwarded-For: 192.0.2.1:8080",), "192.0.2.1  off http"),
        (("X-Forwarded-For: [2001:DB8::1]:80",), "2001:db8::1  off http"),
        (("X-Forwarded-For: 2001:db8::1",), "2001:db8::1  off http"),
        (("X-Forwarded-For: 192.0.2.1, ::ffff:10.0.0.9",), "192.0.2.1  off http"),
        (("X-Forwarded-For: ::FFFF:192.0.2.1",), "192.0.2.1  off http"),
        # The zone of an address may be any text, and a long one.
        (('X-Forwarded-For: [fe80::1%eth0 - - "GET *" 200 $(id)]:80',), "fe80::1  off http"),
        ((f"X-Forwarded-For: 192.0.2.1, fe80::2%{'x' * 9000}",), "fe80::2  off http"),
        (("X-Forwarded-For: 192.0.2.1%eth0",), "127.0.0.1 port off http"),
        (("X-Forwarded-For: 192.0.2.1, unknown",), "127.0.0.1 port off http"),
        (("X-Forwarded-For: 192.0.2.1, unknown, 10.0.0.1",), "10.0.0.1  off http"),
        (("X-Forwarded-For: ; rm -rf /",), "127.0.0.1 port off http"),
        (("X-Forwarded-For: ",), "127.0.0.1 port off http"),
    ],
)  # fmt: skip
def test_what_counts(start: Serve, fields: tuple[str, ...], expected: str) -> None:
    server = start(
        *PROXIED, "--forwarded-allow-ips", "127.0.0.1, 10.0.0.0/8", command=("sh", "-c", SHOW)
    )
    assert shown(server.get("/", *fields)) == expected
    poll(server.log, "a line")
    assert server.log()[0].startswith(expected.partition(" ")[0] + " - - [")


FORWARDED = ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https")


@pytest.mark.parametrize(
    ("options", "believed"),
    [
        ((*PROXIED,), True),
        ((*CGI,), False),
        ((*PROXIED, "--forwarded-allow-ips", "10.0.0.0/8"), False),
        ((*PROXIED, "--forwarded-allow-ips", "*"), True),
        ((*PROXIED, "--forwarded-allow-ips", "::ffff:127.0.0.0/104"), True),
        ((*PROXIED, "--forwarded-allow-ips", "::ffff:10.0.0.0/104"), False),
    ],
)
def test_who_is_believed(serve: Serve, options: tuple[str, ...], believed: bool) -> None:
    server = serve(*options, command=("sh", "-c", SHOW))
    expected = "192.0.2.1  on https" if believed else "127.0.0.1 port off http"
    with server.connect() as client:
        for _ in range(2):
            client.get("/", *FORWARDED)
            assert shown(client.read()) == expected
        # The next request of the connection is another client's.
        client.get("/", "X-Forwarded-For: 192.0.2.2")
        assert shown(client.read()).startswith("192.0.2.2 ") is believed


def test_unix_socket(serve: Serve, tmp_path: Path) -> None:
    for sources, believed in ((), True), (("--forwarded-allow-ips", "127.0.0.1"), False):
        path = str(tmp_path / f"socket-{believed}")
        serve(*PROXIED, *sources, where=("--uds", path), command=("sh", "-c", SHOW))
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        with Client(sock) as client:
            client.get("/", *FORWARDED)
            assert shown(client.read()).startswith("192.0.2.1 ") is believed


def test_mistakes() -> None:
    assert_refused(run("--forwarded-allow-ips", "localhost"), "'localhost' is not an address")


# ---- HAProxy

CONFIG = """
global
    maxconn 200
defaults
    mode http
    timeout connect 60s
    timeout client 60s
    timeout server 60s
    timeout check 60s
frontend web
    bind fd@{fd}
    option forwardfor
    http-request set-header X-Forwarded-Proto https
    default_backend commands
backend commands
    http-reuse always
    option httpchk GET /-/ready
    http-check expect status 200
    server one 127.0.0.1:{port} check inter 100ms rise 1 fall 1
"""


@contextmanager
def haproxy(tmp_path: Path, server: Server) -> Iterator[int]:
    """Its port."""
    assert HAPROXY is not None
    with socket.create_server(("127.0.0.1", 0)) as sock:
        config = tmp_path / "haproxy.cfg"
        config.write_text(CONFIG.format(fd=sock.fileno(), port=server.port))
        output = tmp_path / "haproxy.log"
        with output.open("wb") as out:
            process = subprocess.Popen(
                [HAPROXY, "-f", str(config), "-db"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=[sock.fileno()],
            )  # fmt: skip
        try:
            yield sock.getsockname()[1]
        finally:
            process.terminate()
            process.wait(BOUND)


def through(port: int, source: str = "127.0.0.1") -> Client:
    return Client(socket.create_connection(("127.0.0.1", port), BOUND, (source, 0)))


def get(port: int, source: str = "127.0.0.1") -> Response:
    with through(port, source) as client:
        client.get()
        return client.read()


@needs.program("haproxy")
def test_haproxy(serve: Serve, tmp_path: Path) -> None:
    """Clients' addresses, many requests over few connections, bodies both ways."""
    server = serve(
        *(*PROXIED, "--ready-path", "/-/ready", "--forwarded-allow-ips", "127.0.0.1"),
        *("--keep-alive-timeout", "1m"),
        command=("sh", "-c", SHOW),
    )
    with haproxy(tmp_path, server) as port:
        poll(lambda: get(port).status == 200, "HAProxy's trust in the server")
        assert shown(get(port, "127.0.0.2")) == "127.0.0.2  on https"
        with through(port, "127.0.0.3") as client:
            for _ in range(20):
                client.get()
                assert shown(client.read()) == "127.0.0.3  on https"
        # A client's own word does not get through.
        with through(port, "127.0.0.4") as client:
            client.get("/", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: http")
            assert shown(client.read()) == "127.0.0.4  on https"


@needs.program("haproxy")
def test_haproxy_keeps_connections(serve: Serve, tmp_path: Path) -> None:
    server = serve(
        *("--mode", "cgi", "--ready-path", "/-/ready", "--keep-alive-timeout", "1m"),
        *("--route", "/port=sh -c 'echo Content-Type: a/b; echo; echo $REMOTE_PORT'"),
        *("--route", "/cat=sh -c 'echo Content-Type: a/b; echo; cat'"),
    )
    body = bytes(range(256)) * 2000
    with haproxy(tmp_path, server) as port, through(port) as client:
        poll(lambda: get(port).status != 503, "HAProxy's trust in the server")
        ports = set()
        for _ in range(20):
            client.get("/port")
            ports.add(client.read().body)
        assert len(ports) == 1
        client.request("POST", "/cat", f"Content-Length: {len(body)}", body=body)
        assert client.read().body == body
        client.request(
            "POST", "/cat", "Transfer-Encoding: chunked",
            body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        )  # fmt: skip
        assert client.read().body == body


@needs.program("haproxy")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_haproxy_sees_the_drain(serve: Serve, tmp_path: Path, workers: str) -> None:
    """No request fails between the signal and the moment at which no more come."""
    server = serve("--ready-path", "/-/ready", "--drain-delay", "1m", "--workers", workers)
    with haproxy(tmp_path, server) as port:
        poll(lambda: get(port).status == 200, "HAProxy's trust in the server")
        server.signal(signal.SIGTERM)
        answers = []

        def refused() -> bool:
            answers.append(get(port))
            return answers[-1].status == 503

        poll(refused, "HAProxy's turning away", 60)
        assert {answer.body for answer in answers[:-1]} <= {b"hi\n"}
        assert b"No server is available" in answers[-1].body
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
