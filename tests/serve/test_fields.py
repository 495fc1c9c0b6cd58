"""Header fields that the operator adds to answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.harness import Server, routes_file

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

FRAME = ("--header", "X-Frame-Options: DENY")


def test_each_answer_has_them(serve: Serve, script: Script) -> None:
    """As nginx's ``add_header ... always``: errors, streams and answers to HEAD among them."""
    server = serve(
        *FRAME,
        *("--header", "X-Empty:", "--header", "Server: ours", "--max-body", "3"),
        command=script('read -r what; [ "$what" = ok ] && echo "$what"'),
    )
    with server.connect() as client:
        for body, status in ((b"ok", 200), (b"no", 500)):
            client.post(body)
            answer = client.read()
            assert (answer.status, answer.fields["x-frame-options"]) == (status, "DENY")
            assert (answer.fields["x-empty"], answer.fields["server"]) == ("", "ours")
        client.request("HEAD")
        assert client.read(head=True).fields["x-frame-options"] == "DENY"
        client.post(b"four")
        answer = client.read()
        assert (answer.status, answer.fields["x-frame-options"]) == (413, "DENY")
    long = serve(*FRAME, command=script("head -c 300000 /dev/zero"))
    answer = long.get()
    assert answer.fields["transfer-encoding"] == "chunked"
    assert answer.fields["x-frame-options"] == "DENY"


def test_what_describes_the_output_is_not_on_errors(start: Serve, script: Script) -> None:
    """A cache would keep the error, and a client would unpack it."""
    options = (
        *("--header", "Content-Encoding: gzip", "--header", 'ETag: "1"'),
        *("--header", "Cache-Control: max-age=60", "--header", "Content-Security-Policy: x"),
    )
    server = start(*options, "--status", "1=404,2=201", command=script('exit "$(cat)"'))
    seen = []
    with server.connect() as client:
        for body in (b"0", b"2", b"1", b"3"):
            client.post(body)
            answer = client.read()
            assert answer.fields["content-security-policy"] == "x"
            seen.append(
                (answer.status, [n in answer.fields for n in ("content-encoding", "etag",
                                                              "cache-control")])
            )  # fmt: skip
    assert seen == [(200, [True] * 3), (201, [True] * 3), (404, [False] * 3), (500, [False] * 3)]
    kept = start("--header", "Cache-Control: private, No-Store", command=("false",)).get()
    assert (kept.status, kept.fields["cache-control"]) == (500, "private, No-Store")


def test_routes_add_their_own(start: Serve, tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(
        "header = { X-All = 'everywhere', Cache-Control = 'no-store' }\n"
        "[[route]]\npath = '/a'\ncommand = 'echo a'\nmethods = 'GET'\n"
        "header = { cache-control = 'max-age=9', X-A = 'here' }\n"
        "[[route]]\npath = '/b'\ncommand = 'echo b'\nheader = ['Set-Cookie: a=1']\n"
    )
    server = start("--config", str(file), command=())
    fields = server.get("/a").fields
    assert (fields["x-all"], fields["x-a"]) == ("everywhere", "here")
    assert fields["cache-control"] == "max-age=9"
    fields = server.get("/b").fields
    assert (fields["cache-control"], fields["set-cookie"]) == ("no-store", "a=1")
    assert "x-a" not in fields
    # Nobody's: what all routes have.
    missing = server.get("/c")
    assert (missing.status, missing.fields["x-all"]) == (404, "everywhere")
    assert "cache-control" not in missing.fields


def test_a_script_says_it_first(start: Serve, script: Script) -> None:
    text = r"printf 'Content-Type: text/plain\nx-frame-options: SAMEORIGIN\n\nhi'"
    server = start(*FRAME, "--header", "X-More: yes", "--mode", "cgi", command=script(text))
    answer = server.get()  # which has each field once
    assert answer.fields["x-frame-options"] == "SAMEORIGIN"
    assert answer.fields["x-more"] == "yes"
    failing = start(*FRAME, "--mode", "cgi", command=("false",)).get()
    assert (failing.status, failing.fields["x-frame-options"]) == (500, "DENY")


def test_the_operator_says_when_to_come_again(start: Serve, script: Script) -> None:
    options = ("--header", "Retry-After: 77", "--max-inflight", "1", "--queue", "0")
    server = start(*options, command=script("echo; sleep 60"))
    with server.connect() as first:
        first.get()
        assert first.read_head().status == 200
        answer = server.get()  # with no field twice
        assert (answer.status, answer.fields["retry-after"]) == (503, "77")


@pytest.mark.parametrize("mode", ["raw", "cgi"])
def test_slow_answers_are_not_to_be_kept(
    start: Serve, script: Script, tmp_path: Path, mode: str
) -> None:
    head = "printf 'Content-Type: text/plain\\n\\n'; " if mode == "cgi" else ""
    slow = start("--mode", mode, command=script(f"{head}echo one; sleep 60"))
    with slow.connect() as client:
        client.get()
        assert client.read_head().fields["x-accel-buffering"] == "no"
    page = tmp_path / "page"
    page.write_bytes(b"Content-Type: text/plain\n\n" + bytes(3_000_000))
    fast = start("--mode", mode, command=("cat", str(page)))
    # Unless the machine is so busy that it comes slowly.
    assert any("x-accel-buffering" not in fast.get().fields for _ in range(50))
    theirs = start(
        *("--mode", mode, "--header", "X-Accel-Buffering: yes"),
        command=script(f"{head}echo one; sleep 60"),
    )
    with theirs.connect() as client:
        client.get()
        assert client.read_head().fields["x-accel-buffering"] == "yes"


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("X-A", "is not 'Name: value'"),
        (": b", "is not 'Name: value'"),
        ("X A: b", "is not 'Name: value'"),
        ("X-A: b\r\nX-B: c", "is not 'Name: value'"),
        ("X-A: b\nX-B: c", "is not 'Name: value'"),
        ("X-A: b\0", None),  # no argument has a NUL
        ("X-A: \u00e9", "is not 'Name: value'"),
        ("Content-Length: 3", "Content-Length is the server's to set"),
        ("transfer-encoding: chunked", "transfer-encoding is the server's to set"),
        ("Connection: close", "Connection is the server's to set"),
        ("Content-Type: a/b", "Content-Type is --content-type's to set"),
    ],
)
def test_fields_that_cannot_be(tmp_path: Path, field: str, said: str | None) -> None:
    if said is not None:
        refuse(("--header", field), said)
    table = f"command = 'echo'\nheader = [{json.dumps(field)}]\n"
    path = routes_file(tmp_path / "f.toml", a=table)
    refuse(("--config", path), said or "is not 'Name: value'")


def refuse(options: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastspawn.serve", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
