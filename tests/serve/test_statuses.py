"""What a command's exit status is in HTTP, and what is answered for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.harness import Server, poll

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

EXITS = 'echo said; exit "$(cat)"'
"""With the status that the request's body is."""


def post(server: Server, body: str) -> tuple[int, bytes]:
    with server.connect() as client:
        client.post(body.encode())
        answer = client.read()
        assert answer.complete
        return answer.status, answer.body


def test_exit_statuses_are_what_the_route_says(serve: Serve, script: Script) -> None:
    server = serve("--status", "1=404, 2=400,3=503,4=206,0=201", command=script(EXITS))
    assert post(server, "0") == (201, b"said\n")
    assert post(server, "1") == (404, b"404 Not Found: the command exited with status 1\n")
    assert post(server, "2") == (400, b"400 Bad Request: the command exited with status 2\n")
    assert post(server, "3") == (
        503,
        b"503 Service Unavailable: the command exited with status 3\n",
    )
    assert post(server, "4") == (206, b"said\n")
    assert post(server, "5") == (
        500,
        b"500 Internal Server Error: the command exited with status 5\n",
    )


def test_a_search_without_a_match(start: Serve, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("one\ntwo\n")
    server = start(
        *("--status", "1=200", "--route", f"/found/{{word}}=grep -e {{word}} {words}"),
        *("--route", f"/missing/{{word}}=grep -e {{word}} {words}.not"),
    )
    assert (server.get("/found/two").status, server.get("/found/two").body) == (200, b"two\n")
    assert (server.get("/found/three").status, server.get("/found/three").body) == (200, b"")
    assert server.get("/missing/two").status == 500


def test_what_a_failed_command_wrote(serve: Serve, script: Script) -> None:
    options = ("--status", "1=404,3=302", "--content-type", "application/json")
    server = serve(*options, "--error-body", "output", command=script(EXITS))
    assert post(server, "1") == (404, b"said\n")
    assert post(server, "3") == (302, b"said\n")
    with server.connect() as client:
        for status, in_http in ((7, 500), (1, 404), (0, 200)):
            client.post(b"%d" % status)
            answer = client.read()
            assert answer.status == in_http
            assert answer.body == b"said\n"
            assert answer.fields["content-type"] == "application/json"
    # Only what the operator has to see to: a 404 is the client's.
    server.says("raw: POST /: it exited with status 7; output: b'said\\n'", times=1)
    assert "status 1" not in server.errors()


def test_the_first_lines_of_a_failure_are_in_the_log(serve: Serve, script: Script) -> None:
    text = "printf 'no \\033[2J such thing\\n'; seq 1000; exit 3"
    server = serve("--hold", "exit", command=script(text))
    assert server.get("/a?b=1").body.endswith(b"the command exited with status 3\n")
    server.says("fastspawn: raw: GET /a?b=1: it exited with status 3; output: b'no \\x1b[2J such")
    assert len(server.errors().splitlines()[-1]) < 2000


def test_a_killed_command_has_not_chosen_what_to_say(serve: Serve, script: Script) -> None:
    server = serve(
        *("--error-body", "output", "--status", "9=404"), command=script("echo half; kill -KILL $$")
    )
    answer = server.get()
    assert answer.status == 500
    assert answer.body == b"500 Internal Server Error: the command was killed by signal 9\n"
    server.says("it was killed by signal 9; output: b'half\\n'")


@pytest.mark.parametrize("status", ["204", "205", "304"])
@pytest.mark.parametrize("exits", ["0", "1"])
def test_answers_without_a_body(start: Serve, script: Script, status: str, exits: str) -> None:
    server = start("--status", f"{exits}={status}", command=script(f"echo said; exit {exits}"))
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        for _ in range(2):
            answer = client.read_head()
            assert answer.status == int(status)
            assert answer.fields.get("content-length") == ("0" if status == "205" else None)
            assert "content-type" not in answer.fields
        client.get(version="1.0")
        assert client.read_to_end().endswith(b"\r\n\r\n")


def test_the_head_waits_for_the_exit(serve: Serve, script: Script, tmp_path: Path) -> None:
    """However long after the output: which status it is would be a race otherwise."""
    go, began = tmp_path / "go", tmp_path / "began"
    text = 'echo none such; touch "$2"; while [ ! -e "$1" ]; do sleep 0.01; done; exit 1'
    server = serve(
        *("--status", "1=404", "--error-body", "output"), command=script(text, go, began)
    )
    with server.connect() as client:
        client.get()
        poll(began.exists, "its output")
        # Other requests are answered meanwhile: what was held for no longer would be out.
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.fill()
        client.sock.settimeout(45)
        go.touch()
        answer = client.read()
        assert (answer.status, answer.body) == (404, b"none such\n")


def test_a_head_that_does_not_wait(serve: Serve, script: Script, tmp_path: Path) -> None:
    """Its status is out: another one than success breaks the answer off."""
    go = tmp_path / "go"
    text = 'echo one; while [ ! -e "$2" ]; do sleep 0.01; done; exit "$1"'
    for exits, whole in (("1", True), ("2", False), ("3", False)):
        go.unlink(missing_ok=True)
        server = serve(
            *("--status", "1=202,2=404", "--hold", "10ms"), command=script(text, exits, go)
        )
        with server.connect() as client:
            client.get()
            assert client.read_head().status == 200
            assert client.read_chunk() == b"one\n"
            go.touch()
            assert client.read_chunk() == b""
            assert client.last_seen == whole


def test_a_long_output_does_not_wait(serve: Serve, script: Script) -> None:
    server = serve("--status", "0=203,1=404", command=script("head -c 200000 /dev/zero; sleep 60"))
    with server.connect() as client:
        client.get()
        assert client.read_head().status == 203
        assert client.read_chunk()


def test_a_head_request_has_the_same_status(serve: Serve, script: Script) -> None:
    server = serve("--status", "1=404", command=script("echo no; exit 1"))
    with server.connect() as client:
        for _ in range(2):
            client.request("HEAD")
            answer = client.read(head=True)
            assert answer.status == 404


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--status", "1=99"), "'1=99' is not EXIT=HTTP such as 1=404"),
        (("--status", "256=404"), "'256=404' is not EXIT=HTTP"),
        (("--status", "1=404,"), "'' is not EXIT=HTTP"),
        (("--status", "1=101"), "'1=101' is not EXIT=HTTP"),
        (("--status", "1=404,1=400"), "exit status 1 occurs twice"),
        (("--error-body", "x"), "not one of message, output"),
        (("--hold", "0"), "must be more than 0"),
        (("--hold", "none"), "not a duration"),
        (("--mode", "cgi", "--status", "1=404"), "--status needs --mode raw (it is cgi)"),
        (("--mode", "cgi", "--hold", "1s"), "--hold needs --mode raw"),
    ],
)
def test_what_cannot_be(options: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastspawn.serve", *options, "--", "true"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()[-1:]) == 1
    assert "Traceback" not in done.stderr


def test_a_file_has_a_table(start: Serve, tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(
        "[[route]]\npath = '/'\ncommand = ['sh', '-c', 'exit 1']\n"
        "[route.status]\n1 = 404\n2 = 400\n"
    )
    assert start("--config", str(file)).get().status == 404
