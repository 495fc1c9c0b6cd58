"""Requests that are refused: an error, a closed connection, and never a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serve.harness import Server

H = b"Host: test\r\n"
POST = b"POST / HTTP/1.1\r\n" + H
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = b"Content-Length: 3\r\n"

REFUSED = {
    # name: (request, status)
    "not http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "nonsense": (b"hello, is this the server?\r\n\r\n", 400),
    "unknown method": (b"FETCH / HTTP/1.1\r\n" + H + b"\r\n", 400),
    "lower case method": (b"get / HTTP/1.1\r\n" + H + b"\r\n", 400),
    "connect": (b"CONNECT test:80 HTTP/1.1\r\n" + H + b"\r\n", 501),
    "rtsp": (b"DESCRIBE rtsp://test/ RTSP/1.0\r\n" + H + b"\r\n", 501),
    "icecast": (b"SOURCE / ICE/1.0\r\n" + H + b"\r\n", 501),
    "http 0.9": (b"GET /\r\n\r\n", 505),
    "http 2 in the clear": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "http 2.0": (b"GET / HTTP/2.0\r\n" + H + b"\r\n", 505),
    "http 1.2": (b"GET / HTTP/1.2\r\n" + H + b"\r\n", 400),
    "no target": (b"GET  HTTP/1.1\r\n" + H + b"\r\n", 400),
    "control in the target": (b"GET /\x01 HTTP/1.1\r\n" + H + b"\r\n", 400),
    "byte in the target": (b"GET /\xff HTTP/1.1\r\n" + H + b"\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\n" + H + H + b"\r\n", 400),
    "two hosts in 1.0": (b"GET / HTTP/1.0\r\n" + H + H + b"\r\n", 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: test\n\n", 400),
    "bare line feed in a field": (b"GET / HTTP/1.1\r\nX: y\nHost: test\r\n\r\n", 400),
    "bare carriage return": (b"GET / HTTP/1.1\r\nX: y\rHost: test\r\n\r\n", 400),
    "nul in a field": (b"GET / HTTP/1.1\r\n" + H + b"X: \0\r\n\r\n", 400),
    "folded field": (b"GET / HTTP/1.1\r\n" + H + b"X: y\r\n z\r\n\r\n", 400),
    "space before the colon": (b"GET / HTTP/1.1\r\nHost : test\r\n\r\n", 400),
    "no colon": (b"GET / HTTP/1.1\r\n" + H + b"field\r\n\r\n", 400),
    "no field name": (b"GET / HTTP/1.1\r\n" + H + b": x\r\n\r\n", 400),
    "length and chunked": (POST + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked and length": (POST + b"Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\nabc", 400),
    "two lengths": (POST + LENGTH + b"Content-Length: 4\r\n\r\nabcd", 400),
    "one length twice": (POST + LENGTH + LENGTH + b"\r\nabc", 400),
    "list of lengths": (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    "signed length": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "negative length": (POST + b"Content-Length: -3\r\n\r\nabc", 400),
    "length in hexadecimal": (POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
    "length in two words": (POST + b"Content-Length: 1 3\r\n\r\nabc", 400),
    "empty length": (POST + b"Content-Length: \r\n\r\nabc", 400),
    "length beyond 64 bits": (POST + b"Content-Length: 99999999999999999999\r\n\r\nabc", 400),
    "coding in 1.0": (
        b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
    "gzip": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "two codings": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        400,
    ),
    "vertical tab before chunked": (
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunked twice, in two fields": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "folded coding": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    "tab before the colon": (POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400),
    "quoted coding": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 501),
    "nothing and chunked": (POST + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", 501),
    "empty coding": (POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
    "nul in a field's name": (b"GET / HTTP/1.1\r\n" + H + b"X\0Y: z\r\n\r\n", 400),
    "space in the target": (b"GET /a b HTTP/1.1\r\n" + H + b"\r\n", 400),
    "space behind the version": (b"GET / HTTP/1.1 \r\n" + H + b"\r\n", 400),
    "folded first field": (b"GET / HTTP/1.1\r\n X: y\r\n" + H + b"\r\n", 400),
    "chunk size": (CHUNKED + b"zz\r\n\r\n", 400),
    "chunk size in C": (CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", 400),
    "chunk size and a space": (CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n", 400),
    "chunk size beyond 64 bits": (CHUNKED + b"fffffffffffffffff\r\n", 400),
    # RFC 9112 would have these parsed; llhttp does not, and its leniencies take what is malformed.
    "blank before a chunk extension": (CHUNKED + b"3 ;a=b\r\nabc\r\n0\r\n\r\n", 400),
    "blank in a chunk extension": (CHUNKED + b"3; a=b\r\nabc\r\n0\r\n\r\n", 400),
    "blanks around its value": (CHUNKED + b"3;a = b\r\nabc\r\n0\r\n\r\n", 400),
    "chunk with bare line feeds": (CHUNKED + b"3\nabc\n0\n\n", 400),
    "chunk extension with a line feed": (CHUNKED + b"3;a\nabc\r\n0\r\n\r\n", 400),
    "long chunk extension": (CHUNKED + b"3;" + b"a" * 200_000, 400),
    "chunk extension with a carriage return": (CHUNKED + b"3;a\rb\r\nabc\r\n0\r\n\r\n", 400),
    "bare carriage return behind a chunk size": (CHUNKED + b"3\rabc\r\n0\r\n\r\n", 400),
    "chunk longer than its size": (CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", 400),
    "negative chunk size": (CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n", 400),
    "coding in the trailer": (CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "length in the trailer": (CHUNKED + b"0\r\nContent-Length: 3\r\n\r\nabc", 400),
    "long trailer": (CHUNKED + b"0\r\nX: " + b"a" * 200_000, 400),
    "long target": (b"GET /" + b"a" * 200_000, 431),
    "long field": (b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 200_000, 431),
    "many fields": (b"GET / HTTP/1.1\r\n" + H + b"X: y\r\n" * 30_000, 431),
    "empty lines": (b"\r\n" * 100_000, 431),
}


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One for all: it must not matter what came before."""
    directory = tmp_path_factory.mktemp("malformed")
    # Every process leaves its trace before it does anything else.
    command = ("sh", "-c", 'echo started >> "$1"; cat', "sh", str(directory / "trace"))
    server = Server(directory, ("--loop", request.param), command)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def trace(server: Server) -> Callable[[], int]:
    """How many processes there have been."""

    def trace() -> int:
        path = Path(server.process.args[-1])  # type: ignore[index]
        return len(path.read_text().splitlines()) if path.exists() else 0

    return trace


