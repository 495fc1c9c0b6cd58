"""CPython's own suites with our names in the standard library's place.

    python conformance.py [SUITE SWAP]

Runs SUITE (test.test_subprocess, ...) with the interpreter's standard library as it is, and again
after SWAP, a function of swaps.py; without arguments, all that swaps.py pairs. Every case that
passes without must pass with it, apart from those that internals.py lists. A case that did not is
tried once more, alone and both ways: these suites have cases that depend on how busy the machine
is.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cases import PASSED
from internals import INTERNALS, MOST
from swaps import PAIRS

HERE = Path(__file__).parent
BOUND = 900.0
"""Seconds that a suite may take."""

Outcomes = dict[str, str]


class SuiteError(Exception):
    """It did not come to its end."""


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_suite(suite: str, swap: str, cases: Sequence[str] = ()) -> Outcomes:
    """How each case of it ended, run in a process and directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        results, log = Path(directory, "results"), Path(directory, "log")
        argv = [sys.executable, "-X", "faulthandler", str(HERE / "cases.py"), suite, swap]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*argv, str(results), *cases],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(HERE / "site"), "FASTSPAWN_TEST_SWAP": swap},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                status = process.wait(BOUND)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                _end_group(process)
        if status != 0:
            how = "took too long" if status is None else f"ended with status {status}"
            tail = log.read_text(errors="replace")[-4000:]
            raise SuiteError(f"{suite}, {swap}: it {how}\n{tail}")
        outcomes: Outcomes = json.loads(results.read_text())
        return outcomes


def worse(suite: str, swap: str, cases: Sequence[str] = ()) -> tuple[int, Outcomes]:
    """The number of cases, and those that pass without the swap and do not with it."""
    plain = run_suite(suite, "nothing", cases)
    swapped = run_suite(suite, swap, cases)
    passed = [case for case, outcome in plain.items() if outcome == PASSED]
    found = {case: swapped.get(case, "it was not run") for case in passed}
    return len(plain), {case: how for case, how in found.items() if how != PASSED}


def check(suite: str, swap: str) -> list[str]:
    """What is wrong, one text each; prints what there was."""
    known = INTERNALS.get(suite, {})
    try:
        count, first = worse(suite, swap)
        suspects = sorted(first.keys() - known.keys())
        still = worse(suite, swap, suspects)[1] if suspects else {}
    except SuiteError as exc:
        return [str(exc)]
    print(
        f"{suite} with {swap}, Python {platform.python_version()}: {count} cases,"
        f" {len(first.keys() & known.keys())} fail of {len(known)} listed internals,"
        f" {len(still)} others"
    )
    for case in suspects:
        if case not in still:
            print(f"  {case}: passed when tried again, alone")
    problems = [f"{case}:\n{still[case]}" for case in sorted(still)]
    if count < 10:
        problems.append(f"only {count} cases were found")
    if len(known) >= MOST * count:
        problems.append(f"{len(known)} of {count} cases are listed as internals")
    return problems


def main(*pairs: tuple[str, str]) -> int:
    problems = [problem for pair in pairs for problem in check(*pair)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main((sys.argv[1], sys.argv[2])) if sys.argv[1:] else main(*PAIRS))
