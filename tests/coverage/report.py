"""Line coverage of csrc/ and src/, a table by rooms: `make coverage`.

    python tests/coverage/report.py [--missing] HITS OBJECT... LINES.json

An object (a module, a program) was compiled with -O0 -fsanitize-coverage=trace-pc, and hits.c left
a file with its name in the directory HITS: which calls of the hook were made.  From one such call
to the next is a block, and a line counts as run when a block with code of it was entered.  Of what
Cython generated, C stands for the lines of .pyx that its comments name.  LINES.json is of
coverage.py.

Exits with 1 where csrc/ or src/ is below LEAST.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

LEAST = 90.0
ROOT = Path(__file__).parents[2]
CODE = re.compile(r" +([0-9a-f]+):\t(.*)")
PLACE = re.compile(r"(/.*):(\d+)(?: \(discriminator \d+\))?")
HOOK = "<__sanitizer_cov_trace_pc"
NOTE = re.compile(r'\s*/\* "(.+\.pyx)":(\d+)$')

Lines = dict[str, dict[int, bool]]
"""file -> line -> was it run?"""


def merge(into: Lines, file: str, line: int, run: bool) -> None:
    into[file][line] = into[file].get(line, False) or run


# ---- C -------------------------------------------------------------------------------------------


def disassemble(path: str) -> list[str]:
    command = ["objdump", "-d", "-l", "--no-show-raw-insn", path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def look(path: str, folder: str) -> Lines:
    """What was run of an object."""
    hits = Path(folder, Path(path).name).read_bytes()
    found: Lines = defaultdict(dict)
    place: tuple[str, int] | None = None
    before: list[tuple[str, int]] = []  # a function's first block
    state: bool | None = None
    called = False
    for text in disassemble(path):
        if match := CODE.match(text):
            if called:  # it is told by the address that the call returns to
                state = hits[int(match[1], 16)] != 0
                for file, line in before:
                    merge(found, file, line, state)
                before, called = [], False
            if HOOK in match[2]:
                called, before = True, []
            if place and state is not None and not called:
                merge(found, *place, state)
            elif place:
                before.append(place)
        elif match := PLACE.fullmatch(text):
            place = (match[1], int(match[2]))
        elif text.endswith(">:"):
            state, place, before, called = None, None, [], False
    return found


@cache
def pyx_lines(path: str) -> list[tuple[str, int] | None]:
    """Which line of which .pyx each line of generated C is for."""
    told: list[tuple[str, int] | None] = [None]
    now = None
    for text in Path(path).read_text().splitlines():
        if match := NOTE.match(text):
            now = (match[1], int(match[2]))
        elif "/* function exit code */" in text or text.startswith("}"):
            now = None
        told.append(now)
    return told


def sources(found: Lines) -> Lines:
    """By their names in the repository; what is generated, as what it was written in."""
    named: Lines = defaultdict(dict)
    for file, lines in found.items():
        if "/csrc/" in file:
            for line, run in lines.items():
                merge(named, "csrc/" + file.rpartition("/csrc/")[2], line, run)
        elif "/_core/" in file and file.endswith(".c"):
            told = pyx_lines(file)
            for line, run in lines.items():
                if written := told[line]:
                    merge(named, f"src/{written[0]}", written[1], run)
    return named


# ---- Python --------------------------------------------------------------------------------------


def python_lines(report: str) -> Lines:
    found: Lines = {}
    for file, told in json.loads(Path(report).read_text())["files"].items():
        lines = dict.fromkeys(told["missing_lines"], False)
        found["src/" + file.rpartition("src/")[2]] = lines | dict.fromkeys(
            told["executed_lines"], True
        )
    return found


# ---- the table -----------------------------------------------------------------------------------


def room_of(file: str) -> str:
    return str(Path(file).parent)


def show(found: Lines, top: str) -> float:
    rooms: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for file, lines in found.items():
        if file.startswith(f"{top}/"):
            for name in (room_of(file), f"{top}, all"):
                rooms[name][0] += sum(lines.values())
                rooms[name][1] += len(lines)
    for name, (run, lines) in sorted(rooms.items(), key=lambda room: (", all" in room[0], room)):
        print(f"{name:36} {run:6} of {lines:6} lines {100 * run / max(lines, 1):6.1f} %")
    run, lines = rooms[f"{top}, all"]
    return 100 * run / max(lines, 1)


def spans(lines: list[int]) -> str:
    parts: list[list[int]] = []
    for line in lines:
        if parts and line <= parts[-1][1] + 1:
            parts[-1][1] = line
        else:
            parts.append([line, line])
    return ", ".join(f"{a}-{b}" if a < b else str(a) for a, b in parts)


def main(arguments: list[str]) -> int:
    missing = "--missing" in arguments
    paths = [path for path in arguments if not path.startswith("--")]
    found: Lines = defaultdict(dict)
    folder, *objects = [path for path in paths if not path.endswith(".json")]
    with ThreadPoolExecutor() as pool:
        for told in pool.map(lambda path: sources(look(path, folder)), objects):
            for file, lines in told.items():
                for line, run in lines.items():
                    merge(found, file, line, run)
    for path in paths:
        if path.endswith(".json"):
            found.update(python_lines(path))
    if missing:
        for file, lines in sorted(found.items()):
            if left := sorted(line for line, run in lines.items() if not run):
                print(f"{file}: {100 * (1 - len(left) / len(lines)):.0f} %, not {spans(left)}")
    reached = [show(found, top) for top in ("csrc", "src")]
    return int(min(reached) < LEAST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
