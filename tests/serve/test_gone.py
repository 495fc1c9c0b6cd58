"""Clients that go away, at every stage: the process group is killed and reaped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import needs
from serve.harness import BOUND, Client, Server, alive, asleep, children, longer_times, poll
from support import listens

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

HOLD = 'echo $$ > "$1.new"; mv "$1.new" "$1"; exec sleep 60'

Leave = Callable[[Client], None]


@pytest.fixture(params=["close", "reset"])
def leave(request: pytest.FixtureRequest) -> Leave:
    """How the client goes: orderly, which looks like the end of its requests, or not."""
    if request.param == "close":
        return lambda client: client.sock.close()
    return lambda client: client.reset()


def pid_in(path: Path) -> int:
    poll(path.exists, "a process's start")
    return int(path.read_text())


def assert_gone(server: Server, pid: int) -> None:
    poll(lambda: not alive(pid), "the process's end")
    poll(lambda: not children(server.pid), "its reaping")
    assert "Traceback" not in server.errors()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_while_the_process_runs(
    serve: Serve, script: Script, tmp_path: Path, leave: Leave, version: str
) -> None:
    held = tmp_path / "pid"
    server = serve(command=script(HOLD, held))
    with server.connect() as client:
        client.get(version=version)
        pid = pid_in(held)
        leave(client)
    assert_gone(server, pid)
    held.unlink()
    with server.connect() as client:
        client.get(version=version)
        pid_in(held)


def test_within_a_stream(serve: Serve, script: Script, tmp_path: Path, leave: Leave) -> None:
    held = tmp_path / "pid"
    server = serve(command=script("echo one; " + HOLD, held))
    with server.connect() as client:
        client.get()
        client.read_head()
        assert client.read_chunk() == b"one\n"
        pid = pid_in(held)
        leave(client)
    assert_gone(server, pid)


def test_within_a_fast_stream(serve: Serve, script: Script, tmp_path: Path, leave: Leave) -> None:
    held = tmp_path / "pid"
    server = serve(command=script(HOLD.replace("sleep 60", "cat /dev/zero"), held))
    with server.connect() as client:
        client.get()
        client.read_head()
        pid = pid_in(held)
        leave(client)
    assert_gone(server, pid)


def test_within_a_stream_that_is_not_read(
    serve: Serve, script: Script, tmp_path: Path, leave: Leave
) -> None:
    held = tmp_path / "pid"
    command = script(HOLD.replace("sleep 60", "cat /dev/zero"), held)
    server = serve("--max-inflight", "1", command=command)
    with server.connect() as client:
        client.get()
        client.read_head()
        pid = pid_in(held)
        # Until nothing fits any more, and the server waits for us.
        poll(lambda: asleep(server), "backpressure")
        leave(client)
    assert_gone(server, pid)
    assert_place_is_free(server, held)


def assert_place_is_free(server: Server, held: Path) -> None:
    """The next request's process starts. (Nobody leaves the queue before 30 seconds.)"""
    held.unlink()
    with server.connect() as client:
        client.get()
        pid_in(held)


CGI_PLAIN = "printf 'Content-Type: text/plain\\n\\none\\n'"
CGI_SIZED = "printf 'Content-Type: text/plain\\nContent-Length: 100\\n\\none\\n'"
NPH = "printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 100\\r\\n\\r\\none\\n'"
UNPROBED = {
    # name: (mode, version, the script's name, the beginning of its output)
    "HTTP/1.0": ("raw", "1.0", "quiet", "echo one"),
    "CGI and HTTP/1.0": ("cgi", "1.0", "quiet", CGI_PLAIN),
    "CGI with a length": ("cgi", "1.1", "quiet", CGI_SIZED),
    "CGI that speaks HTTP": ("cgi", "1.1", "nph-quiet", NPH),
}
"""Answers within which nothing can be sent that the client would not take for theirs."""


def write_script(tmp_path: Path, name: str, text: str) -> tuple[str, ...]:
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return (str(path), str(tmp_path / "pid"))


@pytest.mark.parametrize("way", UNPROBED)
def test_where_nothing_can_be_sent_ahead(
    serve: Serve, tmp_path: Path, leave: Leave, way: str
) -> None:
    mode, version, name, text = UNPROBED[way]
    command = write_script(tmp_path, name, f"{text}; {HOLD}")
    server = serve("--mode", mode, "--exec-timeout", "none", command=command)
    with server.connect() as client:
        client.get(version=version)
        client.read_head()
        assert client.read_until(b"one\n") == b"one\n"
        pid = pid_in(tmp_path / "pid")
        leave(client)
    assert_gone(server, pid)
    poll(lambda: " 499 " in " ".join(server.log()), "a line that says so")


