"""``fastspawn top``, at a server."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

import needs
from fastspawn._cli import top
from fastspawn._cli.looks import NoFiguresError, fetch
from fastspawn.serve.figures.look import quantile
from serve.harness import Server
from support import poll

Serve = Callable[..., Server]
TOP = (sys.executable, "-m", "fastspawn", "top")


def test_quantile() -> None:
    moments = (0.1, 0.2, 1.0)
    run = (0, 50, 40, 10)
    assert quantile(moments, run, 0.5) == pytest.approx(0.2)
    assert quantile(moments, run, 0.25) == pytest.approx(0.15)
    assert quantile(moments, run, 0.99) == 1.0
    assert quantile(moments, (0, 0, 0, 0), 0.5) is None
    assert quantile((), (), 0.5) is None


def test_a_server(start: Serve) -> None:
    """Requests that are answered between the two looks, which begin when the first was taken."""
    server = start("--metrics-path", "/figures", "--route", "/slow=sleep 60", command=("echo",))
    url = f"http://127.0.0.1:{server.port}/figures"
    with server.connect() as client:
        client.get("/slow")
        with subprocess.Popen(
            [*TOP, "--once", "--interval", "3s", url], stdout=subprocess.PIPE, text=True
        ) as top:
            while top.poll() is None:
                server.get("/")
            assert top.stdout is not None
            out = top.stdout.read()
    assert top.returncode == 0
    assert "\x1b" not in out
    head, *rows = [re.split(r"  +", line) for line in out.splitlines()[2:]]
    found = {row[0]: dict(zip(head, row, strict=False)) for row in rows}
    assert found["/slow"]["STRATEGY"] == "direct"
    assert (found["/slow"]["RUN"], found["/slow"]["REQ/S"]) == ("1", "0.0")
    assert float(found["/{...}"]["REQ/S"].replace(",", "")) > 0
    assert found["/{...}"]["P50"].endswith("s")


@needs.residents
def test_residents(start: Serve) -> None:
    """How many requests ended with a reset, or left."""
    server = start("--metrics-path", "/figures", "--strategy", "reset", command=("/bin/echo", "hi"))
    url = f"http://127.0.0.1:{server.port}/figures"
    shown: list[str] = []

    def shows() -> bool:
        server.get("/")
        done = subprocess.run(
            [*TOP, "--once", "--interval", "100ms", url], stdout=subprocess.PIPE, text=True
        )
        shown.append(done.stdout)
        return re.search(r" resets=[1-9]", done.stdout) is not None

    poll(shows, "a reset among the events")
    assert "reset_leaves" not in shown[-1]  # none are not shown


def test_on_a_terminal(start: Serve) -> None:
    """Again and again, on the other screen, until Ctrl-C."""
    server = start("--metrics-path", "/metrics")
    pid, fd = pty.fork()
    if pid == 0:
        url = f"http://127.0.0.1:{server.port}"
        os.execv(sys.executable, [*TOP, "--interval", "200ms", url])
    said = b""
    try:
        while said.count(b"ROUTE") < 2:
            said += os.read(fd, 4096)
        os.kill(pid, signal.SIGINT)
        while b"\x1b[?1049l" not in said:
            said += os.read(fd, 4096)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(fd)
    assert os.waitstatus_to_exitcode(status) == 0
    assert said.startswith(b"\x1b[?1049h")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://localhost:abc", "'http://localhost:abc' is not a URL"),
        ("http://[::1", "'http://[::1' is not a URL"),
        ("http://localhost/a b", "'http://localhost/a b' is not a URL"),
        ("http://me:secret@localhost", "a URL with a user cannot be asked"),
    ],
)
def test_urls_that_are_none(url: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        top.main([url])
    said = capsys.readouterr().err
    assert said.endswith(f"argument URL: {why}\n") or f"{why} such as" in said
    assert "secret" not in said


def test_what_is_no_web_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            with other.accept()[0] as asker:
                asker.recv(4096)
                asker.sendall(b"220 hello\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(NoFiguresError, match="220 hello"):
            fetch(f"http://127.0.0.1:{other.getsockname()[1]}/")
        answering.join()


def test_no_figures(start: Serve) -> None:
    server = start(command=("echo", "hi"))
    for url, why in (
        (f"http://127.0.0.1:{server.port}/", "no figures of fastspawn"),
        ("http://127.0.0.1:1/", "Connection refused"),
    ):
        done = subprocess.run([*TOP, "--once", url], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (1, "")
        assert why in done.stderr
        assert "Traceback" not in done.stderr
