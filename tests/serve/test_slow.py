"""Clients that stop in the middle: with their request's body, or with reading its answer."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

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
    seconds_in,
)

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

HOLD = 'echo $$ > "$1.new"; mv "$1.new" "$1"; exec sleep 60'
POURS = 'echo $$ > "$1.new"; mv "$1.new" "$1"; exec cat /dev/zero'


def pid_in(path: Path) -> int:
    poll(path.exists, "a process's start")
    return int(path.read_text())


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 1000\r\n\r\nsome",
        b"Content-Length: 1000\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nso",
    ],
)
def test_body_that_does_not_come(serve: Serve, script: Script, tmp_path: Path, body: bytes) -> None:
    held = tmp_path / "pid"
    server = serve("--body-timeout", "500ms", command=script(HOLD, held))
    with server.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: test\r\n" + body)
        response = client.read()
        assert (response.status, response.fields["connection"]) == (408, "close")
        assert client.ended()
    poll(lambda: not children(server.pid), "the process's end")
    assert not held.exists() or not alive(pid_in(held))


def test_body_that_does_not_come_within_the_answer(serve: Serve) -> None:
    """It breaks off: no last chunk."""
    for timeout in longer_times():
        server = serve("--body-timeout", timeout, command=("cat",))
        with server.connect() as client:
            client.request("POST", "/", "Content-Length: 1000", body=b"some")
            response = client.read()
        if response.status != 408:
            break
    assert (response.status, response.body, response.complete) == (200, b"some", False)
    poll(lambda: not children(server.pid), "the process's end")


def test_body_that_the_process_does_not_take(serve: Serve, script: Script) -> None:
    """The client waits for us: that time is not its own."""
    body = bytes(4 << 20)
    for timeout in longer_times():
        command = script(f"sleep {3 * seconds_in(timeout)}; wc -c")
        server = serve("--body-timeout", timeout, command=command)
        with server.connect() as client:
            try:
                client.post(body)
                response = client.read()
            except OSError:  # cut off while it sent
                continue
        if response.status != 408:
            break
    assert (response.status, int(response.body)) == (200, len(body))


def test_body_that_was_not_yet_asked_for(serve: Serve, script: Script, tmp_path: Path) -> None:
    """With Expect: 100-continue nobody sends before there is a place."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    command = script('read -r x < "$1"; cat', gate)

    def ask(timeout: str) -> Response:
        server = serve("--max-inflight", "1", "--body-timeout", timeout, command=command)
        with server.connect() as first, server.connect() as second:
            first.get()
            with gate.open("wb", buffering=0) as out:  # when the first one runs
                second.request("POST", "/", "Content-Length: 2", "Expect: 100-continue")
                # For longer than a body may take, nothing is said.
                second.sock.settimeout(3 * seconds_in(timeout))
                with pytest.raises(TimeoutError):
                    second.fill()
                second.sock.settimeout(BOUND)
                out.write(b"\n")
            assert first.read().status == 200
            assert second.read_head().status == 100
            second.send(b"ok")
            # Opened for both, as nobody may open the other end any more: the body may be late.
            with open(os.open(gate, os.O_RDWR), "wb", buffering=0) as out:
                out.write(b"\n")
                return second.read()

    for timeout in longer_times():
        response = ask(timeout)
        if response.status != 408:
            break
    assert (response.status, response.body) == (200, b"ok")


def test_body_of_a_request_behind_another(serve: Serve, script: Script, tmp_path: Path) -> None:
    text = 'mkdir "$1" && sleep 2 && echo hi || exec sleep 60'  # which says nothing to the second
    server = serve("--body-timeout", "500ms", command=script(text, tmp_path / "first"))
    with server.connect() as client:
        client.get()
        client.request("POST", "/", "Content-Length: 1000", body=b"some")
        assert client.read().body == b"hi\n"
        assert client.read().status == 408
        assert client.ended()


def test_no_limit_for_the_body(serve: Serve) -> None:
    server = serve("--body-timeout", "none", command=("cat",))
    with server.connect() as client:
        client.request("POST", "/", "Content-Length: 8", body=b"some")
        client.read_head()
        assert client.read_chunk() == b"some"
        client.send(b"more")
        assert client.read_chunk() == b"more"


