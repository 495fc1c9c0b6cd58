"""SIGHUP: new requests get the new configuration, and none is lost over it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from fastspawn.serve.config.model import Config
from fastspawn.serve.host.reload import Reloader
from fastspawn.serve.host.systemd import Notifier
from fastspawn.serve.host.workers import Supervisor
from fastspawn.serve.strategies.news import News
from serve.conftest import Serve
from serve.harness import Server, poll

WAIT = 'echo $$ > "$2.new"; mv "$2.new" "$2"; while [ ! -e "$1" ]; do sleep 0.01; done; echo old'

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


class File:
    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *routes: str, top: str = "") -> str:
        """``routes``: path and command. The file's path."""
        text = "".join(
            f"[[route]]\npath = {path!r}\ncommand = {command!r}\n"
            for path, command in (route.split(" ", 1) for route in routes)
        )
        self.path.write_text(f"{top}\n{text}")
        return str(self.path)


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "serve.toml")


def reload(server: Server, word: str = "reloaded") -> None:
    """Send SIGHUP; wait for what the server says of it."""
    before = server.errors().count(word)
    server.signal(signal.SIGHUP)
    poll(lambda: server.errors().count(word) > before, word)


def gets(server: Server, target: str, body: bytes) -> bool:
    """Each of many connections, so each worker."""
    return all(server.get(target).body == body for _ in range(15))


@WORKERS
def test_new_routes(serve: Serve, file: File, workers: str) -> None:
    path = file.write("/a echo one", "/b echo two")
    server = serve("--config", path, "--workers", workers, command=())
    assert gets(server, "/a", b"one\n")
    file.write("/a echo three", "/c echo four", top="content-type = 'text/new'")
    reload(server)
    poll(lambda: gets(server, "/a", b"three\n"), "the new route")
    assert server.get("/b").status == 404
    answer = server.get("/c")
    assert (answer.body, answer.fields["content-type"]) == (b"four\n", "text/new")
    server.says(f"reloaded {path}\n")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


@WORKERS
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("port = ", ":1: "),
        ("port = " + "[" * 20_000, "nested too deeply"),
        ("queue = 'x'\n", ":1: queue: 'x' is text, not a number"),
        ("command = ['no-such-command']\n", "cannot run no-such-command: No such file"),
        (None, "No such file"),
    ],
)
def test_bad_file(start: Serve, file: File, workers: str, text: str | None, why: str) -> None:
    server = start("--config", file.write("/ echo one"), "--workers", workers, command=())
    if text is None:
        file.path.unlink()
    else:
        file.path.write_text(text)
    reload(server, "not reloaded: ")
    server.says(why)
    server.says("\n", 2)
    assert gets(server, "/", b"one\n")
    file.write("/ echo two")
    reload(server, "fastspawn: reloaded")
    poll(lambda: gets(server, "/", b"two\n"), "the new route")


def short_of_memory() -> Config:
    raise MemoryError("no room")


def test_what_is_no_fault_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    """A supervisor, and a server, that cannot read it for whatever reason goes on as it was."""
    nothing: Any = Mock()
    supervisor = Supervisor(Config(), [], ready=nothing, stopping=nothing, reread=short_of_memory)
    supervisor._reload()
    Reloader(nothing, nothing, Notifier({}), None).reread(short_of_memory)
    said = capsys.readouterr().err
    assert said == "fastspawn: not reloaded: MemoryError: no room\n" * 2


def test_a_load_that_fails_is_not_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    async def load(config: Config) -> None:
        if config.port == 1:
            raise ModuleNotFoundError("no room")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        service: Any = Mock(load=load, loop=loop)
        reloader = Reloader(service, News(print), Notifier({}), None)
        for port in (1, 2):
            reloader.ask(Config(port=port), f"reloaded {port}")
            await reloader._task  # type: ignore[misc]

    asyncio.run(main())
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in said] == [
        "not reloaded: ModuleNotFoundError: no room",
        "reloaded 2",
    ]


def test_running_and_waiting_requests_finish_under_the_old_routes(
    serve: Serve, file: File, tmp_path: Path
) -> None:
    go, held = tmp_path / "go", tmp_path / "pid"
    old = ("max-inflight = 1\n[[route]]\npath = '/'\ncommand = ['sh', '-c', "
           f"'''{WAIT}''', 'sh', {str(go)!r}, {str(held)!r}]\n")  # fmt: skip
    file.path.write_text(old)
    server = serve("--config", str(file.path), command=())
    with server.connect() as running, server.connect() as waiting:
        running.get()
        poll(held.exists, "a process's start")
        waiting.get()
        # Pipelined: it is parsed before the reload, too, and begins long after.
        waiting.get()
        server.get("/nowhere")  # the server has read all that was sent before this
        file.write("/ echo new")
        reload(server)
        answer = server.get()
        assert answer.body == b"new\n"
        # Once a second old routes that nobody needs are dropped, just before the date changes.
        poll(lambda: server.get().fields["date"] != answer.fields["date"], "another second")
        go.touch()
        for client, answers in ((running, 1), (waiting, 2)):
            for _ in range(answers):
                assert client.read().body == b"old\n"
            client.get()
            assert client.read().body == b"new\n"


