"""--stderr log: whose each line of standard error is."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastspawn.serve.figures.errors import MOST
from serve.conftest import Serve
from serve.harness import BOUND, Server, fds, poll, routes_file, settled
from support import LINUX

TEXT = re.compile(
    r'(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) "(?P<route>[^"]*)" pid=(?P<pid>\d+) '
    r"id=(?P<id>\S+?)(?P<cut> cut)?(?: dropped=(?P<dropped>\d+)|: (?P<said>.*))"
)

WAYS = {
    "direct": (),
    "main": ("--strategy", "snapshot", "--snapshot-at", "main"),
    "effect": ("--strategy", "snapshot", "--snapshot-at", "effect"),
    "reset": ("--strategy", "reset"),
    "warm": ("--strategy", "warm"),
    "pool": ("--strategy", "pool"),
    "auto": ("--strategy", "auto", "--allow-reset"),
    "subprocess": ("--strategy", "subprocess"),
    "subprocess on asyncio": ("--strategy", "subprocess", "--loop", "asyncio"),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, start: Serve) -> Serve:
    """Starts servers of each strategy with this log."""
    if not LINUX and request.param in ("main", "effect", "reset"):
        pytest.skip("Linux only")

    def way(*options: str, **more: object) -> Server:
        return start(*WAYS[request.param], "--stderr", "log", *options, **more)

    return way


def told(server: Server) -> Iterator[dict[str, str | None]]:
    for line in server.errors().splitlines():
        found = TEXT.fullmatch(line)
        if found is not None:
            yield found.groupdict()
        else:
            assert line.startswith("fastspawn"), line


def lines(server: Server, count: int) -> list[dict[str, str | None]]:
    poll(lambda: len(list(told(server))) >= count, f"{count} lines")
    found = list(told(server))
    assert len(found) == count, found
    return found


def test_each_line_with_whose_it_is(way: Serve) -> None:
    """The last one has no newline; what moves a cursor or is not UTF-8 is escaped."""
    text = r"""echo "one $$" >&2; printf 'a\033[31m\tb\377\342\200\256\303\251\r\n\nlast' >&2"""
    server = way(command=("sh", "-c", text))
    assert server.get("/x").body == b""
    found = lines(server, 4)
    shown = ["\\x1b[31m\tb\\xff\\u202e\xe9", "", "last"]
    assert [line["said"] for line in found[1:]] == ["a" + shown[0], *shown[1:]]
    assert found[0]["said"] == f"one {found[0]['pid']}" or "reset" in server.errors()
    assert len({(line["id"], line["pid"], line["route"]) for line in found}) == 1
    assert found[0]["route"] == "/{...}"
    # The same id is in the access log, and nowhere else.
    poll(server.log, "a line of the access log")
    assert server.log()[0].endswith(f" id={found[0]['id']}")


def test_many_at_once(way: Serve) -> None:
    """Each says its own name a hundred times in pieces: no line has two of them."""
    say = r'printf "$name" >&2; printf "$name\n" >&2; sleep 0.002'
    text = f"read name; for i in 0 1 2 3 4 5 6 7 8 9; do {say}; done"
    server = way(command=("sh", "-c", text))

    def ask(name: bytes) -> None:
        with server.connect() as client:
            client.post(name + b"\n")
            assert client.read().status == 200

    names = [b"%c" % letter * 20 for letter in b"abcdefgh"]
    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    found = lines(server, 80)
    wanted = sorted(name.decode() * 2 for name in names for _ in range(10))
    assert sorted(line["said"] or "" for line in found) == wanted
    of_each: dict[str | None, set[str | None]] = {}
    for line in found:
        of_each.setdefault(line["id"], set()).add(line["said"])
    assert sorted(map(len, of_each.values())) == [1] * 8


def test_long_lines_are_cut(way: Serve) -> None:
    """Not within a character, and with nothing lost; a line of this log is never longer than a
    pipe keeps whole."""
    text = (
        "head -c 5000 /dev/zero | tr '\\0' x; echo; head -c 4000 /dev/zero; printf '\\303\\251%.0s'"
    )
    command = ("sh", "-c", f"({text} $(seq 3000); echo; echo end) >&2")
    server = way(command=command)
    server.get()
    poll(lambda: any(line["said"] == "end" for line in told(server)), "the end")
    whole = [""]
    for line in told(server):
        whole[-1] += line["said"] or ""
        if line["cut"] is None:
            whole.append("")
    assert whole == ["x" * 5000, "\\x00" * 4000 + "\xe9" * 3000, "end", ""]
    assert max(len(line) for line in server.stderr.read_bytes().splitlines(keepends=True)) <= 4096


def test_json(way: Serve, tmp_path: Path) -> None:
    config = routes_file(
        tmp_path / "serve.toml",
        a="""command = ['sh', '-c', 'printf "\\"\\303\\251\\377\\n" >&2']""",
    )
    server = way("--log-format", "json", "--request-id", "--config", config)
    answer = server.get("/a", "X-Request-Id: mine")
    poll(lambda: '"stderr"' in server.errors(), "a line")
    row = next(json.loads(line) for line in server.errors().splitlines() if line[0] == "{")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row.pop("time"))
    assert isinstance(row.pop("pid"), int)
    assert row == {"route": "/a", "id": "mine", "stderr": '"\xe9\\xff'}
    assert answer.fields["x-request-id"] == "mine"


def test_flood(way: Serve) -> None:
    """What exceeds a rate is counted, every line of it, and others are answered meanwhile."""
    count = 200_000
    text = f'read go; if [ "$go" = flood ]; then seq {count} >&2; fi; echo done'
    server = way("--exec-timeout", "60s", command=("sh", "-c", text))
    with server.connect() as flood:
        flood.request("POST", "/", "Content-Length: 6", body=b"flood\n")
        with server.connect() as other:
            other.post(b"no\n")
            assert other.read().body == b"done\n"
        assert flood.read().body == b"done\n"
    poll(lambda: any(line["dropped"] for line in told(server)), "word of what was dropped")
    found = list(told(server))
    said = [line["said"] for line in found if line["dropped"] is None]
    dropped = sum(int(line["dropped"] or 0) for line in found)
    assert len(said) + dropped == count
    assert said[:MOST] == [str(i) for i in range(1, MOST + 1)]


@pytest.mark.parametrize("what", ["exec cat {}", "exec yes"])
def test_descendant_that_keeps_stderr(way: Serve, tmp_path: Path, what: str) -> None:
    """It does not keep its request, nor anything of the server, whatever it writes."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    text = f"({what.format(fifo)}) >&2 & echo one >&2; echo hi; exit 0"
    server = way("--keep-alive-timeout", "60s", command=("sh", "-c", text))
    assert server.get().body == b"hi\n"
    before = settled(lambda: fds(server.pid))
    for _ in range(10):
        assert server.get().body == b"hi\n"
    poll(lambda: fds(server.pid) <= before, "an end of pipes")
    os.close(os.open(fifo, os.O_RDWR))  # for all that wait there


