"""--openfaas: what takes of-watchdog's place answers as it does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

import needs
from fastspawn.serve import cli
from fastspawn.serve.config.openfaas import duration
from netspace import apart
from serve.harness import BOUND, Client, poll
from serve.of_watchdog import (
    ASKED,
    GROUPS,
    OURS,
    PLAIN,
    RECORDED,
    SERIALIZING,
    THEIRS,
    Ask,
    answer,
    answers,
    connect,
    watchdog,
)


def parse(*argv: str, **environ: str) -> cli.Config:
    return cli.parse(("--openfaas", *argv), environ)


def test_enough_is_asked() -> None:
    assert len([ask for ask in ASKED if not ask.differs]) >= 30


@pytest.mark.parametrize("name", GROUPS)
def test_as_of_watchdog(name: str, tmp_path: Path) -> None:
    """Status, fields and body, but for what docs/platforms.md lists."""
    group = GROUPS[name]
    theirs = json.loads(RECORDED.read_text())[name]
    ours = answers(OURS, tmp_path, group)
    assert len(theirs) == len(ours) == len(group.asked)
    for ask, one, other in zip(group.asked, theirs, ours, strict=True):
        assert (one == other) is not ask.differs, ask


@needs.have(THEIRS, "no of-watchdog")
@pytest.mark.parametrize("name", GROUPS)
def test_the_record(name: str, tmp_path: Path) -> None:
    """The real one answers as it did."""
    assert THEIRS is not None
    found = answers([THEIRS], tmp_path, GROUPS[name])
    assert found == json.loads(RECORDED.read_text())[name]


@pytest.mark.parametrize(
    ("ask", "status", "body"),
    [
        (Ask(target="/a//b"), 200, "3:a::c\nHttp_Method=GET\nHttp_Path=/a/b\n\n"),
        (Ask(target="/a/../b"), 400, "400 Bad Request: a dot segment in the path\n"),
        (Ask(target="/%00"), 400, "400 Bad Request: a control character in the path\n"),
        (Ask(fields=("Proxy: x",)), 200, "3:a::c\nHttp_Method=GET\nHttp_Path=/\n\n"),
        (Ask(fields=("Query: x",)), 200, "3:a::c\nHttp_Method=GET\nHttp_Path=/\n\n"),
        (Ask(fields=("a_b: 1", "a'b: 1")), 200, "3:a::c\nHttp_Method=GET\nHttp_Path=/\n\n"),
        (Ask(fields=("A: \0",)), 400, "400 Bad Request: malformed request\n"),
    ],
    ids=lambda value: None,
)
def test_where_ours_is_another(ask: Ask, status: int, body: str, tmp_path: Path) -> None:
    def work() -> dict[str, object]:
        with watchdog(OURS, tmp_path, PLAIN):
            return answer(ask)

    found = apart(work)
    assert (found["status"], found["body"]) == (status, body)


PROGRAMS = pytest.mark.parametrize(
    "program",
    [OURS, (*OURS, "--workers", "2"), pytest.param((THEIRS,), marks=pytest.mark.skipif(
        THEIRS is None, reason="no of-watchdog"))],
    ids=["ours", "workers", "theirs"],
)  # fmt: skip


def refused(target: str) -> object:
    """The first answer that is no success: of several workers one may hear of it later."""
    seen: list[dict[str, object]] = []

    def says_so() -> bool:
        seen.append(answer(Ask(target=target)))
        return seen[-1]["status"] != 200

    poll(says_so, f"{target} refuses")
    return seen[-1]


@PROGRAMS
def test_drain(program: tuple[str, ...], tmp_path: Path) -> None:
    """For healthcheck_interval all goes on but the probes; what runs then is finished."""

    def work() -> list[object]:
        variables = {**PLAIN, "healthcheck_interval": "4s", "write_timeout": "2m"}
        with watchdog(program, tmp_path, variables) as process, connect() as holder:
            lock = tmp_path / ".lock"
            poll(lock.exists, "the lock")
            holder.get("/hold")
            poll((tmp_path / "held").exists, "the one that holds")
            process.send_signal(signal.SIGTERM)
            poll(lambda: not lock.exists(), "no lock")
            seen = [refused("/_/health"), refused("/_/ready")]
            seen.append(answer(Ask(target="/cat")))
            poll(refuses, "an end of accepting")
            (tmp_path / "go").touch()
            held = holder.read()
            return [*seen, held.status, held.body]

    unwell = {"status": 503, "fields": {}, "body": ""}
    served = {"status": 200, "fields": {"content-type": "application/octet-stream"}, "body": ""}
    assert apart(work) == [unwell, unwell, served, 200, b"held\n"]


def refuses() -> bool:
    try:
        connect().sock.close()
    except ConnectionRefusedError:
        return True
    return False


@PROGRAMS
def test_lock(program: tuple[str, ...], tmp_path: Path) -> None:
    def work() -> None:
        with watchdog(program, tmp_path, PLAIN):
            poll((tmp_path / ".lock").exists, "the lock")
        assert not (tmp_path / ".lock").exists()
        with watchdog(program, tmp_path, {**PLAIN, "suppress_lock": "1"}):
            assert answer(Ask())["status"] == 200
            assert not (tmp_path / ".lock").exists()

    apart(work)


def test_no_place_for_the_lock(tmp_path: Path) -> None:
    """Nor is it written through a link."""
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    done = subprocess.run(
        [*OURS, "--host", "127.0.0.1", "--port", "0"],
        env=os.environ | {"fprocess": "cat", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND,
    )
    why = "Too many levels of symbolic links: set TMPDIR, or suppress_lock=true"
    assert done.stderr == f"fastspawn: error: cannot write {tmp_path}/.lock: {why}\n"
    assert (done.returncode, (tmp_path / "elsewhere").exists()) == (2, False)


def test_a_function_that_streams(tmp_path: Path) -> None:
    """What it has said is here while it runs, and the answer ends as one when it fails."""
    script = 'echo first; until [ -e "$TMPDIR/go" ]; do sleep 0.05; done; echo last; exit 1'
    (tmp_path / "script").write_text(script)

    def work() -> bytes:
        variables = {"fprocess": f"/bin/sh {tmp_path}/script"}
        with watchdog(OURS, tmp_path, variables), connect() as client:
            client.get()
            head = client.read_head()
            assert head.fields["transfer-encoding"] == "chunked"
            first = client.read_chunk()
            (tmp_path / "go").touch()
            assert client.read_body(head).complete
            return first + head.body

    assert apart(work) == b"first\nlast\n"


def test_many_wait_where_no_limit_is_given(tmp_path: Path) -> None:
    """Theirs then starts as many as are asked for; ours has its own limit, and a queue."""

    def work() -> list[int]:
        with watchdog((*OURS, "--max-inflight", "1"), tmp_path, PLAIN):
            clients: list[Client] = []
            for _ in range(3):
                clients.append(connect())
                clients[-1].get("/exit/0")
            found = [client.read().status for client in clients]
            for client in clients:
                client.sock.close()
            return found

    assert apart(work) == [200, 200, 200]


def test_variables() -> None:
    config = parse(fprocess="cat")
    assert (config.host, config.port, config.lock_file) == (("",), 8080, "/tmp/.lock")
    assert (config.drain_delay, config.graceful_timeout, config.send_timeout) == (30, 30, 30)
    assert (config.body_timeout, config.header_timeout, config.keep_alive_timeout) == (30, 30, 30)
    route = config.routes[0]
    assert (route.mode, route.exec_timeout, route.stderr) == ("streaming", 30, "inherit")
    assert (route.max_inflight, route.queue) == (256, 4096)
    config = parse(
        *("--host", "::1", "--max-inflight", "9"),
        fprocess="a 'b c'", exec_timeout="0", read_timeout="0", write_timeout="1.5m",
        healthcheck_interval="5", max_inflight="3", mode="serializing", port="1", PORT="2",
        content_type="a/b", combine_output="true", TMPDIR="/x", ready_path="/r",
    )  # fmt: skip
    assert (config.host, config.port, config.lock_file) == (("::1",), 1, "/x/.lock")
    assert (config.drain_delay, config.graceful_timeout, config.body_timeout) == (5, 90, None)
    assert config.function_ready_path == "/r"
    route = config.routes[0]
    assert (route.command, route.mode) == (("a", "'b", "c'"), "serializing")
    assert route.content_type == "a/b"
    assert (route.exec_timeout, route.max_inflight, route.queue) == (None, 9, 0)
    assert route.stderr == "merge"
    assert parse("cat", "-n", fprocess="x").routes[0].command == ("cat", "-n")
    assert parse(FASTSPAWN_PORT="7", fprocess="x").port == 7
    assert cli.parse((), {"fprocess": "x", "port": "1"}) == cli.parse((), {})


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"fprocess": ""}, "--openfaas needs the variable fprocess, or CMD"),
        ({"mode": "http"}, "mode: http: the function is a server of its own there"),
        ({"mode": "static"}, "mode: static: no files are served here"),
        ({"mode": "Streaming"}, "mode: 'Streaming' is not one of streaming, serializing"),
        ({"exec_timeout": "-1s"}, "exec_timeout: '-1s' is not a duration such as"),
        ({"exec_timeout": "9000h"}, "exec_timeout: '9000h' is more than a year"),
        ({"write_timeout": "0"}, "write_timeout: must be more than 0"),
        ({"port": "http"}, "port: 'http' is not a number from 0 to 65535"),
        ({"max_inflight": "-1"}, "max_inflight: '-1' is not a number of at least 0"),
        ({"content_type": "a\nb"}, "content_type: 'a\\\\nb' is not a media type"),
        ({"ready_path": "ready"}, "ready_path: 'ready' is not a URL's path"),
        ({"jwt_auth": "true"}, "jwt_auth: tokens are not looked at here: a proxy has to"),
    ],
)
def test_refused(environ: dict[str, str], why: str) -> None:
    with pytest.raises(cli.UsageError, match=f"^{why}"):
        parse(**{"fprocess": "cat", **environ})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("0", 0), ("30", 30), ("1m30s", 90), ("1.5h", 5400), ("300ms", 0.3), (".5s", 0.5)),
        *(("1.s", 1), ("5us", 5e-6), ("5\N{MICRO SIGN}s", 5e-6), ("7ns", 7e-9), ("1s1s", 2)),
    ],
)
def test_go_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1d", "1 s", "+1s", "1s2", "1e3s", "1.5", "\u0663s"])
def test_no_go_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration(text)


def test_request_id(tmp_path: Path) -> None:
    def work() -> tuple[dict[str, object], dict[str, object]]:
        with watchdog((*OURS, "--request-id"), tmp_path, SERIALIZING):
            with_id = Ask(fields=("X-Request-Id: mine",))
            return answer(with_id), answer(Ask(target="/_/health", fields=with_id.fields))

    function, probe = apart(work)
    assert "Http_X_Request_Id=mine\n" in str(function["body"])
    assert function["fields"] == {
        "content-type": "application/octet-stream",
        "x-duration-seconds": "N",
        "x-request-id": "mine",
    }
    assert probe["fields"]["x-request-id"] == "mine"  # type: ignore[index]
