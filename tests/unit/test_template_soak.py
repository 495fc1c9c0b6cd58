"""A short version of tests/children/templates.py, which is run by hand for 200,000 requests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import LINUX

PROGRAM = Path(__file__).parents[1] / "children" / "templates.py"


@pytest.mark.skipif(not LINUX, reason="templates are for Linux")
@pytest.mark.parametrize("way", ["engine", "http"])
def test_nothing_is_lost_while_its_processes_are_killed(way: str) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, "3000", "0.1", way], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("3000 requests, ")
    assert ": 0 wrong; " in done.stdout
