"""Several addresses, families and files at once: --host, --bind, --uds."""

from __future__ import annotations

import errno
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fastspawn.serve.host import listen
from netspace import apart
from serve.conftest import Serve
from serve.harness import BOUND, Client, Server, poll
from serve.test_cli import assert_refused, run
from serve.test_systemd import ACTIVATE
from support import LINUX

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])
SHOW = r"""printf 'Content-Type: text/plain\n\n'
echo $REMOTE_ADDR $SERVER_ADDR $SERVER_NAME ${REMOTE_PORT:+port} ${HTTPS:-off}"""
COMMAND = ("sh", "-c", SHOW)


def why_no_ipv6() -> str | None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return None
    except OSError as error:
        return f"no ::1 here: {error.strerror}"


NO_IPV6 = why_no_ipv6()
IPV6 = pytest.mark.skipif(NO_IPV6 is not None, reason=str(NO_IPV6))


def places(server: Server) -> list[str]:
    """Those that the start-up line names."""
    found = re.search(r" on (\S+(?:, \S+)*) \(", server.errors())
    assert found is not None, server.errors()
    return found[1].split(", ")


def reach(place: str) -> Client:
    if place.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(BOUND)
        sock.connect(place[5:])
        return Client(sock)
    host, _, port = place.partition("://")[2].rpartition(":")
    return Client(socket.create_connection((host.strip("[]"), int(port)), BOUND))


def ask(place: str, *fields: str) -> str:
    with reach(place) as client:
        client.get("/", *fields)
        answer = client.read()
    assert answer.status == 200, answer
    return answer.body.decode().strip()


def free_port(host: str = "127.0.0.1") -> int:
    with socket.create_server((host, 0)) as sock:
        return int(sock.getsockname()[1])


# ---- who is asked


@IPV6
@WORKERS
def test_several_hosts(start: Serve, workers: str) -> None:
    """The same free port on each."""
    server = start(
        *("--mode", "cgi", "--workers", workers, "--host", "127.0.0.1", "--host", "::1"),
        command=COMMAND,
    )
    port = server.port
    assert places(server) == [f"http://127.0.0.1:{port}", f"http://[::1]:{port}"]
    four, six = places(server)
    for _ in range(3):
        assert ask(four) == "127.0.0.1 127.0.0.1 test port off"
        assert ask(six) == "::1 ::1 test port off"


@WORKERS
@pytest.mark.parametrize("host", ["", "*"])
def test_every_address(start: Serve, workers: str, host: str) -> None:
    """In a network of its own: nobody else is to reach it."""

    def look() -> list[str]:
        server = start(*("--mode", "cgi", "--workers", workers, "--host", host), command=COMMAND)
        found = places(server)
        assert found[0] == f"http://0.0.0.0:{server.port}"
        assert ask(f"http://127.0.0.1:{server.port}") == "127.0.0.1 127.0.0.1 test port off"
        assert ask(f"http://127.0.0.9:{server.port}").startswith("127.0.0.1 127.0.0.9 ")
        if len(found) == 2:
            assert found[1] == f"http://[::]:{server.port}"
            assert ask(f"http://[::1]:{server.port}") == "::1 ::1 test port off"
        return found

    assert len(apart(look)) == (1 if NO_IPV6 else 2)


@IPV6
@WORKERS
def test_a_host_with_two_names(start: Serve, workers: str) -> None:
    server = start("--workers", workers, "--host", "127.0.0.1", "--host", "localhost")
    assert places(server)[0] == f"http://127.0.0.1:{server.port}"
    assert all(ask(each) == "hi" for each in places(server))


@WORKERS
def test_ports_and_files(start: Serve, tmp_path: Path, workers: str) -> None:
    """All of them serve, also after the workers were replaced; the files go with the server."""
    one, two = tmp_path / "one", tmp_path / "two"
    where = (f"unix:{one}", "127.0.0.1:0", f"unix:{two}", "127.0.0.2:0")
    if sys.platform == "darwin":  # 127.0.0.2 has to be configured there
        where = where[:3]
    server = start(
        "--workers", workers, where=[word for each in where for word in ("--bind", each)]
    )
    found = places(server)
    assert [each for each in found if each.startswith("unix:")] == [f"unix:{one}", f"unix:{two}"]
    assert len({each.rpartition(":")[2] for each in found}) == len(where)
    assert all(ask(each) == "hi" for each in found)
    if workers == "2":
        server.signal(signal.SIGUSR2)
        server.says("restarted the workers")
        assert all(ask(each) == "hi" for each in found * 2)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert list(tmp_path.glob("[ot]??")) == []