@pytest.mark.parametrize("name", REFUSED)
def test_refused(server: Server, trace: Callable[[], int], name: str) -> None:
    request, status = REFUSED[name]
    before = trace()
    with server.connect() as client:
        client.send(request)
        answer = client.read()
        assert (answer.status, answer.fields["connection"]) == (status, "close")
        assert answer.body.startswith(b"%d " % status)
        assert client.ended()
    assert trace() == before
    assert server.get().status == 200
    assert "Traceback" not in server.errors()


@pytest.mark.parametrize("name", REFUSED)
def test_refused_behind_another(server: Server, name: str) -> None:
    """In its turn, and what came before is answered as if nothing had come after."""
    request, status = REFUSED[name]
    with server.connect() as client:
        client.send(POST + b"Content-Length: 3\r\n\r\nabc" + request)
        answer = client.read()
        assert (answer.status, answer.body) == (200, b"abc")
        assert client.read().status == status
        assert client.ended()


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_small_pieces(server: Server, trace: Callable[[], int], name: str) -> None:
    request, status = REFUSED[name]
    if len(request) > 1000:
        pieces = [request[:7], request[7:]]
    else:
        pieces = [request[n : n + 1] for n in range(len(request))]
    before = trace()
    with server.connect() as client:
        try:
            for piece in pieces:
                client.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the end has not been waited for
        answer = client.read()
        assert answer.status == status
        assert client.ended()
    if request.startswith(CHUNKED):
        # The head was good: a process may have been started, and has been ended.
        assert server.get().status == 200
    else:
        assert trace() == before


def test_what_only_looks_malformed(server: Server) -> None:
    with server.connect() as client:
        client.send(b"\r\n\r\nGET http://test/x HTTP/1.1\r\nhOST:test\r\nEmpty:\r\n\r\n")
        assert client.read().status == 200
        client.send(b"OPTIONS * HTTP/1.1\r\nHost: \r\n\r\n")
        assert client.read().status == 200
        client.send(POST + b"transfer-encoding:  ChUnKeD \r\n\r\n003\r\nabc\r\n000\r\n\r\n")
        assert client.read().body == b"abc"
        client.send(CHUNKED + b'3;a=b;c="d e"\r\nabc\r\n0;e\r\n\r\n')
        assert client.read().body == b"abc"
        client.send(POST + b"Content-Length: 0003 \r\n\r\nabc")
        assert client.read().body == b"abc"
        client.send(b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"a" * 60_000 + b"\r\n\r\n")
        assert client.read().status == 200


def test_bad_chunk_while_the_process_runs(server: Server) -> None:
    with server.connect() as client:
        client.send(CHUNKED + b"3\r\nabc\r\n")
        assert client.read_head().status == 200
        assert client.read_chunk() == b"abc"
        client.send(b"oops\r\n")
        # Half an answer is out: only its end can tell.
        assert client.read_chunk() == b""
        assert not client.last_seen
