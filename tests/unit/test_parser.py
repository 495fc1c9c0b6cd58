"""The request parser by itself: bytes in, exchanges out; no connection, no event loop."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from httptools import HttpParserCallbackError
from hypothesis import given
from hypothesis import strategies as st

from fastspawn.serve.http.parser import RequestParser
from fastspawn.serve.http.raw import RawExchange

PIPELINED = (
    b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2;e=f\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: t\r\n\r\n"
    b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    b"Content-Length: 3\r\n\r\nabc"
    b"GET /last HTTP/1.0\r\n\r\n"
)


class Recorder:
    """In the place of a connection."""

    peer = b"-"

    def __init__(self, max_head: int = 200, max_body: int = 100) -> None:
        self.max_head = max_head
        route: Any = SimpleNamespace(exchange=RawExchange, max_body=max_body)
        routing: Any = SimpleNamespace(
            sole=route, nowhere=route, own={}, about=None, wants_fields=False
        )
        self.found: list[RawExchange] = []
        self.whole: list[RawExchange] = []
        self.parser = RequestParser(self, routing)  # type: ignore[arg-type]

    def enqueue(self, exchange: RawExchange) -> None:
        self.found.append(exchange)

    def received(self, exchange: RawExchange) -> None:
        self.whole.append(exchange)

    def data_received(self, data: bytes) -> None:
        assert self.parser.deaf

    def pause_body(self, exchange: RawExchange) -> None:
        raise AssertionError("no body here is that long")


def said(recorder: Recorder) -> list[tuple[bytes, bytes, bytes | None, bool, bool]]:
    return [
        (
            each.method,
            each.target,
            None if each.body is None else b"".join(each.body),
            each.complete,
            each.keep,
        )
        for each in recorder.found
    ]


class Faulty(Recorder):
    """Has a fault of its own."""

    def received(self, exchange: RawExchange) -> None:
        raise LookupError("ours")


def test_a_fault_of_ours_is_not_the_clients() -> None:
    """It is told, and not taken for a request that makes no sense."""
    recorder = Faulty()
    with pytest.raises(HttpParserCallbackError) as found:
        recorder.parser.feed(PIPELINED)
    assert isinstance(found.value.__context__, LookupError)
    assert [each.refusal for each in recorder.found] == [None]


@given(cuts=st.lists(st.integers(0, len(PIPELINED)), max_size=8))
def test_requests_are_the_same_however_the_bytes_come(cuts: list[int]) -> None:
    recorder = Recorder()
    edges = [0, *sorted(cuts), len(PIPELINED)]
    for start, end in pairwise(edges):
        recorder.parser.feed(PIPELINED[start:end])
    assert said(recorder) == [
        (b"GET", b"/a?b", None, True, True),
        (b"POST", b"/", b"hello", True, True),
        (b"POST", b"/", b"abc", True, True),
        (b"GET", b"/last", None, True, False),
    ]
    assert recorder.whole == recorder.found
    assert recorder.parser.deaf
    assert recorder.parser.parsing is None


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 50, 431),
        (b"GET /%b" % (b"a" * 300), 431),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n", 413),
    ],
)
def test_the_last_answer_says_what_is_wrong(data: bytes, status: int) -> None:
    """Nothing is made of what comes after it."""
    recorder = Recorder()
    for byte in data + PIPELINED:
        recorder.parser.feed(bytes([byte]))
    assert [each.refusal[0] for each in recorder.found if each.refusal] == [status]
    assert len(recorder.found) == 1
    assert recorder.parser.deaf


def test_it_lets_go_of_its_connection() -> None:
    recorder = Recorder()
    recorder.parser.close()
    recorder.parser.feed(PIPELINED)
    assert recorder.found == []
