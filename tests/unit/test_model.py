"""The engine's hand-offs as a model (tests/model): what is short of `make model`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "tests" / "model" / "engine.pml"
CHECK = ROOT / "tests" / "model" / "check.py"
COMPILERS = ("cc", "gcc", "clang")


@pytest.mark.skipif(shutil.which("spin") is None, reason="no spin (Debian's package of that name)")
@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no compiler")
def test_it_holds_and_what_is_planted_is_found() -> None:
    check = [sys.executable, str(CHECK), "--short"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["ok"] * 3
    assert "invalid end state" in lines[1]
    assert "assertion violated" in lines[2]


def test_without_spin_it_says_so(tmp_path: Path) -> None:
    check = [sys.executable, str(CHECK)]
    done = subprocess.run(check, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "there is no" in done.stderr


def test_its_functions_are_those_of_the_engine() -> None:
    """One that is renamed or gone in the C is to be looked at here, too."""
    code = "".join(path.read_text() for path in (ROOT / "csrc" / "engine").glob("*.[ch]"))
    own = {"kernel", "forget", "look_at_hold", "choose", "forget_dues", "wake_taker"}
    theirs = {"turn_away", "origin_answers"}  # of an origin, whichever
    names = set(re.findall(r"^inline (\w+)\(", MODEL.read_text(), flags=re.M)) - own - theirs
    assert len(names) > 30
    assert sorted(name for name in names if not re.search(rf"\b{name}\(", code)) == []
