"""--agent-check, asked as HAProxy asks; with a real one in tests/fleet."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest

import needs
from serve.conftest import Serve
from serve.harness import BOUND, children, poll
from serve.test_cli import assert_refused, run

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])
WAIT = 'while test ! -e "$1.go"; do sleep 0.02; done; echo done'


def ask(port: int, words: bytes = b"") -> str:
    """What it says, to the end of the stream."""
    with socket.create_connection(("127.0.0.1", port), BOUND) as sock:
        sock.sendall(words)
        return b"".join(iter(lambda: sock.recv(100), b"")).decode()


@WORKERS
def test_share(start: Serve, tmp_path: Path, workers: str) -> None:
    path = tmp_path / "may"
    server = start(
        *("--agent-check", "0", "--workers", workers, "--max-inflight", "2"),
        *("--route", f"/wait=sh {tmp_path / 'wait'} {path}"),
    )
    (tmp_path / "wait").write_text(WAIT)
    port = server.agent()
    assert ask(port) == "ready up 100%\n"
    assert ask(port, b"what one may configure it to say\n" * 10) == "ready up 100%\n"
    with server.connect() as one, server.connect() as other:
        for client in one, other:
            client.get("/wait")
        # Of two workers' four places, whosever they are.
        share = {"1": "50%", "2": "67%"}[workers]
        poll(lambda: ask(port) == f"ready up {share}\n", share)
        Path(f"{path}.go").touch()
        for client in one, other:
            assert client.read().body == b"done\n"
    poll(lambda: ask(port) == "ready up 100%\n", "the end of it")


@WORKERS
def test_of_all_places(start: Serve, tmp_path: Path, workers: str) -> None:
    """--max-inflight-total counts those of all routes and workers, and requests that wait."""
    path = tmp_path / "may"
    (tmp_path / "wait").write_text(WAIT)
    server = start(
        *("--agent-check", "127.0.0.1:0", "--workers", workers, "--max-inflight-total", "4"),
        *("--route", f"/a=sh {tmp_path / 'wait'} {path}"),
        *("--route", f"/b=sh {tmp_path / 'wait'} {path}"),
    )
    port = server.agent()
    steps = (("/a", "80%"), ("/b", ""), ("/a", ""), ("/b", ""), ("/a", "44%"))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in steps]
        for client, (target, share) in zip(clients, steps, strict=True):
            client.get(target)
            if share:
                poll(lambda share=share: ask(port) == f"ready up {share}\n", share)
        Path(f"{path}.go").touch()
        for client in clients:
            assert client.read().body == b"done\n"


@WORKERS
def test_drain(start: Serve, workers: str) -> None:
    server = start("--agent-check", "0", "--drain-delay", "1m", "--workers", workers)
    port = server.agent()
    server.signal(signal.SIGTERM)
    poll(lambda: ask(port) == "drain\n", "the word to drain")
    assert server.get().body == b"hi\n"
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


@needs.proc
def test_the_second_word_to_end_before_the_first_was_heard(start: Serve) -> None:
    """Of a worker that is busy otherwise: to it, two signals that wait are one."""
    server = start("--agent-check", "0", "--drain-delay", "1m", "--workers", "2")
    port, workers = server.agent(), list(children(server.pid))
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(2):
            server.signal(signal.SIGTERM)
            poll(lambda: ask(port) == "drain\n", "the word to drain")
            assert [ask(port) for _ in range(2)] == ["drain\n"] * 2  # by then it has heard
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    assert server.wait() == 0


def test_mistakes(start: Serve) -> None:
    for text in ("", "x", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "a b:1"):
        assert_refused(run("--agent-check", text), f"{text!r} is not [HOST:]PORT")
    server = start("--agent-check", "0")
    where = f"127.0.0.1:{server.agent()}"
    assert_refused(run("--port", "0", "--agent-check", where), f"cannot listen on {where}: ")


def test_reload(start: Serve, tmp_path: Path) -> None:
    """The port stays what it was."""
    file = tmp_path / "serve.toml"
    file.write_text("command = ['echo', 'hi']\nagent-check = '0'\n")
    server = start("--config", str(file), command=())
    file.write_text("command = ['echo', 'ho']\nagent-check = '1'\n")
    server.signal(signal.SIGHUP)
    server.says("(agent-check: not before a restart)")
    assert ask(server.agent()) == "ready up 100%\n"
