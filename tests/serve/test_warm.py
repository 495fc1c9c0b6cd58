"""Strategies that keep processes: warm; and the one that chooses."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serve.harness import Server, alive, children, longer_times, poll

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

CAT = 'echo "$$"; exec cat'


@pytest.fixture
def warm(start: Serve, loop: str) -> Serve:
    return lambda *options, **more: start("--strategy", "warm", "--loop", loop, *options, **more)


def waiting(server: Server, count: int) -> list[int]:
    """Its spares, once there are so many."""
    poll(lambda: len(children(server.pid)) == count, "spares")
    return sorted(children(server.pid))


def test_a_request_gets_a_process_that_waited(warm: Serve, script: Script) -> None:
    server = warm(command=script(CAT))
    with server.connect() as client:
        for text in (b"a", b"b" * 100_000, b""):
            (spare,) = waiting(server, 1)
            client.post(text)
            answer = client.read()
            assert (answer.status, answer.body) == (200, b"%d\n%s" % (spare, text))
        (spare,) = waiting(server, 1)
        client.get()
        assert client.read().body == b"%d\n" % spare
    (spare,) = waiting(server, 1)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not alive(spare)


def test_a_body_that_comes_slowly(warm: Serve, script: Script) -> None:
    server = warm(command=script(CAT))
    (spare,) = waiting(server, 1)
    with server.connect() as client:
        client.request("POST", "/", "Transfer-Encoding: chunked")
        client.send(b"3\r\none\r\n")
        client.read_head()
        came = b""
        while b"one" not in came:
            came += client.read_chunk()
        assert came == b"%d\none" % spare
        client.send(b"3\r\ntwo\r\n0\r\n\r\n")
        assert client.read_chunk() == b"two"
        assert client.read_chunk() == b""


def test_deadline_and_errors(warm: Serve, script: Script) -> None:
    command = script("read x; case $x in sleep) sleep 60;; *) exit $x;; esac")
    for timeout in longer_times():
        server = warm("--exec-timeout", timeout, "--kill-grace", "100ms", command=command)
        statuses = []
        with server.connect() as client:
            for text in (b"sleep\n", b"3\n", b"0\n"):
                waiting(server, 1)
                client.post(text)
                statuses.append(client.read().status)
        if 504 not in statuses[1:]:
            break
    assert statuses == [504, 500, 200]


def test_a_client_that_goes_away(warm: Serve, script: Script) -> None:
    server = warm(command=script("read x; sleep 60"))
    (spare,) = waiting(server, 1)
    client = server.connect()
    client.post(b"\n")
    poll(lambda: len(children(server.pid)) == 2, "the next spare")
    client.reset()
    poll(lambda: not alive(spare), "its end")


def test_a_burst(warm: Serve, script: Script) -> None:
    server = warm("--pool-size", "2", "--pool-max", "4", command=script(CAT))

    def ask(i: int) -> tuple[int, bytes]:
        with server.connect() as client:
            client.post(b"request %d" % i)
            answer = client.read()
            return answer.status, answer.body.partition(b"\n")[2]

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(40)))
    assert answers == [(200, b"request %d" % i) for i in range(40)]
    waiting(server, 4)


def test_requests_with_arguments_are_started_directly(warm: Serve) -> None:
    server = warm("--route", "/{name}=echo {name}")
    with server.connect() as client:
        for name in ("a", "b"):
            client.get(f"/{name}")
            assert client.read().body == f"{name}\n".encode()
    assert children(server.pid) == {}
    server.says("--strategy warm is direct: each request has")


def test_a_program_that_does_not_wait(warm: Serve) -> None:
    server = warm()
    poll(lambda: "ends without waiting for its input" in server.errors(), "a line about it")
    with server.connect() as client:
        for _ in range(3):
            client.get()
            assert client.read().body == b"hi\n"


def test_sizes_that_contradict(start: Serve) -> None:
    with pytest.raises(AssertionError):
        start("--strategy", "warm", "--pool-size", "3", "--pool-max", "2")


# ---- auto


def test_auto_takes_templates_where_it_can(start: Serve, loop: str) -> None:
    server = start("--strategy", "auto", "--loop", loop)
    with server.connect() as client:
        client.get()
        assert client.read().body == b"hi\n"
    chosen = "snapshot" if sys.platform == "linux" else "direct: templates are for Linux only"
    server.says(f"--strategy auto is {chosen}\n")


def test_auto_says_why_it_cannot(start: Serve, loop: str, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/echo").read_bytes())
    program.chmod(0o4755 if sys.platform == "linux" else 0o755)
    server = start("--strategy", "auto", "--loop", loop, "--route", "/a=echo a",
                   command=(str(program), "x"))  # fmt: skip
    with server.connect() as client:
        for target, body in (("/a", b"a\n"), ("/", b"x\n")):
            client.get(target)
            assert client.read().body == body
    if sys.platform == "linux":
        server.says("route /a: --strategy auto is snapshot\n")
        server.says("--strategy auto is direct: ")
        server.says(f"{os.fspath(program)} is setuid")
