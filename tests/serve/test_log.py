"""--log-format and --request-id."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from serve.conftest import Serve
from serve.harness import BOUND, Client, Server, poll, routes_file
from support import listens

MADE = re.compile(r"[0-9a-f]{32}")
COMBINED = re.compile(
    r"127\.0\.0\.1 - - \[[^]]+\] \"(?P<request>[^\"]*)\" (?P<status>\d+) (?P<sent>\d+) "
    r"\"(?P<referer>[^\"]*)\" \"(?P<agent>[^\"]*)\" exit=(?P<exit>\S+) wall=(?P<wall>\S+) "
    r"user=(?P<user>\S+) sys=(?P<sys>\S+) maxrss=(?P<maxrss>\S+)(?: id=(?P<id>\S+))?"
)
SHOW = ("sh", "-c", 'echo "$HTTP_X_REQUEST_ID"')
CGI = ("sh", "-c", r'printf "Content-Type: text/plain\n\n%s\n" "$HTTP_X_REQUEST_ID"')


def lines(server: Server, count: int) -> list[str]:
    poll(lambda: len(server.log()) >= count, f"{count} lines")
    assert len(server.log()) == count
    return server.log()


def rows(server: Server, count: int) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines(server, count)]


def test_combined(serve: Serve, strategy: str) -> None:
    server = serve("--log-format", "combined", command=("sh", "-c", "exit 3"))
    with server.connect() as client:
        client.get("/a", "Referer: http://x/?y", 'User-Agent: a "b\\ \x9b31m\tc')
        client.read()
        client.get("/%zz")
        client.read()
    found = COMBINED.fullmatch(lines(server, 2)[0])
    assert found is not None, server.log()
    assert found["request"] == "GET /a HTTP/1.1"
    assert (found["status"], found["exit"], found["id"]) == ("500", "3", None)
    assert found["referer"] == "http://x/?y"
    assert found["agent"] == r"a \x22b\x5c \xc2\x9b31m\x09c"
    if strategy == "direct":
        assert found["user"].endswith("ms")
        assert int(found["maxrss"]) > 100_000
    else:
        assert found["maxrss"] == "-"


def test_json(serve: Serve, strategy: str, tmp_path: Path) -> None:
    config = routes_file(
        tmp_path / "serve.toml",
        cat="command = 'cat'",
        die="command = ['sh', '-c', 'kill -KILL $$']",
        slow="command = 'sleep 60'\nexec-timeout = '200ms'\nkill-grace = '20s'",
    )
    server = serve(
        *("--log-format", "json", "--request-id", "--max-body", "9", "--config", config),
        command=("sh", "-c", "exit 3"),
    )
    with server.connect() as client:
        client.request("POST", "/cat", "Content-Length: 3", "User-Agent: \xe9\x9b1m", body=b"abc")
        assert client.read().body == b"abc"
        for target in ("/a?b", "/die", "/slow", "/%zz"):
            client.get(target, version="1.0" if target == "/%zz" else "1.1")
            client.read()
    with server.connect() as client:
        client.send(b"nonsense\r\n\r\n")
        client.read()
    cat, failed, died, slow, bad, nonsense = rows(server, 6)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(cat["time"]))
    assert (cat["peer"], cat["method"], cat["target"]) == ("127.0.0.1", "POST", "/cat")
    assert (cat["version"], cat["route"]) == ("HTTP/1.1", "/cat")
    assert (cat["status"], cat["received"], cat["sent"]) == (200, 3, 3)
    assert (cat["exit"], cat["signal"], cat["referer"]) == (0, None, None)
    assert cat["agent"] == "\xe9\x9b1m"
    assert server.stdout.read_bytes().isascii()
    assert MADE.fullmatch(str(cat["id"]))
    if strategy == "direct":
        assert isinstance(cat["user"], float)
        assert isinstance(cat["maxrss"], int)
    assert (failed["status"], failed["exit"], failed["target"]) == (500, 3, "/a?b")
    assert (died["exit"], died["signal"]) == (None, 9)
    assert (slow["status"], slow["killed"], slow["signal"]) == (504, "deadline", 15)
    assert (bad["status"], bad["route"], bad["version"]) == (400, "(none)", "HTTP/1.0")
    assert "exit" not in bad
    assert (nonsense["status"], nonsense["method"]) == (400, "-")
    assert len({row["id"] for row in (cat, failed, died, slow, bad)}) == 5


def test_bytes_of_answers_to_head(start: Serve) -> None:
    """None, however long they would have been for a GET."""
    server = start(
        *("--log-format", "json", "--status", "4=404"),
        *("--route", "/long=sh -c 'echo; exec head -c 200000 /dev/zero'"),
        *("--route", "/gone=sh -c 'exit 4'", "--route", "/late=sh -c 'exit 3'"),
    )
    with server.connect() as client:
        for target in ("/", "/long", "/gone", "/late", "/%zz"):
            client.request("HEAD", target)
            client.read(head=True)
    assert {row["target"]: row["sent"] for row in rows(server, 5)} == dict.fromkeys(
        ("/", "/long", "/gone", "/late", "/%zz"), 0
    )


def test_format_changes_with_a_reload(serve: Serve, tmp_path: Path) -> None:
    config = tmp_path / "serve.toml"
    config.write_text('log-format = "common"\n')
    server = serve("--config", str(config))
    with server.connect() as client:
        client.get()
        client.read()
        config.write_text('log-format = "json"\n')
        server.signal(signal.SIGHUP)
        poll(lambda: "reloaded" in server.errors(), "a reload")
        client.get("/", "User-Agent: me")
        client.read()
    before, after = lines(server, 2)
    assert before.endswith("ms")
    assert json.loads(after)["agent"] == "me"


@pytest.mark.parametrize("mode", ["raw", "cgi"])
@pytest.mark.parametrize("route", ["", "/id/{name}"])
def test_id_of_a_trusted_client(serve: Serve, mode: str, route: str) -> None:
    """It is in the answer, in the command's environment and in the log."""
    command = SHOW if mode == "raw" else CGI
    routed = ("--route", f"{route}=env -- sh -c '{command[2]}' {{name}}") if route else ()
    server = serve("--request-id", "--mode", mode, *routed, command=command)
    target = "/id/x" if route else "/"
    with server.connect() as client:
        client.get(target, "X-Request-ID: abc-1.2_3")
        answer = client.read()
        assert (answer.fields["x-request-id"], answer.body) == ("abc-1.2_3", b"abc-1.2_3\n")
        # Not an id, or not one.
        for fields in ((), ("X-Request-Id: a b",), ("X-Request-Id: a", "X-Request-Id: b"),
                       ("X-Request-Id: " + "a" * 201,)):  # fmt: skip
            client.get(target, *fields)
            answer = client.read()
            made = answer.fields["x-request-id"]
            assert MADE.fullmatch(made)
            assert answer.body == made.encode() + b"\n"
    assert lines(server, 5)[0].endswith(" id=abc-1.2_3")
    assert server.log()[4].endswith(f" id={made}")


