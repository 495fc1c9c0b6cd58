"""``--mode ws --pty``: a terminal for each WebSocket. The clients are ``websockets`` and, where a
browser and npm are there, xterm.js."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.browser import Browser, find
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from fastspawn.serve.http.refused import Refused
from fastspawn.serve.ws.terminal import size_of
from serve.harness import BOUND, Server, alive, children, fds, poll, settled
from serve.test_fields import refuse
from serve.test_ws import end_of, open_ws, status_of
from support import LINUX

pytestmark = pytest.mark.skipif(not LINUX, reason="--pty is for Linux")

Start = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

EXAMPLE = Path(__file__).parents[2] / "examples" / "terminal"
JOBS = "set -m; sleep 60 & echo one $!.; (trap '' HUP TERM; exec sleep 60) & echo two $!.; "
"""Two jobs, each in a group of its own as those of an interactive shell are."""


@pytest.fixture
def start(start: Start) -> Start:
    return lambda *options, **more: start("--mode", "ws", "--pty", *options, **more)


KEPT = 1 << 20


class Screen:
    """What came, in pieces, and the latest of it as text."""

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        self.pieces: list[str | bytes] = []
        self.size = 0
        """of all of them"""
        self.text = ""

    def more(self) -> None:
        piece = self.client.recv(BOUND)
        self.pieces.append(piece)
        self.size += len(piece)
        text = piece if isinstance(piece, str) else piece.decode("utf-8", "replace")
        self.text = (self.text + (text[1:] if self.client.subprotocol == "tty" else text))[-KEPT:]

    def all(self) -> None:
        while True:
            self.more()

    def until(self, wanted: str) -> re.Match[str]:
        while not (found := re.search(wanted, self.text)):
            self.more()
        return found

    def end(self) -> tuple[int, str]:
        with pytest.raises(ConnectionClosed) as closed:
            self.all()
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code, closed.value.rcvd.reason

    def pid(self, name: str) -> int:
        return int(self.until(rf"{name} (\d+)\.")[1])


def test_a_terminal(start: Start, script: Script) -> None:
    text = 'tty; stty size; echo $TERM; ls -1 /proc/$$/fd; read line; echo "<$line>"'
    server = start(command=script(text))
    with open_ws(server, "/?cols=100&rows=40") as client:
        screen = Screen(client)
        screen.until(r"^/dev/pts/\d+\r\n40 100\r\nxterm-256color\r\n0\r\n1\r\n2\r\n")
        client.send("hel")
        client.send(b"lo\r")
        screen.until("hello\r\n<hello>\r\n")
        assert screen.end() == (1000, "")
        assert client.subprotocol is None
    assert 'GET /?cols=100&rows=40 HTTP/1.1" 101' in server.logs(1)[0]


def test_the_size_at_first(start: Start, script: Script) -> None:
    server = start("--set-env", "TERM=vt100", command=script("stty size; echo $TERM"))
    with open_ws(server, "/?rows=7&x=1") as client:
        assert Screen(client).until(r"7 80\r\nvt100")


@pytest.mark.parametrize(
    ("query", "size"),
    [
        (b"", (80, 24)),
        (b"cols=1&rows=4096", (1, 4096)),
        (b"a=cols&cols=2&acols=3", (2, 24)),
        *((query, None) for query in (b"cols=0", b"cols=", b"rows=4097", b"rows=-1", b"rows=1e3",
                                      b"cols=99999999999999999999", b"cols=%31", b"rows=\xb2")),
    ],
)  # fmt: skip
def test_sizes(query: bytes, size: tuple[int, int] | None) -> None:
    if size is not None:
        assert size_of(query) == size
        return
    with pytest.raises(Refused) as refused:
        size_of(query)
    assert refused.value.status == 400


def test_what_is_refused(start: Start) -> None:
    """Before there is a process."""
    server = start(command=("cat",))
    with server.connect() as client:
        client.request(
            "GET", "/?cols=x", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        )  # fmt: skip
        assert b"cols and rows are numbers from 1 to 4096\n" in client.read().body
    assert status_of(server) == 426
    assert children(server.pid) == {}


def test_ttyd(start: Start, script: Script) -> None:
    """Its subprotocol, as its own client speaks it (ttyd 1.7.7, html/src/components/terminal)."""
    server = start(command=script("trap 'stty size' WINCH; stty size; while :; do read x; done"))
    with open_ws(server, subprotocols=["tty"]) as client:
        assert client.subprotocol == "tty"
        screen = Screen(client)
        screen.until("24 80\r\n")
        client.send(json.dumps({"AuthToken": "", "columns": 120, "rows": 50}).encode())
        screen.until("50 120\r\n")
        client.send([b"1", json.dumps({"columns": 90, "rows": 20}).encode()])
        screen.until("20 90\r\n")
        client.send('1{"columns": 91, "rows": 21}')
        screen.until("21 91\r\n")
        client.send(b"0typed\r")
        screen.until("typed\r\n")
        assert all(piece[:1] == b"0" for piece in screen.pieces)


def test_ttyd_holds_up(start: Start, script: Script) -> None:
    """What xterm.js has not yet drawn is not sent: 2, until 3."""
    server = start(command=script("read x; exec yes"))
    with open_ws(server, subprotocols=["tty"], max_queue=None) as client:
        client.send(b"2")
        client.send(b"0\r")
        pid = only_child(server)
        poll(lambda: (Path(f"/proc/{pid}/comm").read_text()) == "yes\n", "the command")
        assert settled(lambda: written(pid)) < 1 << 20
        client.send(b"3")
        screen = Screen(client)
        while screen.size < 2 << 20:
            screen.more()


@pytest.mark.parametrize(
    "message",
    [b"", b"x", b"1", b"1{", b"1[]", b'1{"columns": 1}', b'1{"columns": 0, "rows": 1}', b"{}",
     b'1{"columns": true, "rows": 1}', b'1{"columns": 9e9, "rows": 1}', b"1" + b"[" * 100_000,
     b"1\xff"],
    ids=lambda message: repr(message[:12]),
)  # fmt: skip
def test_no_message_of_ttyd(start: Start, message: bytes) -> None:
    with open_ws(start(command=("cat",)), subprotocols=["tty"]) as client:
        client.send(message)
        assert end_of(client) == (1003, "no message of the subprotocol tty")


def test_a_subprotocol_of_the_command(start: Start) -> None:
    server = start("--ws-subprotocol", "mine", command=("cat",))
    with open_ws(server, subprotocols=["other", "mine", "tty"]) as client:
        assert client.subprotocol == "mine"
        client.send("x\r")
        Screen(client).until("x\r\nx\r\n")


def test_text_is_text(start: Start, tmp_path: Path) -> None:
    """No message ends within a letter, and what is no UTF-8 is shown as such."""
    letters = "aé€😀" * 20_000
    file = tmp_path / "file"
    file.write_bytes(letters.encode() + b"\xff\xe2\x82.\xf0\x9f")
    for options in ((), ("--ws-frames", "text")):
        server = start(*options, command=("cat", str(file)))
        with open_ws(server) as client:
            screen = Screen(client)
            assert screen.end() == (1000, "")
        assert all(isinstance(piece, str) for piece in screen.pieces)
        assert screen.text == letters + "\ufffd\ufffd.\ufffd"
    server = start("--ws-frames", "bytes", command=("cat", str(file)))
    with open_ws(server) as client:
        screen = Screen(client)
        assert screen.end() == (1000, "")
    assert b"".join(screen.pieces) == file.read_bytes()  # type: ignore[arg-type]


def test_text_without_a_terminal(tmp_path: Path) -> None:
    server = Server(tmp_path, ("--mode", "ws", "--ws-frames", "text"), ("cat",))
    try:
        with open_ws(server) as client:
            for part in ("é".encode()[:1], "é".encode()[1:] + b"\n"):
                client.send(part)
            assert Screen(client).until("é\n").string == "é\n"
    finally:
        server.stop()


def test_job_control(start: Start) -> None:
    """An interactive shell, as it is used."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    server = start("--set-env", "PS1=<$>", command=(bash, "--norc", "--noprofile", "-i"))
    with open_ws(server) as client:
        screen = Screen(client)
        screen.until(r"<\$>")
        assert "no job control" not in screen.text
        client.send("sleep 60\r")
        poll(lambda: "sleep" in names(server), "the command")
        client.send("\x1a")
        screen.until(r"Stopped +sleep 60")
        client.send("fg\r")
        screen.until(r"fg\r\n.*sleep 60\r\n")
        poll(lambda: in_front(server, "sleep"), "the command")  # said before it is done
        client.send("\x03")
        screen.until(r"\^C")
        client.send("echo status $?\r")
        screen.until("status 130\r\n")
        client.send("exit 7\r")
        assert screen.end() == (1011, "the command exited with status 7")


