"""``--mode jsonrpc``: a process for each session, by bytes on the wire. The official client of MCP
is in test_mcp.py."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serve.harness import (
    BOUND,
    Client,
    Response,
    Server,
    alive,
    children,
    fds,
    longer_times,
    poll,
    resident,
)
from support import CHILDREN, LINUX

Start = Callable[..., Server]

RPC = (sys.executable, "-I", "-S", str(CHILDREN / "rpc.py"))
JSON = "Content-Type: application/json"
PLAIN = "Accept: application/json"
BOTH = "Accept: application/json, text/event-stream"
STREAM = "Accept: text/event-stream"


@pytest.fixture
def serve(serve: Start) -> Start:
    """Each strategy and loop."""
    return lambda *options, **more: serve("--mode", "jsonrpc", *options, **{"command": RPC, **more})


@pytest.fixture
def start(start: Start) -> Start:
    return lambda *options, **more: start("--mode", "jsonrpc", *options, **{"command": RPC, **more})


def call(method: str, key: object = 1, **params: Any) -> bytes:
    value = {"jsonrpc": "2.0", "id": key, "method": method, "params": params}
    return json.dumps(value).encode()


def notice(method: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method}).encode()


def post(server: Server, body: bytes, *fields: str, accept: str = PLAIN) -> Response:
    with server.connect() as client:
        client.post(body, JSON, accept, *fields)
        return client.read()


def ask(server: Server, *fields: str, method: str = "GET") -> Response:
    with server.connect() as client:
        client.request(method, "/", *fields)
        answer = client.read_head()
        return answer if answer.status == 204 else client.read_body(answer)


class Session:
    """As a client has it."""

    def __init__(self, server: Server, **params: Any) -> None:
        self.server = server
        answer = post(server, call("initialize", "first", **params))
        assert answer.status == 200, answer
        self.name = answer.fields["mcp-session-id"]
        self.field = f"Mcp-Session-Id: {self.name}"
        self.pid = json.loads(answer.body)["result"]["pid"]

    def post(self, body: bytes, *fields: str, accept: str = PLAIN) -> Response:
        return post(self.server, body, self.field, *fields, accept=accept)

    def call(self, method: str, key: object = 1, **params: Any) -> Any:
        answer = self.post(call(method, key, **params))
        assert answer.status == 200, answer
        value = json.loads(answer.body)
        assert value["id"] == key
        assert type(value["id"]) is type(key)
        return value["result"]

    @contextmanager
    def stream(self, body: bytes | None, *fields: str) -> Iterator[Stream]:
        """The answer to a POST of ``body``, or to a GET."""
        with self.server.connect() as client:
            if body is None:
                client.get("/", STREAM, self.field, *fields)
            else:
                client.post(body, JSON, BOTH, self.field, *fields)
            yield Stream(client)

    def delete(self) -> int:
        return ask(self.server, self.field, method="DELETE").status

    @property
    def known(self) -> bool:
        return self.post(notice("x")).status == 202


class Stream:
    """Events as they come."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.last = ""
        """The id of the last one."""
        self._begun = False
        self._text = b""

    def raw(self) -> dict[str, str]:
        """The fields of the next one."""
        self.begin()
        while b"\n\n" not in self._text:
            chunk = self.client.read_chunk()
            assert chunk, "the stream is over"
            self._text += chunk
        found, self._text = self._text.split(b"\n\n", 1)
        event = dict(line.split(": ", 1) for line in found.decode().split("\n"))
        self.last = event.get("id", "")
        return event

    def begin(self) -> None:
        """The head comes with the first event, if not before."""
        if not self._begun:
            head = self.client.read_head()
            assert head.status == 200, self.client.read_body(head)
            assert head.fields["content-type"] == "text/event-stream"
            self._begun = True

    def next(self) -> Any:
        return json.loads(self.raw()["data"])

    def ends(self) -> bool:
        """... without another event."""
        self.begin()
        return self.client.read_chunk() == b"" and self.client.last_seen and not self._text


def gone(pid: int) -> bool:
    return not alive(pid)


# ---- a session


