"""Values of a form in the command: ``{form:name}``."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.harness import Client, Response, Server, longer_times
from serve.test_fields import refuse

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

FORM = "Content-Type: application/x-www-form-urlencoded"
SHOW = 'printf "%s" "$V"; for a in "$@"; do printf "<%s>" "$a"; done; cat'
"""The variable, the arguments, standard input."""
COMMAND = ("sh", "-c", SHOW, "sh")


def post(server: Server, form: str, *fields: str, target: str = "/") -> Response:
    with server.connect() as client:
        size = f"Content-Length: {len(form)}"
        client.request("POST", target, *(fields or (FORM,)), size, body=form.encode())
        return client.read()


def test_values_of_a_form(serve: Serve) -> None:
    """One argument each, whatever is in them; and the body is standard input all the same."""
    server = serve(
        *("--set-env", "V=[{form:b}]"),
        command=(*COMMAND, "{form:a}", "--b={form:b}", "{form:n=1 0}", "{other}", "{query:q=}"),
    )
    for form, shown in (
        ("a=x&b=y", "[y]<x><--b=y><1 0><{other}><>"),
        ("b=-y&a=%24%28id%29+%22%60*&n=", '[-y]<$(id) "`*><--b=-y><><{other}><>'),
        ("a=%7Bform:b%7D&b=%C3%A9%0A&n=2&more", "[é\n]<{form:b}><--b=é\n><2><{other}><>"),
    ):
        answer = post(server, form)
        assert (answer.status, answer.body.decode()) == (200, shown + form)
    assert post(server, "a=1&b=2", target="/?q=3&a=4").body.startswith(b"[2]<1><--b=2><1 0>")
    assert post(server, "a=1&b=2", target="/?q=3").body == b"[2]<1><--b=2><1 0><{other}><3>a=1&b=2"
    for form, said in (
        ("a=1", "b is not in the form"),
        ("a=1&b=2&a=3", "a is twice in the form"),
        ("a=-x&b=2", "an argument may not begin with a hyphen"),
        ("a=%00&b=2", "a NUL in the form"),
        ("a=%ff&b=2", "the form is not UTF-8"),
        ("a=%2&b=2", "a bad escape in the form"),
    ):
        answer = post(server, form)
        assert (answer.status, said in answer.body.decode()) == (400, True)
    assert post(server, "a=1&b=2", target="/?q=%").body.endswith(b"a bad escape in the query\n")


def test_however_it_comes(start: Serve) -> None:
    server = start(command=(*COMMAND, "{form:a}", "{form:b=none}"))
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=45)
    kind = {"Content-Type": 'Application/X-WWW-Form-Urlencoded ; Charset="UTF-8"'}
    for _ in range(2):  # the connection is kept
        client.request("POST", "/", iter([b"a=", b"1&", b"b=2"]), kind, encode_chunked=True)
        assert client.getresponse().read() == b"<1><2>a=1&b=2"
    client.close()
    with server.connect() as raw:
        head = f"POST / HTTP/1.1\r\nHost: x\r\n{FORM}\r\nContent-Length: 3\r\n\r\n".encode()
        raw.send(head + b"a=1" + head + b"a=2" + head + b"a")
        assert [raw.read().body for _ in range(2)] == [b"<1><none>a=1", b"<2><none>a=2"]
        raw.send(b"=")
        raw.send(b"3")
        assert raw.read().body == b"<3><none>a=3"
        raw.request("POST", "/", FORM, "Content-Length: 3", "Expect: 100-continue")
        assert raw.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.send(b"a=4")
        assert raw.read().body == b"<4><none>a=4"


def test_without_a_body(start: Serve) -> None:
    server = start(
        *("--route", "GET,HEAD /=echo {form:a=none}", "--route", "POST /needs=echo {form:a}")
    )
    with server.connect() as client:
        for method, fields in (("GET", ()), ("HEAD", ()), ("GET", ("Content-Type: text/plain",))):
            client.request(method, "/", *fields)
            answer = client.read(head=method == "HEAD")
            assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b"none\n")
        client.request("POST", "/needs", "Content-Length: 0")
        assert client.read().body.endswith(b": a is not in the form\n")


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (("Content-Type: application/json",), b'{"a": 1}'),
        (("Content-Type: multipart/form-data; boundary=b",), b"--b--"),
        ((), b"a=1"),
        ((FORM, "Content-Type: text/plain"), b"a=1"),
        ((f"{FORM}; charset=iso-8859-1",), b"a=1"),
        ((FORM, "Content-Encoding: gzip"), b"a=1"),
    ],
)
def test_bodies_that_are_no_form(
    start: Serve, tmp_path: Path, fields: tuple[str, ...], body: bytes
) -> None:
    """Refused before they have come, and before a process."""
    server = start(command=("sh", "-c", ': > "$1"', "sh", str(tmp_path / "ran"), "{form:a=}"))
    with server.connect() as client:
        client.post(body, *fields)
        answer = client.read()
        wanted = "accept-encoding" if "Content-Encoding: gzip" in fields else "accept"
        assert (answer.status, wanted in answer.fields) == (415, True)
        assert b": the body has to be " in answer.body
        client.get()
        assert client.read().status == 200  # the connection is kept
    (tmp_path / "ran").unlink()
    with server.connect() as client:
        client.request("POST", "/", *fields, "Content-Length: 9", "Expect: 100-continue")
        assert client.read().status == 415
    assert not (tmp_path / "ran").exists()


def test_too_much(start: Serve) -> None:
    """Of a form, whatever --max-body says; and of less, if that does."""
    server = start("--max-body", "1M", command=("echo", "{form:a}"))
    form = "a=1&b=" + "x" * (65536 - 6)
    assert post(server, form).body == b"1\n"
    assert post(server, form + "x").status == 413
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=45)
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    client.request("POST", "/", iter([form.encode(), b"x"]), kind, encode_chunked=True)
    assert client.getresponse().status == 413
    client.close()
    assert post(start("--max-body", "3", command=("echo", "{form:a}")), "a=12").status == 413


def test_every_mode(start: Serve, script: Script) -> None:
    head = "printf 'Content-Type: text/plain\n\n'; echo \"$1 $CONTENT_LENGTH\"; cat"
    told = script('echo "$1 $CONTENT_LENGTH $REQUEST_METHOD"; cat; exit 3', "{form:a}")
    cgi = start("--mode", "cgi", command=script(head, "{form:a}"))
    env = start("--request-env", "--status", "3=201", command=told)
    judged = start("--status", "3=201", command=script("echo $1; exit 3", "{form:a}"))
    shell = start("--shell", "--set-env", "A={form:a}", command=('printf "%s" "$A"; cat',))
    assert post(cgi, "a=1").body == b"1 3\na=1"
    for server, body in ((env, b"1 3 POST\na=1"), (judged, b"1\n"), (shell, b"1a=1")):
        answer = post(server, "a=1")
        assert (answer.status in (200, 201), answer.body) == (True, body)
        assert post(server, "b=1").status == 400
    client = http.client.HTTPConnection("127.0.0.1", cgi.port, timeout=45)
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    client.request("POST", "/", iter([b"a=", b"1"]), kind, encode_chunked=True)
    assert client.getresponse().read() == b"1 3\na=1"  # it has a length by then
    client.close()


@pytest.mark.parametrize("name", ["streaming", "serializing"])
def test_openfaas(start: Serve, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("mode", name)
    server = start("--openfaas", "--host", "127.0.0.1", command=("echo", "{form:a}"))
    assert post(server, "a=1").body == b"1\n"
    assert post(server, "b=1").status == 400


@pytest.mark.parametrize("name", ["snapshot", "warm", "pool", "auto"])
def test_strategies(start: Serve, name: str) -> None:
    place = ("--snapshot-at", "main") if name == "snapshot" else ()
    server = start("--strategy", name, *place, command=(*COMMAND, "{form:a}"))
    for value in ("1", "2"):
        assert post(server, f"a={value}").body == f"<{value}>a={value}".encode()


def test_a_local_redirect_has_none(start: Serve, script: Script) -> None:
    server = start(
        *("--mode", "cgi", "--route", "POST /from=printf 'Location: /to\\n\\n'"),
        *("--route", "GET /to=printf 'Content-Type: a/b\\n\\n%s' {form:a=none}"),
    )
    assert post(server, "a=1", target="/from").body == b"none"


def test_no_place_is_taken_before_it_is_there(start: Serve) -> None:
    server = start("--max-inflight", "1", "--queue", "0", command=("echo", "{form:a=none}"))
    with server.connect() as slow, server.connect() as leaver:
        begin(slow, b"a=")
        begin(leaver, b"a=")
        for _ in range(3):
            assert server.get().body == b"none\n"
        leaver.reset()
        slow.send(b"1")
        assert slow.read().body == b"1\n"


def begin(client: Client, start: bytes) -> None:
    """The request's head, and the beginning of three bytes of it."""
    client.request("POST", "/", FORM, "Content-Length: 3", "Expect: 100-continue")
    assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(start)


