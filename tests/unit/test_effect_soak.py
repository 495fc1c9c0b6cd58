"""A short version of tests/children/effect.py, which is run by hand for 200,000 requests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import needs

PROGRAM = Path(__file__).parents[1] / "children" / "effect.py"


@needs.effects
def test_nothing_is_stale_or_lost_while_files_change_and_processes_are_killed() -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, "3000", "0.1"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("3000 requests, ")
    assert ": 0 wrong; " in done.stdout
