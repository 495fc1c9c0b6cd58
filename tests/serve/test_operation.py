"""Starting, stopping, workers, sockets, logs."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import needs
from fastspawn.serve.config.model import Config
from fastspawn.serve.host.listen import ListenError, adopt, listen, name
from fastspawn.serve.host.worker import Worker
from serve.harness import BOUND, Client, Server, alive, children, poll

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

HOLD = 'echo $$ > "$1.new"; mv "$1.new" "$1"; exec sleep 60'
WAIT = 'echo $$ > "$2.new"; mv "$2.new" "$2"; while [ ! -e "$1" ]; do sleep 0.01; done; echo done'


def pid_in(path: Path) -> int:
    poll(path.exists, "a process's start")
    return int(path.read_text())


def refuses(server: Server) -> bool:
    try:
        server.connect().sock.close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def connect_unix(path: Path) -> Client:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return Client(sock)


# ---- stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_server_stops_at_once(serve: Serve, number: int) -> None:
    server = serve("--graceful-timeout", "none", "--keep-alive-timeout", "1h")
    with server.connect() as idle, server.connect() as fresh:
        idle.get()
        assert idle.read().status == 200
        server.signal(number)
        assert server.wait() == 0
        assert idle.ended()
        assert fresh.ended()
    server.says("\n", 1)


def test_drain(serve: Serve, script: Script, tmp_path: Path) -> None:
    """What has been asked for is answered, nothing new is accepted, then exit 0."""
    go, held = tmp_path / "go", tmp_path / "pid"
    server = serve("--max-inflight", "1", command=script(WAIT, go, held))
    with server.connect() as running, server.connect() as queued:
        running.get()
        pid_in(held)
        queued.get()
        # Both of the second connection's requests are in: the server has seen its end.
        queued.sock.shutdown(socket.SHUT_WR)
        assert queued.sock.recv(1, socket.MSG_PEEK) == b"H"
        server.signal(signal.SIGTERM)
        poll(lambda: refuses(server), "an end of accepting")
        go.touch()
        for client in (running, queued):
            answer = client.read()
            assert (answer.status, answer.body) == (200, b"done\n")
            assert client.ended()
        assert server.wait() == 0


def test_drain_ends_with_its_timeout(serve: Serve, script: Script, tmp_path: Path) -> None:
    held = tmp_path / "pid"
    server = serve("--graceful-timeout", "300ms", command=script(HOLD, held))
    with server.connect() as client:
        client.get()
        pid = pid_in(held)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert client.ended()
    assert not alive(pid)


def test_second_signal_cancels(serve: Serve, script: Script, tmp_path: Path) -> None:
    held = tmp_path / "pid"
    server = serve("--graceful-timeout", "none", command=script(HOLD, held))
    with server.connect() as client:
        client.get()
        pid = pid_in(held)
        server.signal(signal.SIGTERM)
        poll(lambda: refuses(server), "an end of accepting")
        assert server.process.poll() is None
        server.signal(signal.SIGINT)
        assert server.wait() == 0
    assert not alive(pid)


def test_cancelled_process_that_ignores_term(serve: Serve, script: Script, tmp_path: Path) -> None:
    held = tmp_path / "pid"
    command = script("trap '' TERM; " + HOLD.replace("exec sleep 60", "sleep 60 & wait"), held)
    server = serve("--graceful-timeout", "0", "--kill-grace", "200ms", command=command)
    with server.connect() as client:
        client.get()
        pid = pid_in(held)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert not alive(pid)


def test_stream_is_drained(serve: Serve, script: Script, tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = script('echo one; while [ ! -e "$1" ]; do sleep 0.01; done; echo two', go)
    server = serve(command=command)
    with server.connect() as client:
        client.get()
        client.read_head()
        assert client.read_chunk() == b"one\n"
        server.signal(signal.SIGTERM)
        poll(lambda: refuses(server), "an end of accepting")
        go.touch()
        assert client.read_chunk() == b"two\n"
        assert client.read_chunk() == b""
        assert client.last_seen
        assert client.ended()
        assert server.wait() == 0


# ---- workers


def worker_pids(server: Server) -> set[int]:
    return {pid for pid, state in children(server.pid).items() if not state.startswith("Z")}


def test_workers_share_the_port(serve: Serve, script: Script) -> None:
    server = serve("--workers", "2", command=script("echo $PPID"))
    server.says(", 2 workers, ")
    workers = worker_pids(server)
    assert len(workers) == 2
    # The kernel picks one for each connection.
    seen: set[int] = set()
    for _ in range(100):
        seen.add(int(server.get().body))
        if seen == workers:
            break
    assert seen == workers
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not any(alive(pid) for pid in workers)
    server.says("\n", 1)


def test_worker_is_replaced(serve: Serve) -> None:
    server = serve("--workers", "2")
    before = worker_pids(server)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    poll(lambda: len(worker_pids(server) - {victim}) == 2, "another worker")
    server.says("killed by signal 9: starting another")
    # Its port was never closed: not one connection is refused, whoever answers.
    for _ in range(50):
        assert server.get().body == b"hi\n"


@needs.linux
def test_worker_for_which_there_is_no_room(start: Serve) -> None:
    """The others serve, and it is started when there is."""
    server = start("--workers", "2")
    before = worker_pids(server)
    usual = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, usual[1]))
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    poll(lambda: "cannot start worker" in server.errors(), "word of it")
    server.signal(signal.SIGUSR2)
    poll(lambda: "not restarted: cannot start worker" in server.errors(), "word of it")
    assert worker_pids(server) == before - {victim}
    # The port of the one that has gone was never closed.
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, usual)
    poll(lambda: len(worker_pids(server)) == 2, "another worker")
    for _ in range(20):
        assert server.get().body == b"hi\n"


def test_the_time_before_another_try_has_a_bound() -> None:
    worker = Worker(1, [])
    worker.failures = 5000
    worker.put_off()
    assert worker.due - time.monotonic() <= 5.0


def test_worker_that_keeps_failing_is_not_restarted_in_a_hurry(start: Serve) -> None:
    server = start("--workers", "1", "--no-access-log")  # for comparison: no supervisor
    assert not worker_pids(server)
    server = start("--workers", "2")
    started = time.monotonic()
    dead: set[int] = set()

    def kill() -> bool:
        for pid in worker_pids(server):
            dead.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(dead) >= 10

    poll(kill, "ten deaths")
    # Not before 0, 0.1, 0.3, 0.7 and 1.5 seconds, for two workers.
    assert time.monotonic() - started >= 1.5
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_workers_drain(serve: Serve, script: Script, tmp_path: Path) -> None:
    go, held = tmp_path / "go", tmp_path / "pid"
    server = serve("--workers", "2", command=script(WAIT, go, held))
    with server.connect() as client:
        client.get()
        pid_in(held)
        # As from a terminal: to all of the foreground process group. Workers are not in it.
        server.signal(signal.SIGINT)
        poll(lambda: refuses(server), "an end of accepting")
        go.touch()
        assert client.read().body == b"done\n"
        assert server.wait() == 0


def test_workers_second_signal(serve: Serve, script: Script, tmp_path: Path) -> None:
    held = tmp_path / "pid"
    server = serve("--workers", "2", "--graceful-timeout", "none", command=script(HOLD, held))
    with server.connect() as client:
        client.get()
        pid = pid_in(held)
        server.signal(signal.SIGTERM)
        poll(lambda: refuses(server), "an end of accepting")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert not alive(pid)


def test_workers_leave_with_a_killed_supervisor(serve: Serve) -> None:
    server = serve("--workers", "2")
    workers = worker_pids(server)
    assert len(workers) == 2
    server.signal(signal.SIGKILL)
    server.wait()
    poll(lambda: not any(alive(pid) for pid in workers), "the workers' end")


def test_workers_on_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = serve("--workers", "2", where=("--uds", str(path)))
    for _ in range(10):
        with connect_unix(path) as client:
            client.get()
            assert client.read().body == b"hi\n"
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not path.exists()


# ---- sockets


def test_unix_socket(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = serve(where=("--uds", str(path)))
    server.says(f"on unix:{path} (")
    assert stat.S_ISSOCK(path.stat().st_mode)
    with connect_unix(path) as client:
        client.get()
        assert client.read().body == b"hi\n"
    poll(server.log, "a line")
    assert server.log()[0].startswith("- - - [")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not path.exists()


def test_unix_socket_of_another_that_accepts_nobody(tmp_path: Path) -> None:
    """It is in use, however many wait there."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as other, contextlib.ExitStack() as waiting:
        other.bind(path)
        other.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = waiting.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(path)
        with pytest.raises(ListenError, match="Address already in use"):
            listen(Config(host=(), uds=path))