def test_one_that_does_not_come(start: Serve) -> None:
    server = start("--body-timeout", "500ms", command=("echo", "{form:a}"))
    with server.connect() as client:
        client.request("POST", "/", FORM, "Content-Length: 3", body=b"a=")
        answer = client.read()
        assert (answer.status, answer.fields["connection"]) == (408, "close")
        assert client.ended()
    for timeout in longer_times():
        server = start("--body-timeout", timeout, command=("echo", "{form:a}"))
        if (answer := post(server, "a=1")).status != 408:
            break
    assert answer.body == b"1\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--", "{form:a}"), "a request can't choose the program"),
        (("--", "ls", "-{form:a}"), "a request can't choose an option"),
        (("--", "perl", "-e", "print {form:a}"), "a request can't write a script"),
        (("--shell", "--", "echo {form:a=x}"), "with a shell, values are"),
        (("--mode", "ws", "--", "cat", "{form:a=x}"), "a WebSocket begins without a form"),
        (("--mode", "jsonrpc", "--", "cat", "{form:a=x}"), "a message is no form"),
        (
            *(("--strategy", "snapshot", "--snapshot-at", "effect", "--", "cat", "{form:a}"),),
            "values of the request are in the command",
        ),
    ],
)
def test_what_cannot_be(options: tuple[str, ...], said: str) -> None:
    refuse(options, said)
