"""What becomes of a request that can't be answered as it should."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.harness import BOUND, Client, Server, alive, children, longer_times, poll

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

# Writes its pid to a file, whole, then sleeps in the same process.
HOLD = 'echo $$ > "$1.new"; mv "$1.new" "$1"; exec sleep 60'


def test_exit_status(serve: Serve, script: Script) -> None:
    server = serve(command=script("exit 3"))
    with server.connect() as client:
        client.get()
        answer = client.read()
        assert answer.status == 500
        assert answer.body == b"500 Internal Server Error: the command exited with status 3\n"
        # The connection is none the worse for it.
        client.get()
        assert client.read().status == 500
        client.request("HEAD")
        assert client.read(head=True).status == 500


def test_killed_by_a_signal(serve: Serve, script: Script) -> None:
    answer = serve(command=script("kill -KILL $$")).get()
    assert answer.status == 500
    assert b"killed by signal 9" in answer.body


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_failure_within_a_stream_breaks_it(
    serve: Serve, script: Script, tmp_path: Path, version: str
) -> None:
    go = tmp_path / "go"
    wait = 'while [ ! -e "$1" ]; do sleep 0.01; done; '
    server = serve(command=script("echo one; " + wait + "echo last; exit 1", go))
    with server.connect() as client:
        client.get(version=version)
        assert client.read_head().status == 200
        if version == "1.1":
            assert client.read_chunk() == b"one\n"
            go.touch()
            assert client.read_chunk() == b"last\n"
            assert client.read_chunk() == b""
            assert not client.last_seen
        else:
            assert client.read_until(b"one\n") == b"one\n"
            go.touch()
            # An orderly end would look like a whole body.
            with pytest.raises(ConnectionResetError):
                client.read_to_end()


def test_deadline(serve: Serve, script: Script, tmp_path: Path) -> None:
    held = tmp_path / "pid"
    for timeout in longer_times():
        server = serve("--exec-timeout", timeout, command=script(HOLD, held))
        assert server.get().status == 504
        if held.exists():
            break
    with server.connect() as client:
        pid = int(held.read_text())
        assert not alive(pid)
        client.get()
        assert client.read().status == 504


def test_deadline_within_a_stream(serve: Serve, script: Script) -> None:
    for timeout in longer_times():
        server = serve("--exec-timeout", timeout, command=script("echo one; exec sleep 60"))
        answer = server.get()
        if answer.status == 200:
            break
    assert (answer.status, answer.body, answer.complete) == (200, b"one\n", False)


def test_deadline_of_a_process_that_ignores_term(
    serve: Serve, script: Script, tmp_path: Path
) -> None:
    held = tmp_path / "pid"
    command = script("trap '' TERM; " + HOLD.replace("exec sleep 60", "sleep 60 & wait"), held)
    for timeout in longer_times():
        server = serve("--exec-timeout", timeout, "--kill-grace", "200ms", command=command)
        assert server.get().status == 504
        if held.exists():
            break
    assert not alive(int(held.read_text()))


def test_command_gone_since_the_start(serve: Serve, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho hi\n")
    program.chmod(0o755)
    server = serve(command=(str(program),))
    assert server.get().body == b"hi\n"
    program.unlink()
    with server.connect() as client:
        for _ in range(3):
            client.get()
            answer = client.read()
            assert answer.status == 500
            assert b"No such file" in answer.body
    program.write_text("#!/bin/sh\necho back\n")
    program.chmod(0o755)
    assert server.get().body == b"back\n"


def test_queue_full(serve: Serve, script: Script, tmp_path: Path) -> None:
    held = tmp_path / "pid"
    server = serve("--max-inflight", "1", "--queue", "0", command=script(HOLD, held))
    with server.connect() as first, server.connect() as client:
        first.get()
        poll(held.exists, "the first request's process")
        for _ in range(2):
            client.get()
            answer = client.read()
            assert answer.status == 503
            assert answer.fields["retry-after"] == "1"
        # With a body that is still on its way, the connection can't go on.
        client.request("POST", "/", "Content-Length: 1000000")
        answer = client.read()
        assert answer.status == 503
        assert answer.fields["connection"] == "close"
        assert client.ended()


def test_queue_timeout(serve: Serve, script: Script, tmp_path: Path) -> None:
    held = tmp_path / "pid"
    server = serve(
        *("--max-inflight", "1", "--queue", "2", "--queue-timeout", "300ms"),
        command=script(HOLD, held),
    )
    with server.connect() as first, server.connect() as second, server.connect() as third:
        first.get()
        poll(held.exists, "the first request's process")
        second.get()
        third.get()
        for client in (second, third):
            answer = client.read()
            assert answer.status == 503
            assert "retry-after" in answer.fields


def test_queue_in_order(serve: Serve, script: Script, tmp_path: Path) -> None:
    go, order = tmp_path / "go", tmp_path / "order"
    command = script(
        'while [ ! -e "$1" ]; do sleep 0.01; done; cat >> "$2"; echo >> "$2"', go, order
    )
    server = serve("--max-inflight", "1", command=command)
    clients: list[Client] = []
    try:
        for n in range(5):
            clients.append(server.connect())
            clients[-1].post(b"%d" % n)
            # It is there, and waits: only then the next.
            poll(lambda: len(children(server.pid)) == 1, "one process")
            assert clients[-1].sock.getsockname()
        go.touch()
        for client in clients:
            assert client.read().status == 200
    finally:
        for client in clients:
            client.sock.close()
    assert sorted(order.read_text().split()) == ["0", "1", "2", "3", "4"]


def test_body_too_large(serve: Serve) -> None:
    server = serve("--max-body", "1k", command=("cat",))
    with server.connect() as client:
        client.post(b"x" * 1024)
        assert client.read().status == 200
        client.post(b"x" * 1025)
        answer = client.read()
        assert (answer.status, answer.fields["connection"]) == (413, "close")
        assert client.ended()


def test_chunked_body_too_large(serve: Serve, script: Script, tmp_path: Path) -> None:
    held = tmp_path / "pid"
    server = serve("--max-body", "1k", command=script(HOLD, held))
    with server.connect() as client:
        client.request("POST", "/", "Transfer-Encoding: chunked")
        client.send(b"10\r\n0123456789abcdef\r\n")
        poll(held.exists, "a process that waits for the rest")
        client.send(b"3f1\r\n" + b"x" * 1009 + b"\r\n")
        answer = client.read()
        assert (answer.status, answer.fields["connection"]) == (413, "close")
        assert client.ended()
    pid = int(held.read_text())
    poll(lambda: not alive(pid), "the process's end")


def test_output_too_long(serve: Serve) -> None:
    server = serve("--max-output", "1k", command=("head", "-c", "1025", "/dev/zero"))
    answer = server.get()
    assert answer.status == 500 or not answer.complete
    server = serve("--max-output", "1k", command=("head", "-c", "1024", "/dev/zero"))
    assert server.get().status == 200
    server = serve("--max-output", "1M", command=("cat", "/dev/zero"))
    with server.connect() as client:
        client.get()
        answer = client.read()
        assert answer.status == 200
        assert not answer.complete
        assert len(answer.body) <= 1 << 20
    poll(lambda: not children(server.pid), "the process's end")


def test_descendant_that_keeps_stdout(serve: Serve, script: Script, tmp_path: Path) -> None:
    """The answer is complete when the command has exited, whatever it has left behind."""
    held = tmp_path / "pid"
    server = serve(command=script("echo hi; (" + HOLD + ") & exit 0", held))
    answer = server.get()
    assert (answer.status, answer.body) == (200, b"hi\n")
    assert answer.complete


def test_binary_and_long_fields_survive(serve: Serve) -> None:
    body = bytes(range(256)) * 100
    server = serve(command=("cat",))
    with server.connect() as client:
        client.post(body, "X-Long: " + "x" * 30_000)
        assert client.read().body == body


def test_slow_reader_holds_the_process(serve: Serve, script: Script, tmp_path: Path) -> None:
    """An unread answer stops the process by its pipe, not the server's memory."""
    done = tmp_path / "done"
    command = script('head -c 30000000 /dev/zero && echo > "$1"', done)
    server = serve(command=command)
    with server.connect() as client:
        client.get()
        client.read_head()
        assert not done.exists()
        received = 0
        while chunk := client.read_chunk():
            received += len(chunk)
        assert received == 30_000_000
        assert client.last_seen
    assert done.exists()


def test_many_at_once(serve: Serve, script: Script) -> None:
    """Answers are not crossed."""
    server = serve(command=("cat",))
    wrong: list[object] = []

    def run(number: int) -> None:
        with server.connect() as client:
            for n in range(20):
                body = b"%d-%d" % (number, n) * (1 + n * 500)
                client.post(body)
                if (answer := client.read()).body != body:
                    wrong.append(answer)

    workers = [threading.Thread(target=run, args=(n,)) for n in range(10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(BOUND)
    assert not wrong