def test_id_of_another_client(serve: Serve) -> None:
    server = serve("--request-id", "--forwarded-allow-ips", "10.0.0.0/8", command=SHOW)
    answer = server.get("/", "X-Request-Id: mine")
    assert MADE.fullmatch(answer.fields["x-request-id"])
    assert answer.body == answer.fields["x-request-id"].encode() + b"\n"


@pytest.mark.parametrize(
    ("sources", "trusted"),
    [("127.0.0.1", True), ("127.0.0.0/8,::1", True), ("*", True), ("", False), ("unix", False)],
)
def test_who_is_trusted(start: Serve, sources: str, trusted: bool) -> None:
    server = start("--request-id", "--forwarded-allow-ips", sources)
    assert (server.get("/", "X-Request-Id: x").fields["x-request-id"] == "x") is trusted


def test_id_of_answers_of_all_kinds(serve: Serve) -> None:
    """Refused, streamed, to HEAD, of the server's own, of a script that has one of its own."""
    server = serve(
        *("--request-id", "--health-path", "/health", "--max-body", "1"),
        *("--route", "/stream=sh -c 'head -c 200000 /dev/zero'"),
        *("--route", "/fail=false"),
    )
    for version in ("1.1", "1.0"):
        for target in ("/health", "/no", "/%zz", "/fail", "/stream"):
            with server.connect() as client:
                client.get(target, "X-Request-Id: x", version=version)
                assert client.read().fields["x-request-id"] == "x"
    with server.connect() as client:
        client.request("HEAD", "/fail", "X-Request-Id: x")
        assert client.read(head=True).fields["x-request-id"] == "x"


