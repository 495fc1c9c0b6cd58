"""The few tests that failed among all others, asked again with nothing beside them.

As CPython's ``regrtest --rerun`` does: what fails again has failed, and what passes now is named
in the last lines of the run, for it is still a fault, of the test or of ours.  More than a few are
no accident and are not asked again.

    python -m pytest ... || python tests/rerun.py STATUS MOST
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SOME_FAILED = 1
"""What pytest exits with when tests failed, and nothing else was wrong."""

FAILED = Path(".pytest_cache/v/cache/lastfailed")


def rerun(status: int, most: int) -> int:
    """The exit status of the whole: ``status`` where nothing is to be asked again."""
    failed = sorted(json.loads(FAILED.read_text())) if status == SOME_FAILED else []
    if not 0 < len(failed) <= most:
        return status
    print(f"\nonce more, alone: {len(failed)} of the tests (RERUN=0: not at all)", flush=True)
    last = ("--last-failed", "--last-failed-no-failures=none", "--color=no")
    again = subprocess.run([sys.executable, "-m", "pytest", *last], check=False).returncode
    if again == 0:
        print("failed among others, passed alone:", *failed, sep="\n  ", flush=True)
    return again


if __name__ == "__main__":
    sys.exit(rerun(*map(int, sys.argv[1:])))
