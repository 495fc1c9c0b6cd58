"""--strategy reset: requests that one process serves after the other, and what the server says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import needs
from serve.harness import BOUND, Server, poll
from serve.test_cli import assert_refused, run
from serve.test_effect import DISPATCH
from serve.test_metrics import ANY, PATH, Figures
from support import script

pytestmark = needs.residents

Serve = Callable[..., Server]
PIDFD_OPEN = "434"
BEGIN = {"main": "main", "effect": "its first effect"}
ECHO = ("sh", "-c", "read a; spoilt=$spoilt$a; echo $spoilt $$")


def ask_until(server: Server, text: bytes, condition: Callable[[list[bytes]], bool]) -> list[bytes]:
    """Requests on one connection; the second word of each answer is the process's id."""
    pids: list[bytes] = []
    with server.connect() as client:

        def ask() -> bool:
            for _ in range(50):
                client.post(body=text + b"\n")
                said, pid = client.read().body.split()
                assert said == text
                pids.append(pid)
            return condition(pids)

        poll(ask, "answers of residents", 4 * BOUND)
    return pids


@pytest.mark.parametrize("place", ["main", "effect"])
def test_one_process_serves_many_requests(start: Serve, loop: str, place: str) -> None:
    options = ("--strategy", "reset", "--snapshot-at", place, "--loop", loop, "--spawners", "1")
    server = start(*options, *PATH, command=ECHO)
    pids = ask_until(server, b"own", lambda pids: len(pids) - len(set(pids)) > 200)
    assert len(set(pids[-50:])) < 50
    server.says(f"--strategy reset: residents begin at {BEGIN[place]}\n", 1)
    figures = Figures(server)
    # The time of the last one is told with the next request.
    assert len(pids) >= figures("resets_total", route=ANY) > 200
    assert figures("reset_pages_total", route=ANY) > 200
    assert 0 < figures("reset_seconds_total", route=ANY) < 60
    assert figures.all("reset_leaves_total") == figures("residents_retired_total", route=ANY) == 0


def test_a_checkpoint(start: Serve, loop: str, tmp_path: Path) -> None:
    script = tmp_path / "handler.py"
    script.write_text(
        "import os, sys\nfrom fastspawn import checkpoint\nseen = []\ncheckpoint()\n"
        "seen.append(sys.stdin.read().strip())\nprint(*seen, os.getpid())\n"
    )
    options = ("--strategy", "reset", "--loop", loop, "--spawners", "1")
    server = start(*options, command=(sys.executable, str(script)))
    ask_until(server, b"own", lambda pids: len(pids) - len(set(pids)) > 100)
    server.says("--strategy reset: residents begin at its checkpoint\n", 1)


def test_what_always_leaves_is_snapshot(start: Serve, loop: str) -> None:
    options = ("--strategy", "reset", "--snapshot-at", "main", "--loop", loop, "--spawners", "1")
    server = start(*options, *PATH, command=("sh", "-c", "read a; /bin/true; echo $a $$"))
    said = "--strategy reset is snapshot: it does what cannot be undone: "
    pids = ask_until(server, b"own", lambda pids: said in server.errors())
    assert len(set(pids)) == len(pids)
    assert f"{said}vfork()" in server.errors() or f"{said}clone" in server.errors()
    assert "it starts a thread or a process" in server.errors()
    server.says(said, 1)
    assert "residents begin" not in server.errors()
    figures = Figures(server)
    assert figures.all("reset_leaves_total") == 2
    assert figures("resets_total", route=ANY) == 0
    assert figures("route_info", route=ANY, strategy="snapshot", snapshot_at="main") == 1


def test_what_leaves_is_counted_by_its_call(start: Serve, loop: str) -> None:
    """A program that leaves now and then goes on with residents."""
    options = ("--strategy", "reset", "--snapshot-at", "main", "--loop", loop, "--spawners", "1")
    command = ("sh", "-c", "read a; case $a in execs) exec echo execs $$;; esac; echo $a $$")
    server = start(*options, *PATH, command=command)
    ask_until(server, b"stays", lambda _: Figures(server)("resets_total", route=ANY) > 10)
    with server.connect() as client:

        def leaves() -> bool:
            for word in [b"stays"] * 20 + [b"execs"]:
                client.post(body=word + b"\n")
                assert client.read().body.split()[0] == word
            return Figures(server).all("reset_leaves_total") >= 3

        poll(leaves, "residents that leave")
    figures = Figures(server)
    left = figures("reset_leaves_total", route=ANY, call="execve")
    assert left == figures.all("reset_leaves_total")
    assert figures("route_info", route=ANY, strategy="reset", snapshot_at="main") == 1


