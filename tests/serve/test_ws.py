"""``--mode ws``: a process for each WebSocket. The client is ``websockets``."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from fastspawn.serve.config import settings
from fastspawn.serve.config.model import RouteConfig
from fastspawn.serve.http.origin import same
from fastspawn.serve.ws.exchange import WsExchange
from serve.harness import (
    BOUND,
    Server,
    alive,
    children,
    longer_times,
    poll,
    resident,
    seconds_in,
    settled,
)

Start = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

ECHO = 'while IFS= read -r line; do echo "<$line>"; done'
KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
HELLO = ("Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Version: 13")


@pytest.fixture
def serve(serve: Start) -> Start:
    """Each strategy and loop."""
    return lambda *options, **more: serve("--mode", "ws", *options, **more)


@pytest.fixture
def start(start: Start) -> Start:
    return lambda *options, **more: start("--mode", "ws", *options, **more)


def open_ws(server: Server, target: str = "/", **more: Any) -> ClientConnection:
    url = f"ws://127.0.0.1:{server.port}{target}"
    more = {"open_timeout": BOUND, "close_timeout": BOUND, "proxy": None, **more}
    return connect(url, **more)


def end_of(client: ClientConnection) -> tuple[int, str]:
    """Code and reason of the server's close."""
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(BOUND)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def status_of(server: Server, *fields: str, method: str = "GET", version: str = "1.1") -> int:
    with server.connect() as client:
        client.request(method, "/", *fields, version=version)
        answer = client.read()
        assert client.ended() or answer.fields.get("connection") != "close"
        return answer.status


def written(path: Path) -> int:
    poll(lambda: path.exists() and path.read_text(), "what a process writes")
    return int(path.read_text())


def test_lines(serve: Start, script: Script) -> None:
    server = serve(command=script(ECHO))
    with open_ws(server) as client:
        for text in ("hello", "", "ünïcödé", "two\nlines"):
            client.send(text)
        received = [client.recv(BOUND) for _ in range(5)]
        assert received == ["<hello>", "<>", "<ünïcödé>", "<two>", "<lines>"]
        client.send(["in ", "frag", "ments"])
        assert client.recv(BOUND) == "<in fragments>"
        assert client.ping().wait(BOUND)


def test_bytes(serve: Start) -> None:
    server = serve("--ws-frames", "bytes", command=("cat",))
    with open_ws(server) as client:
        data = bytes(range(256)) * 1000
        client.send(data)
        client.send([b"more ", b"and more"])
        client.send("text ü")
        wanted = data + b"more and more" + "text ü".encode()
        received = b""
        while len(received) < len(wanted):
            part = client.recv(BOUND)
            assert isinstance(part, bytes)
            received += part
        assert received == wanted


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("echo bye", 1000, ""),
        ("echo bye; exit 3", 1011, "status 3"),
        ("echo bye; kill -9 $$", 1011, "signal 9"),
    ],
)
def test_the_process_ends(serve: Start, script: Script, text: str, code: int, reason: str) -> None:
    server = serve(command=script(text))
    with open_ws(server) as client:
        assert client.recv(BOUND) == "bye"
        closed = end_of(client)
        assert closed[0] == code
        assert reason in closed[1]