def only_child(server: Server) -> int:
    poll(lambda: children(server.pid), "the process")
    (pid,) = children(server.pid)
    return pid


def written(pid: int) -> int:
    """Bytes, to whatever."""
    return int(Path(f"/proc/{pid}/io").read_text().partition("wchar: ")[2].split()[0])


def below(server: Server) -> Iterator[tuple[str, list[str]]]:
    """The name of each process below the server, and what proc_pid_stat(5) has from field 3 on."""
    left = [server.pid]
    while left:
        for pid in children(left.pop()):
            left.append(pid)
            with contextlib.suppress(OSError):
                name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
                yield name.partition("(")[2], rest.split()


def names(server: Server) -> list[str]:
    return [name for name, _ in below(server)]


def in_front(server: Server, name: str) -> bool:
    """It goes on, and its group is the one that the terminal sends signals to."""
    found = [stat for called, stat in below(server) if called == name]
    return any(stat[0] == "S" and stat[2] == stat[5] for stat in found)


def test_signals_that_the_server_ignores(
    start: Start, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that was started with nohup, or by a script's &."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (1, 2, 3)}
    try:
        server = start(command=script("echo ready; exec sleep 60"))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    with open_ws(server) as client:
        screen = Screen(client)
        screen.until("ready")
        client.send("\x03")
        assert screen.end() == (1011, "the command was killed by signal 2")
    with open_ws(server) as client:
        screen = Screen(client)
        screen.until("ready")
    # Hung up, and not killed after a grace.
    assert "signal" in server.logs(2)[1] or "exit=-1" in server.logs(2)[1]


# ---- nothing is left ----


Session = tuple[ClientConnection, Screen, list[int]]


def begin_jobs(server: Server, clients: contextlib.ExitStack) -> Session:
    client = clients.enter_context(open_ws(server))
    screen = Screen(client)
    return client, screen, [screen.pid("one"), screen.pid("two")]


def gone(pids: list[int]) -> None:
    poll(lambda: not any(map(alive, pids)), "the end of the session")


def leave(client: ClientConnection, screen: Screen, way: str) -> None:
    (leader,) = {os.getsid(pid) for pid in (screen.pid("one"), screen.pid("two"))}
    if way == "exit":
        client.send("\r")
        assert screen.end() == (1011, "the command exited with status 3")
    elif way == "kill":
        os.kill(leader, signal.SIGKILL)
        assert screen.end() == (1011, "the command was killed by signal 9")
    elif way == "close":
        client.close()
    else:
        client.socket.shutdown(2)


def test_nothing_of_a_session_is_left(start: Start, script: Script) -> None:
    """However it ends: neither its jobs, nor a zombie, nor a descriptor."""
    server = start("--kill-grace", "0.2s", command=script(JOBS + "echo ready; read line; exit 3"))
    with open_ws(server) as client:
        Screen(client).until("ready")
    poll(lambda: children(server.pid) == {}, "the end of the first")
    before = settled(lambda: fds(server.pid))
    for _ in range(5):
        with contextlib.ExitStack() as clients:
            ways = ("exit", "kill", "close", "gone") * 3
            sessions = [(way, *begin_jobs(server, clients)) for way in ways]
            for way, client, screen, _ in sessions:
                leave(client, screen, way)
            for *_, pids in sessions:
                gone(pids)
    poll(lambda: children(server.pid) == {}, "the end of the leaders")
    assert settled(lambda: fds(server.pid)) <= before + 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_stops(start: Start, script: Script, number: int) -> None:
    server = start("--kill-grace", "0.2s", command=script(JOBS + "echo ready; read line"))
    with contextlib.ExitStack() as clients:
        sessions = [begin_jobs(server, clients) for _ in range(3)]
        server.signal(number)
        for _, screen, _ in sessions:
            assert screen.end() == (1001, "")
        server.wait()
        for *_, pids in sessions:
            gone(pids)


def test_limits(start: Start, script: Script) -> None:
    options = ("--exec-timeout", "2s", "--kill-grace", "0.2s", "--drain-timeout", "0")
    server = start(*options, command=script("trap '' TERM; " + JOBS + "wait; wait"))
    with contextlib.ExitStack() as clients:
        _, screen, pids = begin_jobs(server, clients)
        assert screen.end() == (1011, "the command did not finish in time")
        gone(pids)
    server = start("--max-output", "2k", command=("yes",))
    with open_ws(server) as client:
        screen = Screen(client)
        assert screen.end() == (1011, "the command wrote too much")
        assert len(screen.text) <= 2048
    server = start("--max-inflight", "1", "--queue", "0", command=("cat",))
    with open_ws(server) as client:
        client.send("x\r")
        Screen(client).until("x")
        assert status_of(server, "Upgrade: websocket", "Connection: Upgrade",
                         "Sec-WebSocket-Version: 13",
                         "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==") == 503  # fmt: skip


def test_a_slow_client_throttles_the_process(start: Start) -> None:
    server = start(command=("yes",))
    with open_ws(server, max_queue=1) as client:
        pid = only_child(server)
        before = settled(lambda: written(pid))
        assert before < 32 << 20
        screen = Screen(client)
        while screen.size < before + (1 << 20):
            screen.more()
        # Else it waits for a Close, which is behind what it does not read.
        client.socket.shutdown(socket.SHUT_RDWR)


def test_a_process_that_does_not_read_throttles_the_client(start: Start, script: Script) -> None:
    """What is typed ahead waits, and is all there: none of it is lost where the terminal is raw."""
    count = 3_000_000
    text = f"stty raw -echo; echo ready; sleep 1; head -c {count} | tr -d x | wc -c"
    server = start(command=script(text))
    with open_ws(server) as client:
        screen = Screen(client)
        screen.until("ready")
        for _ in range(count // 100_000):
            client.send("x" * 100_000)
        screen.until(r"\b0\b")
        assert screen.end() == (1000, "")


def test_origins(start: Start) -> None:
    server = start(command=("cat",))
    fields = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
              "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")  # fmt: skip
    assert status_of(server, *fields, "Origin: https://evil.example") == 403


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--pty",), "--pty needs --mode ws (it is raw)"),
        *(
            (
                ("--mode", "ws", "--pty", "--strategy", name),
                f"--pty can't be with --strategy {name}",
            )
            for name in ("snapshot", "reset", "warm", "pool", "auto", "subprocess")
        ),
        (
            ("--mode", "ws", "--pty", "--ws-frames", "lines"),
            "--pty can't be with --ws-frames lines",
        ),
        (("--mode", "ws", "--pty", "--stderr", "merge"), "--pty can't be with --stderr merge"),
        (("--mode", "ws", "--ws-frames", "words"), "'words' is not one of lines, bytes, text"),
    ],
)
def test_what_cannot_be(options: tuple[str, ...], said: str) -> None:
    refuse(options, said)


