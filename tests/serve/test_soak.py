"""Short versions of tests/soak/mixed.py and million.py, which `make soak` and `make million` run
for as long as one likes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import needs
from residents import can_reset

SOAK = Path(__file__).parents[1] / "soak"
pytestmark = [
    needs.compiler,
    pytest.mark.skipif(not can_reset(), reason="no process can reset itself here"),
]


def run(program: str, *words: str) -> str:
    """What it says."""
    command = [sys.executable, SOAK / program, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_request_has_its_own_answer_whatever_befalls_the_others() -> None:
    said = run("mixed.py", "--requests", "80")
    assert said.splitlines()[-1].endswith(": 0 wrong")
    assert said.count(" right") == 11


def test_nothing_is_left_of_many_requests() -> None:
    """Memory is for longer ones."""
    some = ("--strategy", "direct", "--strategy", "reset", "--strategy", "pool")
    said = run("million.py", *some, "--requests", "100", "--warm-up", "100", "--growth", "100000")
    assert said.count(": 100 requests in ") == 3
