"""What a script may write, by the paragraphs of RFC 3875 section 6, and fuzzed."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastspawn.serve.cgi.output import BadOutput, Body, Head, HeadParser, NphParser, Reader


def parse(data: bytes, **options: Any) -> tuple[Head, bytes]:
    parser = HeadParser(**options)
    rest = parser.feed(data)
    assert rest is not None, "incomplete"
    assert parser.head is not None
    return parser.head, rest


def status_of(data: bytes) -> int:
    return parse(data)[0].status


def test_6_2_1_document() -> None:
    head, rest = parse(b"Content-Type: text/plain\n\nbody\n\nmore")
    assert (head.status, head.reason) == (200, b"OK")
    assert head.fields == [(b"Content-Type", b"text/plain")]
    assert (head.length, head.local, head.nph) == (None, None, False)
    assert rest == b"body\n\nmore"


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_line_ends(end: bytes) -> None:
    lines = [b"Content-Type: a/b", b"X-One:1", b"", b"\nbody\r\n"]
    head, rest = parse(end.join(lines))
    assert head.fields == [(b"Content-Type", b"a/b"), (b"X-One", b"1")]
    assert rest == b"\nbody\r\n"


def test_line_ends_may_be_mixed() -> None:
    assert parse(b"Status: 404 Gone fishing\r\nContent-Type: a/b\n\r\nx")[1] == b"x"


def test_6_2_2_local_redirect() -> None:
    head, rest = parse(b"Location: /other?a=b\n\n")
    assert (head.local, rest) == (b"/other?a=b", b"")
    # As a client redirect, should there be a body.
    assert (head.status, head.reason) == (302, b"Found")
    assert head.fields == [(b"Location", b"/other?a=b")]


@pytest.mark.parametrize(
    "block",
    [
        b"Location: http://example.org/",
        b"Location: https://example.org/a#b",
        b"Location: mailto:a@example.org",
        b"Location: //example.org/",  # another host's, to every client
        b"Location: /a#b",
        b"Location: a",
        b"Location: ?a",
        b"Location: /a b",
        b"Location: /a\nSet-Cookie: a=b",
        b"Location: /a\nContent-Type: text/html",
    ],
)
def test_6_2_3_client_redirect(block: bytes) -> None:
    head, _ = parse(block + b"\n\n")
    assert (head.status, head.local) == (302, None)
    assert head.fields[0][0] == b"Location"


def test_6_2_4_client_redirect_with_document() -> None:
    head, rest = parse(b"Status: 303 See Other\nLocation: /a\nContent-Type: a/b\n\nx")
    assert (head.status, head.local, rest) == (303, None, b"x")
    assert parse(b"Location: /a\nStatus: 201 Created\n\n")[0].status == 201
    assert parse(b"Location: /a\nStatus: 200 OK\n\n")[0].local is None


ONCE = [b"Content-Type", b"Location", b"Status", b"Content-Length"]


@pytest.mark.parametrize("name", ONCE)
def test_6_3_fields_that_come_once(name: bytes) -> None:
    both = name + b": 200\n" + name.upper() + b": 201\n"
    with pytest.raises(BadOutput, match="more than one"):
        parse(b"Content-Type: a/b\n" * (name == b"Content-Length") + both + b"\n")


@pytest.mark.parametrize("name", ONCE)
def test_6_3_a_field_that_is_repeated(name: bytes) -> None:
    twice = name + b": 200\n" + name.upper() + b": 200\n"
    more = b"Content-Type: a/b\n" * (name == b"Content-Length")
    output, _ = reader(more + twice + b"\n")
    assert output.head == parse(more + name + b": 200\n\n")[0]
    assert output.dropped == f"dropped from the header: '200' (a second {name.decode().lower()})"


def test_6_3_at_least_one_cgi_field() -> None:
    for block in (b"\n", b"\r\n", b"X-Other: x\n\n", b"Content-Length: 1\n\nx"):
        with pytest.raises(BadOutput, match="none of"):
            parse(block)


def test_6_3_3_status() -> None:
    head, _ = parse(b"Status: 404 Not here\n\n")
    assert (head.status, head.reason, head.fields) == (404, b"Not here", [])
    head, _ = parse(b"status:404\n\n")
    assert (head.status, head.reason) == (404, b"Not Found")
    head, _ = parse(b"Status: 299\n\n")
    assert (head.status, head.reason) == (299, b"")


@pytest.mark.parametrize(
    "value", [*"99 100 101 199 600 999 1000 20 x200 200x OK -200 2OO".split(), "", "200\tOK"]
)
def test_6_3_3_status_refused(value: str) -> None:
    with pytest.raises(BadOutput, match="not a Status"):
        parse(f"Status: {value}\n\n".encode())


def test_6_3_4_fields_are_passed_on_in_order() -> None:
    head, _ = parse(
        b"Set-Cookie: a=1\nContent-Type: a/b\nContent-Encoding: gzip\nset-cookie:  b=2 \t\n"
        b"X-Empty:\nX-Obs: \xe4\n\n"
    )
    assert head.fields == [
        (b"Set-Cookie", b"a=1"),
        (b"Content-Type", b"a/b"),
        (b"Content-Encoding", b"gzip"),
        (b"set-cookie", b"b=2"),
        (b"X-Empty", b""),
        (b"X-Obs", b"\xe4"),
    ]


def test_6_3_4_fields_between_two_hops_are_dropped() -> None:
    head, _ = parse(
        b"Content-Type: a/b\nConnection: x-hop, Content-Type\nX-Hop: 1\nKeep-Alive: 1\n"
        b"Proxy-Connection: 1\nTE: 1\nTrailer: 1\nUpgrade: h2c\nX-Stays: 1\n\n"
    )
    assert head.fields == [(b"Content-Type", b"a/b"), (b"X-Stays", b"1")]


def test_6_3_4_transfer_encoding_is_refused() -> None:
    with pytest.raises(BadOutput, match="Transfer-Encoding"):
        parse(b"Content-Type: a/b\ntransfer-encoding: chunked\n\n0\r\n\r\n")


def test_6_3_5_extensions_are_passed_on() -> None:
    assert parse(b"Status: 200\nX-CGI-Thing: 1\n\n")[0].fields == [(b"X-CGI-Thing", b"1")]


@pytest.mark.parametrize(
    "line",
    [
        b"no colon",
        b": no name",
        b"a b: x",
        b"a\0: x",
        b"a\xe4: x",
        b"a\rb: x",
        b"\x1b[0m",
        b"<html>",
        b"<!--: spam",
        b'  File "x.py", line 3: error',
    ],
)
def test_not_a_field(line: bytes) -> None:
    """It is dropped, wherever it is, with what would be folded into it; and told of."""
    for block in (
        line + b"\r\nContent-Type: a/b\nX: y\n\n",
        b"Content-Type: a/b\n\0\n" + line + b"\nX: y\r\n\r\n",
        line + b"\n more of it\n\tand more\nContent-Type: a/b\nX: y\n\n",
    ):
        output, _ = reader(block)
        assert output.head == Head(200, b"OK", [(b"Content-Type", b"a/b"), (b"X", b"y")])
        assert "(not a header field)" in output.dropped
    first, _ = reader(line + b"\nContent-Type: a/b\n\n")
    assert first.dropped == f"dropped from the header: {repr(line)[1:]} (not a header field)"
    assert output.dropped.endswith(", and 2 more")
    assert not reader(b"Content-Type: a/b\n\n")[0].dropped


@pytest.mark.parametrize("line", [b"no field", b"<!--: spam", b"a b: x"])
def test_no_field_at_all(line: bytes) -> None:
    with pytest.raises(BadOutput, match="none of"):
        parse(line + b"\n" + line + b"\n\n")


@pytest.mark.parametrize("name", [b"X: ", b"Content-Type: ", b"X:", b"X : ", b"X: y\n "])
@pytest.mark.parametrize("value", [b"x\0", b"x\ry: z", b"x\r", b"\x1b[0m", b"\x7f", b"\r"])
def test_a_control_character_in_a_field(name: bytes, value: bytes) -> None:
    """RFC 9110 section 5.5: dangerous. The field is not just left out: it may restrict what the
    client does with the rest."""
    with pytest.raises(BadOutput, match="control character"):
        parse(b"Status: 200\n" + name + value + b"\r\n\n")


def test_blanks_before_a_colon() -> None:
    """RFC 9112 section 5.1: they are taken away, and what the field says counts."""
    head, _ = parse(b"Content-Type : a/b\nContent-Length\t: 3\nX \t:y\n\nabc")
    assert head == Head(200, b"OK", [(b"Content-Type", b"a/b"), (b"X", b"y")], length=3)
    with pytest.raises(BadOutput, match="Transfer-Encoding"):
        parse(b"Content-Type: a/b\nTransfer-Encoding : chunked\n\n0\n\n")


def test_folded_lines() -> None:
    """RFC 9112 section 5.2: one line is made of them."""
    head, rest = parse(
        b"Content-Type: a/b;\r\n\tc=d\nX:\n  1 \n \n\t2\t\nContent-Length: 1\n Set-Cookie: a=b\n\n"
    )
    assert head.fields == [(b"Content-Type", b"a/b; c=d"), (b"X", b"1 2")]
    assert (head.length, rest) == (None, b"")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_status_line(version: bytes) -> None:
    """Dropped, it would make a success of a failure."""
    head, rest = parse(b"HTTP/" + version + b" 404 Gone fishing\r\nContent-Type: a/b\r\n\r\nx")
    assert head == Head(404, b"Gone fishing", [(b"Content-Type", b"a/b")])
    assert rest == b"x"


@pytest.mark.parametrize(
    "block",
    [
        b"HTTP/2 404 Not Found",
        b"HTTP/1.1 404 Not Found\nHTTP/1.1 200 OK",
        b"Content-Type: a/b\nHTTP/1.1 200 OK",
        b"HTTP/1.1 600 X",
    ],
)
def test_a_status_line_that_is_not_understood(block: bytes) -> None:
    with pytest.raises(BadOutput, match="HTTP/"):
        parse(block + b"\n\n")


def test_a_status_line_and_another_status() -> None:
    with pytest.raises(BadOutput, match="more than one status"):
        parse(b"HTTP/1.1 200 OK\nStatus: 404\n\n")
    with pytest.raises(BadOutput, match="not a Status"):
        parse(b"HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\n\n")


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1 1", b"1, 1", b"0x1", b"1.0", b"9" * 19])
def test_not_a_content_length(value: bytes) -> None:
    """The server frames the body itself."""
    output, answer = reader(b"Content-Type: a/b\nContent-Length: " + value + b"\n\nabc")
    output.end()
    assert answer == [b"abc"]
    assert output.head == Head(200, b"OK", [(b"Content-Type", b"a/b")])
    assert "(not a Content-Length)" in output.dropped


def test_content_length() -> None:
    head, _ = parse(b"Content-Type: a/b\ncontent-length: 007\n\n")
    assert head.length == 7
    assert head.fields == [(b"Content-Type", b"a/b")]


def test_empty_location() -> None:
    with pytest.raises(BadOutput, match="empty Location"):
        parse(b"Location:\n\n")


def test_block_limit() -> None:
    block = b"Content-Type: a/b\n\n"
    assert parse(block + b"x" * 100, limit=len(block))[1] == b"x" * 100
    for data in (block, block[:-1] + b"x", b"x" * 20):
        with pytest.raises(BadOutput, match="more than"):
            HeadParser(limit=len(block) - 1).feed(data)


def test_incomplete() -> None:
    parser = HeadParser()
    assert parser.feed(b"") is None
    assert parser.feed(b"Content-Type: a/b\nX") is None
    assert parser.head is None
    assert parser.pending == b"X"


# ---- NPH: section 5 -----------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"HTTP/1.0 200 OK\n", b"HTTP/1.1 404\r\n", b"HTTP/1.1 100 \n"])
def test_nph(line: bytes) -> None:
    parser = NphParser()
    assert parser.feed(line[:5]) is None
    rest = parser.feed(line[5:] + b"Any: thing\n\nbody")
    assert rest == line.rstrip(b"\r\n") + b"\r\nAny: thing\n\nbody"
    assert parser.head is not None
    assert (parser.head.status, parser.head.nph) == (int(line[9:12]), True)
    assert Body(parser.head, head_only=True).take(b"abc") == b"abc"


@pytest.mark.parametrize(
    "line", [b"", b"Content-Type: a/b", b"HTTP/2 200 OK", b"HTTP/1.1 600 X", b"HTTP/1.1 200 O\0K"]
)
def test_nph_refused(line: bytes) -> None:
    with pytest.raises(BadOutput, match="not a status line"):
        NphParser().feed(line + b"\n")


# ---- the body -----------------------------------------------------------------------------------


def test_body_without_length() -> None:
    body = Body(Head(200), head_only=False)
    assert body.take(b"abc") + body.take(b"") == b"abc"
    assert not body.missing
    assert not body.excess


def test_body_too_long_is_cut_off() -> None:
    body = Body(Head(200, length=4), head_only=False)
    assert body.take(b"abc") == b"abc"
    assert body.missing
    assert body.take(b"def") == b"d"
    assert body.excess
    assert not body.missing
    assert body.take(b"g") == b""


def test_body_too_short_is_noticed() -> None:
    body = Body(Head(200, length=4), head_only=False)
    body.take(b"abc")
    assert body.missing
    assert not body.excess


@pytest.mark.parametrize("status", [204, 205, 304])
def test_status_without_body(status: int) -> None:
    body = Body(Head(status, length=4), head_only=False)
    assert body.take(b"abc") == b""
    assert not body.missing


def test_head_request_has_no_body() -> None:
    body = Body(Head(200, length=4), head_only=True)
    assert body.take(b"abc") == b""
    assert not body.missing


# ---- both, as an answer is made of them ----------------------------------------------------------


def reader(*pieces: bytes, head_only: bool = False) -> tuple[Reader, list[bytes | None]]:
    made = Reader(HeadParser(), head_only=head_only)
    return made, [made.feed(piece) for piece in pieces]


def test_no_answer_before_the_header_block_is_complete() -> None:
    output, answer = reader(b"Content-Ty", b"pe: a/b\n", b"\nab", b"", b"c")
    assert answer == [None, None, b"ab", b"", b"c"]
    output.end()
    assert output.head.status == 200


@pytest.mark.parametrize("data", [b"", b"Content-Type: a/b\n", b"Content-Type: a/b"])
def test_an_end_within_the_header(data: bytes) -> None:
    output, answer = reader(data)
    assert answer == [None]
    with pytest.raises(BadOutput, match="ends within its header"):
        output.end()


def test_an_end_before_the_announced_one() -> None:
    output, answer = reader(b"Content-Type: a/b\nContent-Length: 4\n\nab", b"c")
    assert answer == [b"ab", b"c"]
    with pytest.raises(BadOutput, match="shorter than its Content-Length"):
        output.end()
    assert not output.excess


def test_more_than_was_announced() -> None:
    output, answer = reader(b"Content-Type: a/b\nContent-Length: 4\n\nabc")
    assert not output.excess
    assert [*answer, output.feed(b"def")] == [b"abc", b"d"]
    assert output.excess
    output.end()


def test_answer_to_head() -> None:
    output, answer = reader(b"Content-Type: a/b\nContent-Length: 4\n\n", b"a", head_only=True)
    assert answer == [b"", b""]
    output.end()
    assert output.head.length == 4


def test_6_2_2_local_redirect_is_known_at_the_end() -> None:
    output, answer = reader(b"Location: /a?b\n\n", b"")
    assert answer == [None, None]
    output.end()
    assert output.head.local == b"/a?b"


def test_6_2_4_a_redirect_with_a_body_is_the_clients() -> None:
    output, answer = reader(b"Location: /a?b\n\n", b"see", b" there")
    assert answer == [None, b"see", b" there"]
    output.end()
    assert output.head.local is None
    assert (b"Location", b"/a?b") in output.head.fields


def test_what_a_bad_output_begins_with() -> None:
    output, _ = reader(b"Content-Type: a/b\n")
    with pytest.raises(BadOutput):
        output.feed(b"X: \0\n")
    assert output.start() == b"Content-Type: a/b\nX: \0\n"
    assert output.start(b"more") == b"Content-Type: a/b\nX: \0\nmore"


def test_only_the_beginning_is_kept() -> None:
    output, _ = reader(b"Content-Type: a/b\n", b"X: " + b"x" * 2000 + b"\n\n", b"body")
    assert len(output.start(b"more")) == 1024
    assert output.start().startswith(b"Content-Type: a/b\nX: xxx")


# ---- anything -----------------------------------------------------------------------------------

FRAGMENTS = st.sampled_from(
    [
        b"Content-Type: a/b",
        b"Status: 200 OK",
        b"Status: 404",
        b"Location: /a",
        b"Location: http://a/",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Connection: x",
        b"Set-Cookie: a=b",
        b"X: y",
        b"HTTP/1.1 200 OK",
        b"<!--: spam",
        b"X : ",
        b"\n",
        b"\n ",
        b"\r\n",
        b"\n\n",
        b"\r",
        b"\0",
        b" ",
        b":",
    ]
)
OUTPUTS = st.lists(FRAGMENTS | st.binary(max_size=8), max_size=14).map(b"".join)


def outcome(pieces: list[bytes], parser: HeadParser) -> object:
    body = None
    try:
        for piece in pieces:
            if body is None:
                body = parser.feed(piece)
            else:
                body += piece
    except BadOutput as bad:
        return str(bad)
    dropped = str(parser.dropped)
    assert dropped.isprintable()
    return parser.head, body, dropped, None if body is not None else parser.pending


@given(OUTPUTS, st.lists(st.integers(0, 150), max_size=6), st.integers(1, 90), st.booleans())
@example(b"Content-Type: a/b\r\n\r\nx", list(range(22)), 90, False)
@example(b"X: \0\n" + b"x" * 30, [9], 20, False)
@example(b"Content-Type: a/b\n  b\n\n", [18, 20], 90, False)
def test_pieces_make_no_difference(data: bytes, cuts: list[int], limit: int, nph: bool) -> None:
    kind = NphParser if nph else HeadParser
    cuts = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in pairwise(cuts)]
    whole = outcome([data], kind(limit))
    assert outcome(pieces, kind(limit)) == whole
    assert outcome([data[i : i + 1] for i in range(len(data))], kind(limit)) == whole


@given(OUTPUTS)
def test_whatever_is_passed_on_is_one_response(data: bytes) -> None:
    parser = HeadParser()
    why = ""
    body = None
    try:
        body = parser.feed(data)
    except BadOutput as bad:
        why = str(bad)
    assert why.isprintable()
    if body is None:
        assert parser.head is None
        return
    assert data.endswith(body)
    head = parser.head
    assert head is not None
    assert 200 <= head.status <= 599
    assert re.fullmatch(rb"[\t -~\x80-\xff]*", head.reason)
    for name, value in head.fields:
        assert re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name)
        assert re.fullmatch(rb"[\t -~\x80-\xff]*", value)
        assert name.lower() not in (b"transfer-encoding", b"content-length", b"connection")


@given(st.lists(st.binary(max_size=9), max_size=9), st.integers(0, 40) | st.none())
def test_body_is_as_long_as_announced_or_missing(pieces: list[bytes], length: int | None) -> None:
    body = Body(Head(200, length=length), head_only=False)
    sent = b"".join(map(body.take, pieces))
    whole = b"".join(pieces)
    assert sent == whole[:length]
    assert body.missing == (length is not None and len(whole) < length)
    assert body.excess == (length is not None and len(whole) > length)