def test_what_cannot_be_started(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    server = start(command=(str(program),))
    program.unlink()
    with open_ws(server) as client:
        code, reason = end_of(client)
        assert (code, "could not be started" in reason) == (1011, True)


def test_limits_of_the_process(start: Start, script: Script) -> None:
    for timeout in longer_times():
        server = start("--exec-timeout", timeout, command=script("echo begun; exec sleep 60"))
        said: list[object] = []
        with open_ws(server) as client, pytest.raises(ConnectionClosedError) as closed:
            said.extend(client)
        assert closed.value.rcvd is not None
        code, reason = closed.value.rcvd.code, closed.value.rcvd.reason
        assert (code, reason) == (1011, "the command did not finish in time")
        if said:
            break
    assert said == ["begun"]
    server = start("--max-output", "2k", "--ws-frames", "bytes", command=script("yes"))
    with open_ws(server) as client:
        received: list[object] = []
        with pytest.raises(ConnectionClosedError, match="the command wrote too much"):
            received.extend(client)
        assert len(b"".join(received)) <= 4096  # type: ignore[arg-type]


def test_the_end_of_a_line(start: Start, script: Script) -> None:
    """CR LF as well; what has no end when the process ends; one that is longer than memory
    should have to hold comes in fragments, and what is not UTF-8 is replaced."""
    line = "x" * 1_000_000
    text = f"""
import sys
out = sys.stdout.buffer
for data in b"dos\\r\\n\\n", b"\\xc3", b"\\xa9\\n", b"x" * {len(line)} + b"\\n\\xff\\nopen":
    out.write(data)
    out.flush()
"""
    server = start(command=(sys.executable, "-c", text))
    with open_ws(server) as client:
        assert [client.recv(BOUND) for _ in range(6)] == ["dos", "", "é", line, "\ufffd", "open"]
        assert end_of(client) == (1000, "")


def test_the_client_closes(serve: Start, script: Script, tmp_path: Path) -> None:
    """The process sees the end of its input, and has its grace."""
    out = tmp_path / "out"
    server = serve(
        "--kill-grace", "20s", command=script('cat >/dev/null; echo "$$" > "$1"', out)
    )  # fmt: skip
    with open_ws(server) as client:
        client.send("x")
        client.close(1000)
        assert client.close_code == 1000
    assert written(out) > 0


@pytest.mark.parametrize("way", ["close", "reset", "eof"])
def test_the_client_leaves(serve: Start, script: Script, tmp_path: Path, way: str) -> None:
    """One that does not end with its input is killed, with all of its group."""
    out = tmp_path / "out"
    text = 'trap "" TERM; sleep 60 & echo $! > "$1"; echo ready; wait; wait'
    server = serve("--kill-grace", "0.2s", "--max-inflight", "1", command=script(text, out))
    with open_ws(server) as client:
        assert client.recv(BOUND) == "ready"
        pid = written(out)
        if way == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.socket.close()
        elif way == "eof":
            client.socket.shutdown(socket.SHUT_WR)
        else:
            client.close()
    poll(lambda: not alive(pid), "the end of the group")
    with open_ws(server) as client:  # its place is free
        assert client.recv(BOUND) == "ready"


def test_a_slow_client_throttles_the_process(start: Start, tmp_path: Path) -> None:
    """Of 64 MiB only what buffers hold is written until the client reads; then all comes."""
    count = tmp_path / "count"
    count.touch()
    text = (
        "import sys\n"
        "for i in range(1024):\n"
        "    sys.stdout.write('x' * 65535 + '\\n'); sys.stdout.flush()\n"
        "    open(sys.argv[1], 'ab').write(b'.')\n"
    )
    command = (sys.executable, "-W", "ignore", "-c", text, str(count))

    def all_comes(ping: str) -> bool:
        """False: it was cut off, as one that takes too long to answer a ping is."""
        count.write_bytes(b"")
        server = start("--ws-ping", ping, command=command)
        with open_ws(server, max_queue=1, ping_interval=None) as client:
            poll(lambda: count.stat().st_size, "a first line")
            before = resident(server.pid)
            still = 3 * seconds_in(ping)  # its silence is not held against it
            assert settled(lambda: count.stat().st_size, still) < 512
            assert resident(server.pid) - before < 16 << 20
            try:
                for _ in range(1024):
                    assert len(client.recv(BOUND)) == 65535
            except ConnectionClosed:
                return False
            assert end_of(client) == (1000, "")
        return True

    assert any(all_comes(ping) for ping in longer_times())


def test_a_slow_process_holds_the_client_back(start: Start, script: Script, tmp_path: Path) -> None:
    out = tmp_path / "out"
    server = start(
        "--kill-grace", "0.1s", command=script('echo $$ > "$1"; exec sleep 60', out)
    )  # fmt: skip
    with server.connect() as client:
        client.get("/", *HELLO, KEY)
        assert client.read_head().status == 101
        pid = written(out)
        before = resident(server.pid)
        client.sock.settimeout(1)
        message = b"\x81\xfe\xff\x00\0\0\0\0" + b"x" * 0xFF00

        def send() -> None:
            for _ in range(4096):
                client.send(message)

        with pytest.raises(TimeoutError):
            send()
        assert resident(server.pid) - before < 16 << 20
        assert alive(pid)
    poll(lambda: not alive(pid), "the process's end")


def test_messages_that_are_refused(start: Start, script: Script) -> None:
    server = start("--ws-max-message", "1k", command=script(ECHO))
    with open_ws(server) as client:
        client.send("x" * 1024)
        assert client.recv(BOUND) == "<" + "x" * 1024 + ">"
        client.send("x" * 1025)
        assert end_of(client)[0] == 1009
    with open_ws(server) as client:
        client.send(["x" * 600, "x" * 600])
        assert end_of(client)[0] == 1009
    with open_ws(server) as client:
        client.send(b"bytes")
        assert end_of(client)[0] == 1003
    with open_ws(server) as client:
        client.send(b"\xff", text=True)
        assert end_of(client)[0] == 1007


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (b"\x83\x80\0\0\0\0", 1002),  # an opcode that is none
        (b"\xc1\x80\0\0\0\0", 1002),  # a bit of no extension
        (b"\x80\x80\0\0\0\0", 1002),  # continues nothing
        (b"\x09\x80\0\0\0\0", 1002),  # a control frame in fragments
        (b"\x88\x81\0\0\0\0x", 1002),  # half a code
    ],
)
def test_frames_that_are_none(start: Start, script: Script, frame: bytes, code: int) -> None:
    server = start(command=script(ECHO))
    with server.connect() as client:
        client.get("/", *HELLO, KEY)
        assert client.read_head().status == 101
        client.send(frame)
        head = client.read_exactly(2)
        assert head[0] == 0x88
        assert int.from_bytes(client.read_exactly(head[1])[:2], "big") == code
        assert client.ended()
    poll(lambda: not children(server.pid), "the process's end")


