"""What docs/reliability.md says is tested, and that it says what its tool writes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from reliability import report


def test_every_promise_has_tests_that_are_there() -> None:
    rows = report.rows()
    assert len(rows) == 32
    for row in rows:
        assert row["tests"], row
        for test in row["tests"]:
            path, name = report.path_of(test)
            pattern = rf"void {name}\(" if path.suffix == ".c" else rf"^ *(async )?def {name}\("
            assert re.search(pattern, path.read_text(), flags=re.M), (row["promise"], test)


def test_the_page_is_what_the_tool_writes() -> None:
    done = subprocess.run([sys.executable, report.__file__, "--check"])
    assert done.returncode == 0, "`make reliability` writes it"
