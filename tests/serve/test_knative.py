"""Behind Knative's queue-proxy, as it stands before every container of a revision: its probes, its
limit of concurrency, and its drain.

It is the command ``queue`` of Knative Serving, where that is on PATH.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import needs
from netspace import apart
from serve.harness import BOUND, Client, poll

QUEUE = shutil.which("queue")
pytestmark = needs.have(QUEUE, "no queue-proxy of Knative")

PORT, SERVED, ADMIN = 8080, 8012, 8022
CONCURRENCY, DEPTH = 2, 20
"""Requests that run at once; that wait: ten times as many (buildBreaker in its main.go)."""
ENVIRON = {
    "CONTAINER_CONCURRENCY": str(CONCURRENCY),
    "QUEUE_SERVING_PORT": str(SERVED),
    "QUEUE_SERVING_TLS_PORT": "8112",
    "USER_PORT": str(PORT),
    "REVISION_TIMEOUT_SECONDS": "300",
    "SERVING_LOGGING_CONFIG": "",
    "SERVING_LOGGING_LEVEL": "info",
    "SERVING_NAMESPACE": "default",
    "SERVING_CONFIGURATION": "words",
    "SERVING_REVISION": "words-00001",
    "SERVING_POD": "words-00001-0",
    "SERVING_POD_IP": "127.0.0.1",
    "SERVING_READINESS_PROBE": '{"httpGet": {"path": "/-/ready", "host": "127.0.0.1", '
    f'"port": {PORT}, "scheme": "HTTP"}}, "successThreshold": 1}}',
}
HOLD = "echo x >> held; until [ -e go ]; do sleep 0.05; done; cat"
PROBE = ("User-Agent: kube-probe/1.36", "K-Network-Probe: queue")
"""As the kubelet is told to ask queue-proxy, which then asks the container."""


@contextmanager
def running(
    folder: Path, words: list[str], environ: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"said-{len(words)}").open("wb") as said:
        process = subprocess.Popen(
            words, env=os.environ | environ, cwd=folder, stdout=said, stderr=said
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ours(folder: Path) -> list[str]:
    options = "--ready-path /-/ready --keep-alive-timeout 100s"  # Go's client keeps them for 90 s
    return [sys.executable, "-m", "fastspawn.serve", *options.split(), "--", "sh", "-c", HOLD]


def connect(port: int = SERVED) -> Client:
    return Client(socket.create_connection(("127.0.0.1", port), BOUND))


def ready() -> bool:
    try:
        with connect() as client:
            client.get("/", *PROBE)
            return client.read().status == 200
    except OSError:
        return False


def held(folder: Path) -> int:
    file = folder / "held"
    return len(file.read_text()) // 2 if file.exists() else 0


def test_probes_and_concurrency(tmp_path: Path) -> None:
    assert QUEUE is not None

    def work() -> None:
        with running(tmp_path, [QUEUE], ENVIRON), ExitStack() as stack:
            poll(lambda: "Starting queue-proxy" in (tmp_path / "said-1").read_text(), "a start")
            assert not ready()
            stack.enter_context(running(tmp_path, ours(tmp_path), {"PORT": str(PORT)}))
            poll(ready, "ready")
            assert held(tmp_path) == 0  # a probe needs no process

            clients = [stack.enter_context(connect()) for _ in range(CONCURRENCY + DEPTH + 5)]
            for number, client in enumerate(clients):
                client.request("POST", "/", "Content-Length: 2", body=b"%02d" % number)

            def refused() -> list[Client]:
                found, _, _ = select.select([client.sock for client in clients], [], [], 0)
                return [client for client in clients if client.sock in found]

            poll(lambda: len(refused()) == 5, "five without a place")
            poll(lambda: held(tmp_path) == CONCURRENCY, "as many as may run")
            too_many = refused()
            for client in too_many:
                assert client.read().status == 503
            (tmp_path / "go").touch()
            for number, client in enumerate(clients):
                if client not in too_many:
                    answer = client.read()
                    assert (answer.status, answer.body) == (200, b"%02d" % number)

    apart(work)


def test_drain(tmp_path: Path) -> None:
    """As a kubelet does it: preStop asks queue-proxy whether it is done while that gets its
    SIGTERM; then ours gets its own. The half minute without requests is queue-proxy's."""
    assert QUEUE is not None

    def work() -> None:
        with (
            running(tmp_path, ours(tmp_path), {"PORT": str(PORT)}) as server,
            running(tmp_path, [QUEUE], ENVIRON) as queue,
        ):
            poll(ready, "ready")
            with connect() as client, connect(ADMIN) as stop:
                client.request("POST", "/", "Content-Length: 2", body=b"it")
                poll(lambda: held(tmp_path) == 1, "a request that runs")
                stop.sock.settimeout(2 * BOUND)
                stop.get("/wait-for-drain")
                queue.send_signal(signal.SIGTERM)
                poll(lambda: not ready(), "not ready")
                with connect() as late:
                    late.request("POST", "/", "Content-Length: 2", body=b"me")
                    poll(lambda: held(tmp_path) == 2, "one that was on its way")
                    (tmp_path / "go").touch()
                    assert [client.read().body, late.read().body] == [b"it", b"me"]
                assert stop.read().status == 200
            assert queue.wait(BOUND) == 0
            server.send_signal(signal.SIGTERM)
            assert server.wait(BOUND) == 0

    apart(work)