@WORKERS
def test_a_file_beside_a_port(start: Serve, tmp_path: Path, workers: str) -> None:
    path = tmp_path / "socket"
    server = start(
        *("--workers", workers, "--uds-mode", "600"), where=("--uds", str(path), "--port", "0")
    )
    assert places(server) == [f"http://127.0.0.1:{server.port}", f"unix:{path}"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [ask(each) for each in places(server)] == ["hi", "hi"]


@WORKERS
def test_a_file_that_another_has_taken_over(start: Serve, tmp_path: Path, workers: str) -> None:
    path = tmp_path / "socket"
    server = start("--workers", workers, where=("--uds", str(path)))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        server.stop()
        assert path.exists()


def test_a_reload_keeps_them(start: Serve, tmp_path: Path) -> None:
    path, file = tmp_path / "socket", tmp_path / "serve.toml"
    text = f'bind = ["127.0.0.1:0", "unix:{path}"]\ncommand = "echo %s"\n'
    file.write_text(text % "a")
    server = start("--config", str(file), where=(), command=())
    assert [ask(each) for each in places(server)] == ["a", "a"]
    file.write_text((text % "b").replace(":0", ":1"))
    server.signal(signal.SIGHUP)
    server.says("(bind: not before a restart)")
    assert [ask(each) for each in places(server)] == ["b", "b"]


# ---- what can't be


@WORKERS
def test_all_or_none(tmp_path: Path, workers: str) -> None:
    """What was bound before the one that is taken leaves nothing behind."""
    path = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        other = free_port()
        for more in (
            ("--bind", f"unix:{path}", "--bind", f"127.0.0.1:{other}", "--bind", where),
            ("--uds", str(path), "--port", where.rpartition(":")[2]),
            ("--bind", f"unix:{path}", "--agent-check", where),
        ):
            result = run("--workers", workers, *more)
            assert_refused(result, f"cannot listen on {where}: Address already in use")
            assert not path.exists()


def test_the_same_place_twice(tmp_path: Path) -> None:
    path, port = tmp_path / "socket", free_port()
    for place in (f"unix:{path}", f"127.0.0.1:{port}"):
        result = run("--bind", place, "--bind", place)
        name = place.removeprefix("unix:")
        assert_refused(result, f"cannot listen on {name}: Address already in use")
        assert not path.exists()


def test_a_file_that_is_in_use_stays_its_owners(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(theirs))
        taken.listen()
        result = run("--bind", f"unix:{ours}", "--bind", f"unix:{theirs}")
        assert_refused(result, f"cannot listen on {theirs}: Address already in use")
        assert (ours.exists(), theirs.exists()) == (False, True)


def test_a_host_without_an_address(tmp_path: Path) -> None:
    """One of several that this machine has not is an error, and no reason to serve less."""
    result = run("--port", "0", "--host", "127.0.0.1", "--host", "192.0.2.1")
    assert_refused(result, "cannot listen on 192.0.2.1:0: ")


@contextmanager
def bound(host: str, ports: range) -> Iterator[None]:
    with ExitStack() as socks:
        for port in ports:
            socks.enter_context(socket.create_server((host, port)))
        yield


@pytest.mark.skipif(not LINUX, reason="the range of free ports is Linux's to set")
def test_a_port_that_is_free_on_all() -> None:
    """What the kernel takes for free on the first address is in use on the second for half of those
    that it picks from, the lower half of the range (for sockets with SO_REUSEADDR): another one is
    tried."""

    def look() -> None:
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40015")
        with bound("127.0.0.2", range(40000, 40004)):
            for _ in range(20):
                socks = listen.listen_tcp(["127.0.0.1", "127.0.0.2"], 0, 1)
                ports = [sock.getsockname()[1] for sock in socks]
                for sock in socks:
                    sock.close()
                assert ports[0] == ports[1] in range(40004, 40016)
        with (
            bound("127.0.0.2", range(40000, 40016)),
            pytest.raises(
                listen.ListenError, match=r"cannot listen on 127\.0\.0\.2:0: Address already in use"
            ),
        ):
            listen.listen_tcp(["127.0.0.1", "127.0.0.2"], 0, 1)

    apart(look)


# ---- IPv4 by way of IPv6


@contextmanager
def mapped() -> Iterator[socket.socket]:
    """What takes IPv4 in a socket of IPv6, as systemd's do."""
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::ffff:127.0.0.1", 0))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL):
                raise
            pytest.skip(f"no mapped addresses here: {error.strerror}")
        sock.listen()
        yield sock


@WORKERS
@pytest.mark.parametrize("mode", ["cgi", "told"])
def test_mapped_addresses(start: Serve, workers: str, mode: str) -> None:
    """Nobody learns of the detour: scripts, the log, the start-up line, and who is believed."""
    options = ("--mode", "cgi") if mode == "cgi" else ("--request-env",)
    with mapped() as sock:
        fd, port = sock.fileno(), sock.getsockname()[1]
        server = start(
            *("--workers", workers, *options, "--proxy-headers"),
            *("--forwarded-allow-ips", "127.0.0.0/8"),
            where=("--fd", str(fd)), pass_fds=(fd,), command=COMMAND,
        )  # fmt: skip
        assert places(server) == [f"http://127.0.0.1:{port}"]
        place = places(server)[0]
        expected = "127.0.0.1 127.0.0.1 test port off"
        assert ask(place).endswith(expected)
        fields = ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https")
        assert ask(place, *fields).endswith("192.0.2.1 127.0.0.1 test on")
        lines = server.logs(2)
        assert [line.partition(" ")[0] for line in lines] == ["127.0.0.1", "192.0.2.1"]


@WORKERS
def test_a_socket_of_systemds_for_both(start: Serve, workers: str) -> None:
    with mapped() as sock:
        fd = str(sock.fileno())
        server = start(
            *("--mode", "cgi", "--workers", workers), where=(), command=COMMAND,
            pass_fds=(sock.fileno(),), prefix=(sys.executable, "-c", ACTIVATE, fd, "0"),
        )  # fmt: skip
        assert ask(places(server)[0]) == "127.0.0.1 127.0.0.1 test port off"
        poll(server.log, "a line")
        assert server.log()[0].startswith("127.0.0.1 - - [")
