"""The running interpreter's own suites; `make test-cpython` runs those of every version found."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from cpython.swaps import PAIRS


def shipped(suite: str) -> bool:
    try:
        return find_spec(suite) is not None
    except (
        ModuleNotFoundError
    ):  # some distributions have no suites, or the package above them alone
        return False


SHIPPED = [pair for pair in PAIRS if shipped(pair[0])]


@pytest.mark.cpython
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("suite", "swap"), SHIPPED)
def test_suite(suite: str, swap: str) -> None:
    runner = Path(__file__).parent / "conformance.py"
    done = subprocess.run(
        [sys.executable, str(runner), suite, swap], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
