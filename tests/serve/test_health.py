"""--health-path, --ready-path and --drain-delay."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastspawn.serve.cli import UsageError, parse
from serve.conftest import Serve
from serve.harness import Client, Server, children, longer_times, poll, seconds_in

PATHS = ("--health-path", "/-/health", "--ready-path", "/-/ready")
HOLD = 'echo $$ > "$1.new"; mv "$1.new" "$1"; exec sleep 60'


@pytest.mark.parametrize("options", [(), ("--workers", "2"), ("--route", "/x=echo x")])
def test_answers(serve: Serve, options: tuple[str, ...]) -> None:
    server = serve(*PATHS, *options)
    with server.connect() as client:
        for target, body in (
            ("/-/health", b"ok\n"),
            ("/-/ready?full", b"ready\n"),
            ("http://any/-/ready?full", b"ready\n"),
            ("/", b"hi\n"),
        ):
            client.get(target)
            answer = client.read()
            assert (answer.status, answer.body) == (200, body)
        client.request("HEAD", "/-/health")
        answer = client.read(head=True)
        assert (answer.status, answer.fields["content-length"]) == (200, "3")
        assert answer.fields["cache-control"] == "no-store"
        client.request("DELETE", "/-/health")
        answer = client.read()
        assert (answer.status, answer.fields["allow"]) == (405, "GET, HEAD")
        client.get("/-/healthy")
        assert client.read().body == b"hi\n"
    server.logs(3)


def test_with_a_body(serve: Serve) -> None:
    server = serve(*PATHS)
    with server.connect() as client:
        client.request("GET", "/-/health", "Content-Length: 3", body=b"abc")
        assert client.read().body == b"ok\n"
        client.get()
        assert client.read().body == b"hi\n"
    with server.connect() as client:
        # The body is not waited for.
        client.request("GET", "/-/health", "Content-Length: 3", body=b"a")
        assert client.read().fields["connection"] == "close"


def test_while_every_place_is_taken(
    serve: Serve, script: Callable[..., tuple[str, ...]], tmp_path: Path
) -> None:
    server = serve(
        *PATHS, "--max-inflight", "1", "--queue", "0", command=script(HOLD, tmp_path / "pid")
    )
    with server.connect() as client:
        client.get()
        poll((tmp_path / "pid").exists, "a process's start")
        assert server.get().status == 503
        assert server.get("/-/health").body == b"ok\n"
        assert server.get("/-/ready").body == b"ready\n"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_drain_delay(serve: Serve, workers: str) -> None:
    """Whoever asks hears of it, while requests are still answered."""

    def told(server: Server) -> bool:
        """False: it was over before all had been asked."""
        try:
            poll(lambda: server.get("/-/ready").status == 503, "not ready")
            return server.get("/-/health").status == 200 and server.get().body == b"hi\n"
        except (ConnectionError, AssertionError):
            return False

    for delay in longer_times(0.6):
        server = serve(*PATHS, "--drain-delay", delay, "--workers", workers)
        started = time.monotonic()
        server.signal(signal.SIGTERM)
        heard = told(server)
        assert server.wait() == 0
        assert time.monotonic() - started >= seconds_in(delay)
        if heard:
            break
    assert heard


@pytest.mark.parametrize("workers", ["1", "2"])
def test_connections_end_within_the_delay(serve: Serve, workers: str) -> None:
    """Each with its next answer, which says so, before any is closed."""
    server = serve(*PATHS, "--drain-delay", "1h", "--workers", workers)
    with server.connect() as idle, server.connect() as fresh:
        idle.get()
        assert "connection" not in idle.read().fields
        server.signal(signal.SIGTERM)
        poll(lambda: server.get("/-/ready").status == 503, "not ready")
        if workers == "2":  # each hears of it by itself
            poll(lambda: server.get().fields.get("connection") == "close", "word of it")
        for client in (idle, fresh):
            last_answer(client)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def last_answer(client: Client) -> None:
    """Each is whole until one says that it is the connection's last."""
    closing = False
    while not closing:
        client.post(b"")
        answer = client.read()
        assert answer.body == b"hi\n"
        closing = answer.fields.get("connection") == "close"
    assert client.ended()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_has_connected_is_answered(serve: Serve, workers: str) -> None:
    """Though the server was told to stop before it had accepted any of them."""
    server = serve("--workers", workers, command=("cat",))
    processes = [server.pid, *(children(server.pid) if workers == "2" else ())]
    with contextlib.ExitStack() as stack:
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        clients = [stack.enter_context(server.connect()) for _ in range(300)]
        for client in clients:
            client.post(b"mine")
        server.signal(signal.SIGTERM)
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
        for client in clients:
            answer = client.read()
            assert (answer.status, answer.body) == (200, b"mine")
    assert server.wait() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_second_signal_ends_the_delay(start: Serve, workers: str) -> None:
    server = start(*PATHS, "--drain-delay", "1h", "--workers", workers)
    server.signal(signal.SIGTERM)
    poll(lambda: server.get("/-/ready").status == 503, "not ready")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--health-path", "health"), "'health' is not a URL's path"),
        (("--health-path", "/a?b"), "'/a?b' is not a URL's path"),
        (("--health-path", "/a", "--ready-path", "/a"), "--health-path and --ready-path are the"),
        (("--uds", "x", "--uds-mode", "rw"), "'rw' is not a mode such as 660"),
    ],
)
def test_refused_options(options: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why.replace("?", r"\?")):
        parse(options, {})