@pytest.mark.parametrize("way", UNPROBED)
def test_shut_side_of_a_client_that_is_sent_more(serve: Serve, tmp_path: Path, way: str) -> None:
    """It may only have shut its sending side: what it still takes goes on."""
    mode, version, name, text = UNPROBED[way]
    steps = "; ".join('while [ ! -e "$1" ]; do sleep 0.01; done; rm "$1"; echo more' for _ in "abc")
    command = write_script(tmp_path, name, f"{text}; {steps}")
    server = serve("--mode", mode, command=command)
    with server.connect() as client:
        client.get(version=version)
        client.read_head()
        client.read_until(b"one\n")
        client.sock.shutdown(socket.SHUT_WR)
        for _ in "abc":
            (tmp_path / "pid").touch()
            assert client.read_until(b"more\n") == b"more\n"


@pytest.mark.parametrize("mode", ["raw", "cgi"])
@pytest.mark.parametrize("rest", ["exec sleep 60", "exec cat /dev/zero"])
def test_endless_output_for_a_head(serve: Serve, tmp_path: Path, mode: str, rest: str) -> None:
    """The head is the answer, and the client, still there, may ask again."""
    # It may be ended as soon as there is a head.
    text = HOLD.replace("exec sleep 60", f"{CGI_PLAIN}; {rest}")
    command = write_script(tmp_path, "script", text)
    server = serve(
        *("--mode", mode, "--exec-timeout", "none", "--max-inflight", "1", "--metrics-path", "/m"),
        command=command,
    )
    with server.connect() as client:
        for _ in range(3):
            client.request("HEAD")
            head = client.read(head=True)
            assert (head.status, head.fields.get("connection")) == (200, None)
            assert_gone(server, pid_in(tmp_path / "pid"))
            (tmp_path / "pid").unlink()
    server.logs(3)
    assert [line.split()[8] for line in server.log()] == ["200"] * 3
    assert b'reason="head",route="/{...}"} 3.0' in server.get("/m").body


NGINX = needs.which("nginx")