def test_script_with_an_id_of_its_own(serve: Serve) -> None:
    server = serve(
        *("--request-id", "--mode", "cgi"),
        command=("sh", "-c", r'printf "X-Request-ID: own\nContent-Type: a/b\n\n"'),
    )
    # (The harness refuses a head with a field twice.)
    assert server.get().fields["x-request-id"] == "own"


def test_local_redirect_keeps_the_id(serve: Serve) -> None:
    server = serve(
        *("--request-id", "--mode", "cgi"),
        *("--route", r"/to=printf 'Location: /here\n\n'"),
        command=CGI,
    )
    answer = server.get("/to", "X-Request-Id: x")
    assert (answer.fields["x-request-id"], answer.body) == ("x", b"x\n")


@needs.templates
@pytest.mark.parametrize("strategy_", ["snapshot", "warm", "pool"])
def test_id_with_strategies(start: Serve, strategy_: str) -> None:
    """A process that was started before the request does not know it, but the answer has it."""
    at = ("--snapshot-at", "main") if strategy_ == "snapshot" else ()
    server = start("--request-id", "--strategy", strategy_, *at, command=("env",))
    answer = server.get("/", "X-Request-Id: x")
    assert answer.fields["x-request-id"] == "x"
    assert (b"HTTP_X_REQUEST_ID=x\n" in answer.body) is (strategy_ != "warm")


def test_without_the_option(serve: Serve) -> None:
    server = serve(command=("sh", "-c", 'echo "${HTTP_X_REQUEST_ID-none}"'))
    answer = server.get("/", "X-Request-Id: x")
    assert answer.body == b"none\n"
    assert "x-request-id" not in answer.fields


# ---- whoever reads it, or does not --------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """As small as it can be."""
    read, write = os.pipe()
    if sys.platform == "linux":
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    yield read, write
    for fd in (read, write):
        os.close(fd)


def fill(write: int) -> None:
    """Until nothing more has room; the description stays as it was."""
    os.set_blocking(write, False)
    try:
        while os.write(write, b"x" * 512):
            pass
    except BlockingIOError:
        os.set_blocking(write, True)


class Reader(threading.Thread):
    """Reads a pipe a little at a time, to its end or that of the test."""

    def __init__(self, fd: int, piece: int) -> None:
        super().__init__()
        self.fd = fd
        self.piece = piece
        self.data = bytearray()
        self.start()

    def run(self) -> None:
        while data := os.read(self.fd, self.piece):
            self.data += data
            if data.endswith(b"end\n"):
                return

    def rows(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.data.splitlines() if line != b"end"]


BAD = ("--route", "/x=true")
"""With a route, "/%zz" is bad."""


def refused(client: Client, count: int, *fields: str) -> None:
    """Requests that are logged, and need no process."""
    lines = ["GET /%zz HTTP/1.1", "Host: test", *fields, "", ""]
    client.send("\r\n".join(lines).encode() * count)
    answers = b""
    while answers.count(b"HTTP/1.1 400 ") < count or answers.endswith(b"\r\n"):
        data = client.sock.recv(65536)
        assert data
        answers += data


