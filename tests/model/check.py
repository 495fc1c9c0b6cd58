"""The models of the engine and of residents, searched by Spin: every state, and every fault that is
planted.

    python tests/model/check.py [--short]

Prints a line for each search: its states, its depth, and what was found. Exits with 1 if a fault is
found where there is none, or one that was planted is not; with 2, and a line that says what is
missing, where there is no Spin (Debian: spin) or no C compiler.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
OPTIMIZE = "-O0"
"""Most searches take less time than to compile them."""

DEPTH = 100_000
MEMORY = 8000
"""Steps, and MiB: a search that needs more fails."""

ENGINE, RESIDENT = "engine", "resident"
SEARCHES = [
    (ENGINE, ["JOBS=1", "SPAWNERS=1", "SCARCE"]),
    (RESIDENT, ["JOBS=2", "LIVES=1"]),
    (ENGINE, ["JOBS=1", "SPAWNERS=1", "ORIGIN"]),
    (ENGINE, ["JOBS=1", "SPAWNERS=1", "ORIGIN", "STOP_EARLY"]),
    (ENGINE, ["JOBS=1", "SPAWNERS=2"]),
    (ENGINE, ["JOBS=1", "SPAWNERS=2", "SCARCE"]),
    (RESIDENT, ["JOBS=3", "LIVES=2"]),
]
"""What holds in each state that can be reached."""

WAITS, ASSERTS = "invalid end state", "assertion violated"
ONE = ["JOBS=1", "SPAWNERS=1"]
TWO = ["JOBS=2", "LIVES=1"]
PLANTED = [
    (ENGINE, ONE, "FAULT_LOST_SLEEP", WAITS),
    (ENGINE, ONE, "FAULT_DOUBLE_REAP", ASSERTS),
    (RESIDENT, TWO, "FAULT_NO_RECORD", ASSERTS),
    (ENGINE, ["JOBS=2", "SPAWNERS=1"], "FAULT_LOST_NEWS", WAITS),
    (ENGINE, [*ONE, "ORIGIN"], "FAULT_LOST_POST", WAITS),
    (ENGINE, ONE, "FAULT_LOST_STOP", WAITS),
    (ENGINE, ONE, "FAULT_NO_WAKE", WAITS),
    (ENGINE, ONE, "FAULT_LATE_CANCEL", ASSERTS),
    (ENGINE, ONE, "FAULT_STALE_MAIL", ASSERTS),
    (ENGINE, [*ONE, "SCARCE"], "FAULT_GIVEN_BACK", ASSERTS),
    (RESIDENT, TWO, "FAULT_STAYS", ASSERTS),
    (RESIDENT, TWO, "FAULT_LATE_BEGIN", ASSERTS),
    (RESIDENT, TWO, "FAULT_EARLY_DONE", ASSERTS),
    (RESIDENT, TWO, "FAULT_BURIED", WAITS),
]
"""What is to be found, in what, and as what: nobody can go on, or something is not so."""


def search(model: str, defines: list[str]) -> str:
    """Spin's report of the model with these macros."""
    assert CC is not None
    with tempfile.TemporaryDirectory() as folder:
        spin = ["spin", *(f"-D{each}" for each in defines), "-a", str(HERE / f"{model}.pml")]
        subprocess.run(spin, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        compiler = [
            CC,
            OPTIMIZE,
            "-DSAFETY",
            "-DCOLLAPSE",
            f"-DMEMLIM={MEMORY}",
            "-o",
            "pan",
            "pan.c",
        ]
        subprocess.run(compiler, cwd=folder, check=True)
        pan = ["./pan", f"-m{DEPTH}", "-w20", "-b", "-n"]
        return subprocess.run(pan, cwd=folder, check=True, capture_output=True, text=True).stdout


def report(model: str, defines: list[str], planted: str, expected: str) -> bool:
    """Is it as it should be? Says so in a line."""
    said = search(model, [*defines, *([f"FAULT={planted}"] if planted else [])])
    states = re.search(r"(\d+) states, stored", said)
    depth = re.search(r"depth reached (\d+), errors: (\d+)", said)
    if states is None or depth is None:
        print(said, file=sys.stderr)
        return False
    found = re.search(r"^pan:\d+: (.*)$", said, flags=re.M)
    complete = "Search not completed" not in said
    what = found[1] if found else "nothing found" if complete else "not completed"
    good = expected in what
    print(
        f"{'ok' if good else 'FAILED'}: {model} {' '.join(defines)} {planted or 'as it is'}: {what}"
        f" ({int(states[1]):,} states, depth {int(depth[1]):,})",
        flush=True,
    )
    return good


def main(arguments: list[str]) -> int:
    if shutil.which("spin") is None or CC is None:
        missing = "spin (Debian: apt-get install spin)" if CC else "C compiler"
        print(f"the models were not searched: there is no {missing}", file=sys.stderr)
        return 2
    rows = [(*each, "", "nothing found") for each in SEARCHES]
    planted = PLANTED
    if "--short" in arguments:
        rows, planted = rows[:2], planted[:3]
    good = [report(*row) for row in rows + planted]  # each, whatever the one before it said
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
