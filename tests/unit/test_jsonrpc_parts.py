"""What mode ``jsonrpc`` is made of, each part alone: messages, lines, events, heads."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastspawn.serve.http.exchange import gather
from fastspawn.serve.http.refused import Refused
from fastspawn.serve.jsonrpc import head
from fastspawn.serve.jsonrpc.events import Events, Gone, event
from fastspawn.serve.jsonrpc.lines import Lines, TooLong
from fastspawn.serve.jsonrpc.message import INVALID, PARSE, BadMessage, failed, parse


def message(**fields: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **fields}).encode()


# ---- messages


def test_kinds() -> None:
    assert parse(message(id=1, method="a")).kind == "request"
    assert parse(message(method="a")).kind == "notification"
    assert parse(message(id=1, result=None)).kind == "response"
    error = parse(message(id=None, error={"code": 1, "message": ""}))
    assert (error.kind, error.key, error.error) == ("response", None, True)


def test_an_id_keeps_its_type() -> None:
    keys = [parse(message(id=each, method="a")).key for each in (1, "1", 1.5, "", -1, 0)]
    assert len(set(keys)) == 6
    # What a program in JavaScript makes of 1.0.
    assert parse(b'{"jsonrpc":"2.0","id":1.0,"result":0}').key == keys[0]
    assert json.loads(failed(keys[0], -32000, "x"))["id"] == 1
    assert json.loads(failed(keys[1], -32000, "x"))["id"] == "1"
    assert json.loads(failed(None, -32000, "x"))["id"] is None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", PARSE), (b"{", PARSE), (b"nonsense", PARSE), (b"\xff\xfe", PARSE),
        ('{"jsonrpc":"2.0","method":"a"}'.encode("utf-16"), PARSE),
        (b"\xef\xbb\xbf" + message(method="a"), PARSE),
        (b'{"jsonrpc":"2.0","method":"a","params":[NaN]}', PARSE),
        (b'{"jsonrpc":"2.0","method":"a\nb"}', PARSE),
        (b'{"jsonrpc":"2.0","id":' + b"9" * 9000 + b',"method":"a"}', PARSE),
        (b"[" * 200_000, PARSE),
        (b"[]", INVALID), (b"[" + message(id=1, method="a") + b"]", INVALID),
        (b"1", INVALID), (b"null", INVALID), (b'"a"', INVALID), (b"{}", INVALID),
        (b'{"id":1,"method":"a"}', INVALID), (b'{"jsonrpc":"1.0","id":1,"method":"a"}', INVALID),
        (message(id=1), INVALID), (message(result=1), INVALID), (message(error={}), INVALID),
        (message(id=1, result=1, error={}), INVALID),
        (message(id=1, method="a", result=1), INVALID),
        (b'{"jsonrpc":"2.0","id":1e999,"method":"a"}', INVALID),
        (message(id=None, method="a"), INVALID), (message(id=True, method="a"), INVALID),
        (message(id=[1], method="a"), INVALID), (message(id={}, method="a"), INVALID),
        (message(id=1, method=1), INVALID), (message(id=None, result=1), INVALID),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_what_is_no_message(data: bytes, code: int) -> None:
    with pytest.raises(BadMessage) as bad:
        parse(data)
    assert bad.value.code == code
    assert "\n" not in str(bad.value)


def test_a_message_is_one_line_and_nothing_of_it_changes() -> None:
    number = "12345678901234567890.123456789012345678901234567890"
    text = '{\r\n"jsonrpc": "2.0",\n "id": 1,\r"method": "ä\\n\\u0000\\ud800",'
    text += f' "params": [{number}]}}\n'
    line = parse(text.encode()).line
    assert b"\n" not in line
    assert b"\r" not in line
    assert number.encode() in line
    assert json.loads(line) == json.loads(text)


def test_tokens_of_progress() -> None:
    meta = {"_meta": {"progressToken": "t"}}
    assert parse(message(id=1, method="tools/call", params=meta)).token == ("text", "t")
    told = message(method="notifications/progress", params={"progressToken": 3})
    assert parse(told).token == ("number", 3)
    for params in ([1], {"_meta": 3}, {"_meta": {"progressToken": [1]}}, None, {}):
        assert parse(message(id=1, method="a", params=params)).token is None


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "_meta"]), inner),
))  # fmt: skip
def test_anything_is_a_message_or_is_refused(value: object) -> None:
    if isinstance(value, dict):
        value["jsonrpc"] = "2.0"
    data = json.dumps(value, indent=1).encode()
    try:
        found = parse(data)
    except BadMessage:
        return
    assert json.loads(found.line) == json.loads(data)
    assert b"\n" not in found.line


def test_what_is_cancelled() -> None:
    assert parse(message(method="notifications/cancelled", params={"requestId": 1})).cancels == (
        "number",
        1,
    )
    assert parse(message(method="other", params={"requestId": 1})).cancels is None
    for params in ([1], {"requestId": None}, {"requestId": [1]}, {}):
        assert parse(message(method="notifications/cancelled", params=params)).cancels is None


# ---- lines


@given(st.lists(st.binary(max_size=9).filter(lambda line: b"\n" not in line)), st.integers(1, 7))
def test_lines_in_any_pieces(lines: list[bytes], size: int) -> None:
    data = b"".join(line + b"\n" for line in lines)
    reader = Lines(9)
    found = [line for at in range(0, len(data), size) for line in reader.feed(data[at : at + size])]
    assert found == [line for line in lines if line.strip()]
    assert reader.end() == b""


def test_a_line_is_bounded() -> None:
    reader = Lines(4)
    assert reader.feed(b"abcd\nab") == [b"abcd"]
    assert reader.feed(b"cd") == []
    with pytest.raises(TooLong):
        reader.feed(b"e")
    for data in (b"abcde\n", b"a\nabcde"):
        with pytest.raises(TooLong):
            Lines(4).feed(data)
    assert Lines(None).feed(b"x" * 100 + b"\n") == [b"x" * 100]
    reader = Lines(4)
    reader.feed(b"ab")
    assert reader.end() == b"ab"


# ---- events


class Reader:
    """``takes``: it has room for so many."""

    streams = True

    def __init__(self, events: Events, stream: Any, takes: int = 1000) -> None:
        self.stream = stream
        self.takes = takes
        self.got: list[tuple[int, bytes]] = []
        self.ended = False
        events.attach(stream, self)

    def wake(self) -> None:
        while self.takes and (found := self.stream.take()):
            self.takes -= 1
            self.got.append(found)

    def replaced(self) -> None:
        self.ended = True

    def fail(self, status: int, data: bytes, fields: bytes) -> bool:
        raise AssertionError

    def keep_alive(self) -> None:
        raise AssertionError


REQUEST = ("number", 1)


PIECES = 200_000
"""Of two bytes each, and what they may cost (bytes)."""
MOST = 2 << 20


def test_small_pieces_cost_what_they_hold() -> None:
    """A list of them costs twenty times that."""
    body: list[bytes] = []
    reader = Lines(None)
    tracemalloc.start()
    try:
        for _ in range(PIECES):
            gather(body, bytes(2))
            assert reader.feed(bytes(2)) == []
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
    assert b"".join(body) == bytes(2 * PIECES)
    assert reader.feed(b"\n") == [bytes(2 * PIECES)]


def test_what_a_reader_missed_is_sent_again() -> None:
    events = Events(100_000)
    stream = events.open(REQUEST)
    reader = Reader(events, stream)
    for data in (b"a", b"b"):
        events.add(stream, data)
    events.add(events.own, b"other")
    events.detach(stream, reader)
    events.add(stream, b"c", last=True)
    assert [data for _, data in reader.got] == [b"a", b"b"]
    again = events.resume(stream.id(reader.got[0][0]))
    assert again is stream
    reader = Reader(events, stream)
    reader.wake()
    assert [data for _, data in reader.got] == [b"b", b"c"]
    assert stream.finished


def test_ids_are_the_session_s_own() -> None:
    events = Events(100_000)
    streams = [events.own, events.open(REQUEST), events.open(("text", "1"))]
    readers = [Reader(events, stream) for stream in streams]
    for number in range(9):
        events.add(streams[number % 3], b"x")
    ids = [reader.stream.id(number) for reader in readers for number, _ in reader.got]
    assert len(set(ids)) == 9


@pytest.mark.parametrize(
    "last", [b"", b"1", b"7-1", b"1-9", b"x-1", b"1-1-1", b"-1-1", b"1-" + b"9" * 40]
)
def test_an_id_that_is_none_of_ours(last: bytes) -> None:
    events = Events(100_000)
    events.add(events.open(REQUEST), b"x", last=True)
    assert events.resume(b"1-0")
    with pytest.raises(Gone):
        events.resume(last)


def test_what_is_kept_is_bounded_and_the_oldest_goes_first() -> None:
    events = Events(10_000)
    stream = events.open(REQUEST)
    for _ in range(100):
        events.add(stream, b"x" * 1000)
        events.add(events.own, b"y" * 1000)
    assert not events.full
    with pytest.raises(Gone):
        events.resume(stream.id(1))
    # The last ones are there.
    assert events.resume(stream.id(199)) is stream
    # Nobody waits for one answer here: what there is is better than nothing.
    own = events.resume(events.own.id(2))
    reader = Reader(events, own)
    reader.wake()
    assert 0 < len(reader.got) < 10
    assert reader.got[-1][0] == 200


def test_a_stream_that_is_over_is_forgotten() -> None:
    events = Events(10_000)
    for number in range(1000):
        stream = events.open(("number", number))
        reader = Reader(events, stream)
        events.add(stream, b"x" * 1000, last=True)
        events.detach(stream, reader)
    with pytest.raises(Gone):
        events.resume(b"1-1")
    assert len(events._streams) < 20


def test_nothing_is_lost_for_a_client_that_is_there_but_slow() -> None:
    events = Events(10_000)
    slow = Reader(events, events.own, takes=2)
    for number in range(20):
        events.add(events.own, b"%d" % number + b"x" * 1000)
    assert events.full
    slow.takes = 1000
    slow.wake()
    events.taken()
    assert not events.full
    assert [int(data.partition(b"x")[0]) for _, data in slow.got] == list(range(20))
    # Once it has gone, it is as for any other.
    slow.takes = 0
    for _ in range(20):
        events.add(events.own, b"x" * 1000)
    assert events.full
    events.detach(events.own, slow)
    assert not events.full


def test_one_reader_at_a_time() -> None:
    events = Events(10_000)
    first = Reader(events, events.own)
    second = Reader(events, events.own)
    assert (first.ended, second.ended) == (True, False)
    events.detach(events.own, first)
    events.add(events.own, b"x")
    assert (len(first.got), len(second.got)) == (0, 1)


def test_an_event_as_it_is_written() -> None:
    assert event(b"1-2", b"{}") == b"id: 1-2\nevent: message\ndata: {}\n\n"


# ---- heads

HOST = (b"host", b"127.0.0.1:8001")
JSON = (b"content-type", b"application/json")
BOTH = (b"accept", b"application/json, text/event-stream")


def asked(method: bytes, *fields: tuple[bytes, bytes], origins: tuple[str, ...] = ()) -> head.Asked:
    return head.read(method, b"/mcp", [HOST, *fields], origins)


def status(*args: Any, **more: Any) -> int:
    with pytest.raises(Refused) as refused:
        asked(*args, **more)
    return refused.value.status


def test_what_a_client_takes() -> None:
    for value, streams, plain in [
        (b"application/json, text/event-stream", True, True),
        (b"Text/Event-Stream;q=0.5,  */*", True, True),
        (b"text/event-stream", True, False),
        (b"application/*", False, True),
        (b"*/*", False, True),
        (b"application/json, text/event-stream;q=0", False, True),
    ]:
        found = asked(b"POST", JSON, (b"accept", value))
        assert (found.streams, found.plain) == (streams, plain), value
    assert asked(b"POST", JSON).plain
    for value in (b"text/html", b"text/event-streams", b"application/json;q=0"):
        assert status(b"POST", JSON, (b"accept", value)) == 406
    assert status(b"GET") == status(b"GET", (b"accept", b"*/*")) == 406


def test_what_is_refused() -> None:
    for method in (b"PUT", b"HEAD", b"PATCH", b"OPTIONS"):
        assert status(method, BOTH) == 405
    for kind in ([], [(b"content-type", b"text/plain")], [JSON, (b"content-type", b"a/b")]):
        assert status(b"POST", BOTH, *kind) == 415
    charset = (b"content-type", b"Application/JSON; charset=utf-8")
    assert asked(b"POST", BOTH, charset).session == ""
    for value in (b"a b", b"\xe4", b"x" * 300, b""):
        assert status(b"DELETE", (b"mcp-session-id", value)) == 400
    twice = (b"mcp-session-id", b"a")
    assert status(b"DELETE", twice, twice) == 400


def test_pages_that_may_ask() -> None:
    def of(origin: bytes, host: bytes = b"localhost:8001", origins: tuple[str, ...] = ()) -> int:
        fields = [(b"host", host), JSON, (b"origin", origin)]
        try:
            head.read(b"POST", b"/", fields, origins)
        except Refused as refused:
            return refused.status
        return 200

    assert of(b"http://localhost:8001") == of(b"http://[::1]:8001", b"[::1]:8001") == 200
    assert of(b"http://127.0.0.1:8001", b"127.0.0.1:8001") == 200
    assert of(b"http://localhost:8002") == of(b"null") == of(b"http://a.example") == 403
    # A name that its owner has just made one of this machine's.
    assert of(b"http://a.example:8001", b"a.example:8001") == 403
    named = ("https://a.example",)
    assert of(b"https://a.example", b"b.example", named) == 200
    assert of(b"http://a.example", b"b.example", named) == 403
    assert of(b"http://anything", b"b.example", ("*",)) == 200


def test_who_knows_an_event_without_data() -> None:
    assert head.primes("2025-11-25")
    assert head.primes("2026-07-28")
    for version in ("2025-06-18", "", "zzz", "2025-11-25x"):
        assert not head.primes(version)


def test_the_transport_before() -> None:
    found = head.read(b"POST", b"/mcp?a=b&sessionId=xyz", [HOST, JSON], ())
    assert (found.session, found.old) == ("xyz", True)
    found = head.read(b"POST", b"/mcp?sessionId=x", [HOST, JSON, (b"mcp-session-id", b"y")], ())
    assert (found.session, found.old) == ("y", False)
