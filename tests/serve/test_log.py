"""--log-format and --request-id."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path

import pytest

from serve.conftest import Serve
from serve.harness import Server, poll

MADE = re.compile(r"[0-9a-f]{32}")
COMBINED = re.compile(
    r"127\.0\.0\.1 - - \[[^]]+\] \"(?P<request>[^\"]*)\" (?P<status>\d+) (?P<sent>\d+) "
    r"\"(?P<referer>[^\"]*)\" \"(?P<agent>[^\"]*)\" exit=(?P<exit>\S+) wall=(?P<wall>\S+) "
    r"user=(?P<user>\S+) sys=(?P<sys>\S+) maxrss=(?P<maxrss>\S+)(?: id=(?P<id>\S+))?"
)
SHOW = ("sh", "-c", 'echo "$HTTP_X_REQUEST_ID"')
CGI = ("sh", "-c", r'printf "Content-Type: text/plain\n\n%s\n" "$HTTP_X_REQUEST_ID"')


def lines(server: Server, count: int) -> list[str]:
    poll(lambda: len(server.log()) >= count, f"{count} lines")
    assert len(server.log()) == count
    return server.log()


def rows(server: Server, count: int) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines(server, count)]


def test_combined(serve: Serve, strategy: str) -> None:
    server = serve("--log-format", "combined", command=("sh", "-c", "exit 3"))
    with server.connect() as client:
        client.get("/a", "Referer: http://x/?y", 'User-Agent: a "b\\ \x9b31m\tc')
        client.read()
        client.get("/%zz")
        client.read()
    found = COMBINED.fullmatch(lines(server, 2)[0])
    assert found is not None, server.log()
    assert found["request"] == "GET /a HTTP/1.1"
    assert (found["status"], found["exit"], found["id"]) == ("500", "3", None)
    assert found["referer"] == "http://x/?y"
    assert found["agent"] == r"a \x22b\x5c \xc2\x9b31m\x09c"
    if strategy == "direct":
        assert found["user"].endswith("ms")
        assert int(found["maxrss"]) > 100_000
    else:
        assert found["maxrss"] == "-"


def test_json(serve: Serve, strategy: str) -> None:
    server = serve(
        *("--log-format", "json", "--request-id", "--exec-timeout", "200ms", "--max-body", "9"),
        *("--route", "/cat=cat", "--route", "/die=sh -c 'kill -KILL $$'"),
        *("--route", "/slow=sleep 60"),
        command=("sh", "-c", "exit 3"),
    )
    with server.connect() as client:
        client.request("POST", "/cat", "Content-Length: 3", "User-Agent: \xe9\x9b1m", body=b"abc")
        assert client.read().body == b"abc"
        for target in ("/a?b", "/die", "/slow", "/%zz"):
            client.get(target, version="1.0" if target == "/%zz" else "1.1")
            client.read()
    with server.connect() as client:
        client.send(b"nonsense\r\n\r\n")
        client.read()
    cat, failed, died, slow, bad, nonsense = rows(server, 6)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(cat["time"]))
    assert (cat["peer"], cat["method"], cat["target"]) == ("127.0.0.1", "POST", "/cat")
    assert (cat["version"], cat["route"]) == ("HTTP/1.1", "/cat")
    assert (cat["status"], cat["received"], cat["sent"]) == (200, 3, 3)
    assert (cat["exit"], cat["signal"], cat["referer"]) == (0, None, None)
    assert cat["agent"] == "\xe9\x9b1m"
    assert server.stdout.read_bytes().isascii()
    assert MADE.fullmatch(str(cat["id"]))
    if strategy == "direct":
        assert isinstance(cat["user"], float)
        assert isinstance(cat["maxrss"], int)
    assert (failed["status"], failed["exit"], failed["target"]) == (500, 3, "/a?b")
    assert (died["exit"], died["signal"]) == (None, 9)
    assert (slow["status"], slow["killed"], slow["signal"]) == (504, "deadline", 15)
    assert (bad["status"], bad["route"], bad["version"]) == (400, "(none)", "HTTP/1.0")
    assert "exit" not in bad
    assert (nonsense["status"], nonsense["method"]) == (400, "-")
    assert len({row["id"] for row in (cat, failed, died, slow, bad)}) == 5


def test_format_changes_with_a_reload(serve: Serve, tmp_path: Path) -> None:
    config = tmp_path / "serve.toml"
    config.write_text('log-format = "common"\n')
    server = serve("--config", str(config))
    with server.connect() as client:
        client.get()
        client.read()
        config.write_text('log-format = "json"\n')
        server.signal(signal.SIGHUP)
        poll(lambda: "reloaded" in server.errors(), "a reload")
        client.get("/", "User-Agent: me")
        client.read()
    before, after = lines(server, 2)
    assert before.endswith("ms")
    assert json.loads(after)["agent"] == "me"


@pytest.mark.parametrize("mode", ["raw", "cgi"])
@pytest.mark.parametrize("route", ["", "/id/{name}"])
def test_id_of_a_trusted_client(serve: Serve, mode: str, route: str) -> None:
    """It is in the answer, in the command's environment and in the log."""
    command = SHOW if mode == "raw" else CGI
    routed = ("--route", f"{route}=env -- sh -c '{command[2]}' {{name}}") if route else ()
    server = serve("--request-id", "--mode", mode, *routed, command=command)
    target = "/id/x" if route else "/"
    with server.connect() as client:
        client.get(target, "X-Request-ID: abc-1.2_3")
        answer = client.read()
        assert (answer.fields["x-request-id"], answer.body) == ("abc-1.2_3", b"abc-1.2_3\n")
        # Not an id, or not one.
        for fields in ((), ("X-Request-Id: a b",), ("X-Request-Id: a", "X-Request-Id: b"),
                       ("X-Request-Id: " + "a" * 201,)):  # fmt: skip
            client.get(target, *fields)
            answer = client.read()
            made = answer.fields["x-request-id"]
            assert MADE.fullmatch(made)
            assert answer.body == made.encode() + b"\n"
    assert lines(server, 5)[0].endswith(" id=abc-1.2_3")
    assert server.log()[4].endswith(f" id={made}")


