"""The check of a request's head: what llhttp lets through and is refused all the same."""

from __future__ import annotations

import pytest

from fastspawn.serve.http.head import NOT_HTTP, check

LENGTH = (b"content-length", b"5")
CHUNKED = (b"transfer-encoding", b" Chunked ")
EXPECT = (b"expect", b"100-Continue")


def status(
    *special: tuple[bytes, bytes], method: bytes = b"POST", version: str = "1.1", hosts: int = 1
) -> int:
    refusal, _, _ = check(method, version, hosts, special, 100)
    return 0 if refusal is None else refusal[0]


@pytest.mark.parametrize(
    ("special", "body", "expects"),
    [
        ([], False, False),
        ([(b"content-length", b"0")], False, False),
        ([LENGTH], True, False),
        ([(b"content-length", b"100")], True, False),
        ([CHUNKED], True, False),
        ([LENGTH, EXPECT], True, True),
        ([EXPECT, CHUNKED], True, True),
    ],
)
def test_taken(special: list[tuple[bytes, bytes]], body: bool, expects: bool) -> None:
    assert check(b"POST", "1.1", 1, special, 100) == (None, body, expects)


@pytest.mark.parametrize("version", ["0.9", "2.0", "1.2"])
def test_versions(version: str) -> None:
    assert status(version=version) == 505


@pytest.mark.parametrize("method", sorted(NOT_HTTP))
def test_methods(method: bytes) -> None:
    assert status(method=method) == 501


@pytest.mark.parametrize(
    ("version", "hosts", "expected"),
    [("1.1", 0, 400), ("1.1", 2, 400), ("1.0", 0, 0), ("1.0", 1, 0), ("1.0", 2, 400)],
)
def test_hosts(version: str, hosts: int, expected: int) -> None:
    assert status(version=version, hosts=hosts) == expected


def test_bodies() -> None:
    assert status((b"content-length", b"101")) == 413
    assert status((b"transfer-encoding", b"gzip, chunked")) == 501
    assert status(CHUNKED, version="1.0") == 400
    assert status((b"expect", b"200-ok")) == 417


def test_http_1_0_expects_nothing() -> None:
    """RFC 9110 section 10.1.1: whatever it is, it is to be ignored."""
    assert check(b"POST", "1.0", 1, [LENGTH, (b"expect", b"x"), EXPECT], 100) == (None, True, False)


def test_a_refusal_leaves_out_what_comes_after_its_cause() -> None:
    refusal, body, expects = check(b"POST", "1.1", 1, [LENGTH, (b"expect", b"x"), EXPECT], 100)
    assert refusal is not None
    assert (refusal[0], body, expects) == (417, True, False)