def test_client_gone_on_a_unix_socket(serve: Serve, script: Script, tmp_path: Path) -> None:
    path, held = tmp_path / "socket", tmp_path / "pid"
    serve(command=script(HOLD, held), where=("--uds", str(path)))
    with connect_unix(path) as client:
        client.get()
        pid = pid_in(held)
    poll(lambda: not alive(pid), "the process's end")


def test_stale_unix_socket_is_replaced(start: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start(where=("--uds", str(path)))
    server.signal(signal.SIGKILL)
    server.wait()
    assert path.exists()
    start(where=("--uds", str(path)))
    with connect_unix(path) as client:
        client.get()
        assert client.read().status == 200


def test_inherited_socket(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = serve(where=("--fd", str(sock.fileno())), pass_fds=(sock.fileno(),))
        assert server.port == sock.getsockname()[1]
        assert server.get().body == b"hi\n"


@needs.linux
def test_an_abstract_socket_has_a_name() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(b"\0fastspawn-%d" % os.getpid())
        assert name(sock) == f"unix:@fastspawn-{os.getpid()}"


@needs.linux
def test_an_inherited_socket_that_is_of_neither_kind() -> None:
    try:
        other = socket.socket(socket.AF_VSOCK)
    except OSError as error:
        pytest.skip(f"vsock(7): {error.strerror}")
    with pytest.raises(ListenError, match="neither TCP nor Unix"):
        adopt(other.detach(), 1)


def test_processes_do_not_inherit_sockets(serve: Serve, script: Script) -> None:
    """Neither the listening one nor any client's."""
    command = script("for fd in 3 4 5 6 7 8 9; do [ -e /dev/fd/$fd ] && echo $fd; done; exit 0")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = serve(
            where=("--fd", str(sock.fileno())), pass_fds=(sock.fileno(),), command=command
        )
        bare = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        with server.connect() as client:
            client.get()
            assert client.read().body == bare


def test_localhost_on_all_its_addresses(serve: Serve) -> None:
    server = serve("--host", "localhost")
    for family, _, _, _, address in socket.getaddrinfo(
        "localhost", server.port, type=socket.SOCK_STREAM
    ):
        with socket.socket(family) as sock:
            sock.settimeout(BOUND)
            try:
                sock.connect(address)
            except OSError:
                # No such address on this machine.
                assert family == socket.AF_INET6
                continue
            client = Client(sock)
            client.get()
            assert client.read().body == b"hi\n"


# ---- the log


LINE = re.compile(
    r"127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
    r'"(?P<request>[^"]*)" (?P<status>\d{3}) (?P<sent>\d+) '
    r"exit=(?P<exit>-|-?\d+) wall=(?:-|[\d.]+ms)"
)


def test_access_log(serve: Serve) -> None:
    server = serve(
        "--max-body", "9", command=("sh", "-c", "n=$(cat); [ ${n:-0} = 0 ] || exit $n; echo $n")
    )
    with server.connect() as client:
        client.post(b"0")
        assert client.read().status == 200
        client.post(b"7")
        assert client.read().status == 500
        client.request("HEAD", '/a"b\\c?d=1')
        assert client.read(head=True).status == 200
        client.post(b"0", "Connection: close", version="1.0")
        assert client.read().status == 200
    with server.connect() as client:
        client.post(b"too much of it")
        assert client.read().status == 413
    with server.connect() as client:
        client.send(b"nonsense\r\n\r\n")
        assert client.read().status == 400
    server.logs(6)
    rows = []
    for line in server.log():
        found = LINE.fullmatch(line)
        assert found is not None, line
        rows.append((found["request"], found["status"], found["exit"]))
    # With its head out, the process of a HEAD may be ended before it ends.
    assert rows[2][2] in ("0", "-15")
    assert rows == [
        ("POST / HTTP/1.1", "200", "0"),
        ("POST / HTTP/1.1", "500", "7"),
        (r"HEAD /a\x22b\x5cc?d=1 HTTP/1.1", "200", rows[2][2]),
        ("POST / HTTP/1.0", "200", "0"),
        ("POST / HTTP/1.1", "413", "-"),
        ("- - HTTP/1.1", "400", "-"),
    ]


def test_client_that_leaves_is_logged(serve: Serve, script: Script, tmp_path: Path) -> None:
    held = tmp_path / "pid"
    server = serve(command=script(HOLD, held))
    with server.connect() as client:
        client.get()
        pid_in(held)
    poll(server.log, "a line")
    found = LINE.fullmatch(server.log()[0])
    assert found is not None
    assert (found["status"], found["exit"]) == ("499", "-15")


def test_no_access_log(serve: Serve) -> None:
    server = serve("--no-access-log")
    assert server.get().status == 200
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert server.log() == []


def test_log_that_can_not_be_written(start: Serve, tmp_path: Path) -> None:
    """Its reader has gone: the server goes on."""
    reader, writer = os.pipe()
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "fastspawn.serve", "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=errors,
        )
    try:
        os.close(writer)
        os.close(reader)
        stderr = tmp_path / "errors"
        poll(lambda: " on " in stderr.read_text(), "a start")
        found = re.search(r":(\d+) ", stderr.read_text())
        assert found is not None
        with Client(socket.create_connection(("127.0.0.1", int(found[1])))) as client:
            for _ in range(5):
                client.get()
                assert client.read().status == 200
                time.sleep(0.03)  # for the line to be written
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND) == 0
        assert "Traceback" not in stderr.read_text()
    finally:
        process.kill()
        process.wait()
