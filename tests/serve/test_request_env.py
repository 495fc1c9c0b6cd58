"""What a raw command may know of its request: the environment, and values of the query."""

from __future__ import annotations

import http.client
from collections.abc import Callable

import pytest

from serve.harness import Server
from serve.test_fields import refuse

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

TOLD = ("--request-env",)


def variables(body: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in body.decode().splitlines())


def test_the_request_is_in_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the server")
    monkeypatch.setenv("SHARED", "with the command")
    server = serve(*TOLD, "--pass-env", "SHARED", command=("env",))
    with server.connect() as client:
        client.request(
            *("POST", "/a%20b/c?d=e&f=%2F", "Content-Type: text/x-a", "Content-Length: 2"),
            *("X-One: 1", "X-One: 2", "Proxy: evil", "X_Two: 3", "Authorization: Basic YQ=="),
            body=b"hi",
        )
        answer = client.read()
        assert answer.fields["content-type"] == "text/plain; charset=utf-8"
        env = variables(answer.body)
        assert {name: env[name] for name in env if not name.startswith("HTTP_")} == {
            "REQUEST_METHOD": "POST",
            "QUERY_STRING": "d=e&f=%2F",
            "REQUEST_URI": "/a%20b/c?d=e&f=%2F",
            "CONTENT_TYPE": "text/x-a",
            "CONTENT_LENGTH": "2",
            "PATH_INFO": "/a b/c",
            "SCRIPT_NAME": "",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_SOFTWARE": "fastspawn",
            "SERVER_NAME": "test",
            "SERVER_PORT": str(server.port),
            "SERVER_ADDR": "127.0.0.1",
            "REQUEST_SCHEME": "http",
            "REMOTE_ADDR": "127.0.0.1",
            "REMOTE_HOST": "127.0.0.1",
            "REMOTE_PORT": env["REMOTE_PORT"],
            "SHARED": "with the command",
            **{name: env[name] for name in ("PATH", "LANG", "TZ") if name in env},
            **{name: env[name] for name in env if name.startswith("LC_")},
        }
        fields = {name: env[name] for name in env if name.startswith("HTTP_")}
        assert fields == {"HTTP_HOST": "test", "HTTP_X_ONE": "1, 2"}
        client.get()
        env = variables(client.read().body)
        assert not {"CONTENT_TYPE", "CONTENT_LENGTH", "GATEWAY_INTERFACE"} & env.keys()


def test_the_output_is_the_body(start: Serve, script: Script) -> None:
    """Whatever it looks like; and the exit status says the rest."""
    text = r"printf 'Status: 404\n\n'; cat; exit ${HTTP_X_EXIT:-0}"
    server = start(*TOLD, "--status", "3=409", "--error-body", "output", command=script(text))
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=45)
    for fields, status in (({}, 200), ({"X-Exit": "3"}, 409)):
        client.request("POST", "/", iter([b"in ", b"chunks"]), fields, encode_chunked=True)
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (status, b"Status: 404\n\nin chunks")
    client.close()
    with server.connect() as raw:
        raw.send(b"GET / HTTP/1.1\r\nHost: a'b\r\n\r\n")
        assert raw.read().status == 400  # SERVER_NAME would be that
    assert server.get("/?a'b=<c>\x7f").status == 400


def test_more_of_it(start: Serve, script: Script) -> None:
    show = script('echo "${HTTP_AUTHORIZATION-none} $HTTP_X_REQUEST_ID $SCRIPT_NAME $PATH_INFO $1"')
    server = start(
        *(*TOLD, "--pass-authorization", "--request-id", "--set-env", "HTTP_X_REQUEST_ID=ours"),
        *("--route", "/at/{rest...}=sh -c '" + show[2] + "' sh {query:q=none}"),
    )
    answer = server.get("/at/a%2Fb?q=1", "Authorization: Basic YQ==")
    assert answer.status == 400  # not UTF-8, or a slash: only where the path goes nowhere else
    answer = server.get("/at/a/b?q=1", "Authorization: Basic YQ==")
    assert answer.body == b"Basic YQ== ours /at /a/b 1\n"


@pytest.mark.parametrize("name", ["snapshot", "warm", "pool"])
def test_strategies(start: Serve, name: str) -> None:
    place = ("--snapshot-at", "main") if name == "snapshot" else ()
    server = start(*TOLD, "--strategy", name, *place, command=("env",))
    for method in ("GET", "POST"):
        with server.connect() as client:
            client.request(method, "/?x=y", "Content-Length: 0")
            env = variables(client.read().body)
            assert (env["REQUEST_METHOD"], env["QUERY_STRING"]) == (method, "x=y")


def test_values_of_the_query(serve: Serve) -> None:
    """One argument each, whatever is in them."""
    echo = 'for a in "$@"; do printf "<%s>" "$a"; done; printf "%s" "$V"'
    server = serve(
        *("--set-env", "V=[{query:b}]"),
        command=("sh", "-c", echo, "sh", "{query:a}", "--b={query:b}", "{query:n=1 0}", "{other}"),
    )
    for query, body in (
        ("a=x&b=y", "<x><--b=y><1 0><{other}>[y]"),
        ("b=-y&a=%24%28id%29+%22%60*&n=", '<$(id) "`*><--b=-y><><{other}>[-y]'),
        ("a=%7Bquery:b%7D&b=%C3%A9%0A&n=2&more", "<{query:b}><--b=é\n><2><{other}>[é\n]"),
    ):
        answer = server.get(f"/?{query}")
        assert (answer.status, answer.body.decode()) == (200, body)
    for query, said in (
        ("", "a is not in the query"),
        ("a=1", "b is not in the query"),
        ("a=1&b=2&a=3", "a is twice in the query"),
        ("a=-x&b=2", "an argument may not begin with a hyphen"),
        ("a=%00&b=2", "a NUL in the query"),
        ("a=%ff&b=2", "the query is not UTF-8"),
        ("a=%2&b=2", "a bad escape in the query"),
    ):
        answer = server.get(f"/?{query}")
        assert (answer.status, said in answer.body.decode()) == (400, True)


def test_a_shell_has_them_in_its_environment(start: Serve) -> None:
    server = start("--shell", "--set-env", "Q={query:q}", command=('printf "%s" "$Q"',))
    assert server.get("/?q=%24%28id%29").body == b"$(id)"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mode", "cgi", "--request-env", "--", "true"), "--request-env needs --mode raw"),
        (("--pass-authorization", "--", "true"), "needs --mode cgi or ws or --request-env"),
        (("--", "{query:q}"), "a request can't choose the program"),
        (("--", "ls", "-{query:q}"), "a request can't choose an option"),
        (("--", "sh", "-c", "echo {query:q}"), "a request can't write a script"),
        (("--shell", "--", "echo {query:q=x}"), "with a shell, values are"),
        (
            (*TOLD, *("--strategy", "snapshot", "--snapshot-at", "effect"), "--", "cat"),
            "each request has an environment of its own",
        ),
    ],
)
def test_what_cannot_be(options: tuple[str, ...], said: str) -> None:
    refuse(options, said)
