"""The way of a job through the files of csrc/, from its submission to its clone.

    python tests/c/way.py [--all]

Runs one that is compiled so that each function tells when it is entered, and prints the functions
that were entered from another file, by thread and depth; then how often each file was, if that is
more than twice. --all goes on to the end of the job. Linux, gcc or clang, and binutils.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from glob import glob
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("os", "spawn", "engine", "template", "log")
MOST = 2
LEAVE, ENTER, JOB = "012"  # what way.c tells
CHILD = "0"  # its name for the thread of one that borrows our memory


@dataclass
class Entry:
    thread: int
    depth: int
    """how many entries of other files it is inside of"""
    file: str
    function: str


def compiled(folder: str) -> str:
    program = f"{folder}/way"
    sources = [path for room in ROOMS for path in sorted(glob(f"{ROOT}/csrc/{room}/*.c"))]
    command = [
        *shlex.split(os.environ.get("CC", "cc")),
        *("-std=gnu11", "-O0", "-g", "-finstrument-functions", "-no-pie", "-pthread"),
        *(f"-I{ROOT}/csrc", *sources, f"{ROOT}/tests/children/way.c", "-o", program),
    ]
    subprocess.run(command, check=True)
    return program


def places(program: str, addresses: set[str]) -> dict[str, tuple[str, str]]:
    """The function and the file (below csrc/, or "") of each address."""
    asked = sorted(addresses)
    output = subprocess.run(
        ["addr2line", "-f", "-e", program],
        input="\n".join(asked),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    csrc = f"{ROOT}/csrc/"
    files = [os.path.realpath(line.rpartition(":")[0]) for line in output[1::2]]
    named = [path[len(csrc) :] if path.startswith(csrc) else "" for path in files]
    return dict(zip(asked, zip(output[::2], named, strict=True), strict=True))


def entries(program: str) -> list[Entry]:
    """Each entry of a source from another one, in order, for the last job."""
    told = subprocess.run([program, "/bin/true"], capture_output=True, text=True, check=True)
    events = [line.split() for line in told.stdout.splitlines()]
    jobs = [i for i, event in enumerate(events) if event[1] == JOB]
    place = places(program, {event[2] for event in events})
    stacks: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    """of each thread: the file of each function that has been entered, and whether from another"""
    found = []
    for i, (thread, what, address) in enumerate(events[: jobs[-1]]):
        if what == JOB:
            stacks[CHILD].clear()  # it leaves nothing: it executes a program
        function, file = place[address]
        stack = stacks[thread]
        if not file.endswith(".c"):
            continue  # inline: it is at home everywhere
        if what == LEAVE:
            stack.pop()
            continue
        other = not stack or stack[-1][0] != file
        if other and i > jobs[-2]:
            depth = sum(entered for _, entered in stack)
            found.append(Entry(int(thread), depth, file, function))
        stack.append((file, other))
    return found


def until_clone(way: list[Entry]) -> list[Entry]:
    """Up to the backend that clones."""
    last = next(i for i, entry in enumerate(way) if entry.file.startswith("spawn/backend_"))
    return way[: last + 1]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        way = entries(compiled(folder))
    start = until_clone(way)
    for entry in way if "--all" in sys.argv[1:] else start:
        print(f"{entry.thread} {'  ' * entry.depth}{entry.file} {entry.function}")
    often = Counter(entry.file for entry in start)
    print(f"{len(often)} files, entered {often.total()} times up to the clone")
    for file, times in often.items():
        if times > MOST:
            print(f"{file} is entered {times} times on the way to a clone", file=sys.stderr)
    return max(often.values()) > MOST


if __name__ == "__main__":
    sys.exit(main())