def dropped(server: Server, log: str = "access") -> int:
    text = server.get("/metrics").body.decode()
    found = re.search(rf'^fastspawn_log_lines_dropped_total{{log="{log}"}} (\d+)', text, re.M)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_nobody_reads_it(start: Serve, pipe: tuple[int, int], workers: str) -> None:
    """All go on, what has no room is counted, and one line says so when it goes on."""
    options = (*BAD, "--workers", workers, "--log-format", "json")
    server = start(*options, "--metrics-path", "/metrics", stdout=pipe[1])
    sent = 0
    while not dropped(server):
        with server.connect() as client:
            refused(client, 50, f"User-Agent: {'x' * 3000}")
        sent += 50
    reader = Reader(pipe[0], 65536)
    poll(lambda: "of the access log: nobody took them" in server.errors(), "the news")
    with server.connect() as client:
        refused(client, 1)
    poll(lambda: reader.data.count(b"\n") + dropped(server) == sent + 1, "the others")
    lost = dropped(server)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    os.write(pipe[1], b"end\n")
    reader.join()
    assert len(reader.rows()) == sent + 1 - lost
    told = re.findall(r"fastspawn: dropped (\d+) lines? of the access log", server.errors())
    assert sum(map(int, told)) == lost
    assert len(told) <= int(workers)


def test_end_while_nobody_reads_it(start: Serve, loop: str, pipe: tuple[int, int]) -> None:
    fill(pipe[1])
    server = start(*BAD, "--loop", loop, stdout=pipe[1])
    with server.connect() as client:
        refused(client, 100)
        server.signal(signal.SIGTERM)
        assert client.ended()
    assert server.wait() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_complaints_that_nobody_reads(
    start: Serve, pipe: tuple[int, int], tmp_path: Path, workers: str
) -> None:
    """Standard error is full before the first line: the server starts, reloads and ends."""
    fill(pipe[1])
    path, config = tmp_path / "socket", tmp_path / "config.toml"
    config.write_text("workers = " + workers)

    def answer() -> int:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(BOUND)
            sock.connect(str(path))
            client = Client(sock)
            client.get()
            return client.read().status

    server = start(
        *("--config", str(config), "--no-access-log"),
        where=("--uds", str(path)),
        stderr=pipe[1],
    )
    poll(lambda: listens(path), "a server")
    assert answer() == 200
    config.write_text("unknown = 1")
    for _ in range(20):
        server.signal(signal.SIGHUP)
        assert answer() == 200
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_workers_share_a_pipe(start: Serve, pipe: tuple[int, int]) -> None:
    """However slowly it is read: each line is whole."""
    server = start(*BAD, "--workers", "2", "--log-format", "json", stdout=pipe[1])
    reader = Reader(pipe[0], 1000)

    def ask() -> None:
        for _ in range(20):
            with server.connect() as client:
                refused(client, 50)

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    os.write(pipe[1], b"end\n")
    reader.join()
    assert len(reader.rows()) == 3000


@pytest.mark.parametrize("style", ["common", "combined", "json"])
def test_long_line(start: Serve, style: str) -> None:
    """No longer than a pipe keeps together, and as long as that allows."""
    server = start("--log-format", style, "--request-id", "--forwarded-allow-ips", "*")
    long = ("Referer: " + "\xe9" * 9000, "User-Agent: " + '\\"' * 5000, "X-Request-Id: x")
    assert server.get("/" + '"' * 20000, *long).status == 200
    assert server.get("/" + "a" * 2000).status == 200
    first, second = lines(server, 2)
    assert 1000 < len(first) < 4096
    assert "a" * 2000 in second
    assert "..." in first
    if style == "json":
        row = json.loads(first)
        assert row["target"].startswith('/""""')
        assert all(row[name].endswith("...") for name in ("target", "referer", "agent"))
        assert (row["id"], row["status"], row["exit"]) == ("x", 200, 0)
    else:
        assert first.endswith("id=x")
        assert " 200 3 " in first


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_output(start: Serve, tmp_path: Path, closed: str) -> None:
    """Not open at all: there is no log, and a server."""
    path = tmp_path / "socket"
    server = start(
        *("--metrics-path", "/metrics"),
        prefix=("sh", "-c", f'exec "$@" {closed}', "sh"),
        where=("--uds", str(path)),
        stderr=2,
    )

    def answer() -> int:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(BOUND)
            if sock.connect_ex(str(path)):
                assert server.process.poll() is None
                return 0
            client = Client(sock)
            client.get()
            return client.read().status

    poll(lambda: answer() == 200, "an answer")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
