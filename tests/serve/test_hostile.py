"""A program that attacks its server, its template and its neighbours: tests/children/hostile.c.

What the same account may do to a process of its own is the kernel's to say, and docs/isolation.md
says what helps. All else must come to nothing, under each strategy: after each attack another
client is answered rightly, a request that was under way has its own answer, and nothing is left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import fastspawn
import needs
from residents import can_reset
from serve.harness import Client, Server, alive, children, fds, poll, settled, stat
from support import CHILDREN
from unit.test_kernels import cgroup

pytestmark = [needs.proc, needs.compiler]

Hostile = Callable[..., "Attacked"]
ACCOUNT = str(61000 + os.getpid() % 1000)
"""Of nobody but this process's servers: all of an account's may be killed."""
AS_USER = ("--user", ACCOUNT, "--group", ACCOUNT)
APART = ("--sandbox", f"setpriv --reuid={ACCOUNT} --regid={ACCOUNT} --clear-groups --")
NAMESPACE = ("unshare", "-Urpf", "--mount-proc", "--kill-child", "--")

WAYS = {
    "direct": ("--strategy", "direct"),
    "main": ("--strategy", "snapshot", "--snapshot-at", "main"),
    "effect": ("--strategy", "snapshot", "--snapshot-at", "effect"),
    "checkpoint": ("--strategy", "snapshot", "--snapshot-at", "checkpoint"),
    "reset": ("--strategy", "reset", "--snapshot-at", "main"),
    "reset at checkpoint": ("--strategy", "reset", "--snapshot-at", "checkpoint"),
    "warm": ("--strategy", "warm", "--pool-size", "2", "--pool-max", "2"),
    "pool": ("--strategy", "pool", "--pool-size", "4"),
}
QUICK = ("--kill-grace", "0.1s", "--max-output", "1M", "--rlimit", "fsize=1M", "--rlimit", "core=0")


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    """Where every account can go."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as there:
        os.chmod(there, 0o755)
        path = Path(there) / "hostile"
        include = ["-I", fastspawn.get_include()]
        assert needs.CC is not None
        subprocess.run([needs.CC, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", *include,
                        CHILDREN / "hostile.c", "-o", path], check=True)  # fmt: skip
        yield path


@dataclass
class Attacked:
    """A server of the program, under one strategy."""

    server: Server
    mark: bytes

    def ask(self, line: str, body: bytes = b"") -> bytes:
        """What came, whole or not."""
        with self.server.connect() as client:
            client.post(line.encode() + b"\n" + body)
            with contextlib.suppress(ConnectionError, AssertionError):
                return client.read().body
        return b""

    def cut_off(self, line: str) -> None:
        """Once it has begun its client goes."""
        with self.server.connect() as client:
            client.post(line.encode() + b"\n")
            client.read_until(b"begun\n")

    @contextlib.contextmanager
    def neighbour(self) -> Iterator[Client]:
        """One whose request is under way, and has its own answer."""
        own = uuid.uuid4().hex.encode()
        with self.server.connect() as client:
            client.request("POST", "/", f"Content-Length: {5 + len(own)}", body=b"echo\n")
            answer = client.read_head()
            assert client.read_chunk() == b"begun\n"
            yield client
            client.send(own)
            assert client.read_body(answer).body == own
            assert answer.complete

    def pids(self) -> list[int]:
        """All that runs the program."""
        found = []
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if self.mark in Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0"):
                    found.append(int(name))
        return [pid for pid in found if pid != self.server.pid and alive(pid)]

    def helpers(self) -> list[int]:
        """The server's, that serve no request: templates, workers of a pool."""
        return list(children(self.server.pid))


@pytest.fixture
def hostile(start: Callable[..., Server], program: Path) -> Iterator[Hostile]:
    attacked: list[Attacked] = []

    def hostile(way: str, *options: str, spawners: int = 1) -> Attacked:
        if way.startswith("reset") and not can_reset():
            pytest.skip("no residents here")
        if way == "effect" and platform.machine() != "x86_64":
            pytest.skip("for x86-64")
        mark = uuid.uuid4().hex
        words = (str(program), mark, *(("checkpoint",) if way.endswith("checkpoint") else ()))
        if way == "late":  # it might call it, and never does
            way, words = "checkpoint", (str(program), mark)
        threads = ("--spawners", str(spawners))
        server = start(*WAYS[way], *QUICK, *threads, *options, command=words)
        attacked.append(Attacked(server, mark.encode()))
        return attacked[-1]

    yield hostile
    for each in attacked:
        each.server.stop()
        poll(lambda each=each: not each.pids(), "the end of all that it started")