@pytest.mark.parametrize("mode", ["cgi", "ws"])
def test_other_modes(start: Serve, mode: str) -> None:
    if mode == "cgi":
        text = r"echo said >&2; printf 'Content-Type: text/plain\n\n%s\n' ${HTTP_X_REQUEST_ID-none}"
        server = start("--mode", mode, "--stderr", "log", command=("sh", "-c", text))
        assert server.get().body == b"none\n"
    else:
        client = pytest.importorskip("websockets.sync.client")
        command = ("sh", "-c", "echo said >&2; read line; echo $line")
        server = start("--mode", mode, "--stderr", "log", command=command)
        with client.connect(f"ws://127.0.0.1:{server.port}/", open_timeout=BOUND) as socket:
            # Before the process ends, and with its id.
            (line,) = lines(server, 1)
            assert line["said"] == "said"
            socket.send("hello")
            assert socket.recv(BOUND) == "hello"
    (line,) = lines(server, 1)
    poll(server.log, "a line of the access log")
    assert server.log()[0].endswith(f" id={line['id']}")


def test_a_route_of_its_own(start: Serve, tmp_path: Path) -> None:
    """The others' standard error stays the server's."""
    config = routes_file(
        tmp_path / "serve.toml",
        one="command = ['sh', '-c', 'echo one >&2']\nstderr = 'log'",
        two="command = ['sh', '-c', 'echo fastspawn two >&2']",
    )
    server = start("--config", config, "--workers", "2")
    for path in ("/one", "/two"):
        assert server.get(path).status == 200
    (line,) = lines(server, 1)
    assert (line["said"], line["route"]) == ("one", "/one")
    poll(lambda: "\nfastspawn two\n" in server.errors(), "a line as it is")