def test_auto_where_it_is_allowed(start: Serve, loop: str) -> None:
    options = ("--strategy", "auto", "--allow-reset", "--loop", loop, "--spawners", "1")
    server = start(*options, *PATH, command=ECHO)
    server.says("fastspawn: --strategy auto is reset\n", 1)
    ask_until(server, b"own", lambda pids: len(pids) - len(set(pids)) > 100)
    server.says("fastspawn: --strategy reset: residents begin at its first effect\n", 1)
    assert Figures(server)("route_info", route=ANY, strategy="reset", snapshot_at="effect") == 1


def test_auto_without_leave(start: Serve, loop: str) -> None:
    """A program that can be reset, and is not."""
    options = ("--strategy", "auto", "--loop", loop, "--spawners", "1")
    server = start(*options, command=ECHO)
    server.says("fastspawn: --strategy auto is snapshot\n", 1)
    pids = ask_until(server, b"own", lambda pids: len(pids) > 200)
    assert len(set(pids)) == len(pids)
    assert "reset" not in server.errors()


def test_leave_is_each_routes_own(start: Serve, loop: str, tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    route = "[[route]]\npath = '/{}'\ncommand = 'cat'\nallow-reset = {}\n"
    path.write_text(route.format("a", "true") + route.format("b", "false"))
    server = start("--strategy", "auto", "--loop", loop, "--config", str(path), command=())
    server.says("fastspawn: route /a: --strategy auto is reset\n", 1)
    server.says("fastspawn: route /b: --strategy auto is snapshot\n", 1)


def test_auto_where_it_cannot_be(start: Serve, loop: str, tmp_path: Path) -> None:
    """The plan says at the start that it is snapshot, the program that it is direct."""
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/echo").read_bytes())
    program.chmod(0o4755)
    options = ("--strategy", "auto", "--allow-reset", "--loop", loop, "--rlimit", "cpu=60")
    server = start(*options, *PATH, "--route", f"/a={program} x", command=("echo", "x"))
    server.says("fastspawn: --strategy auto is snapshot: it has an identity, a cgroup, ", 1)
    server.says(f"fastspawn: route /a: --strategy auto is direct: {program} is setuid", 1)
    assert server.get().body == server.get("/a").body == b"x\n"
    assert "--strategy reset" not in server.errors()
    assert Figures(server)("route_info", route=ANY, strategy="snapshot", snapshot_at="effect") == 1


@pytest.mark.parametrize("lacks", [DISPATCH, PIDFD_OPEN], ids=["dispatch", "pidfd_open"])
@pytest.mark.parametrize("asked", ["reset", "auto"])
def test_a_kernel_that_cannot(start: Serve, loop: str, asked: str, lacks: str) -> None:
    allowed = ("--allow-reset",) if asked == "auto" else ()
    options = ("--strategy", asked, *allowed, "--loop", loop, "--spawners", "1")
    server = start(*options, *PATH, prefix=script("refuse_call.py", lacks))
    # Auto may know it before it says what it is, and then says that instead.
    who = "fastspawn: --strategy reset" if asked == "reset" else ""
    poll(
        lambda: server.get().body == b"hi\n" and " is snapshot: it cannot" in server.errors(),
        "the reason",
    )
    why = "Function not implemented" if lacks == PIDFD_OPEN else ""
    server.says(f"{who} is snapshot: it cannot be reset here: {why}", 1)
    assert "residents begin" not in server.errors()
    place = "main" if lacks == DISPATCH else "effect"
    assert Figures(server)("route_info", route=ANY, strategy="snapshot", snapshot_at=place) == 1


@pytest.mark.parametrize("asked", ["reset", "auto"])
def test_a_plan_that_cannot(start: Serve, loop: str, asked: str) -> None:
    """Said at the start, once, of all routes."""
    allowed = ("--allow-reset",) if asked == "auto" else ()
    options = ("--strategy", asked, *allowed, "--loop", loop, "--rlimit", "cpu=60")
    server = start(*options, "--route", "/a=echo hi", "--route", "/b=cat")
    said = f"fastspawn: routes /a, /b, /{{...}}: --strategy {asked} is snapshot: it has an identity"
    assert server.errors().count(said) == 1
    assert server.errors().count("is snapshot") == 1


def test_not_for_the_scripts_of_a_directory(tmp_path: Path) -> None:
    assert_refused(
        run("--port", "0", "--strategy", "reset", "--cgi-dir", str(tmp_path)),
        "--strategy reset is for one program, not --cgi-dir",
    )
