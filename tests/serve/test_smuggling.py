"""What would be another request, or another answer, to somebody else on the way: docs/smuggling.md.

The requests that are refused are those of test_malformed.py, which is about raw answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.harness import Server
from serve.test_malformed import CHUNKED, POST, REFUSED, H

PAGE = Path(__file__).parents[2] / "docs" / "smuggling.md"
NEXT = b"GET /next HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"

READ = {
    # name: (request, what a script has of it: SERVER_NAME, HTTP_HOST, CONTENT_LENGTH and the body,
    #        the statuses of it and of the request behind it)
    "field in the trailer": (
        CHUNKED + b"3\r\nabc\r\n0\r\nHost: evil\r\n\r\n",
        "test test 3|abc",
        200,
    ),
    "several spaces": (b"GET  /  HTTP/1.1\r\n" + H + b"\r\n", "test test |", 200),
    "another Host": (b"GET http://a/x HTTP/1.1\r\n" + H + b"\r\n", "a a |", 200),
    "underscores": (
        POST + b"Content_Length: 3\r\nTransfer_Encoding: chunked\r\n\r\n",
        "test test |",
        200,
    ),
    "length of a GET": (
        b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 3\r\n\r\nabc",
        "test test 3|abc",
        200,
    ),
    "length named by Connection": (
        POST + b"Connection: content-length\r\nContent-Length: 3\r\n\r\nabc",
        "test test 3|abc",
        200,
    ),
    "HTTP/2 asked for": (
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
        "test test 3|abc",
        200,
    ),
    "more behind the last chunk": (CHUNKED + b"0\r\n\r\nabc\r\n\r\n", "test test 0|", 400),
    "more behind a length": (POST + b"Content-Length: 1\r\n\r\nabc\r\n\r\n", "test test 1|a", 400),
    "Proxy": (b"GET / HTTP/1.1\r\n" + H + b"Proxy: http://evil\r\n\r\n", "test test |", 200),
    "a hyphen's underscore": (b"GET / HTTP/1.1\r\n" + H + b"X_A: evil\r\n\r\n", "test test |", 200),
}

PRINTED = {
    # name: (what a script prints, status, the fields that are its own, the body)
    "carriage return in a value": (b"Content-Type: a/b\nX: a\rSet-Cookie: b\n\nx", 502, "", b""),
    "carriage returns": (b"Content-Type: a/b\r\r\n\nx", 502, "", b""),
    "nul in a value": (b"Content-Type: a/b\nX: \0\n\nx", 502, "", b""),
    "carriage return in Status": (b"Status: 200 OK\rX: y\nContent-Type: a/b\n\nx", 502, "", b""),
    "no status": (b"Status: 2000\nContent-Type: a/b\n\nx", 502, "", b""),
    "status of a protocol": (b"Status: 101 Switching\nContent-Type: a/b\n\nx", 502, "", b""),
    "text in Status": (b"Status: 404 Not Here\nContent-Type: a/b\n\nx", 404, "content-type", b"x"),
    "carriage return in Location": (b"Location: http://x/\rSet-Cookie: a=b\n\n", 502, "", b""),
    "control in a local Location": (b"Location: /a\x01b\n\n", 502, "", b""),
    "escaped line in a local Location": (b"Location: /a%0d%0aX\n\n", 400, "", b""),
    "coding": (b"Content-Type: a/b\nTransfer-Encoding: chunked\n\n0\r\n\r\n", 502, "", b""),
    "lengths": (b"Content-Type: a/b\nContent-Length: 1\nContent-Length: 2\n\nab", 502, "", b""),
    "answer behind its length": (
        b"Content-Type: a/b\nContent-Length: 1\n\naHTTP/1.1 200 OK\r\n\r\n",
        200,
        "content-type",
        b"a",
    ),
    "folded value": (b"Content-Type: a/b\nX: y\n z\n\nx", 200, "content-type x", b"x"),
    "fields of the connection": (
        b"Content-Type: a/b\nConnection: keep-alive\nKeep-Alive: x\nUpgrade: h2c\nTrailer: x\n\nx",
        200,
        "content-type",
        b"x",
    ),
}
OURS = {"server", "date", "content-length", "connection", "transfer-encoding", "x-accel-buffering"}
TELL = (
    'printf "Content-Type: text/plain\n\n$SERVER_NAME $HTTP_HOST $CONTENT_LENGTH'
    '$HTTP_PROXY$HTTP_X_A|"; exec cat'
)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Whose command tells what it was given, and one that prints what it is sent."""
    there = tmp_path_factory.mktemp("smuggling")
    commands = {
        "raw": ((), ("cat",)),
        "cgi": (("--mode", "cgi"), ("sh", "-c", TELL)),
        "prints": (("--mode", "cgi"), ("cat",)),
    }
    started = {}
    try:
        for name, (options, command) in commands.items():
            started[name] = Server(there, options, command)
        yield started
    finally:
        for server in started.values():
            server.stop()


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("mode", ["raw", "cgi"])
def test_what_is_read_is_what_is_run(servers: dict[str, Server], name: str, mode: str) -> None:
    """One request is one, and what comes behind it is another, or none."""
    request, told, then = READ[name]
    with servers[mode].connect() as client:
        client.send(request + NEXT)
        answer = client.read()
        assert (answer.status, answer.complete) == (200, True)
        assert answer.body.decode() == (told if mode == "cgi" else told.partition("|")[2])
        assert client.read().status == then
        assert client.ended()


def test_what_is_refused_is_no_request_of_a_script(servers: dict[str, Server]) -> None:
    """As of a raw command; and nothing behind it is one."""
    for name, (request, status) in REFUSED.items():
        with servers["cgi"].connect() as client:
            try:
                client.send(request + NEXT)
            except ConnectionError:
                continue  # it need not read all of it: test_malformed.py has these
            answer = client.read()
            assert (answer.status, answer.fields["connection"]) == (status, "close"), name
            assert client.ended(), name


@pytest.mark.parametrize("name", PRINTED)
def test_what_a_script_prints_is_one_answer(servers: dict[str, Server], name: str) -> None:
    output, status, fields, body = PRINTED[name]
    with servers["prints"].connect() as client:
        client.post(output, "Connection: close")
        answer = client.read()
        assert answer.status == status
        if body:
            assert answer.body == body
            assert set(answer.fields) - OURS == set(fields.split())
        assert client.ended()


def test_the_page_has_all_of_it_and_nothing_else() -> None:
    """Each row: what, the answer, and what it is called here."""
    rows = re.findall(r"^\| .* \| (\d+).* \| ((?:`[^`]+` ?)+) \|$", PAGE.read_text(), flags=re.M)
    found = {
        name: int(status) for status, names in rows for name in re.findall(r"`([^`]+)`", names)
    }
    there = {name: case[1] for name, case in (REFUSED | PRINTED).items()} | dict.fromkeys(READ, 200)
    assert {name: there.get(name) for name in found} == found
    assert set(READ) | set(PRINTED) <= set(found)
