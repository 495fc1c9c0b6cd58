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


@needs.templates
def test_complaints_are_no_output() -> None:
    done = command(("fastspawn.snapshot", "explain", "no-such-program"), subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"fastspawn.snapshot: no-such-program: no such program\n"
