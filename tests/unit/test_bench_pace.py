"""bench/pace.c, the client for fixed rates, against servers that answer in every way."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from bench import openloop
from bench.harness import load, pace, tools
from bench.row import Options
from bench.store import Results

HEAD = b"HTTP/1.1 200 OK\r\nDate: Sun, 29 Nov 2026 19:00:00 GMT\r\n"
PLAIN = HEAD + b"Content-Length: 3\r\n\r\nhi\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\nh\r\n2;x=y\r\ni\n\r\n0\r\n\r\n"
Answer = Callable[[socket.socket, int], None]
"""Answers on a connection the request of this number, which counts over all connections."""


@contextmanager
def serving(answer: Answer) -> Iterator[int]:
    """The port of a server with a thread for each connection."""
    count = iter(range(1 << 30))

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                while self.request.recv(4096):
                    answer(self.request, next(count))
            except OSError:
                pass  # closed, by either side

    class Server(socketserver.ThreadingTCPServer):
        request_queue_size = 1024

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def attack(answer: Answer, rate: int = 500, seconds: float = 0.2) -> pace.Paced:
    try:
        program = pace.program()
    except tools.Unavailable as error:
        pytest.skip(str(error))
    with serving(answer) as port:
        return pace.attack(program, port, rate, seconds, b"hi\n")


def in_pieces(connection: socket.socket, number: int) -> None:
    cut = 1 + number % (len(CHUNKED) - 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(CHUNKED[:cut])
    connection.sendall(CHUNKED[cut:])


def and_closes(connection: socket.socket, number: int) -> None:
    if number % 3:
        connection.sendall(PLAIN)
        return
    connection.sendall(PLAIN.replace(HEAD, HEAD + b"Connection: close\r\n"))
    connection.close()


@pytest.mark.parametrize(
    "answer",
    [
        lambda connection, _: connection.sendall(PLAIN),
        lambda connection, _: connection.sendall(CHUNKED),
        in_pieces,
        and_closes,
    ],
    ids=["length", "chunks", "pieces", "closes"],
)
def test_every_request_gets_its_answer(answer: Answer) -> None:
    found = attack(answer)
    assert (found.answers, found.errors, found.rate) == (100, 0, 500)
    assert found.seconds > 0.19
    assert 0 < found.p50_us <= found.p99_us <= found.p999_us <= found.max_us


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (HEAD + b"Content-Length: 3\r\n\r\nho\n", "1 of 100 .*answer: HTTP/1.1 200"),
        (HEAD + b"Content-Length: 2\r\n\r\nhi", "1 of 100"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nho\r\n1\r\n\n\r\n0\r\n\r\n", "1 of 100"),
        (PLAIN.replace(b"200", b"500"), "1 of 100 .*answer: HTTP/1.1 500"),
        (b"", "1 of 100 .*closed"),
    ],
    ids=["body", "shorter", "chunks", "status", "none"],
)
def test_one_wrong_answer_is_seen(wrong: bytes, told: str) -> None:
    def answer(connection: socket.socket, number: int) -> None:
        connection.sendall(wrong if number == 50 else PLAIN)
        if number == 50 and not wrong:
            connection.close()

    with pytest.raises(load.LoadError, match=told):
        attack(answer)


def test_latency_counts_from_when_a_request_was_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that are due while the one connection waits are late, not only the one that it has."""
    monkeypatch.setattr(pace, "CONNECTIONS", 1)
    stalls = threading.Event()

    def answer(connection: socket.socket, number: int) -> None:
        if number == 0:
            stalls.wait(0.4)  # for nobody: it is a pause
        connection.sendall(PLAIN)

    found = attack(answer, rate=500, seconds=0.4)
    assert found.answers == 200
    assert found.max_us > 390_000
    assert found.p50_us > 150_000
    assert found.late_p99_us > 350_000
    assert found.sent_p99_us > 0


def peaks(**rates: int) -> Results:
    results = Results.new({})
    for name, rate in rates.items():
        row = results.row("http", name.replace("_", "-"), "")
        row["rounds"].append({"round": 0, "requests_per_second": rate})
    return results


def test_the_common_rate_is_that_of_our_slowest() -> None:
    found = peaks(fastspawn_effect=2000, fastspawn_reset=8000, node_single=100)
    assert openloop.common_rate(found) == 1400
    assert openloop.rate("fastspawn-reset", found) == 5600
    assert openloop.common_rate(peaks(node_single=100)) == 0


@pytest.mark.parametrize(("direct", "common"), [(100, 70), (300, 140), (None, 140)])
def test_a_row_at_its_own_rate_and_at_the_common_one(direct: int | None, common: int) -> None:
    rates = {"fastspawn_effect": 200, **({"fastspawn_direct": direct} if direct else {})}
    try:
        record = openloop.measure(
            "fastspawn-effect", peaks(**rates), Options(10, connections=4, checked=4), 0.5
        )
    except tools.Unavailable as error:
        pytest.skip(str(error))
    assert (record["rate"], record["peak"]) == (140, 200)
    assert record["answers"] == 70
    assert record["common_rate"] == common
    assert record["common_p99_us"]
