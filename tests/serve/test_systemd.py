"""Socket activation and sd_notify, with what systemd would do done here."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.conftest import Serve
from serve.harness import BOUND, Client, Server

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])

ACTIVATE = """
import os, sys
count = len(sys.argv[1].split(","))
# Upwards and out of the way first: one may be where another belongs.
held = [os.dup2(int(fd), 100 + i) for i, fd in enumerate(sys.argv[1].split(","))]
for i, fd in enumerate(held):
    os.dup2(fd, 3 + i)
    os.close(fd)
os.environ |= {"LISTEN_PID": str(os.getpid() + int(sys.argv[2])), "LISTEN_FDS": str(count)}
os.execv(sys.argv[3], sys.argv[3:])
"""


class Manager:
    """The service manager's socket."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.settimeout(BOUND)
        self.sock.bind(address.replace("@", "\0"))

    def hear(self) -> dict[str, str]:
        """The next message."""
        return dict(line.split("=", 1) for line in self.sock.recv(4096).decode().splitlines())


# Abstract names are Linux's.
@pytest.fixture(params=["file", *(["abstract"] if sys.platform == "linux" else [])])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Manager]:
    at = tmp_path / "notify" if request.param == "file" else f"@fastspawn-{os.getpid()}"
    address = str(at)
    made = Manager(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    yield made
    made.sock.close()


def quiet(manager: Manager) -> bool:
    """It hears no more. Waits for that."""
    try:
        while manager.hear():
            pass
    except TimeoutError:
        return True
    return False


@WORKERS
def test_notify(start: Serve, manager: Manager, tmp_path: Path, workers: str) -> None:
    path = tmp_path / "serve.toml"
    path.write_text("command = ['env']\n")
    server = start("--config", str(path), "--workers", workers, command=())
    pid = str(server.pid)
    assert manager.hear() == {"READY": "1", "MAINPID": pid}
    # Commands hear nothing of it.
    assert b"NOTIFY_SOCKET" not in server.get().body
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    for text in ("command = ['echo', 'new']\n", "nonsense"):
        path.write_text(text)
        server.signal(signal.SIGHUP)
        heard = manager.hear()
        assert heard["RELOADING"] == "1"
        assert before <= int(heard["MONOTONIC_USEC"]) <= time.clock_gettime_ns(1) // 1000
        assert manager.hear() == {"READY": "1", "MAINPID": pid}
    server.signal(signal.SIGTERM)
    assert manager.hear() == {"STOPPING": "1"}
    assert server.wait() == 0


@WORKERS
def test_watchdog(
    start: Serve, manager: Manager, workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    server = start("--workers", workers)
    assert "READY" in manager.hear()
    for _ in range(3):
        assert manager.hear() == {"WATCHDOG": "1"}
    os.kill(server.pid, signal.SIGSTOP)
    manager.sock.settimeout(0.5)
    assert quiet(manager)
    os.kill(server.pid, signal.SIGCONT)


def test_watchdog_of_another_process(
    start: Serve, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    server = start()
    assert "READY" in manager.hear()
    server.signal(signal.SIGTERM)
    assert manager.hear() == {"STOPPING": "1"}
    assert server.wait() == 0


def test_nobody_listens(start: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    server = start()
    assert server.get().body == b"hi\n"


@WORKERS
def test_socket_activation(start: Serve, tmp_path: Path, workers: str) -> None:
    """Two sockets, of which one is a file that stays when the server goes."""
    path = tmp_path / "activated"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        fds = (tcp.fileno(), unix.fileno())
        server = start(
            "--workers",
            workers,
            command=("env",),
            where=(),
            pass_fds=fds,
            prefix=(sys.executable, "-c", ACTIVATE, ",".join(map(str, fds)), "0"),
        )
        assert server.port == tcp.getsockname()[1]
        server.says(f"unix:{path}")
        body = server.get().body
        assert b"LISTEN_" not in body
        with Client(socket.socket(socket.AF_UNIX)) as client:
            client.sock.connect(str(path))
            client.get()
            assert client.read().status == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert path.exists()


def test_sockets_meant_for_another_process(start: Serve, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        server = start(
            pass_fds=(tcp.fileno(),),
            prefix=(sys.executable, "-c", ACTIVATE, str(tcp.fileno()), "1"),
        )
        assert server.port != tcp.getsockname()[1]
        assert server.get().body == b"hi\n"


def test_mode_of_a_unix_socket(start: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server: Server = start("--uds-mode", "620", where=("--uds", str(path)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o620
    with Client(socket.socket(socket.AF_UNIX)) as client:
        client.sock.connect(str(path))
        client.get()
        assert client.read().body == b"hi\n"
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not path.exists()