def test_id_of_another_client(serve: Serve) -> None:
    server = serve("--request-id", "--forwarded-allow-ips", "10.0.0.0/8", command=SHOW)
    answer = server.get("/", "X-Request-Id: mine")
    assert MADE.fullmatch(answer.fields["x-request-id"])
    assert answer.body == answer.fields["x-request-id"].encode() + b"\n"


@pytest.mark.parametrize(
    ("sources", "trusted"),
    [("127.0.0.1", True), ("127.0.0.0/8,::1", True), ("*", True), ("", False), ("unix", False)],
)
def test_who_is_trusted(start: Serve, sources: str, trusted: bool) -> None:
    server = start("--request-id", "--forwarded-allow-ips", sources)
    assert (server.get("/", "X-Request-Id: x").fields["x-request-id"] == "x") is trusted


def test_id_of_answers_of_all_kinds(serve: Serve) -> None:
    """Refused, streamed, to HEAD, of the server's own, of a script that has one of its own."""
    server = serve(
        *("--request-id", "--health-path", "/health", "--max-body", "1"),
        *("--route", "/stream=sh -c 'head -c 200000 /dev/zero'"),
        *("--route", "/fail=false"),
    )
    for version in ("1.1", "1.0"):
        for target in ("/health", "/no", "/%zz", "/fail", "/stream"):
            with server.connect() as client:
                client.get(target, "X-Request-Id: x", version=version)
                assert client.read().fields["x-request-id"] == "x"
    with server.connect() as client:
        client.request("HEAD", "/fail", "X-Request-Id: x")
        assert client.read(head=True).fields["x-request-id"] == "x"


def test_script_with_an_id_of_its_own(serve: Serve) -> None:
    server = serve(
        *("--request-id", "--mode", "cgi"),
        command=("sh", "-c", r'printf "X-Request-ID: own\nContent-Type: a/b\n\n"'),
    )
    # (The harness refuses a head with a field twice.)
    assert server.get().fields["x-request-id"] == "own"


def test_local_redirect_keeps_the_id(serve: Serve) -> None:
    server = serve(
        *("--request-id", "--mode", "cgi"),
        *("--route", r"/to=printf 'Location: /here\n\n'"),
        command=CGI,
    )
    answer = server.get("/to", "X-Request-Id: x")
    assert (answer.fields["x-request-id"], answer.body) == ("x", b"x\n")


@pytest.mark.skipif(sys.platform != "linux", reason="templates are for Linux")
@pytest.mark.parametrize("strategy_", ["snapshot", "warm", "pool"])
def test_id_with_strategies(start: Serve, strategy_: str) -> None:
    """A process that was started before the request does not know it, but the answer has it."""
    at = ("--snapshot-at", "main") if strategy_ == "snapshot" else ()
    server = start("--request-id", "--strategy", strategy_, *at, command=("env",))
    answer = server.get("/", "X-Request-Id: x")
    assert answer.fields["x-request-id"] == "x"
    assert (b"HTTP_X_REQUEST_ID=x\n" in answer.body) is (strategy_ != "warm")


def test_without_the_option(serve: Serve) -> None:
    server = serve(command=("sh", "-c", 'echo "${HTTP_X_REQUEST_ID-none}"'))
    answer = server.get("/", "X-Request-Id: x")
    assert answer.body == b"none\n"
    assert "x-request-id" not in answer.fields
