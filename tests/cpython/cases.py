"""One suite of CPython's in this process: writes how each of its cases ended.

    python cases.py SUITE SWAP RESULTS [CASE ...]

SUITE is a module such as test.test_subprocess. SWAP is a function of swaps.py, called before the
suite is imported. RESULTS becomes a JSON object: a case's name to how it ended, or why not.
"""

from __future__ import annotations

import importlib
import json
import sys
import unittest
from pathlib import Path

import swaps

PASSED, SKIPPED = "passed", "skipped"


class Outcomes(unittest.TestResult):
    """How each case ended; of several (sub)tests the worst."""

    def __init__(self, suite: str) -> None:
        super().__init__()
        self.prefix = suite + "."
        self.found: dict[str, str] = {}

    def name(self, test: unittest.TestCase) -> str:
        return test.id().removeprefix(self.prefix)

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.found.setdefault(self.name(test), PASSED)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self.found[self.name(test)] = SKIPPED

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self.found[self.name(test)] = "an unexpected success"

    def settle(self) -> dict[str, str]:
        for test, text in self.errors + self.failures:
            case = getattr(test, "test_case", test)  # of a subtest
            self.found[self.name(case)] = text
        return self.found


def main(suite: str, swap: str, results: str, *cases: str) -> None:
    getattr(swaps, swap)()
    module = importlib.import_module(suite)
    loader = unittest.defaultTestLoader
    tests = loader.loadTestsFromNames(cases, module) if cases else None
    outcomes = Outcomes(suite)
    (tests or loader.loadTestsFromModule(module)).run(outcomes)
    Path(results).write_text(json.dumps(outcomes.settle()))


if __name__ == "__main__":
    main(*sys.argv[1:])
