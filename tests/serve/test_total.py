"""--max-inflight-total: as many processes as that, whatever the number of routes and workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from serve.conftest import Serve
from serve.harness import Client, Server, poll

SHOW = 'echo $PPID > "$1/$$.new"; mv "$1/$$.new" "$1/$$"; '
WAIT = f'{SHOW} while [ ! -e "$1/go" ]; do sleep 0.01; done; rm "$1/$$"; echo done'


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """Where processes are noted that run, until there is a file ``go``."""
    path = tmp_path / "held"
    path.mkdir()
    yield path
    (path / "go").touch()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def running(held: Path) -> dict[int, int]:
    """Process and server of each. (Those of a killed server die with it, and leave their file.)"""
    found = {}
    for path in held.iterdir():
        if path.name.isdigit() and is_alive(int(path.name)):
            with suppress(FileNotFoundError):
                found[int(path.name)] = int(path.read_text())
    return found


def ask(stack: ExitStack, server: Server, target: str = "/") -> Client:
    client = stack.enter_context(server.connect())
    client.get(target)
    return client


@pytest.mark.parametrize("workers", ["1", "4"])
def test_total(serve: Serve, script: object, held: Path, workers: str) -> None:
    server = serve(
        *("--workers", workers, "--max-inflight-total", "3"),
        command=("sh", "-c", WAIT, "sh", str(held)),
    )
    with ExitStack() as stack:
        clients = [ask(stack, server) for _ in range(12)]
        poll(lambda: len(running(held)) == 3, "as many as may")
        # A refusal needs no place, so is answered; by then any other would have started.
        for _ in range(20):
            with server.connect() as client:
                client.send(b"bad\r\n\r\n")
                assert client.read().status == 400
            assert len(running(held)) == 3
        (held / "go").touch()
        for client in clients:
            assert client.read().body == b"done\n"
        # All of them are free again.
        clients = [ask(stack, server) for _ in range(12)]
        for client in clients:
            assert client.read().status == 200


@pytest.mark.parametrize("workers", ["1", "3"])
def test_without_a_queue(start: Serve, held: Path, workers: str) -> None:
    server = start(
        *("--workers", workers, "--max-inflight-total", "2", "--queue", "0"),
        command=("sh", "-c", WAIT, "sh", str(held)),
    )
    with ExitStack() as stack:
        # Whoever gets them, two run.
        for count in (1, 2):
            ask(stack, server)
            poll(lambda n=count: len(running(held)) == n, "a process")  # type: ignore[misc]
        for _ in range(10):
            assert server.get().status == 503
        (held / "go").touch()


def test_over_all_routes(start: Serve, held: Path, tmp_path: Path) -> None:
    words = f"sh -c '{WAIT}' sh {held}"
    server = start(
        *("--max-inflight-total", "2", "--route", f"/a={words}", "--route", f"/b={words}"),
        command=(),
    )
    with ExitStack() as stack:
        clients = [ask(stack, server, target) for target in ("/a", "/b", "/a", "/b")]
        poll(lambda: len(running(held)) == 2, "as many as may")
        (held / "go").touch()
        for client in clients:
            assert client.read().body == b"done\n"


def test_places_of_a_killed_worker_are_free(start: Serve, held: Path) -> None:
    server = start(
        *("--workers", "2", "--max-inflight-total", "2"),
        command=("sh", "-c", WAIT, "sh", str(held)),
    )
    with ExitStack() as stack:
        ask(stack, server)
        poll(lambda: len(running(held)) == 1, "a process")
        (victim,) = running(held).values()
        # Enough for each worker to have some that wait.
        for _ in range(30):
            ask(stack, server)
        poll(lambda: len(running(held)) == 2, "as many as may")
        before = running(held)
        os.kill(victim, signal.SIGKILL)
        # As many as the killed one had go to those that wait elsewhere.
        mine = sum(server == victim for server in before.values())
        poll(
            lambda: len(running(held).keys() - before.keys()) >= mine,
            "the killed worker's places",
        )
        assert set(running(held).values()) - {victim}
        alive = [pid for pid, parent in running(held).items() if parent != victim]
        assert len(alive) == 2
        (held / "go").touch()
    poll(lambda: not running(held), "the end of those that are left")
    assert server.get().status == 200


def test_under_load(start: Serve, tmp_path: Path, held: Path) -> None:
    """Never more than allowed, and every request is answered."""
    count = 'n=$(ls "$1" | wc -l); rm "$1/$$"; [ "$n" -le 3 ] || echo too many: $n'
    server = start(
        *("--workers", "3", "--max-inflight-total", "3", "--no-access-log"),
        command=("sh", "-c", f": > $1/$$; {count}", "sh", str(held)),
    )
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(16)]
        for _ in range(15):
            for client in clients:
                client.get()
            for client in clients:
                answer = client.read()
                assert (answer.status, answer.body) == (200, b"")