def errors(line: bytes) -> dict[str, str]:
    """What is refused, by name: of a line of "peek"."""
    words = line.decode().split()[1:]
    codes = zip(words[::2], map(int, words[1::2]), strict=True)
    return {name: errno.errorcode[code] if code else "" for name, code in codes}


# ---- what must come to nothing


def leaves(at: Attacked) -> None:
    """What left its group and its session outlives its request; a test ends it."""
    pid = int(at.ask("leave"))
    assert pid in at.pids()
    os.kill(pid, signal.SIGKILL)


def garbage(at: Attacked) -> None:
    assert at.ask("garbage") == b"done\n"


def is_held_by(way: str, lines: list[bytes]) -> None:
    """Only what docs/strategies.md says: nothing, or what a resident keeps above 511."""
    if way.startswith("reset"):
        assert all(int(line.split()[0]) >= 512 and line.endswith(b" hidden") for line in lines)
    else:
        assert lines == []


def is_shared_by(way: str, pages: int) -> None:
    """Nothing is, but where a resident says how far it is: a page, or two that it lies across."""
    assert pages <= (2 if way.startswith("reset") else 0)


def attacks(at: Attacked, way: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Named; each is right if its function says so."""
    yield "held", lambda: is_held_by(way, at.ask("held").splitlines())
    yield "shared", lambda: is_shared_by(way, int(at.ask("shared")))
    for name in ("garbage", "messages", "swap", "modes", "settings"):
        yield name, lambda name=name: at.ask(name)
    yield "hang up", lambda: at.ask("hang_up") == b"" or pytest.fail("an answer")
    yield "deaf", lambda: at.ask("deaf", b"x" * 300_000)
    yield "fill", lambda: len(at.ask("fill")) <= 1 << 20 or pytest.fail("without an end")
    for name in ("stop", "stay", "brood"):
        yield name, lambda name=name: at.cut_off(name)
    for name in ("group", "crash", "scribble"):
        yield name, lambda name=name: at.ask(name)
    yield "disk", lambda: at.ask("disk") == b"%d\n" % errno.EFBIG or pytest.fail("without an end")
    yield "leave", lambda: leaves(at)


def survives(at: Attacked, way: str) -> None:
    """Each of them."""
    at.ask("state")
    before = at.ask("state")
    assert before.endswith(b" clean\n")
    with at.neighbour(), at.neighbour():
        at.ask("state")
    opened = settled(lambda: fds(at.server.pid))
    for name, attack in attacks(at, way):
        with at.neighbour():
            attack()
            if way.startswith("reset") and name == "scribble":
                poll(lambda: at.ask("state") == before, "residents that nobody has taken over")
            assert at.ask("state") == before, name
    poll(lambda: all((stat(pid) or (at.server.pid,))[0] == at.server.pid for pid in at.pids()),
         "the end of what it left")  # fmt: skip
    poll(lambda: fds(at.server.pid) <= opened, "that nothing is open")
    assert "Traceback" not in at.server.errors()


@pytest.mark.parametrize("way", WAYS)
def test_attacks_come_to_nothing(hostile: Hostile, way: str) -> None:
    survives(hostile(way), way)


@needs.root
@pytest.mark.parametrize("way", ["direct", "main", "reset"])
def test_attacks_as_another_user_come_to_nothing(hostile: Hostile, way: str) -> None:
    survives(hostile(way, *AS_USER), way)


def test_a_socket_for_a_checkpoint_is_no_way_to_the_server(hostile: Hostile) -> None:
    """A fork that might become a template holds one, until none has for a while: whatever it says
    there, or if it closes it, what comes after is right."""
    at = hostile("late")
    assert at.ask("held") == b"60 socket\n"
    before = at.ask("state")
    for name in ("garbage", "messages", "swap", "hang_up"):
        with at.neighbour():
            at.ask(name)
            assert at.ask("state") == before
    assert "Traceback" not in at.server.errors()


# ---- what an account may do to its own, and what helps


@needs.root
@pytest.mark.parametrize("way", ["direct", "main", "effect", "checkpoint", "warm", "pool"])
def test_what_the_same_account_may_do(hostile: Hostile, way: str) -> None:
    """It may signal the server, and end it. The memory, descriptors and environment of one that has
    given up its rights are not to be had (prctl(2), PR_SET_DUMPABLE). What it has started ends with
    it."""
    at = hostile(way, *AS_USER)
    at.ask("state")
    found = errors(at.ask(f"peek {at.server.pid}"))
    assert not found.pop("signal")
    assert not found.pop("limits")
    assert set(found.values()) <= {"EPERM", "EACCES"}, found
    for helper in at.helpers():  # it is another's turn then, or exec's
        at.ask(f"kill {helper}")
    poll(lambda: at.ask("state").endswith(b" clean\n"), "answers of those that came after")
    assert at.ask(f"kill {at.server.pid}") == b""
    assert at.server.wait() == -signal.SIGKILL


def out_of_reach(at: Attacked, *others: int) -> None:
    """The server, and these."""
    victims = [at.server.pid, *others]
    with at.neighbour():
        lines = at.ask(f"peek {' '.join(map(str, victims))}").splitlines()
        assert len(lines) == len(victims)
        for line in lines:
            assert all(errors(line).values()), line
        killed = at.ask(f"kill {' '.join(map(str, victims))}")
        assert "0" not in killed.decode().split()
    assert at.ask("state").endswith(b" clean\n")


@needs.root
@needs.program("setpriv")
@pytest.mark.parametrize("way", ["direct", "main", "effect", "reset", "warm", "pool"])
def test_an_account_of_its_own_keeps_it_from_the_server(hostile: Hostile, way: str) -> None:
    """Templates and workers are the server's; spares, residents and other requests are the
    account's, or become so."""
    at = hostile(way, *APART)
    at.ask("state")
    out_of_reach(at, *(at.helpers() if way in ("main", "effect", "pool") else ()))
    at.ask("everyone")
    poll(lambda: at.ask("state").endswith(b" clean\n"), "answers of those that came after")
    assert at.server.process.poll() is None


def has_namespaces() -> bool:
    user = {"user": int(ACCOUNT), "group": int(ACCOUNT), "extra_groups": ()} if needs.ROOT else {}
    with contextlib.suppress(OSError):
        return subprocess.run([*NAMESPACE, "true"], capture_output=True, **user).returncode == 0  # type: ignore[call-overload, no-any-return]
    return False


@pytest.mark.parametrize("way", ["direct", "main", "warm", "pool"])
def test_a_pid_namespace_keeps_it_from_everyone(hostile: Hostile, way: str) -> None:
    """Of the same account as the server: other processes are none that it could name, with a /proc
    of its own."""
    if not has_namespaces():
        pytest.skip("no namespaces here")
    at = hostile(way, *(AS_USER if needs.ROOT else ()), "--sandbox", " ".join(NAMESPACE))
    at.ask("state")
    with at.neighbour():
        out_of_reach(at, *at.pids())
        at.ask("everyone")
    assert at.ask("state").endswith(b" clean\n")


@needs.have(needs.ROOT, "as another account, lest it be ours")
@pytest.mark.parametrize("way", ["direct", "main"])
def test_a_storm_of_forks_stays_in_its_cgroup(hostile: Hostile, way: str) -> None:
    """Those of its route alone are no more; and all of it ends with its client."""
    with cgroup("pids") as group:
        (group / "pids.max").write_text("25")
        at = hostile(way, "--cgroup", str(group))
        other = hostile(way)
        for _ in range(2):
            with at.server.connect() as client:
                client.post(b"storm\n")
                client.read_until(b"begun\n")
                assert len((group / "cgroup.procs").read_text().split()) >= 20
                assert other.ask("state").endswith(b" clean\n")
                assert at.server.get().status in (200, 503)
        at.server.stop()
        poll(lambda: not (group / "cgroup.procs").read_text(), "the end of the storm")


@pytest.mark.parametrize("to", ["inherit", "log"])
def test_a_log_that_it_has_in_its_hands(hostile: Hostile, to: str) -> None:
    """By default standard error is the server's own, a file as well: with --stderr log it is a pipe
    to the server, which writes."""
    at = hostile("direct", "--stderr", to)
    assert " on http" in at.server.errors()
    assert at.ask("blank") == (b"0\n" if to == "inherit" else b"%d\n" % errno.EINVAL)
    assert (" on http" in at.server.errors()) == (to == "log")
