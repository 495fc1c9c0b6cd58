"""The pool strategy: children of workers."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serve.harness import BOUND, Server, alive, children, longer_times, poll

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

EXAMPLES = Path(__file__).parents[2] / "examples" / "workers"
WORKERS = [f"{sys.executable} {EXAMPLES / 'python' / 'worker.py'}"]
if shutil.which("node"):
    WORKERS.append(f"node {EXAMPLES / 'node' / 'worker.js'}")


@pytest.fixture
def pool(start: Serve, loop: str) -> Serve:
    return lambda *options, **more: start(
        "--strategy", "pool", "--pool-size", "2", "--loop", loop, *options, **more
    )


def pid_in(path: Path) -> int:
    poll(path.exists, "a process's start")
    return int(path.read_text())


HOLD = 'echo $$ > "$1.new"; mv "$1.new" "$1"; sleep 60'


def test_it_answers(pool: Serve, script: Script) -> None:
    server = pool(command=script('echo "$PPID"; cat'))
    with server.connect() as client:
        seen = set()
        for text in (b"a", b"b" * 300_000, b""):
            client.post(text)
            answer = client.read()
            parent, _, rest = answer.body.partition(b"\n")
            assert (answer.status, rest) == (200, text)
            seen.add(int(parent))
        assert seen <= set(children(server.pid))
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_a_body_that_comes_slowly(pool: Serve) -> None:
    server = pool(command=("cat",))
    with server.connect() as client:
        client.request("POST", "/", "Transfer-Encoding: chunked")
        client.send(b"3\r\none\r\n")
        client.read_head()
        assert client.read_chunk() == b"one"
        client.send(b"3\r\ntwo\r\n0\r\n\r\n")
        assert client.read_chunk() == b"two"
        assert client.read_chunk() == b""


def test_deadline_and_errors(pool: Serve, script: Script) -> None:
    command = script("read x; case $x in sleep) sleep 60;; *) exit $x;; esac")
    for timeout in longer_times():
        server = pool("--exec-timeout", timeout, "--kill-grace", "100ms", command=command)
        statuses = []
        with server.connect() as client:
            for text in (b"sleep\n", b"3\n", b"0\n"):
                client.post(text)
                statuses.append(client.read().status)
        if 504 not in statuses[1:]:
            break
    assert statuses == [504, 500, 200]


def test_a_client_that_goes_away(pool: Serve, script: Script, tmp_path: Path) -> None:
    server = pool(command=script(HOLD, tmp_path / "pid"))
    client = server.connect()
    client.get()
    pid = pid_in(tmp_path / "pid")
    client.reset()
    poll(lambda: not alive(pid), "its end")


def test_a_worker_that_dies(pool: Serve, script: Script, tmp_path: Path) -> None:
    text = f'read x; case $x in hold) {HOLD};; esac; echo "$x"'
    server = pool("--pool-size", "1", command=script(text, tmp_path / "pid"))
    with server.connect() as client:
        client.post(b"hold\n")
        pid = pid_in(tmp_path / "pid")
        (worker,) = children(server.pid)
        os.kill(worker, signal.SIGKILL)
        answer = client.read()
        assert answer.status == 502
        assert b"has died" in answer.body
        poll(lambda: not alive(pid), "its end")
        client.post(b"on\n")
        answer = client.read()
        assert (answer.status, answer.body) == (200, b"on\n")


def test_one_that_dies_in_an_answer(pool: Serve, script: Script) -> None:
    server = pool("--pool-size", "1", command=script("echo begun; sleep 60"))
    with server.connect() as client:
        client.get()
        client.read_head()
        assert client.read_chunk() == b"begun\n"
        (worker,) = children(server.pid)
        os.kill(worker, signal.SIGKILL)
        assert client.read_chunk() == b""
        assert not client.last_seen  # the client sees that it is not complete


def test_workers_are_killed_under_load(pool: Serve) -> None:
    server = pool(command=("cat",))

    def ask(i: int) -> bool:
        text = b"%d;" % i * 3000
        with server.connect() as client:
            client.post(text)
            answer = client.read()
        assert answer.status == 502 or (answer.status, answer.body) == (200, text)
        return answer.status == 200

    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(ask, i) for i in range(200)]
        # By answers, not by the clock: on a slow machine that would leave none to give any.
        for done in range(0, 200, 5):
            poll(lambda n=done: sum(answer.done() for answer in answers) >= n, "answers")
            for worker in list(children(server.pid))[:1]:
                with contextlib.suppress(ProcessLookupError):  # it was the last one killed
                    os.kill(worker, signal.SIGKILL)
        assert sum(answer.result() for answer in answers) > 100


def test_arguments_and_cgi(pool: Serve, tmp_path: Path) -> None:
    cgi = tmp_path / "script"
    cgi.write_text('#!/bin/sh\nprintf "Content-Type: text/x\\r\\n\\r\\n"; echo $REQUEST_METHOD')
    cgi.chmod(0o755)
    server = pool("--route", "/say/{word}=echo {word}", "--mode", "raw")
    with server.connect() as client:
        client.get("/say/hello")
        assert client.read().body == b"hello\n"
    server = pool("--mode", "cgi", command=(str(cgi),))
    with server.connect() as client:
        client.get("/x")
        answer = client.read()
        assert (answer.body, answer.fields["content-type"]) == (b"GET\n", "text/x")


def test_no_more_at_once_than_workers(pool: Serve, script: Script) -> None:
    server = pool("--queue", "1", "--pool-size", "1", command=script("read x; echo $x"))
    with server.connect() as first, server.connect() as second, server.connect() as third:
        first.request("POST", "/", "Transfer-Encoding: chunked")
        poll(lambda: any(children(worker) for worker in children(server.pid)), "it runs")
        second.get()
        third.get()
        refused = select.select([second.sock, third.sock], [], [], BOUND)[0]
        assert len(refused) == 1  # while the worker is busy
        first.send(b"2\r\na\n\r\n0\r\n\r\n")
        assert first.read().body == b"a\n"
        assert sorted((second.read().status, third.read().status)) == [200, 503]


@pytest.mark.parametrize("worker", WORKERS)
def test_other_workers(pool: Serve, worker: str) -> None:
    server = pool("--worker", worker, command=("cat",))
    with server.connect() as client:
        for text in (b"one", b"two" * 100_000):
            client.post(text)
            answer = client.read()
            assert (answer.status, answer.body) == (200, text)


def test_who_is_no_worker(start: Serve) -> None:
    for worker, why in (("./missing", "cannot run ./missing"), ("true", "has died")):
        with pytest.raises(AssertionError, match=f"--strategy pool: .*{why}"):
            start("--strategy", "pool", "--worker", worker)
