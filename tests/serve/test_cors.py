"""What pages of other sites may do: the CORS protocol of the Fetch standard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.browser import BROWSERS, Browser

from serve.harness import Response, Server, routes_file
from serve.test_fields import refuse

Serve = Callable[..., Server]

A, B, OTHER = "https://a.example", "http://b.example:8080", "https://other.example"


def ask(server: Server, method: str, target: str, *fields: str) -> Response:
    with server.connect() as client:
        client.request(method, target, *fields)
        answer = client.read_head()
        if answer.status != 204:
            client.read_body(answer)
        return answer


def allowed(answer: Response) -> dict[str, str]:
    start = "access-control-"
    return {k.removeprefix(start): v for k, v in answer.fields.items() if k.startswith(start)}


def preflight(server: Server, origin: str, method: str, *fields: str, at: str = "/") -> Response:
    wanted = (f"Origin: {origin}", f"Access-Control-Request-Method: {method}")
    return ask(server, "OPTIONS", at, *wanted, *fields)


def test_any_site(start: Serve, tmp_path: Path) -> None:
    """The command marks each of its runs: preflights have none."""
    runs = tmp_path / "runs"
    server = start("--cors", "*", command=("sh", "-c", f"echo >> {runs}; echo hi"))
    for fields in ((), (f"Origin: {A}",)):
        answer = server.get("/", *fields)
        assert allowed(answer) == {"allow-origin": "*"}
        assert "vary" not in answer.fields
    assert runs.read_text() == "\n\n"
    names = "content-type,x-one"
    answer = preflight(server, A, "PUT", f"Access-Control-Request-Headers: {names}")
    assert (answer.status, answer.fields.get("content-length")) == (204, None)
    assert allowed(answer) == {
        "allow-origin": "*",
        "allow-methods": "PUT",
        "allow-headers": names,
        "max-age": "600",
    }
    assert runs.read_text() == "\n\n"
    # Without the rest of a preflight it is a request like others.
    assert ask(server, "OPTIONS", "/", f"Origin: {A}").body == b"hi\n"
    log = server.logs(4)
    assert '"OPTIONS / HTTP/1.1" 204 0 exit=-' in log[2]


def test_one_site(start: Serve) -> None:
    """The same for all who ask: nothing varies."""
    server = start("--cors", A, "--cors-credentials", "--cors-max-age", "0")
    for fields in ((), (f"Origin: {A}",), (f"Origin: {OTHER}",)):
        answer = server.get("/", *fields)
        assert allowed(answer) == {"allow-origin": A, "allow-credentials": "true"}
        assert "vary" not in answer.fields
    assert allowed(preflight(server, A, "GET"))["max-age"] == "0"
    refused = preflight(server, OTHER, "GET")
    assert refused.status == 403
    assert "allow-methods" not in allowed(refused)


@pytest.mark.parametrize("options", [(), ("--request-id",), ("--log-format", "combined")])
def test_several_sites(start: Serve, options: tuple[str, ...]) -> None:
    server = start(
        *("--cors", A, "--cors", B.upper(), "--cors-credentials", "--max-body", "3", *options)
    )
    for origin in (A, B):
        answer = server.get("/", f"Origin: {origin}")
        assert allowed(answer) == {"allow-origin": origin, "allow-credentials": "true"}
        assert answer.fields["vary"] == "Origin"
        assert ("x-request-id" in answer.fields) == (options == ("--request-id",))
        answer = preflight(server, origin, "DELETE")
        assert allowed(answer)["allow-origin"] == origin
        answer = ask(server, "POST", "/", f"Origin: {origin}", "Content-Length: 4")
        assert (answer.status, allowed(answer)["allow-origin"]) == (413, origin)
    for fields in ((), (f"Origin: {OTHER}",), ("Origin: null",), (f"Origin: {A}", f"Origin: {B}")):
        answer = server.get("/", *fields)
        assert (answer.status, answer.fields["vary"], allowed(answer)) == (200, "Origin", {})


def test_errors_can_be_read(start: Serve) -> None:
    server = start(*("--cors", A, "--cors", B, "--status", "1=404"), command=("false",))
    answer = server.get("/", f"Origin: {A}")
    assert (answer.status, allowed(answer)["allow-origin"]) == (404, A)
    server = start("--cors", "*", "--route", "GET /user/{name}=echo {name}", command=())
    for target, status in (("/user/-x", 400), ("/nowhere", 404)):
        answer = server.get(target, f"Origin: {A}")
        assert (answer.status, allowed(answer)) == (status, {"allow-origin": "*"})


def test_each_route_has_its_own(start: Serve, tmp_path: Path) -> None:
    open_, closed = "cors = ['*']\n", "methods = ['POST', 'PUT']\n"
    path = routes_file(
        tmp_path / "c.toml",
        open=open_ + "methods = 'GET'\ncommand = 'echo open'",
        closed=closed + "command = 'echo closed'",
        both=f"cors = ['{A}', '{B}']\n" + closed + "command = 'echo both'",
    )
    server = start("--config", path, "--health-path", "/health", command=())
    assert allowed(server.get("/open", f"Origin: {A}")) == {"allow-origin": "*"}
    # The methods are the route's.
    assert allowed(preflight(server, A, "GET", at="/open"))["allow-methods"] == "GET"
    assert allowed(preflight(server, A, "PUT", at="/both"))["allow-methods"] == "POST, PUT"
    assert allowed(preflight(server, A, "DELETE", at="/both")) == {}
    for answer in (
        preflight(server, A, "POST", at="/closed"),
        server.get("/health", f"Origin: {A}"),
        server.get("/nowhere", f"Origin: {A}"),
    ):
        assert allowed(answer) == {}


def test_options_of_a_path(start: Serve) -> None:
    """RFC 9110 section 9.3.7: what a path has, without a process."""
    server = start(
        "--route", "GET /a=echo a", "--route", "POST /a=echo b", "--route", "/b=echo c", command=()
    )
    with server.connect() as client:
        for _ in range(2):
            client.request("OPTIONS", "/a")
            answer = client.read_head()
            assert (answer.status, answer.fields["allow"]) == (204, "GET, HEAD, OPTIONS, POST")
            assert "content-length" not in answer.fields
        client.request("OPTIONS", "/b")
        assert client.read().body == b"c\n"
        client.request("OPTIONS", "/c")
        assert client.read().status == 404


def test_a_private_network(start: Serve) -> None:
    asks = "Access-Control-Request-Private-Network: true"
    named = start("--cors", A)
    assert allowed(preflight(named, A, "GET", asks))["allow-private-network"] == "true"
    assert "allow-private-network" not in allowed(preflight(named, A, "GET"))
    anyone = start("--cors", "*")
    assert "allow-private-network" not in allowed(preflight(anyone, A, "GET", asks))


def test_nothing_that_was_asked_ends_a_line(start: Serve) -> None:
    server = start("--cors", "*")
    answer = preflight(server, A, "G;T")
    assert (answer.status, allowed(answer)) == (200, {"allow-origin": "*"})
    answer = preflight(server, A, "GET", "Access-Control-Request-Headers: a\x01b")
    assert "allow-headers" not in allowed(answer)


def test_a_script_that_speaks_for_itself(start: Serve) -> None:
    own = "printf 'Content-Type: a/b\\nAccess-Control-Allow-Origin: https://own\\n\\n'"
    for origins in ((A,), (A, B)):
        options = tuple(word for origin in origins for word in ("--cors", origin))
        server = start("--mode", "cgi", "--cors-credentials", *options, command=("sh", "-c", own))
        assert allowed(server.get("/", f"Origin: {A}")) == {"allow-origin": "https://own"}
        plain = start(
            *("--mode", "cgi", *options),
            command=("printf", "Content-Type: a/b\\nVary: Accept\\n\\n"),
        )
        with plain.connect() as client:
            client.get("/", f"Origin: {A}")
            head = client.read_until(b"\r\n\r\n")
        assert b"Access-Control-Allow-Origin: https://a.example\r\n" in head
        assert b"\r\nVary: Accept\r\n" in head
        assert (b"\r\nVary: Origin\r\n" in head) == (len(origins) > 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cors", "*", "--cors-credentials"), "--cors '*' can't be with --cors-credentials"),
        (("--cors", "a.example"), "'a.example' is not an origin"),
        (("--cors", "https://a.example/"), "'https://a.example/' is not an origin"),
        (("--cors", "https://a.example/path"), "is not an origin"),
        (("--cors", "null"), "'null' is not an origin"),
        (("--cors-credentials",), "--cors-credentials needs --cors"),
        (("--cors-max-age", "1m"), "--cors-max-age needs --cors"),
        (("--cors", "*", "--header", "Access-Control-Allow-Origin: *"), "can't be with --cors"),
        (("--mode", "ws", "--cors", "*"), "--cors needs --mode raw or cgi or jsonrpc (it is ws)"),
    ],
)
def test_what_cannot_be(options: tuple[str, ...], said: str) -> None:
    refuse(options, said)


PROGRAM = next((path for name in BROWSERS if (path := shutil.which(name))), None)


@pytest.fixture
def browser() -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("no Chromium")
    with Browser(PROGRAM) as browser:
        yield browser


FETCH = """
(async (url, options) => {
  try {
    const answer = await fetch(url, options);
    return [answer.status, await answer.text(), answer.headers.get("x-shown")];
  } catch (error) {
    return error.name;
  }
})(...%s)
"""


def test_a_real_browser(start: Serve, browser: Browser) -> None:
    page = start(command=("echo", "<title>page</title>"), where=("--port", "0"))
    here = f"http://127.0.0.1:{page.port}"
    command = ("sh", "-c", 'read -r line; echo "$line"; exit 1')
    shown = ("--header", "X-Shown: yes", "--header", "Access-Control-Expose-Headers: X-Shown")
    servers = {
        "any": start("--cors", "*", *shown, "--status", "1=404", command=command),
        "here": start("--cors", here, "--cors-credentials", "--status", "1=200", command=command),
        "some": start("--cors", here, "--cors", A, "--status", "1=200", command=command),
        "other": start("--cors", A, "--status", "1=200", command=command),
        "none": start("--status", "1=200", command=command),
    }
    browser.call("Page.navigate", url=here)
    browser.wait_for("Page.loadEventFired")

    def fetch(name: str, **options: Any) -> Any:
        call = FETCH % json.dumps([f"http://127.0.0.1:{servers[name].port}/", options])
        answer = browser.call(
            "Runtime.evaluate", expression=call, awaitPromise=True, returnByValue=True
        )
        return answer["result"]["value"]

    put = {"method": "PUT", "body": "said\n", "headers": {"X-One": "1"}}
    text = "404 Not Found: the command exited with status 1\n"
    assert fetch("any", **put) == [404, text, "yes"]
    assert fetch("any", **put, credentials="include") == "TypeError"
    assert fetch("here", **put, credentials="include") == [200, "said\n", None]
    assert fetch("some", **put) == [200, "said\n", None]
    assert fetch("some") == [200, "\n", None]
    assert fetch("some", credentials="include") == "TypeError"
    for name in ("other", "none"):
        assert fetch(name) == fetch(name, **put) == "TypeError"
    assert not any("PUT" in line for line in servers["other"].log())