def test_a_session(serve: Start) -> None:
    server = serve()
    one, two = Session(server), Session(server)
    assert one.name != two.name
    assert len(one.name) >= 32
    for session in (one, two, one):
        assert session.call("pid", "a") == session.pid
    assert one.call("echo", 7, text="ünï\n") == {"text": "ünï\n"}
    answer = one.post(notice("notifications/initialized"))
    assert (answer.status, answer.body) == (202, b"")
    assert one.delete() == 204
    poll(lambda: gone(one.pid), "its process is gone")
    for answer in (one.post(call("pid")), ask(server, STREAM, one.field)):
        assert answer.status == 404
        assert json.loads(answer.body)["error"]["code"] == -32600
    assert one.delete() == 404
    assert two.call("pid") == two.pid
    rows = [row.split('"') for row in server.log()]
    assert all(row[2].split()[0] in ("200", "202", "204", "404") for row in rows)


def test_the_row_of_what_began_it_has_its_end(start: Start) -> None:
    server = start("--log-format", "json")
    session = Session(server)
    assert session.call("pid") == session.pid
    session.delete()
    rows = [json.loads(row) for row in server.logs(3)]
    assert [row["method"] for row in rows] == ["POST", "DELETE", "POST"]
    assert (rows[2]["exit"], "exit" in rows[0], "exit" in rows[1]) == (0, False, False)


@pytest.mark.parametrize("strategy", ["warm", "snapshot", "auto", "reset"])
def test_other_strategies(start: Start, strategy: str) -> None:
    if strategy in ("snapshot", "reset") and not LINUX:
        pytest.skip("no templates")
    server = start("--strategy", strategy)
    one, two = Session(server), Session(server)
    assert one.call("pid") == one.pid != two.pid == two.call("pid")
    assert one.delete() == two.delete() == 204
    assert Session(server).call("echo", a=1) == {"a": 1}


def test_standard_error_tells_whose_it_is(start: Start) -> None:
    server = start("--stderr", "log", "--request-id", "--log-format", "json")
    answer = post(server, call("initialize"), "X-Request-Id: begun")
    session = answer.fields["mcp-session-id"]
    post(server, call("complain", text="once"), f"Mcp-Session-Id: {session}")
    server.says("once")
    row = next(json.loads(line) for line in server.errors().splitlines() if "once" in line)
    assert (row["id"], row["pid"]) == ("begun", json.loads(answer.body)["result"]["pid"])


def test_a_stream_for_a_request(serve: Start) -> None:
    session = Session(serve())
    params = {"times": 3, "_meta": {"progressToken": "p"}}
    with session.stream(call("progress", "x", **params)) as stream:
        for number in range(3):
            told = stream.next()
            assert told["params"] == {"progressToken": "p", "progress": number}
        assert stream.next() == {"jsonrpc": "2.0", "id": "x", "result": "done"}
        assert stream.ends()
        # The connection goes on.
        stream.client.post(call("pid"), JSON, PLAIN, session.field)
        assert json.loads(stream.client.read().body)["result"] == session.pid


def test_what_the_process_says_of_its_own(serve: Start) -> None:
    session = Session(serve())
    with session.stream(None) as own:
        assert session.call("say", times=2) == "said"
        assert [own.next()["params"]["number"] for _ in range(2)] == [0, 1]
        with session.stream(call("ask", "q")) as stream:
            question = own.next()
            assert question["method"] == "sampling"
            answer = {"jsonrpc": "2.0", "id": question["id"], "result": 42}
            assert session.post(json.dumps(answer).encode()).status == 202
            assert stream.next() == {"jsonrpc": "2.0", "id": "q", "result": 42}
    poll(lambda: any('"GET ' in row for row in session.server.log()), "its leaving is seen")
    # Nobody listens: it goes with the request that is there ...
    with session.stream(call("ask", "r")) as stream:
        assert stream.next()["method"] == "sampling"
    poll(lambda: any(" 499 " in row for row in session.server.log()), "its leaving, too")
    # ... and where that takes no more than its response, it is kept for who listens.
    assert session.call("say", times=1) == "said"
    with session.stream(None) as own:
        assert own.next()["method"] == "said"


def test_who_listens_last_hears(start: Start) -> None:
    session = Session(start())
    with session.stream(None) as first, session.stream(None) as second:
        assert first.ends()
        session.call("say", times=1)
        assert second.next()["method"] == "said"


def test_answers_in_any_order(start: Start) -> None:
    session = Session(start())
    with session.stream(call("hold", 1)) as one, session.stream(call("hold", "1")) as two:
        assert session.post(call("pid", 1)).status == 400
        assert session.call("pid", 2) == session.pid
        assert session.post(notice("release")).status == 202
        assert one.next()["id"] == 1
        assert two.next()["id"] == "1"
    assert session.call("pid", 1) == session.pid


