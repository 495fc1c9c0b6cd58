"""A short version of tests/soak/reset.py, which is run by hand for 1,000,000 requests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import needs
from residents import can_reset

PROGRAM = Path(__file__).parents[1] / "soak" / "reset.py"


@needs.compiler
@pytest.mark.skipif(not can_reset(), reason="no process can reset itself here")
def test_each_gets_its_own_answer_or_what_explains_why_not() -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, "--requests", "3600"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("3600 requests in ")
    assert done.stdout.count("none twice") == 12