NGINX_CONF = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/t1;
    proxy_temp_path {directory}/t2;
    fastcgi_temp_path {directory}/t3;
    uwsgi_temp_path {directory}/t4;
    scgi_temp_path {directory}/t5;
    server {{
        listen unix:{directory}/nginx.sock;
        location / {{
            proxy_pass http://127.0.0.1:{port};
            proxy_http_version 1.0;
        }}
    }}
}}
"""


@needs.program("nginx")
@pytest.mark.parametrize("begun", [False, True])
def test_behind_nginx_with_http_10(
    serve: Serve, script: Script, tmp_path: Path, begun: bool
) -> None:
    """It closes its connection to us when its client has left. What comes slowly it passes on at
    once, since we say so; by HTTP/1.1 it would in any case."""
    held = tmp_path / "pid"
    command = script(("echo one; " if begun else "") + HOLD, held)
    server = serve("--exec-timeout", "none", command=command)
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX_CONF.format(directory=tmp_path, port=server.port))
    assert NGINX is not None
    with subprocess.Popen([NGINX, "-p", str(tmp_path), "-c", str(config)]) as nginx:
        try:
            path = tmp_path / "nginx.sock"
            poll(lambda: listens(path), "nginx")
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(BOUND)
                sock.connect(str(path))
                client = Client(sock)
                client.get()
                if begun:
                    client.read_until(b"one\n")
                pid = pid_in(held)
            assert_gone(server, pid)
        finally:
            nginx.terminate()
    poll(lambda: " 499 " in " ".join(server.log()), "a line that says so")


VANISHED = Path(__file__).parent.parent / "children" / "vanished.py"


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces")
def test_a_client_whose_link_is_down(tmp_path: Path) -> None:
    """No FIN, no reset: in no mode does the process stay."""
    inside = ("unshare", "--net", "--user", "--map-root-user")
    try:
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a network namespace")
    done = subprocess.run(
        [*inside, sys.executable, str(VANISHED), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(VANISHED.parent.parent)},
    )
    assert (done.returncode, done.stdout) == (0, "all are gone\n"), done.stderr


def test_within_the_body(serve: Serve, script: Script, tmp_path: Path, leave: Leave) -> None:
    held = tmp_path / "pid"
    server = serve(command=script(HOLD, held))
    with server.connect() as client:
        client.request("POST", "/", "Content-Length: 1000", body=b"some")
        pid = pid_in(held)
        leave(client)
    assert_gone(server, pid)


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@pytest.mark.parametrize("whole", [True, False])
def test_within_a_body_that_is_not_read(
    serve: Serve, script: Script, tmp_path: Path, leave: Leave, framing: str, whole: bool
) -> None:
    """The server has stopped reading: it must notice all the same."""
    held = tmp_path / "pid"
    server = serve(command=script(HOLD, held))
    with server.connect() as client:
        if framing == "sized":
            client.request("POST", "/", "Content-Length: 1000000000000")
            data = b"x" * 100_000
        else:
            client.request("POST", "/", "Transfer-Encoding: chunked")
            data = b"ffff\r\n" + b"x" * 65535 + b"\r\n"
        pid = pid_in(held)
        client.sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while True:
                client.send(data)
        leave(client)
    assert_gone(server, pid)
    assert whole in (True, False)


def test_before_its_turn(serve: Serve, script: Script, tmp_path: Path, leave: Leave) -> None:
    """A request that waits in the queue is dropped from it."""
    held, trace = tmp_path / "pid", tmp_path / "trace"
    command = script('cat >> "$2"; ' + HOLD, held, trace)
    server = serve("--max-inflight", "1", command=command)
    with server.connect() as first, server.connect() as second, server.connect() as third:
        first.post(b"first,")
        pid = pid_in(held)
        held.unlink()
        second.post(b"second,")
        third.post(b"third,")
        # All that shows that the server has both: what a shut sending side is answered with.
        leave(second)
        third.sock.shutdown(1)
        assert third.sock.recv(1, 2) == b"H"
        poll(lambda: "499" in " ".join(server.log()), "a line for the second")
        first.sock.close()
        poll(lambda: not alive(pid), "the first process's end")
        pid = pid_in(held)
        assert trace.read_text() == "first,third,"
    assert_gone(server, pid)


def test_with_pipelined_requests(
    serve: Serve, script: Script, tmp_path: Path, leave: Leave
) -> None:
    held = tmp_path / "pid"
    server = serve(command=script(HOLD, held))
    with server.connect() as client:
        for _ in range(5):
            client.get()
        pid = pid_in(held)
        leave(client)
    assert_gone(server, pid)


def test_the_whole_group(serve: Serve, script: Script, tmp_path: Path, leave: Leave) -> None:
    held, other = tmp_path / "pid", tmp_path / "other"
    server = serve(command=script('sh -c "$3" sh "$2" & ' + HOLD, held, other, HOLD))
    with server.connect() as client:
        client.get()
        pid, descendant = pid_in(held), pid_in(other)
        leave(client)
    assert_gone(server, pid)
    poll(lambda: not alive(descendant), "the descendant's end")


def test_process_that_ignores_term(serve: Serve, script: Script, tmp_path: Path) -> None:
    held = tmp_path / "pid"
    command = script("trap '' TERM; " + HOLD.replace("exec sleep 60", "sleep 60 & wait"), held)
    server = serve("--kill-grace", "200ms", command=command)
    with server.connect() as client:
        client.get()
        pid = pid_in(held)
    assert_gone(server, pid)


def test_killed_process_that_is_not_read(serve: Serve, script: Script, tmp_path: Path) -> None:
    """TERM makes it write more than anyone will take."""
    held = tmp_path / "pid"
    command = script(
        "trap 'head -c 1000000 /dev/zero; exit' TERM; "
        + HOLD.replace("exec sleep 60", "cat /dev/zero & wait"),
        held,
    )
    server = serve("--kill-grace", "300ms", "--max-inflight", "1", command=command)
    with server.connect() as client:
        client.get()
        client.read_head()
        pid = pid_in(held)
        poll(lambda: asleep(server), "backpressure")
    assert_gone(server, pid)
    assert_place_is_free(server, held)


def test_idle_connections_are_closed(serve: Serve) -> None:
    for timeout in longer_times():
        server = serve("--keep-alive-timeout", timeout)
        with server.connect() as fresh, server.connect() as used:
            answered = used.answered()
            assert fresh.ended()
            assert used.ended()
        if answered:
            break
    assert answered


def test_slow_head(serve: Serve) -> None:
    server = serve("--header-timeout", "500ms")
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: te")
        answer = client.read()
        assert (answer.status, answer.fields["connection"]) == (408, "close")
        assert client.ended()
    with server.connect() as client:
        # A byte now and then does not help.
        started = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - started < BOUND:
                client.send(b"G" if client.sock.gettimeout() == 0.05 else b"GET / HTTP/1.1\r\nX: ")
                client.sock.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    if not client.fill() or client.buffer:
                        break
        assert client.buffer.startswith(b"HTTP/1.1 408 ")


def test_a_server_that_is_killed_says_nothing_of_a_client(serve: Serve) -> None:
    server = serve()
    with server.connect() as client:
        client.get()
        assert client.read().status == 200
        server.signal(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        assert client.ended()
