"""What our own commands print, where whoever reads it has gone, or there is no room."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import needs
from support import LINUX

COMMANDS = [
    ("fastspawn", "--help"),
    ("fastspawn", "--version"),
    ("fastspawn", "--include"),
    ("fastspawn", "serve", "--help-all"),
    ("fastspawn.serve", "--help"),
    ("fastspawn.serve", "--version"),
]
if LINUX:
    COMMANDS += [
        ("fastspawn.snapshot", "--help"),
        ("fastspawn.snapshot", "explain", "--rounds", "0", "--", "sort"),
        ("fastspawn.snapshot", "explain", "--rounds", "1", "--", "sort"),
    ]


def command(args: tuple[str, ...], stdout: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", *args],
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_a_reader_that_has_gone(args: tuple[str, ...]) -> None:
    """As `... | head -1`: not a word about it. argparse takes no notice by itself."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = command(args, writer)
    finally:
        os.close(writer)
    assert done.stderr == b""
    assert done.returncode in (0, 128 + 13)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_no_room(args: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = command(args, full.fileno())
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert done.stderr.count(b"\n") <= 1


def closed(fd: int, *args: str) -> subprocess.CompletedProcess[bytes]:
    """Of the command, with that descriptor closed."""
    shell = f'exec "$@" {fd}>&-'
    return subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-m", "fastspawn", *args],
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["--version", "doctor"])
def test_closed(command: str) -> None:
    done = closed(1, command)
    assert done.returncode == 1
    assert done.stderr.endswith(b": cannot write: Bad file descriptor\n")
    assert done.stderr.count(b"\n") == 1


def test_nowhere_to_complain() -> None:
    """Nor is it taken for output."""
    done = closed(2, "run", "--", "echo", "hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hi\n", b"")
    assert closed(2, "run", "--", "/no/such/program").stdout == b""
    done = closed(2, "no-such-command")
    assert (done.returncode, done.stdout) == (2, b"")


@needs.templates
def test_complaints_are_no_output() -> None:
    done = command(("fastspawn.snapshot", "explain", "no-such-program"), subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"fastspawn.snapshot: no-such-program: no such program\n"