def slow_client(server: Server) -> Client:
    """With a small window, so that little is on its way."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    sock.connect(("127.0.0.1", server.port))
    return Client(sock)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_answer_that_is_not_read(
    serve: Serve, script: Script, tmp_path: Path, version: str
) -> None:
    """Long before --exec-timeout."""
    held = tmp_path / "pid"
    server = serve("--send-timeout", "1s", "--max-inflight", "1", command=script(POURS, held))
    before = fds(server.pid)
    with slow_client(server) as client:
        client.get(version=version)
        pid = pid_in(held)
        poll(lambda: not alive(pid), "the process's end")
        poll(lambda: fds(server.pid) <= before, "the connection's end")
        with pytest.raises((ConnectionResetError, EOFError)):  # noqa: PT012
            while client.fill():
                client.buffer = b""
            raise EOFError
    held.unlink()
    with server.connect() as client:  # there is a place again
        client.get()
        pid_in(held)


def test_end_of_an_answer_that_is_not_read(serve: Serve, script: Script, tmp_path: Path) -> None:
    """The process is over, and the connection closed with bytes unsent: that is no reason to keep
    it for ever."""
    held = tmp_path / "pid"
    for timeout in longer_times():
        server = serve(
            *("--send-timeout", f"{4 * seconds_in(timeout)}s", "--exec-timeout", timeout),
            *("--kill-grace", "0"),
            command=script(POURS, held),
        )
        before = fds(server.pid)
        with slow_client(server) as client:
            client.get()
            poll(lambda server=server: held.exists() or server.log(), "the process, or its end")
            if not held.exists():
                continue
            pid = pid_in(held)
            poll(lambda pid=pid: not alive(pid), "the process's end")
            poll(lambda s=server, n=before: fds(s.pid) <= n, "the connection's end", 4 * BOUND)
        break
    assert held.exists()


def test_drain_with_an_answer_that_is_not_read(
    serve: Serve, script: Script, tmp_path: Path
) -> None:
    """A stalled client does not hold up the server's end for all its grace."""
    held = tmp_path / "pid"
    server = serve("--send-timeout", "1s", "--graceful-timeout", "5m", command=script(POURS, held))
    with slow_client(server) as client:
        client.get()
        pid_in(held)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_slow_reader_is_served(serve: Serve, script: Script, tmp_path: Path) -> None:
    """Whoever takes a little now and then is no stalled client."""
    held = tmp_path / "pid"

    def served(timeout: str) -> bool:
        server = serve("--send-timeout", timeout, command=script(POURS, held))
        with slow_client(server) as client:
            client.get()
            pid = pid_in(held)
            held.unlink()
            end = time.monotonic() + 3 * seconds_in(timeout)
            while time.monotonic() < end:
                try:
                    if not client.sock.recv(16384):
                        return False
                except ConnectionResetError:
                    return False
                time.sleep(0.05)  # the client's pace
            return alive(pid)

    assert any(served(timeout) for timeout in longer_times(2))


def test_answer_to_a_body_that_was_not_read(serve: Serve) -> None:
    """What comes of the request is thrown away for a while, and the answer still can be read."""
    size = 200_000
    server = serve(command=("head", "-c", str(size), "/dev/zero"))
    with slow_client(server) as client:
        client.request("POST", "/", "Content-Length: 1000000", body=b"some")
        poll(lambda: not children(server.pid), "the process's end")
        time.sleep(7)  # the client's pace
        client.send(bytes(1000))
        response = client.read_head()
        assert response.status == 200
        assert client.read_body(response).complete
        assert len(response.body) == size


@pytest.mark.parametrize("part", ["target", "field", "fields"])
def test_head_limit(start: Serve, part: str) -> None:
    server = start("--max-head", "16k", "--body-timeout", "5s")

    def ask(size: int) -> int:
        texts = {
            "target": ("/" + "a" * size,),
            "field": ("/", "X: " + "a" * size),
            "fields": ("/", *(f"X{i}: {'a' * 93}" for i in range(size // 100))),
        }
        with server.connect() as client:
            client.get(*texts[part])
            return client.read_head().status

    assert ask(12_000) == 200
    assert ask(24_000) == 431
    assert server.get().status == 200
