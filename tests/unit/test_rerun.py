"""What `make test` does with the few tests that failed among all others (tests/rerun.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RERUN = Path(__file__).parents[1] / "rerun.py"

SUITE = """
from pathlib import Path

def test_right():
    pass

def test_the_first_time():
    mark = Path("mark")
    if not mark.exists():
        mark.touch()
        raise RuntimeError

def test_wrong():
    assert {wrong} == 1
"""


def whole(directory: Path, wrong: int) -> int:
    """What the whole run of a suite exits with, one of whose tests passes the second time."""
    (directory / "test_it.py").write_text(SUITE.format(wrong=wrong))
    (directory / "pytest.ini").write_text("[pytest]\n")
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:xdist")
    return subprocess.run(command, cwd=directory, capture_output=True, check=False).returncode


def again(directory: Path, status: int, most: int) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, RERUN, str(status), str(most))
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_what_passes_alone_is_named(tmp_path: Path) -> None:
    assert whole(tmp_path, wrong=1) == 1
    done = again(tmp_path, 1, 5)
    assert done.returncode == 0
    assert done.stdout.endswith("passed alone:\n  test_it.py::test_the_first_time\n")
    assert "1 passed" in done.stdout


def test_what_fails_again_has_failed(tmp_path: Path) -> None:
    assert whole(tmp_path, wrong=2) == 1
    done = again(tmp_path, 1, 5)
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout


@pytest.mark.parametrize(("status", "most"), [(1, 1), (1, 0), (2, 5), (5, 5)])
def test_more_than_a_few_or_something_else(tmp_path: Path, status: int, most: int) -> None:
    assert whole(tmp_path, wrong=2) == 1
    done = again(tmp_path, status, most)
    assert (done.returncode, done.stdout) == (status, "")