# ---- xterm.js ----


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, with the packages that it names."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm")
    folder = tmp_path_factory.mktemp("npm") / "terminal"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"npm: {done.stderr.strip().splitlines()[-1:]}")
    return folder


@pytest.fixture
def browser() -> Iterator[Browser]:
    program = find()
    if program is None:
        pytest.skip("no browser")
    with Browser(program) as browser:
        yield browser


SHOWN = """[...Array(term.buffer.active.length).keys()].map(
    i => term.buffer.active.getLine(i).translateToString(true)).join("\\n")"""


@pytest.mark.parametrize("page", ["/", "/?raw"])
def test_xterm(
    packages: Path, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    """The example in a real browser: keys, colours and letters there and back, sizes, the end."""
    monkeypatch.chdir(packages)
    server = Server(tmp_path, ("--config", "serve.toml", "--set-env", "PS1=<$>"), ())

    def see(wanted: str) -> str:
        deadline = time.monotonic() + BOUND
        while True:
            shown = str(browser.evaluate(SHOWN))
            if re.search(wanted, shown):
                return shown
            assert time.monotonic() < deadline, shown[-2000:]
            browser.evaluate("new Promise(done => setTimeout(done, 20))")

    def type_line(text: str) -> None:
        browser.call("Input.insertText", text=text)
        browser.press_enter()

    try:
        browser.call("Page.navigate", url=f"http://127.0.0.1:{server.port}{page}")
        browser.wait_for("Page.loadEventFired")
        see(r"<\$>")
        cols, rows = browser.evaluate("[term.cols, term.rows]")
        type_line("stty size; printf '\\033[1mgrün €😀\\033[0m.\\n'")
        see(rf"(?m)^{rows} {cols}$")
        see(r"(?m)^grün €😀\.$")
        size: dict[str, Any] = {"width": 500, "height": 300, "deviceScaleFactor": 1}
        browser.call("Emulation.setDeviceMetricsOverride", mobile=False, **size)
        if page == "/":
            poll(lambda: browser.evaluate("[term.cols, term.rows]") != [cols, rows], "its size")
            cols, rows = browser.evaluate("[term.cols, term.rows]")
        type_line("clear; stty size")
        see(rf"(?m)^{rows} {cols}$")
        type_line("seq 100000 | tail -n 1 && seq 20000")
        see(r"(?m)^20000$")
        type_line("sleep 60")
        poll(lambda: "sleep" in names(server), "the command")
        key: dict[str, Any] = {"key": "c", "code": "KeyC", "windowsVirtualKeyCode": 67}
        for event in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=event, modifiers=2, **key)
        see(r"\^C\n<\$>$")
        type_line("exit")
        see(r"\[closed: 1011 the command exited with status 130\]")
        assert not [e for e in browser.events if e.get("method") == "Runtime.exceptionThrown"]
    finally:
        server.stop()