def test_a_request_that_is_cancelled(start: Start) -> None:
    """Its process need not answer it."""
    session = Session(start())
    version = "MCP-Protocol-Version: 2025-11-25"
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "x"}}
    with session.stream(call("hold", "x"), version) as stream:
        stream.raw()
        assert session.post(json.dumps(cancel).encode()).status == 202
        error = stream.next()
        assert (error["id"], error["error"]["code"]) == ("x", -32800)
        assert stream.ends()
    # It may do all the same, and until then nobody else may ask by that id: he would hear of it.
    assert session.post(call("pid", "x")).status == 400
    session.post(notice("release"))
    poll(lambda: session.post(call("pid", "x")).status == 200, "the response that nobody wants")
    assert session.call("pid", "x") == session.pid
    assert "a response to nothing" not in session.server.errors()


def test_a_request_alone_has_a_process_alone(serve: Start) -> None:
    server = serve()
    pids = []
    for accept in (PLAIN, BOTH):
        answer = post(server, call("pid", "x"), accept=accept)
        assert "mcp-session-id" not in answer.fields
        text = answer.body.decode().partition("data: ")[2] if accept is BOTH else answer.body
        pids.append(json.loads(text)["result"])
    assert pids[0] != pids[1]
    for pid in pids:
        poll(lambda pid=pid: gone(pid), "its process is gone")  # type: ignore[misc]
    with server.connect() as client:
        client.post(call("hold"), JSON, BOTH)
        poll(lambda: children(server.pid), "a process")
    poll(lambda: not children(server.pid), "it is gone, as its client")


# ---- coming back


def test_a_client_comes_back(serve: Start) -> None:
    session = Session(serve())
    version = "MCP-Protocol-Version: 2025-11-25"
    with session.stream(call("hold", "x"), version) as stream:
        first = stream.raw()
        assert (first["data"], first["id"]) == ("", stream.last)
        stream.client.reset()
    session.post(notice("release"))
    with session.stream(None, f"Last-Event-ID: {stream.last}") as again:
        assert again.next() == {"jsonrpc": "2.0", "id": "x", "result": "released"}
        assert again.ends()
        assert again.last != stream.last
    # Once more, and in the midst of it.
    params = {"times": 3, "_meta": {"progressToken": 5}}
    with session.stream(call("progress", "y", **params)) as stream:
        stream.next()
        stream.client.reset()
    with session.stream(None, f"Last-Event-ID: {stream.last}") as again:
        assert [again.next().get("id") for _ in range(3)] == [None, None, "y"]
        assert again.ends()


def test_listening_goes_on_where_it_was(start: Start) -> None:
    session = Session(start())
    with session.stream(None) as own:
        session.call("say", times=3)
        own.next()
        last = own.last
        own.next()
        own.client.reset()
    with session.stream(None, f"Last-Event-ID: {last}") as own:
        assert [own.next()["params"]["number"] for _ in range(2)] == [1, 2]


def test_what_is_kept_is_bounded(start: Start) -> None:
    session = Session(start("--session-buffer", "20k"))
    with session.stream(call("hold", "x"), "MCP-Protocol-Version: 2025-11-25") as stream:
        stream.raw()
        stream.client.reset()
    session.post(notice("release"))
    assert session.call("say", times=100, size=1000) == "said"
    answer = ask(session.server, STREAM, session.field, f"Last-Event-ID: {stream.last}")
    assert answer.status == 410
    with session.stream(None) as own:
        numbers = [own.next()["params"]["number"]]
        while numbers[-1] < 99:
            numbers.append(own.next()["params"]["number"])
    assert 5 < len(numbers) < 20
    assert numbers == list(range(numbers[0], 100))


@pytest.mark.skipif(not LINUX, reason="resident memory as the kernel counts it")
def test_a_slow_client_holds_its_process_and_nothing_else(start: Start) -> None:
    server = start("--session-buffer", "64k", "--send-timeout", "none")
    session, other = Session(server), Session(server)
    before = resident(server.pid)
    said = call("say", "x", times=3000, size=20_000)
    with session.stream(None) as own:
        own.begin()
        with session.stream(said) as stream:
            # 60 MB, which nobody reads: more than sockets and pipes take.
            assert other.call("pid") == other.pid
            poll(lambda: "S" in children(server.pid)[session.pid], "it waits")
            assert resident(server.pid) - before < 30_000_000
            for number in range(3000):
                assert own.next()["params"]["number"] == number
            assert stream.next()["result"] == "said"