def test_empty_fragments_cost_nothing() -> None:
    """No limit says how many of them a message has: the one on its size never comes."""
    route: Any = SimpleNamespace(config=RouteConfig(mode="ws"))
    connection: Any = SimpleNamespace(peer=b"-")
    exchange = WsExchange(connection, route, b"GET", b"/", http10=False, keep=False)
    exchange.job = taken = Mock()
    exchange._take(Frame(Opcode.TEXT, b"a", fin=False))
    tracemalloc.start()
    try:
        for _ in range(10_000):
            exchange._take(Frame(Opcode.CONT, b"", fin=False))
        assert tracemalloc.get_traced_memory()[0] < 16384
    finally:
        tracemalloc.stop()
    exchange._take(Frame(Opcode.CONT, b"b", fin=True))
    taken.write.assert_called_once_with(b"ab\n")


def test_handshakes(start: Start, script: Script) -> None:
    server = start(command=script(ECHO))
    assert status_of(server) == 426
    assert status_of(server, *HELLO) == 400
    assert status_of(server, *HELLO, "Sec-WebSocket-Key: AAAA") == 400
    assert status_of(server, *HELLO, "Sec-WebSocket-Key: !") == 400
    assert status_of(server, *HELLO, KEY, KEY) == 400
    assert status_of(server, *HELLO[:2], "Sec-WebSocket-Version: 8", KEY) == 426
    assert status_of(server, *HELLO, KEY, version="1.0") == 400
    assert status_of(server, *HELLO, KEY, method="POST") == 400
    assert status_of(server, *HELLO, KEY, "Content-Length: 3") == 400
    assert status_of(server, *HELLO, KEY, "Origin: null") == 403
    assert not children(server.pid)
    with server.connect() as client:
        client.get()
        fields = client.read().fields
        assert (fields["upgrade"], fields["connection"]) == ("websocket", "Upgrade, close")
    with server.connect() as client:
        client.get("/", *HELLO, KEY)
        answer = client.read_head()
        assert answer.fields["sec-websocket-accept"] == "ICX+Yqv66kxgM0FcWaLWlFLwTAI="


@pytest.mark.parametrize(
    ("host", "origin", "is_same"),
    [
        ("a.example", "https://a.example", True),
        ("A.example:443", "https://a.example", True),
        ("a.example:80", "http://a.EXAMPLE", True),
        ("a.example", "http://a.example:80", True),
        ("[::1]:443", "https://[::1]", True),
        ("a.example:443", "http://a.example", False),
        ("a.example:80", "https://a.example", False),
        ("a.example:4430", "https://a.example", False),
        ("a.example", "https://a.example:80", False),
        ("", "null", False),
    ],
)
def test_usual_ports(host: str, origin: str, is_same: bool) -> None:
    """A browser leaves them out; a proxy may put them into Host (nginx's $host:$server_port)."""
    fields = [(b"host", host.encode()), (b"origin", origin.encode())]
    assert same(fields) is is_same


def test_origins(start: Start, script: Script) -> None:
    """Whose cookies would a page of another site speak with?"""
    server = start("--ws-origin", "https://good.example", command=script(ECHO))
    here = f"http://127.0.0.1:{server.port}"
    for origin in (None, here, "https://good.example"):
        with open_ws(server, origin=origin) as client:
            client.send("x")
            assert client.recv(BOUND) == "<x>"
    for origin in ("https://evil.example", "http://good.example", here + "0", "null"):
        with pytest.raises(InvalidStatus, match="403"):
            open_ws(server, origin=origin)
    server = start("--ws-origin", "*", command=script(ECHO))
    with open_ws(server, origin="https://evil.example") as client:
        client.send("x")
        assert client.recv(BOUND) == "<x>"


