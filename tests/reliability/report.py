"""docs/reliability.md, from rows.toml and figures.json.

    make reliability                   write the page
    make reliability ROW=7             run that row's tests, and write what they say, too
    make reliability ROW=7 LONG=1      as often as the row promises at full length
    python tests/reliability/report.py [--run NUMBER|all | --keep NUMBER TEXT | --check]

A row's figure is what its tests said when they were last run that way. ``--keep`` is for a command
that takes longer: its last line.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "reliability.md"
FIGURES = HERE / "figures.json"
LONG = bool(os.environ.get("LONG"))
PASSED, CHECKS = r"(\d+) passed", r"(\d+) checks ok, 0 programs failed"
HEAD = """\
# Reliability

What goes wrong between a server and its processes, what is promised then, and what shows it. Each
line is a kind of fault that CPython, Go, libuv or tokio have met. `make reliability ROW=7` runs the
tests of line 7 (a C test is named with its file: `test_fault: no_processes_left`); a longer command
stands beside it where there is one. What falls short is said.

Written by `make reliability` from `tests/reliability/`.

| | promise | reached | command | tests |
| ---: | --- | --- | --- | --- |
"""


def rows() -> list[dict[str, Any]]:
    """In their order: the first is number 1."""
    listed: list[dict[str, Any]] = tomllib.loads((HERE / "rows.toml").read_text())["row"]
    return listed


def figures() -> dict[str, str]:
    """By a row's number."""
    known: dict[str, str] = json.loads(FIGURES.read_text())
    return known


def render() -> str:
    known = figures()
    return HEAD + "".join(line(number, row, known) for number, row in enumerate(rows(), 1))


def line(number: int, row: dict[str, Any], known: dict[str, str]) -> str:
    short = f" Falls short: {row['short']}" if "short" in row else ""
    commands = [f"`make reliability ROW={number}`"]
    commands += [f"`{row['command']}`"] if "command" in row else []
    commands += [f"`make reliability ROW={number} LONG=1`"] if "long" in row else []
    said = [known[key] for key in (str(number), f"{number}, long") if key in known]
    reached = "; ".join(said) or "not measured"
    tests = ", ".join(f"`{test.removeprefix('c/')}`" for test in row["tests"])
    return f"| {number} | {row['promise']}{short} | {reached} | {'; '.join(commands)} | {tests} |\n"


def path_of(test: str) -> tuple[Path, str]:
    """Its file, and the function in it."""
    if test.startswith("c/"):
        file, _, case = test[2:].partition(": ")
        return ROOT / "tests" / "c" / f"{file}.c", case
    file, _, function = test.partition("::")
    (path,) = (ROOT / "tests").glob(file if "/" in file else f"*/{file}")
    return path, function


def run(row: dict[str, Any]) -> str:
    """What its tests say. ValueError: one fails."""
    named = [path_of(test) for test in row["tests"]]
    python = [f"{path}::{case}" for path, case in named if path.suffix == ".py"]
    files = sorted({str(path.relative_to(ROOT)) for path, _ in named if path.suffix == ".c"})
    said = []
    if python:
        patience = ["-o", "timeout=7200"] if LONG else []
        told = output([sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", *patience, *python])
        said.append(f"{find(PASSED, told)} tests")
    if files:
        compiler = shutil.which("cc") or "cc"
        make = ["make", "-f", "tests/c/Makefile", "check", f"CC={compiler}"]
        told = output([*make, f"TESTS={' '.join(files)}"])
        said.append(f"{find(CHECKS, told)} checks in C")
    return f"{' and '.join(said)} pass ({dt.date.today()})"


def output(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stdout[-3000:] + done.stderr[-1000:])
    return done.stdout + done.stderr


def find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(text[-1000:])
    return match[1]


def keep(key: str, text: str) -> None:
    known = figures() | {key: text}
    order = sorted(known, key=lambda name: (int(name.split(",")[0]), name))
    FIGURES.write_text(json.dumps({name: known[name] for name in order}, indent=1) + "\n")


def run_all(which: str) -> bool:
    """Or one. Did they pass?"""
    right = True
    for number, row in enumerate(rows(), 1):
        if which not in ("all", str(number)) or (LONG and "long" not in row):
            continue
        try:
            key = f"{number}, long" if LONG else str(number)
            keep(key, f"{row['long']}: {run(row)}" if LONG else run(row))
            print(f"{key}: {figures()[key]}", flush=True)
        except ValueError as error:
            right = False
            print(f"{number}: {error}", file=sys.stderr, flush=True)
    return right


def main() -> bool:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", metavar="NUMBER", help="or all")
    parser.add_argument("--keep", nargs=2, metavar=("NUMBER", "TEXT"), help="of its command")
    parser.add_argument("--check", action="store_true", help="is the page what they say?")
    args = parser.parse_args()
    if args.check:
        return PAGE.read_text() == render()
    right = run_all(args.run) if args.run else True
    if args.keep:
        keep(f"{args.keep[0]}, long", args.keep[1])
    PAGE.write_text(render())
    return right


if __name__ == "__main__":
    sys.exit(not main())