def test_a_slow_process_holds_its_session_and_nothing_else(start: Start) -> None:
    server = start("--max-message", "200k")
    session, other = Session(server), Session(server)
    assert session.call("stop_reading") == "so be it"
    large = json.dumps({"jsonrpc": "2.0", "method": "x", "params": ["x" * 190_000]}).encode()
    statuses = []
    while not statuses or statuses[-1] == 202:
        statuses.append(session.post(large).status)
        assert len(statuses) < 50
    assert statuses[-1] == 503
    assert other.call("pid") == other.pid
    assert session.delete() == 204
    poll(lambda: gone(session.pid), "it is gone")


# ---- ends


def test_idle(start: Start) -> None:
    server = start("--session-timeout", "300ms")
    session = Session(server)
    poll(lambda: gone(session.pid), "it is gone")
    assert not session.known


@pytest.mark.parametrize("method", ["listen", "wait"])
def test_not_idle(start: Start, method: str) -> None:
    """Who listens, or waits for a response: for longer than the time. On a busy machine a session
    may end before that begins."""
    version = "MCP-Protocol-Version: 2026-01-01"
    for limit in longer_times():
        server = start("--session-timeout", limit)
        session, idle = Session(server), Session(server)
        body = None if method == "listen" else call("hold")
        with session.stream(body, version) as stream:
            if stream.client.read_head().status == 404:
                continue
            poll(lambda idle=idle: gone(idle.pid), "the other one is gone")  # type: ignore[misc]
            idle = Session(server)
            poll(lambda idle=idle: gone(idle.pid), "and another")  # type: ignore[misc]
            assert alive(session.pid)
        poll(lambda session=session: gone(session.pid), "it is gone")  # type: ignore[misc]
        return
    raise AssertionError("never in time")


def test_the_whole_group_ends(start: Start) -> None:
    session = Session(start("--kill-grace", "100ms"))
    child = session.call("child")
    session.call("stubborn")
    assert alive(child)
    assert session.delete() == 204
    poll(lambda: gone(session.pid), "it is gone")
    poll(lambda: gone(child), "and so is what it started")


@pytest.mark.parametrize("how", [{"status": 3}, {"signal": True}, {}], ids=str)
def test_a_process_ends(serve: Start, how: dict[str, Any]) -> None:
    server = serve()
    session = Session(server)
    with session.stream(None) as own:
        answer = session.post(call("die", "y", **how))
        assert answer.status == 502
        error = json.loads(answer.body)
        assert (error["id"], error["error"]["code"]) == ("y", -32000)
        assert own.ends()
    assert not session.known
    server.says("the process has ended")


def test_an_answer_that_has_begun_tells_of_the_end(start: Start) -> None:
    session = Session(start())
    with session.stream(call("hold", "x"), "MCP-Protocol-Version: 2025-11-25") as stream:
        stream.raw()
        assert session.post(call("die", "y", status=1)).status == 502
        assert stream.next()["error"]["code"] == -32000
        assert stream.ends()


