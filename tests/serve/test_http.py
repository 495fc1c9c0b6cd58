"""HTTP/1.1 and 1.0 over a real socket, to a real server process."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.harness import Server

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

# The first line, the second once a file exists.
STEPS = 'echo one; while [ ! -e "$1" ]; do sleep 0.01; done; echo two'


def test_short_answer(serve: Serve) -> None:
    server = serve("--hold", "exit")
    with server.connect() as client:
        client.get()
        answer = client.read()
        assert (answer.status, answer.version, answer.body) == (200, "HTTP/1.1", b"hi\n")
        names = {"server", "date", "content-type", "content-length", "keep-alive"}
        assert answer.fields.keys() == names
        assert answer.fields["server"] == "fastspawn"
        assert answer.fields["content-type"] == "text/plain; charset=utf-8"
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answer.fields["date"])
        # Kept alive, and each request its own process.
        client.get("/other?x=1")
        assert client.read().body == b"hi\n"


def test_each_request_has_its_own_process(serve: Serve, script: Script) -> None:
    server = serve(command=script("echo $$"))
    with server.connect() as client:
        pids = set()
        for _ in range(5):
            client.get()
            pids.add(client.read().body)
    assert len(pids) == 5


def test_empty_answer(serve: Serve) -> None:
    answer = serve(command=("true",)).get()
    assert (answer.status, answer.fields["content-length"], answer.body) == (200, "0", b"")


def test_head(serve: Serve) -> None:
    """The fields of GET."""
    server = serve("--hold", "exit")
    with server.connect() as client:
        client.request("HEAD")
        client.get()
        head = client.read(head=True)
        answer = client.read()
    assert answer.fields["content-length"] == "3"
    del head.fields["date"], answer.fields["date"]
    assert (head.status, head.fields) == (answer.status, answer.fields)
    assert answer.body == b"hi\n"


def test_head_of_a_stream(serve: Serve, script: Script, tmp_path: Path) -> None:
    """The process is ended with the head, and the next answer follows at once."""
    go = tmp_path / "go"
    server = serve(command=script(STEPS, go))
    with server.connect() as client:
        client.request("HEAD")
        head = client.read(head=True)
        assert head.fields["transfer-encoding"] == "chunked"
        go.touch()
        client.get()
        assert client.read().body == b"one\ntwo\n"
    server.logs(2)
    assert "200" in server.log()[0]


def test_http10_closes(serve: Serve) -> None:
    server = serve()
    with server.connect() as client:
        client.get(version="1.0")
        answer = client.read()
        assert (answer.status, answer.body) == (200, b"hi\n")
        assert answer.fields["connection"] == "close"
        assert client.ended()


def test_how_long_a_connection_is_kept(serve: Serve, script: Script, tmp_path: Path) -> None:
    """Whoever is told does not send its next request when the server is about to close."""
    go = tmp_path / "go"
    server = serve("--keep-alive-timeout", "7500ms", command=script(STEPS, go))
    with server.connect() as client:
        for method in ("HEAD", "GET", "GET"):
            client.request(method)
            head = client.read_head()
            assert head.fields["keep-alive"] == "timeout=7"
            go.touch()
            if method != "HEAD":
                client.read_body(head)
        client.get("/", "Connection: close")
        assert "keep-alive" not in client.read().fields
    with server.connect() as client:
        client.get("/", "Connection: keep-alive", version="1.0")
        answer = client.read()
        assert ("keep-alive" in answer.fields) == (answer.fields["connection"] == "keep-alive")


def test_http10_without_host(serve: Serve) -> None:
    server = serve()
    with server.connect() as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.read().body == b"hi\n"


def test_http10_keeps_alive_when_asked(serve: Serve) -> None:
    """Held until its length is known: what begins earlier ends with the connection."""
    server = serve("--hold", "exit")
    with server.connect() as client:
        for _ in range(2):
            client.get("/", "Connection: keep-alive", version="1.0")
            answer = client.read()
            assert answer.body == b"hi\n"
            assert answer.fields["connection"] == "keep-alive"
            assert answer.fields["content-length"] == "3"


def test_http10_stream_ends_with_the_connection(
    serve: Serve, script: Script, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    server = serve(command=script(STEPS, go))
    with server.connect() as client:
        client.get("/", "Connection: keep-alive", version="1.0")
        head = client.read_head()
        assert "transfer-encoding" not in head.fields
        assert "content-length" not in head.fields
        assert head.fields["connection"] == "close"
        assert client.read_until(b"one\n") == b"one\n"
        go.touch()
        assert client.read_to_end() == b"two\n"


def test_connection_close(serve: Serve) -> None:
    server = serve()
    with server.connect() as client:
        client.get("/", "Connection: close")
        client.send(b"GET /ignored HTTP/1.1\r\nHost: test\r\n\r\n")
        answer = client.read()
        assert answer.fields["connection"] == "close"
        assert answer.body == b"hi\n"
        assert client.ended()


def test_stream_as_it_comes(serve: Serve, script: Script, tmp_path: Path) -> None:
    go = tmp_path / "go"
    server = serve(command=script(STEPS, go))
    with server.connect() as client:
        client.get()
        head = client.read_head()
        assert head.fields["transfer-encoding"] == "chunked"
        assert "content-length" not in head.fields
        assert client.read_chunk() == b"one\n"
        go.touch()
        assert client.read_chunk() == b"two\n"
        assert client.read_chunk() == b""
        assert client.last_seen
        client.get()
        assert client.read().body == b"one\ntwo\n"


def test_long_output(serve: Serve, script: Script) -> None:
    server = serve(command=script("seq 200000"))
    expected = "".join(f"{n}\n" for n in range(1, 200001)).encode()
    with server.connect() as client:
        for _ in range(2):
            client.get()
            answer = client.read()
            assert answer.complete
            assert answer.body == expected


def test_stdin_without_a_body_is_dev_null(serve: Serve, script: Script) -> None:
    server = serve(command=script("[ /dev/stdin -ef /dev/null ] && echo null; cat"))
    assert server.get().body == b"null\n"
    with server.connect() as client:
        client.post(b"")
        assert client.read().body == b"null\n"


@pytest.mark.parametrize("size", [1, 1000, 30_000, 200_000, 3_000_000])
def test_sized_body(serve: Serve, size: int) -> None:
    server = serve(command=("cat",))
    body = (b"0123456789" * (size // 10 + 1))[:size]
    with server.connect() as client:
        for _ in range(2):
            sender = threading.Thread(target=client.post, args=(body,))
            sender.start()
            answer = client.read()
            sender.join()
            assert answer.complete
            assert answer.body == body


def test_chunked_body(serve: Serve) -> None:
    server = serve(command=("cat",))
    with server.connect() as client:
        client.request("POST", "/", "Transfer-Encoding: chunked")
        client.send(b"3\r\nabc\r\n2;ext=1\r\nde\r\n")
        client.send(b"0\r\nTrailer: ignored\r\nHost: ignored\r\n\r\n")
        assert client.read().body == b"abcde"
        client.get()
        assert client.read().body == b""


def test_body_and_answer_interleaved(serve: Serve) -> None:
    """Each bit reaches the process as it comes, and its answer the client, before the next."""
    server = serve(command=("cat",))
    with server.connect() as client:
        client.request("POST", "/", "Content-Length: 9", body=b"one")
        assert client.read_head().fields["transfer-encoding"] == "chunked"
        assert client.read_chunk() == b"one"
        client.send(b"two")
        assert client.read_chunk() == b"two"
        client.send(b"end")
        assert client.read_chunk() == b"end"
        assert client.read_chunk() == b""
        client.post(b"again")
        assert client.read().body == b"again"


def test_100_continue(serve: Serve) -> None:
    server = serve(command=("cat",))
    with server.connect() as client:
        for _ in range(2):
            client.request("POST", "/", "Content-Length: 5", "Expect: 100-continue")
            assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"hello")
            answer = client.read()
            assert (answer.status, answer.body) == (200, b"hello")


def test_100_continue_is_not_sent_when_the_body_is_there(serve: Serve) -> None:
    server = serve(command=("cat",))
    with server.connect() as client:
        client.post(b"hello", "Expect: 100-continue")
        answer = client.read()
        assert (answer.status, answer.body) == (200, b"hello")


def test_100_continue_waits_for_its_turn(serve: Serve, script: Script, tmp_path: Path) -> None:
    go = tmp_path / "go"
    server = serve(command=script(STEPS + "; cat", go))
    with server.connect() as client:
        client.get()
        client.request("POST", "/", "Content-Length: 5", "Expect: 100-continue")
        client.read_head()
        assert client.read_chunk() == b"one\n"
        go.touch()
        assert client.read_chunk() == b"two\n"
        assert client.read_chunk() == b""
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        assert client.read().body == b"one\ntwo\nhello"


def test_100_continue_is_not_sent_with_a_refusal(serve: Serve) -> None:
    server = serve("--max-body", "4", command=("cat",))
    with server.connect() as client:
        client.request("POST", "/", "Content-Length: 5", "Expect: 100-continue")
        assert client.read().status == 413
        assert client.ended()


def test_expectation_in_http10_is_ignored(serve: Serve) -> None:
    server = serve(command=("cat",))
    with server.connect() as client:
        client.post(b"hello", "Expect: 100-continue", version="1.0")
        assert client.read().body == b"hello"


def test_unknown_expectation(serve: Serve) -> None:
    server = serve()
    with server.connect() as client:
        client.get("/", "Expect: a-miracle")
        assert client.read().status == 417
        assert client.ended()


def test_pipelining_in_order(serve: Serve) -> None:
    server = serve(command=("cat",))
    bodies = [f"request {n}".encode() for n in range(40)]
    with server.connect() as client:
        client.send(
            b"".join(
                b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                for body in bodies
            )
        )
        assert [client.read().body for _ in bodies] == bodies


def test_pipelining_far_ahead(serve: Serve) -> None:
    """More than is read in advance, and nothing of the answers read before all are sent."""
    server = serve(command=("head", "-c", "20000", "/dev/zero"))
    count = 400
    request = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
    with server.connect() as client:
        client.send(request * (count - 1) + request.replace(b"\r\n\r\n", b"\r\nX: y\r\n\r\n"))
        for _ in range(count):
            answer = client.read()
            assert (answer.status, len(answer.body)) == (200, 20000)
        client.get()
        assert client.read().status == 200


def test_request_in_small_pieces(serve: Serve) -> None:
    server = serve(command=("cat",))
    request = b"POST /some/path HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello"
    with server.connect() as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n in range(len(request)):
            client.send(request[n : n + 1])
        assert client.read().body == b"hello"


def test_upgrade_is_ignored(serve: Serve) -> None:
    server = serve(command=("cat",))
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    with server.connect() as client:
        client.post(b"one", *upgrade)
        client.get("/", *upgrade)
        client.request("POST", "/", "Transfer-Encoding: chunked", *upgrade)
        client.send(b"3\r\ntwo\r\n0\r\n\r\n")
        client.post(b"three")
        assert [client.read().body for _ in range(4)] == [b"one", b"", b"two", b"three"]


def test_shut_sending_side_still_gets_its_answer(serve: Serve) -> None:
    server = serve(command=("cat",))
    with server.connect() as client:
        client.post(b"hello")
        client.sock.shutdown(socket.SHUT_WR)
        answer = client.read()
        assert (answer.status, answer.body) == (200, b"hello")
        assert client.ended()


def test_shut_sending_side_behind_pipelined_requests(serve: Serve) -> None:
    server = serve(command=("cat",))
    with server.connect() as client:
        for n in range(30):
            client.post(b"%d" % n)
        client.sock.shutdown(socket.SHUT_WR)
        assert [client.read().body for _ in range(30)] == [b"%d" % n for n in range(30)]
        assert client.ended()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_shut_sending_side_before_a_slow_answer(
    serve: Serve, script: Script, tmp_path: Path, version: str
) -> None:
    """The answer begins late, with the probe ahead of it, and streams."""
    go, more = tmp_path / "go", tmp_path / "more"
    wait = 'while [ ! -e "$1" ]; do sleep 0.01; done; shift; '
    server = serve(command=script(wait + "echo one; " + wait + "echo two", go, more))
    with server.connect() as client:
        client.get(version=version)
        client.sock.shutdown(socket.SHUT_WR)
        # Seen only by a server that has noticed the end.
        assert client.sock.recv(1, socket.MSG_PEEK) == b"H"
        go.touch()
        head = client.read_head()
        assert head.status == 200
        if version == "1.1":
            assert client.read_chunk() == b"one\n"
            more.touch()
            assert client.read_chunk() == b"two\n"
            assert client.read_chunk() == b""
            assert client.last_seen
        else:
            assert client.read_until(b"one\n") == b"one\n"
            more.touch()
            assert client.read_to_end() == b"two\n"
        assert client.ended()


def test_shut_sending_side_within_a_stream(serve: Serve, script: Script, tmp_path: Path) -> None:
    go = tmp_path / "go"
    server = serve(command=script(STEPS, go))
    with server.connect() as client:
        client.get()
        client.read_head()
        assert client.read_chunk() == b"one\n"
        client.sock.shutdown(socket.SHUT_WR)
        # The next chunk's size begins with a zero, which changes nothing.
        while not client.buffer:
            client.fill()
        assert client.buffer == b"0"
        go.touch()
        assert client.read_chunk() == b"two\n"
        assert client.read_chunk() == b""
        assert client.last_seen
        assert client.ended()


def test_answer_before_the_end_of_the_request(serve: Serve) -> None:
    """The command does not read; the answer does not wait, and is not lost to a reset."""
    server = serve()
    with server.connect() as client:
        client.request("POST", "/", "Content-Length: 100000000", body=b"x" * 1_000_000)
        answer = client.read()
        assert (answer.status, answer.body) == (200, b"hi\n")
        assert client.ended()


def test_stderr(serve: Serve, script: Script) -> None:
    command = script("echo out; echo err >&2")
    server = serve("--stderr", "inherit", command=command)
    assert server.get().body == b"out\n"
    server.says("err\n")
    server = serve("--stderr", "discard", command=command)
    assert server.get().body == b"out\n"
    assert "err\n" not in server.errors()
    server = serve("--stderr", "merge", command=command)
    assert server.get().body == b"out\nerr\n"


def test_content_type_and_cwd(serve: Serve, tmp_path: Path) -> None:
    options = ("--content-type", "application/json", "--cwd", str(tmp_path))
    answer = serve(*options, command=("pwd",)).get()
    assert answer.fields["content-type"] == "application/json"
    assert answer.body == str(tmp_path.resolve()).encode() + b"\n"
