"""What a server has of its parent: signals that are ignored or blocked."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import needs
from serve.conftest import Serve
from serve.harness import BOUND, Server, poll

pytestmark = needs.proc

SIGNALS = ("HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "TTOU")
"""With and without a handler of the server's."""

TELL = ("sh", "-c", "cat; grep SigIgn /proc/self/status")
CHECKPOINT = """\
import sys
from pathlib import Path

from fastspawn import checkpoint

checkpoint()
sys.stdin.read()
print(*[line for line in Path("/proc/self/status").read_text().splitlines() if "SigIgn" in line])
"""

STRATEGIES = {
    "direct": (),
    "auto": (),
    "snapshot": ("--snapshot-at", "main"),
    "effect": ("--snapshot-at", "effect"),
    "checkpoint": ("--snapshot-at", "checkpoint"),
    "warm": (),
    "pool": (),
    "subprocess": ("--loop", "uvloop"),
    "subprocess on asyncio": ("--loop", "asyncio"),
}


def trap(text: str) -> tuple[str, ...]:
    return ("sh", "-c", f'{text}; exec "$@"', "sh")


def ignoring(names: tuple[str, ...]) -> tuple[str, ...]:
    return trap(f"trap '' {' '.join(names)}")


def ignored(text: str) -> set[str]:
    """Standard signals, but for those that Python ignores."""
    found = re.search(r"SigIgn:\s+([0-9a-f]+)", text)
    assert found is not None, text
    names = {n.name[3:] for n in signal.Signals if int(found[1], 16) >> (n - 1) & 1 and n < 32}
    return names - {"PIPE", "XFSZ"}


def test_what_a_shell_ignores() -> None:
    """... its command does: what all of this is about."""
    words = [*ignoring(SIGNALS), *TELL]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert set(SIGNALS) <= ignored(done.stdout.decode())


def command_of(strategy: str, tmp_path: Path) -> tuple[str, ...]:
    if strategy != "checkpoint":
        return TELL
    (tmp_path / "program.py").write_text(CHECKPOINT)
    return (sys.executable, str(tmp_path / "program.py"))


def options_of(strategy: str) -> tuple[str, ...]:
    named = "snapshot" if strategy in ("effect", "checkpoint") else strategy.partition(" ")[0]
    return ("--strategy", named, *STRATEGIES[strategy])


def told(server: Server, target: str = "/") -> set[str]:
    with server.connect() as client:
        client.get(target)
        return ignored(client.read().body.decode())


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ignored_stays_ignored(start: Serve, strategy: str, workers: str, tmp_path: Path) -> None:
    """In every child, whatever the server does at the signal; those of a later start, too."""
    command = command_of(strategy, tmp_path)
    config = tmp_path / "config.toml"
    config.write_text("")
    server = start(
        *("--config", str(config), "--workers", workers),
        *options_of(strategy),
        command=command,
        prefix=ignoring(SIGNALS),
    )
    for _ in range(4):
        assert told(server) == set(SIGNALS)
    config.write_text(f"[[route]]\npath = '/new'\ncommand = {shlex.join(command)!r}\n")
    server.signal(signal.SIGHUP)
    poll(lambda: "reloaded" in server.errors(), "the new configuration")
    for _ in range(4):
        assert told(server, "/new") == set(SIGNALS)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_ignored(start: Serve, strategy: str, tmp_path: Path) -> None:
    server = start(
        *options_of(strategy),
        command=command_of(strategy, tmp_path),
        prefix=trap("trap - HUP INT QUIT"),
    )
    assert told(server) & set(SIGNALS) == set()


@pytest.mark.parametrize("backend", ["clone3", "clone", "vfork", "posix_spawn", "fork"])
def test_ignored_with_each_backend(
    start: Serve, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("FASTSPAWN_BACKEND", backend)
    server = start("--strategy", "direct", command=TELL, prefix=ignoring(SIGNALS))
    assert told(server) == set(SIGNALS)


def prepared(call: str) -> tuple[str, ...]:
    """For what not every shell can."""
    text = f"import os, sys; from signal import *; {call}; os.execv(sys.argv[1], sys.argv[1:])"
    return (sys.executable, "-c", text)


IGNORED = prepared("signal(SIGCHLD, SIG_IGN)")
BLOCKED = prepared("pthread_sigmask(SIG_BLOCK, {SIGCHLD})")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("prefix", [IGNORED, BLOCKED], ids=["ignored", "blocked"])
def test_sigchld(start: Serve, strategy: str, prefix: tuple[str, ...], tmp_path: Path) -> None:
    """Exit statuses are known, and the command has children of its own as it is used to."""
    server = start(
        *options_of(strategy),
        command=command_of(strategy, tmp_path),
        prefix=prefix,
    )
    for _ in range(3):
        assert "CHLD" not in told(server)
    assert all("exit=0" in line for line in server.logs(3))


def test_sigchld_ignored_with_workers(start: Serve) -> None:
    server = start("--workers", "2", command=TELL, prefix=IGNORED)
    assert "CHLD" not in told(server)
    server.signal(signal.SIGTERM)
    assert server.wait(BOUND) == 0
