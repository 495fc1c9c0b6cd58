"""A short version of tests/soak/mixed.py: `make soak` runs it for as long as one likes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from residents import can_reset

PROGRAM = Path(__file__).parents[1] / "soak" / "mixed.py"
COMPILERS = ("cc", "gcc", "clang")


@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C compiler")
@pytest.mark.skipif(not can_reset(), reason="no process can reset itself here")
def test_each_request_has_its_own_answer_whatever_befalls_the_others() -> None:
    words = [sys.executable, PROGRAM, "--requests", "80"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(": 0 wrong")
    assert done.stdout.count(" right") == 11