def test_what_can_not_be_started(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    server = start(command=(str(program),))
    program.unlink()
    answer = post(server, call("initialize", 1))
    assert (answer.status, json.loads(answer.body)["id"]) == (500, 1)
    assert "mcp-session-id" not in answer.fields
    server = start(command=("sh", "-c", "echo no >&2; exit 3"))
    answer = post(server, call("initialize", "x"), accept=BOTH)
    assert (answer.status, json.loads(answer.body)["id"]) == (502, "x")
    server.says("it exited with status 3")


def test_an_initialize_that_fails_begins_nothing(start: Start) -> None:
    server = start()
    for accept in (PLAIN, BOTH):
        answer = post(server, call("initialize", bad=True), accept=accept)
        assert answer.status == 200
        assert "mcp-session-id" not in answer.fields
    poll(lambda: not children(server.pid), "no process is left")


def test_a_client_that_leaves_before_its_session_is_there(start: Start) -> None:
    server = start(command=("sleep", "1000"))
    with server.connect() as client:
        client.post(call("initialize"), JSON, BOTH)
        poll(lambda: children(server.pid), "a process")
    poll(lambda: not children(server.pid), "it is gone")


def test_the_server_stops(serve: Start) -> None:
    server = serve("--graceful-timeout", "5m")
    idle, busy = Session(server), Session(server)
    with (
        idle.stream(None) as own,
        busy.stream(call("hold", "x"), "MCP-Protocol-Version: 2026-01-01") as stream,
    ):
        stream.raw()
        with server.connect() as client:
            client.post(notice("x"), JSON, PLAIN, busy.field)
            assert client.read().status == 202
            client.post(notice("release"), JSON, PLAIN, busy.field)
            assert client.read().status == 202
        server.signal(signal.SIGTERM)
        assert own.ends()
        assert stream.next()["result"] == "released"
        assert stream.ends()
        assert server.wait() == 0
    assert gone(idle.pid)
    assert gone(busy.pid)


def test_a_stop_that_does_not_wait(start: Start) -> None:
    server = start("--graceful-timeout", "100ms", "--kill-grace", "100ms")
    session = Session(server)
    session.call("stubborn")
    child = session.call("child")
    with session.stream(call("hold"), "MCP-Protocol-Version: 2026-01-01") as stream:
        stream.raw()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    poll(lambda: gone(session.pid) and gone(child), "both are gone")


def test_a_reload(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    text = f'mode = "jsonrpc"\n[[route]]\npath = "/"\ncommand = {list(RPC)!r}\n'
    path.write_text(text)
    server = start("--config", str(path), command=())
    session = Session(server)
    server.signal(signal.SIGHUP)
    server.says("reloaded")
    assert session.call("pid") == session.pid
    path.write_text(text + 'session-timeout = "1h"\n')
    server.signal(signal.SIGHUP)
    server.says("reloaded", 2)
    poll(lambda: gone(session.pid), "the session of the old route is gone")
    poll(lambda: not session.known, "it is not found")
    assert Session(server).call("pid")


# ---- limits and nonsense


def test_sessions_are_limited(start: Start) -> None:
    server = start("--max-inflight", "1", "--queue", "0")
    session = Session(server)
    answer = post(server, call("initialize"))
    assert (answer.status, answer.fields["retry-after"]) == (503, "1")
    assert session.call("pid") == session.pid
    session.delete()
    poll(lambda: gone(session.pid), "it is gone")
    poll(lambda: post(server, call("initialize")).status == 200, "there is room again")


def test_messages_are_limited(start: Start) -> None:
    server = start("--max-message", "2k")
    session = Session(server)
    assert session.post(call("echo", text="x" * 3000)).status == 413
    assert session.call("pid") == session.pid
    answer = session.post(call("long", "x", size=3000))
    assert (answer.status, json.loads(answer.body)["id"]) == (502, "x")
    poll(lambda: gone(session.pid), "it is gone")
    server.says("a line is longer than --max-message")


def test_a_line_without_end(start: Start) -> None:
    """... of a process that does not mind TERM: nothing of it is kept."""
    text = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    text += "while True: sys.stdout.write('x' * 65536)"
    options = ("--max-message", "1M", "--kill-grace", "1s")
    server = start(*options, command=(sys.executable, "-c", text))
    before = resident(server.pid)
    answer = post(server, call("initialize"))
    assert answer.status == 502
    assert resident(server.pid) - before < 50_000_000
    poll(lambda: not children(server.pid), "it is gone")


def test_what_is_no_message_is_dropped(start: Start) -> None:
    server = start()
    session = Session(server)
    for _ in range(9):
        assert session.call("garbage") == "more"
    assert session.call("wrong", "w") == "right"
    server.says("this is no message")
    server.says("and no more of this session", 1)


BAD = [
    (400, b"{", [JSON]), (400, b"[]", [JSON]), (400, b"", [JSON]),
    (400, notice("x"), [JSON]), (400, b'{"jsonrpc":"2.0","id":1,"result":1}', [JSON]),
    (404, call("pid"), [JSON, "Mcp-Session-Id: nobody"]),
    (400, call("pid"), [JSON, "Mcp-Session-Id: a", "Mcp-Session-Id: b"]),
    (415, call("pid"), []), (415, call("pid"), ["Content-Type: text/plain"]),
    (406, call("pid"), [JSON, "Accept: text/html"]),
    (403, call("pid"), [JSON, "Origin: http://a.example"]),
    (403, call("pid"), [JSON, "Origin: http://test"]),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "fields"), BAD, ids=range(len(BAD)))
def test_bad_input(one: Server, status: int, body: bytes, fields: list[str]) -> None:
    with one.connect() as client:
        client.post(body, *fields)
        answer = client.read()
        assert answer.status == status
        if answer.fields["content-type"] == "application/json":
            assert json.loads(answer.body)["error"]["code"] in (-32600, -32700)
    assert not children(one.pid)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("one"), ("--mode", "jsonrpc"), RPC)
    yield server
    server.stop()


