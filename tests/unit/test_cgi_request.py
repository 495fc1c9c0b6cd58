"""Targets and environments of CGI, by the paragraphs of RFC 3875, and fuzzed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastspawn.serve.cgi.environment import Request, Script, Settings, environment
from fastspawn.serve.cgi.request import Target, host_name, parse_target
from fastspawn.serve.http.refused import Refused
from fastspawn.serve.paths import BadPath, split

SCRIPT = Script(b"/cgi-bin/show", b"/a b", b"/srv/cgi-bin/show")


def env_of(
    *fields: tuple[bytes, bytes],
    target: bytes = b"/cgi-bin/show/a%20b?x=1&y",
    settings: Settings | None = None,
    **more: Any,
) -> dict[bytes, bytes]:
    request = Request(
        **{
            "method": b"GET",
            "target": target_of(target),
            "version": b"HTTP/1.1",
            "fields": fields,
            "remote": (b"192.0.2.1", 4711),
            "local": (b"192.0.2.2", 8001),
        }
        | more
    )
    return environment(request, SCRIPT, settings or Settings())


# ---- the target ---------------------------------------------------------------------------------


def target_of(target: bytes) -> Target:
    assert split(target) is not None
    return parse_target(target)


@pytest.mark.parametrize(
    ("target", "raw", "query", "authority"),
    [
        (b"/", b"/", b"", None),
        (b"/a%20b?q=%20", b"/a%20b?q=%20", b"q=%20", None),
        (b"/a?", b"/a?", b"", None),
        (b"/a?b?c", b"/a?b?c", b"b?c", None),
        (b"http://host:1/a?q", b"/a?q", b"q", b"host:1"),
        (b"HTTPS://host", b"/", b"", b"host"),
        (b"http://host?q", b"/?q", b"q", b"host"),
    ],
)
def test_target(target: bytes, raw: bytes, query: bytes, authority: bytes | None) -> None:
    parsed = target_of(target)
    assert (parsed.raw, parsed.query, parsed.authority) == (raw, query, authority)


@pytest.mark.parametrize("target", [b"", b"*", b"a", b"/a?b#c", b"/a?b c", b"/a?\xc3\xa4"])
def test_target_refused(target: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse_target(target)
    assert refused.value.status == 400


@given(st.binary(max_size=60).map(lambda data: b"/a" + data))
@example(b"/a/%2e%2e")
@example(b"/a?\n")
def test_any_target_is_safe_or_refused(target: bytes) -> None:
    try:
        parsed = target_of(target)
    except (BadPath, Refused):
        return
    assert re.fullmatch(rb"[!-~]*", parsed.query)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"", b""),
        (b"example.org", b"example.org"),
        (b"example.org:80", b"example.org"),
        (b"example.org:", b"example.org"),
        (b"[::1]:80", b"[::1]"),
        (b"a_b-c.d", b"a_b-c.d"),
    ],
)
def test_host(value: bytes, name: bytes) -> None:
    assert host_name(value) == name


@pytest.mark.parametrize("value", [b"a b", b"a:b", b"a/b", b"<x>", b"::1", b"a@b", b"a\n", b"$x"])
def test_host_refused(value: bytes) -> None:
    with pytest.raises(Refused):
        host_name(value)


# ---- meta-variables: RFC 3875 section 4.1 -------------------------------------------------------


def test_4_1_1_and_4_1_10_and_4_1_11_nobody_is_authenticated() -> None:
    env = env_of((b"authorization", b"Basic eDp5"), settings=Settings(pass_authorization=True))
    assert not {b"AUTH_TYPE", b"REMOTE_USER", b"REMOTE_IDENT"} & env.keys()


def test_4_1_2_content_length() -> None:
    assert b"CONTENT_LENGTH" not in env_of()
    assert env_of(length=0)[b"CONTENT_LENGTH"] == b"0"
    # What the client said does not count, but what the server knows.
    assert env_of((b"content-length", b"7"), length=5)[b"CONTENT_LENGTH"] == b"5"


def test_4_1_3_content_type() -> None:
    assert b"CONTENT_TYPE" not in env_of()
    assert env_of((b"content-type", b"text/x; a=b"))[b"CONTENT_TYPE"] == b"text/x; a=b"


def test_4_1_4_and_4_1_16_and_4_1_17_versions() -> None:
    env = env_of(version=b"HTTP/1.0", settings=Settings(software=b"fastspawn/1"))
    assert env[b"GATEWAY_INTERFACE"] == b"CGI/1.1"
    assert env[b"SERVER_PROTOCOL"] == b"HTTP/1.0"
    assert env[b"SERVER_SOFTWARE"] == b"fastspawn/1"


def test_4_1_5_and_4_1_6_and_4_1_13_path() -> None:
    env = env_of(settings=Settings(document_root=b"/srv/"))
    assert env[b"SCRIPT_NAME"] == b"/cgi-bin/show"
    assert env[b"PATH_INFO"] == b"/a b"
    assert env[b"PATH_TRANSLATED"] == b"/srv/a b"
    assert env[b"SCRIPT_FILENAME"] == b"/srv/cgi-bin/show"
    assert env[b"DOCUMENT_ROOT"] == b"/srv/"
    assert env[b"REQUEST_URI"] == b"/cgi-bin/show/a%20b?x=1&y"
    request = Request(b"GET", target_of(b"/s"), b"HTTP/1.1", ())
    env = environment(request, Script(b"/s", b"", b"/s"), Settings(document_root=b"/srv"))
    assert b"PATH_INFO" not in env  # some programs tell an empty one from none
    assert b"PATH_TRANSLATED" not in env
    assert b"PATH_TRANSLATED" not in env_of()


def test_4_1_7_query_is_set_and_not_decoded() -> None:
    assert env_of()[b"QUERY_STRING"] == b"x=1&y"
    assert env_of(target=b"/a?%41")[b"QUERY_STRING"] == b"%41"
    assert env_of(target=b"/a")[b"QUERY_STRING"] == b""


def test_4_1_8_and_4_1_9_remote() -> None:
    env = env_of()
    assert env[b"REMOTE_ADDR"] == env[b"REMOTE_HOST"] == b"192.0.2.1"
    assert env[b"REMOTE_PORT"] == b"4711"
    env = env_of(remote=None)
    assert env[b"REMOTE_ADDR"] == b""
    assert b"REMOTE_PORT" not in env


def test_4_1_12_method() -> None:
    assert env_of(method=b"PROPFIND")[b"REQUEST_METHOD"] == b"PROPFIND"


def test_4_1_14_and_4_1_15_server() -> None:
    env = env_of((b"host", b"example.org:99"))
    assert env[b"SERVER_NAME"] == b"example.org"
    # The client's opinion of the port does not count.
    assert env[b"SERVER_PORT"] == b"8001"
    assert env[b"SERVER_ADDR"] == b"192.0.2.2"
    assert env[b"HTTP_HOST"] == b"example.org:99"
    assert env_of()[b"SERVER_NAME"] == b"192.0.2.2"
    assert env_of(local=(b"::1", 1))[b"SERVER_NAME"] == b"[::1]"
    env = env_of(local=None)
    assert (env[b"SERVER_NAME"], env[b"SERVER_PORT"]) == (b"localhost", b"80")
    assert env_of(local=None, https=True)[b"SERVER_PORT"] == b"443"
    with pytest.raises(Refused):
        env_of((b"host", b"a b"))


def test_absolute_target_beats_host() -> None:
    env = env_of((b"host", b"other"), target=b"http://example.org:1/x")
    assert env[b"SERVER_NAME"] == b"example.org"
    assert env[b"HTTP_HOST"] == b"example.org:1"
    assert env[b"REQUEST_URI"] == b"/x"


def test_https() -> None:
    assert b"HTTPS" not in env_of()
    env = env_of(https=True)
    assert (env[b"HTTPS"], env[b"REQUEST_SCHEME"]) == (b"on", b"https")


def test_4_1_18_header_fields() -> None:
    env = env_of(
        (b"accept", b"a"),
        (b"cookie", b"a=1"),
        (b"accept", b"b"),
        (b"x-forwarded-for", b"z"),
        (b"cookie", b"b=2"),
        (b"content-encoding", b"gzip"),
    )
    assert env[b"HTTP_ACCEPT"] == b"a, b"
    assert env[b"HTTP_COOKIE"] == b"a=1; b=2"
    assert env[b"HTTP_X_FORWARDED_FOR"] == b"z"
    assert env[b"HTTP_CONTENT_ENCODING"] == b"gzip"


@pytest.mark.parametrize(
    "name",
    (
        "proxy authorization proxy-authorization content-length content-type connection keep-alive "
        "proxy-connection te trailer transfer-encoding upgrade expect x_y a.b a! ä $(x) ()"
    ).split(),
)
def test_fields_that_are_no_variables(name: str) -> None:
    env = env_of((name.encode(), b"x"))
    assert not [variable for variable in env if variable.startswith(b"HTTP_")]


def test_fields_named_by_connection() -> None:
    env = env_of(
        (b"connection", b"close, X-Hop"),
        (b"connection", b"host"),
        (b"x-hop", b"1"),
        (b"host", b"h"),
    )
    assert b"HTTP_X_HOP" not in env
    assert env[b"HTTP_HOST"] == b"h"


def test_authorization_if_asked() -> None:
    settings = Settings(pass_authorization=True)
    env = env_of((b"authorization", b"Bearer x"), settings=settings)
    assert env[b"HTTP_AUTHORIZATION"] == b"Bearer x"


def test_operator_has_the_last_word() -> None:
    settings = Settings(
        base={b"PATH": b"/bin", b"SERVER_NAME": b"base", b"HTTP_X": b"base"},
        extra={b"SERVER_PORT": b"443", b"HTTP_Y": b"extra", b"REMOTE_USER": b"me"},
    )
    env = env_of((b"host", b"h"), (b"x", b"client"), (b"y", b"client"), settings=settings)
    assert env[b"SERVER_NAME"] == b"h"
    assert env[b"HTTP_X"] == b"client"
    assert env[b"SERVER_PORT"] == b"443"
    assert env[b"HTTP_Y"] == b"extra"
    assert env[b"REMOTE_USER"] == b"me"


def test_environment_is_minimal() -> None:
    env = env_of(settings=Settings(base={b"PATH": b"/p"}))
    assert set(env) == set(
        b"PATH GATEWAY_INTERFACE PATH_INFO QUERY_STRING REMOTE_ADDR REMOTE_HOST REMOTE_PORT "
        b"REQUEST_METHOD REQUEST_SCHEME REQUEST_URI SCRIPT_FILENAME SCRIPT_NAME SERVER_ADDR "
        b"SERVER_NAME SERVER_PORT SERVER_PROTOCOL SERVER_SOFTWARE".split()
    )


NAMES = st.sampled_from(
    b"host cookie proxy connection x-a x_a authorization content-type content-length accept "
    b"path ld-preload".split()
) | st.binary(max_size=12).map(bytes.lower)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=20)), max_size=12))
@example([(b"x", b"a\nb")])
def test_no_field_gets_where_it_should_not(fields: list[tuple[bytes, bytes]]) -> None:
    base = {b"PATH": b"/bin", b"LD_PRELOAD": b"lib"}
    try:
        env = env_of(*fields, settings=Settings(base=base))
    except Refused:
        return
    without = env_of(settings=Settings(base=base))
    changed = {name for name in env if env[name] != without.get(name)}
    for name in changed - {b"SERVER_NAME", b"CONTENT_TYPE"}:
        assert re.fullmatch(rb"HTTP_[0-9A-Z_]+", name)
    assert not {b"HTTP_PROXY", b"HTTP_AUTHORIZATION", b"HTTP_CONTENT_LENGTH"} & env.keys()
    for name, value in env.items():
        assert not re.search(rb"[\0\r\n]", value), name