def test_head_that_is_being_received(serve: Serve, file: File) -> None:
    """It belongs to the routes of before, and what follows it on the connection to the new ones."""
    server = serve("--config", file.write("/a echo old"), command=())
    with server.connect() as client:
        client.send(b"GET /a HTTP/1.1\r\nHost: x\r\n")
        server.get("/a")  # the server has read it
        file.write("/a echo new")
        reload(server)
        assert server.get("/a").body == b"new\n"
        client.send(b"\r\n")
        assert client.read().body == b"old\n"

        def answer() -> bytes:
            client.get("/a")
            return client.read().body

        poll(lambda: answer() == b"new\n", "the new route")


def test_header_fields_are_there_when_a_new_route_wants_them(start: Serve, file: File) -> None:
    raw = file.write("/ echo raw")
    server = start("--config", raw, command=())
    with server.connect() as client, server.connect() as early:
        client.get("/", "X-Mine: 1")
        assert client.read().body == b"raw\n"
        early.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Mine: 2\r\n")
        server.get()  # the server has read it
        file.write(
            "/ sh -c 'echo Content-Type: text/x; echo; echo $HTTP_X_MINE'", top="mode = 'cgi'"
        )
        reload(server)
        client.get("/", "X-Mine: 3")
        assert client.read().body == b"3\n"
        # The fields that came before were not kept.
        early.send(b"\r\n")
        assert early.read().body == b"raw\n"
        file.write("/ echo raw")
        reload(server)
        client.get()
        assert client.read().body == b"raw\n"


@WORKERS
def test_no_request_is_lost(serve: Serve, file: File, workers: str) -> None:
    server = serve("--config", file.write("/ echo 0"), "--workers", workers, command=())
    stop = threading.Event()
    seen: list[bytes] = []
    wrong: list[object] = []

    def ask() -> None:
        try:
            with server.connect() as client:
                while not stop.is_set():
                    client.get()
                    answer = client.read()
                    if answer.status != 200 or not answer.complete:
                        wrong.append(answer)
                    seen.append(answer.body)
        except (OSError, AssertionError, ValueError) as error:
            wrong.append(error)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        poll(lambda: seen, "a first answer")
        for number in range(1, 11):
            file.write(f"/ echo {number}")
            reload(server)
            poll(lambda n=number: seen[-1:] == [b"%d\n" % n], "the new route")  # type: ignore[misc]
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert not wrong
    assert {int(body) for body in seen} == set(range(11))


@WORKERS
def test_what_needs_a_restart_is_said(start: Serve, file: File, workers: str) -> None:
    server = start("--config", file.write("/ echo one"), "--workers", workers, command=())
    file.write("/ echo two", top="backlog = 7\nspawners = 3")
    reload(server)
    server.says("(backlog, spawners: not before a restart)")
    poll(lambda: gets(server, "/", b"two\n"), "the new route")


def test_time_limits_and_log(start: Serve, file: File) -> None:
    top = "keep-alive-timeout = '1h'\naccess-log = false\n"
    server = start("--config", file.write("/ echo one", top=top), command=(), patient=False)
    server.get()
    file.write("/ echo one", top="keep-alive-timeout = 0.1")
    reload(server)

    def ends() -> bool:
        with server.connect() as client:
            return client.answered() and client.ended()

    poll(ends, "an answer to one that asks in time, and then the end")
    server.logs(1)
    file.write("/ echo one", top=top)
    reload(server)
    server.get()
    file.write("/ echo one")
    reload(server)
    server.get()
    server.logs(2)


def test_a_worker_started_later_has_the_new_configuration(start: Serve, file: File) -> None:
    server = start("--config", file.write("/ sh -c 'echo one $PPID'"), "--workers", "2", command=())
    file.write("/ sh -c 'echo two $PPID'")
    reload(server)

    def worker() -> int:
        word, pid = server.get().body.split()
        return int(pid) if word == b"two" else 0

    poll(worker, "the new route")
    victim = worker()
    # What it has is not what is in the file, which is broken by now.
    file.path.write_text("broken")
    os.kill(victim, signal.SIGKILL)
    poll(lambda: "starting another" in server.errors(), "another worker")
    assert {worker() != victim for _ in range(20)} == {True}
    assert all(server.get().body.startswith(b"two") for _ in range(20))


@WORKERS
def test_without_a_file_a_hangup_ends_it(start: Serve, workers: str) -> None:
    server = start("--workers", workers)
    server.signal(signal.SIGHUP)
    assert server.wait() == -signal.SIGHUP