def test_other_methods(one: Server) -> None:
    for method, status in [("PUT", 405), ("OPTIONS", 405), ("DELETE", 400), ("GET", 406)]:
        answer = ask(one, method=method)
        assert answer.status == status
        assert status != 405 or answer.fields["allow"] == "GET, POST, DELETE"


def test_a_body_in_chunks_and_held_back(one: Server) -> None:
    body = call("pid", "x")
    with one.connect() as client:
        client.request("POST", "/", JSON, "Transfer-Encoding: chunked", "Expect: 100-continue")
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        for byte in body:
            client.send(b"1\r\n%c\r\n" % byte)
        client.send(b"0\r\n\r\n")
        assert json.loads(client.read().body)["id"] == "x"


def test_http10(one: Server) -> None:
    with one.connect() as client:
        client.post(call("initialize"), JSON, BOTH, version="1.0")
        answer = client.read()
    assert answer.body.endswith(b"\n\n")
    assert b'"id": 1' in answer.body
    session = answer.fields["mcp-session-id"]
    assert ask(one, f"Mcp-Session-Id: {session}", method="DELETE").status == 204


def test_pages_of_other_sites(start: Start) -> None:
    server = start("--cors", "https://a.example", "--cors", "https://b.example")
    answer = post(server, call("initialize"), "Origin: https://b.example")
    assert answer.status == 200
    assert answer.fields["access-control-allow-origin"] == "https://b.example"
    assert answer.fields["access-control-expose-headers"] == "Mcp-Session-Id"
    assert post(server, call("initialize"), "Origin: https://c.example").status == 403
    with server.connect() as client:
        client.request(
            "OPTIONS", "/", "Origin: https://a.example", "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: content-type, mcp-session-id",
        )  # fmt: skip
        answer = client.read_head()
    assert answer.status == 204
    assert "mcp-session-id" in answer.fields["access-control-allow-headers"]


def test_values_of_the_path(start: Start) -> None:
    route = "/mcp/{who}=" + " ".join(RPC) + " {who}"
    server = start("--route", route, command=())
    with server.connect() as client:
        body = call("initialize")
        length = f"Content-Length: {len(body)}"
        client.request("POST", "/mcp/you", JSON, length, body=body)
        pid = json.loads(client.read().body)["result"]["pid"]
    if LINUX:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            assert file.read().split(b"\0")[-2] == b"you"


# ---- the transport before


def test_the_transport_before(serve: Start) -> None:
    server = serve()
    with server.connect() as client:
        client.get("/", STREAM)
        own = Stream(client)
        first = own.raw()
        assert first["event"] == "endpoint"
        target = "/" + first["data"]

        def send(body: bytes) -> int:
            with server.connect() as other:
                length = f"Content-Length: {len(body)}"
                other.request("POST", target, JSON, length, body=body)
                return other.read().status

        assert send(call("initialize", 1)) == 202
        pid = own.next()["result"]["pid"]
        assert send(call("say", 2, times=1)) == 202
        assert own.next()["method"] == "said"
        assert own.next() == {"jsonrpc": "2.0", "id": 2, "result": "said"}
        # The two are not to be taken for each other.
        name = first["data"].partition("=")[2]
        assert post(server, call("pid"), f"Mcp-Session-Id: {name}").status == 404
    poll(lambda: gone(pid), "it ends with its listener")
    poll(lambda: send(call("pid")) == 404, "and is not found")


# ---- many


def test_nothing_is_left_behind(serve: Start) -> None:
    server = serve()
    Session(server).delete()
    poll(lambda: not children(server.pid), "no process")
    before = fds(server.pid)
    for number in range(20):
        session = Session(server)
        if number % 4 == 0:
            session.delete()
        elif number % 4 == 1:
            session.post(call("die"))
        elif number % 4 == 2:
            os.kill(session.pid, signal.SIGKILL)
        else:
            with session.stream(call("hold"), "MCP-Protocol-Version: 2026-01-01") as stream:
                stream.raw()
                assert session.delete() == 204
                assert "error" in stream.next()
    poll(lambda: not children(server.pid), "no process", BOUND)
    poll(lambda: fds(server.pid) <= before, "no descriptor")
