"""The units of docs/operation.md, by a systemd that is really there."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from fleet.fleet import block
from fleet.systemd import Systemd, documented, systemd, units
from serve.harness import BOUND, Client, poll
from support import LINUX

pytestmark = pytest.mark.skipif(not LINUX, reason="systemd is Linux's")

ACTIVATE = shutil.which("systemd-socket-activate")
ANALYZE = shutil.which("systemd-analyze")
CONFIG = """
mode = "raw"
metrics-path = "/metrics"
command = ["sh", "-c", "echo $$; sleep 0.3; echo done"]
[[route]]
path = "/direct"
command = ["cat"]
[[route]]
path = "/snapshot"
strategy = "snapshot"
snapshot-at = "main"
command = ["cat"]
[[route]]
path = "/reset"
strategy = "reset"
snapshot-at = "main"
command = ["cat"]
[[route]]
path = "/warm"
strategy = "warm"
command = ["cat"]
"""


def address(host: str) -> tuple[str, int]:
    return host, 8001


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Systemd]:
    pytest.importorskip("prometheus_client")
    config = tmp_path / "config"
    config.mkdir()
    (config / "fastspawn.toml").write_text(CONFIG)
    folder = tmp_path / "units"
    folder.mkdir()
    for path in (tmp_path, config, folder):
        path.chmod(0o755)
    units(folder, f"{block()}.50:8001", config / "fastspawn.toml")
    with systemd(folder) as found:
        if found is None:
            pytest.skip("no systemd can be started here")
        yield found


def client() -> Client:
    return Client(socket.create_connection(address(f"{block()}.50"), BOUND))


def get(target: str = "/", body: bytes = b"") -> str:
    with client() as one:
        one.request("POST", target, f"Content-Length: {len(body)}", body=body)
        answer = one.read()
        assert answer.status == 200, answer
        return answer.body.decode()


def test_hardened(manager: Systemd) -> None:
    """Every strategy works as it does without; the server starts with the first request."""
    manager.did("start", "fastspawn.socket")
    for _ in range(3):
        for target in ("/direct", "/snapshot", "/reset", "/warm"):
            assert get(target, b"hello") == "hello", manager.said()
    with client() as one:
        one.get("/metrics")
        figures = one.read().body.decode()
    strategies = dict(re.findall(r'route_info{route="/(\w+)".*?strategy="(\w+)"} 1', figures))
    assert {name: strategies[name] for name in ("direct", "snapshot", "reset", "warm")} == {
        name: name for name in ("direct", "snapshot", "reset", "warm")
    }, (figures, manager.said())
    resets = re.search(r'resets_total{route="/reset"} (\S+)', figures)
    assert resets is not None, manager.said()
    assert float(resets[1]) >= 1
    assert "template_miss" not in "".join(
        line for line in figures.splitlines() if not line.endswith(" 0.0")
    )


def test_restart(manager: Systemd) -> None:
    """What runs is finished, and who comes meanwhile waits."""
    manager.did("start", "fastspawn.socket", "fastspawn.service")
    answers: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(get())

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        poll(lambda: answers, "an answer")
        for _ in range(2):
            before = len(answers)
            manager.did("restart", "fastspawn.service")
            poll(lambda before=before: len(answers) > before + 3, "answers of the new one")
    finally:
        stop.set()
        for asker in askers:
            asker.join(BOUND)
    assert {answer.split()[-1] for answer in answers} == {"done"}


def test_a_server_for_each_core(manager: Systemd) -> None:
    """On one port, and each on its own core."""
    manager.did("start", "fastspawn@0.socket", "fastspawn@0.service")
    assert get("/direct", b"hello") == "hello"
    allowed = re.search(r"MainPID=(\d+)", manager.did("show", "-p", "MainPID", "fastspawn@0"))
    assert allowed is not None
    status = subprocess.check_output(
        ["nsenter", "-t", str(manager.pid), "-m", "-p", "cat", f"/proc/{allowed[1]}/status"],
        text=True,
    )
    assert "Cpus_allowed_list:\t0\n" in status
    manager.did("start", "fastspawn@1.socket")
    manager.did("stop", "fastspawn@0.service", "fastspawn@0.socket")
    poll(lambda: get("/direct", b"hello") == "hello", "an answer of the other one")


@needs.have(ANALYZE, "no systemd-analyze")
def test_exposure(tmp_path: Path) -> None:
    """As systemd judges it, of 10."""
    assert ANALYZE is not None
    file = tmp_path / "fastspawn.service"
    unit = documented()["fastspawn.service"]
    file.write_text(unit.replace("/srv/venv/bin/fastspawn-serve", "/bin/true"))
    done = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--threshold=20", "--no-pager", file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


@needs.have(ACTIVATE, "no systemd-socket-activate")
def test_socket_activate(tmp_path: Path) -> None:
    """systemd's own tool: the server starts with the first connection, which it answers."""
    assert ACTIVATE is not None
    host = f"{block()}.51"
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [ACTIVATE, "-l", f"{host}:8001", sys.executable, "-m", "fastspawn.serve"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        poll(lambda: "Listening on" in log.read_text(), "its socket")
        with Client(socket.create_connection(address(host), BOUND)) as one:
            one.get()
            assert one.read().body == b"hi\n"
        assert f"serving `echo hi` on http://{host}:8001" in log.read_text()
    finally:
        process.terminate()
        process.wait(BOUND)
