"""SIGUSR2: one worker after the other is replaced, and no request is lost over it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from serve.conftest import Serve
from serve.harness import Client, Response, Server, children, poll

Script = Callable[..., tuple[str, ...]]

WAIT = 'echo $$ > "$2.new"; mv "$2.new" "$2"; while [ ! -e "$1" ]; do sleep 0.01; done; echo done'


def workers(server: Server) -> set[int]:
    return {pid for pid, state in children(server.pid).items() if not state.startswith("Z")}


def restart(server: Server) -> None:
    before = server.errors().count("restarted the workers")
    server.signal(signal.SIGUSR2)
    poll(lambda: server.errors().count("restarted the workers") > before, "a restart", 60)


def last_answer(client: Client, answer: Response) -> None:
    """Each answer is whole, and one of the next says that it is the connection's last. (The old
    worker may not know yet that it is to go.)"""
    while answer.fields.get("connection") != "close":
        client.get("/hi")
        answer = client.read()
        assert answer.body == b"hi\n"
    assert client.ended()


def test_no_request_is_lost(serve: Serve) -> None:
    """Neither of clients that connect anew each time, nor of those that keep their connections."""
    server = serve("--workers", "2")
    before = workers(server)
    stop = threading.Event()
    failed: list[object] = []
    counts = [0, 0, 0]

    def anew(number: int) -> None:
        try:
            while not stop.is_set():
                assert server.get().body == b"hi\n"
                counts[number] += 1
        except Exception as error:
            failed.append(error)

    def kept(number: int) -> None:
        try:
            while not stop.is_set():
                with server.connect() as client:
                    closing = False
                    while not closing and not stop.is_set():
                        client.get()
                        answer = client.read()
                        assert answer.body == b"hi\n"
                        counts[number] += 1
                        # A connection is closed only with an answer that says so.
                        closing = answer.fields.get("connection") == "close"
        except Exception as error:
            failed.append(error)

    threads = [
        threading.Thread(target=each, args=(i,)) for i, each in enumerate((anew, kept, kept))
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            restart(server)
        seen = list(counts)
        poll(lambda: failed or all(map(int.__gt__, counts, seen)), "more answers", 60)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    poll(lambda: len(workers(server)) == 2, "the old ones' end")
    assert not workers(server) & before
    assert server.get().body == b"hi\n"


def test_running_and_idle(serve: Serve, script: Script, tmp_path: Path) -> None:
    """The old worker goes when its process has ended and its idle clients have had their say."""
    go, held = tmp_path / "go", tmp_path / "pid"
    server = serve(
        *("--workers", "2", "--keep-alive-timeout", "1h", "--route", "/hi=echo hi"),
        command=script(WAIT, go, held),
    )
    with server.connect() as running, server.connect() as idle, server.connect() as fresh:
        for client in (idle, running):
            client.get("/hi")
            assert client.read().body == b"hi\n"
        running.get()
        poll(held.exists, "a process's start")
        restart(server)
        go.touch()
        answer = running.read()
        assert answer.body == b"done\n"
        last_answer(running, answer)
        for client in (idle, fresh):
            client.get("/hi")
            last_answer(client, client.read())
    poll(lambda: len(workers(server)) == 2, "the old ones' end")


def test_stop_during_a_restart(start: Serve) -> None:
    """Idle clients of a retired worker do not keep the server from stopping."""
    server = start("--workers", "2", "--keep-alive-timeout", "1h", "--graceful-timeout", "none")
    with server.connect() as idle:
        idle.get()
        assert idle.read().body == b"hi\n"
        restart(server)
        server.signal(signal.SIGUSR2)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert idle.ended()


def test_asked_for_again(start: Serve, tmp_path: Path) -> None:
    """While workers start, at first and in a restart: they may have begun before what is new."""
    errors = tmp_path / "errors"

    def restarts() -> int:
        return errors.read_text().count("restarted the workers")

    with errors.open("wb") as file:
        server = start("--workers", "3", stderr=file.fileno())
    poll(lambda: workers(server), "a worker's start")
    server.signal(signal.SIGUSR2)
    poll(lambda: restarts() == 1, "a restart", 60)
    before = workers(server)
    server.signal(signal.SIGUSR2)
    poll(lambda: workers(server) - before, "a new worker")
    server.signal(signal.SIGUSR2)
    poll(lambda: restarts() == 3, "two more", 60)


def kill_a_new_worker(server: Server) -> bool:
    """Before it serves. False: it was too late, and all have been restarted."""
    before, heard = workers(server), len(server.errors())
    assert len(before) == 2
    killed, done = "not restarted: the new worker 1 ", "restarted the workers"
    server.signal(signal.SIGUSR2)
    poll(lambda: workers(server) - before, "a new worker")
    os.kill(min(workers(server) - before), signal.SIGKILL)
    poll(lambda: any(word in server.errors()[heard:] for word in (killed, done)), "word of it", 60)
    if killed in server.errors():
        server.says("was killed by signal 9")
        assert workers(server) == before
        return True
    poll(lambda: len(workers(server)) == 2, "two workers")
    return False


def test_new_worker_that_dies(start: Serve) -> None:
    """The old ones stay."""
    server = start("--workers", "2")
    while not kill_a_new_worker(server):
        pass
    restart(server)
    assert server.get().body == b"hi\n"


def test_without_workers(start: Serve) -> None:
    server = start()
    server.signal(signal.SIGUSR2)
    poll(lambda: "not restarted: that takes --workers" in server.errors(), "word of it")
    assert server.get().body == b"hi\n"