def test_subprotocols_and_the_environment(start: Start, script: Script) -> None:
    names = "REQUEST_METHOD PATH_INFO QUERY_STRING REMOTE_ADDR HTTP_X_A HTTP_COOKIE HTTP_ORIGIN"
    text = f"for name in {names}; do eval echo \\$$name; done; echo ${{SECRET-none}}"
    options = ("--ws-subprotocol", "b", "--ws-subprotocol", "c", "--request-id")
    os.environ["SECRET"] = "s"
    try:
        server = start(*options, command=script(text))
    finally:
        del os.environ["SECRET"]
    with open_ws(
        server,
        "/a%20b?c=d",
        subprotocols=["a", "c", "b"],
        additional_headers={"X-A": "1", "Cookie": "d=e"},
    ) as client:
        assert client.subprotocol == "c"
        received = [client.recv(BOUND) for _ in range(8)]
        assert received == ["GET", "/a b", "c=d", "127.0.0.1", "1", "d=e", "", "none"]
    with open_ws(server, subprotocols=["x"], additional_headers={"X-Request-Id": "mine"}) as client:
        assert client.subprotocol is None
        assert client.response is not None
        assert client.response.headers["X-Request-Id"] == "mine"


def test_overload(start: Start, script: Script) -> None:
    server = start("--max-inflight", "1", "--queue", "0", command=script(ECHO))
    with open_ws(server), pytest.raises(InvalidStatus, match="503"):
        open_ws(server)
    server = start("--max-inflight", "1", "--queue", "1", command=script(ECHO))
    with open_ws(server) as first, server.connect() as second:
        second.get("/", *HELLO, KEY)
        first.close()
        assert second.read_head().status == 101


def test_silent_clients(start: Start, script: Script, tmp_path: Path) -> None:
    """One that answers pings stays; one that does not is cut off."""
    out = tmp_path / "out"
    text = f'echo $$ > "$1"; {ECHO}'

    def cut_off(ping: str) -> bool:
        """False: before its process had said which it is."""
        server = start("--ws-ping", ping, command=script(text, out))
        with server.connect() as dead:
            dead.get("/", *HELLO, KEY)
            assert dead.read_head().status == 101
            assert dead.read_exactly(2) == b"\x89\x00"
            assert dead.ended()
        poll(lambda: not children(server.pid), "the process's end")
        return out.exists() and not alive(written(out))

    def stays(ping: str) -> bool:
        """False: it was itself too slow."""
        server = start("--ws-ping", ping, command=script(text, out))
        with open_ws(server, ping_interval=None) as client:
            try:
                with pytest.raises(TimeoutError):
                    client.recv(5 * seconds_in(ping))  # which answers its pings
                client.send("alive")
                return client.recv(BOUND) == "<alive>"
            except ConnectionClosed:
                return False

    assert any(cut_off(ping) for ping in longer_times())
    assert any(stays(ping) for ping in longer_times())


def test_pings_without_end(start: Start, script: Script) -> None:
    """A client that only asks and never reads costs no memory: the last answer will do."""
    server = start(command=script("exec sleep 60"))
    with server.connect() as client:
        client.get("/", *HELLO, KEY)
        assert client.read_head().status == 101
        before = resident(server.pid)
        ping = b"\x89\xfd\0\0\0\0" + b"x" * 125
        for _ in range(400):
            client.send(ping * 500)
        client.send(b"\x89\x84\0\0\0\0last")
        assert resident(server.pid) - before < 16 << 20
        assert client.read_until(b"last")
        client.send(b"\x88\x80\0\0\0\0")
        assert client.read_exactly(2) == b"\x88\x00"


def test_workers_and_routes(start: Start, script: Script) -> None:
    """Under one limit, beside other modes, and the server's end is told."""
    server = start(
        *("--workers", "2", "--max-inflight-total", "3", "--queue", "0"),
        *("--route", "/ws/{name}=sh -c 'echo $1; exec cat' sh {name}"),
        command=("cat",),
    )
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(open_ws(server, f"/ws/{i}")) for i in range(3)]
        assert [client.recv(BOUND) for client in clients] == ["0", "1", "2"]
        with pytest.raises(InvalidStatus, match="503"):
            open_ws(server)
        server.signal(signal.SIGTERM)
        assert [end_of(client)[0] for client in clients] == [1001] * 3
    assert server.wait() == 0


def test_end_while_one_waits_for_its_turn(start: Start) -> None:
    """It is not opened at last, to be cut off when the server's time is up."""
    server = start("--max-inflight", "1", "--metrics-path", "/metrics", command=("cat",))
    with open_ws(server) as first, server.connect() as second:
        second.get("/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
        poll(lambda: b'_queued{route="/{...}"} 1.0' in server.get("/metrics").body, "a queue")
        server.signal(signal.SIGTERM)
        assert end_of(first)[0] == 1001
        answer = second.read()
        assert (answer.status, answer.fields["retry-after"]) == (503, "1")
        assert second.ended()
    assert server.wait() == 0


def test_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(settings.SettingsError, match=r"fastspawn\[ws\]"):
        settings.resolve({"mode": "ws", "loop": "asyncio"}, {})
