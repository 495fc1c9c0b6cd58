"""The engine's hand-offs, and residents', as models: what is short of `make model`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import needs

ROOT = Path(__file__).parents[2]
CHECK = ROOT / "tests" / "model" / "check.py"


@needs.program("spin")
@needs.compiler
def test_it_holds_and_what_is_planted_is_found() -> None:
    check = [sys.executable, str(CHECK), "--short"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["ok"] * 5
    assert "invalid end state" in lines[2]
    assert "assertion violated" in lines[3]
    assert "assertion violated" in lines[4]


def test_without_spin_it_says_so(tmp_path: Path) -> None:
    check = [sys.executable, str(CHECK)]
    done = subprocess.run(check, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "there is no" in done.stderr


OWN = {
    "engine": {
        *("kernel", "forget", "look_at_hold", "choose", "forget_dues", "wake_taker"),
        *("turn_away", "origin_answers"),  # of an origin, whichever
    },
    "resident": {
        *("runs", "dies", "look_at_signals", "hang_up", "its_end", "is_forked"),
        *("about_job", "about_resident"),
    },
}
"""What a model has that the C has by another name, or not at all."""
ROOMS = {"engine": ["engine"], "resident": ["reset", "engine", "guest"]}


@pytest.mark.parametrize("model", OWN)
def test_its_functions_are_those_in_c(model: str) -> None:
    """One that is renamed or gone in the C is to be looked at here, too."""
    files = [path for room in ROOMS[model] for path in (ROOT / "csrc" / room).glob("*.[ch]")]
    code = "".join(path.read_text() for path in files)
    text = (CHECK.parent / f"{model}.pml").read_text()
    names = set(re.findall(r"^inline (\w+)\(", text, flags=re.M)) - OWN[model]
    assert len(names) > 12
    assert sorted(name for name in names if not re.search(rf"\b{name}\(", code)) == []
