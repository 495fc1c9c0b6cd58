"""``python -m bench.memory``: the memory of residents, beside that of as many plain processes.

16 residents of a Python program with numpy, after several requests each, and 16 processes of the
same program that have done the same and not ended. Memory is their share of what several have
(Pss, proc_pid_smaps(5)). The template process is told, too, and what of the image nobody has in
its page tables: that belongs to no process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fastspawn import Engine, Template

PROGRAM = """\
import json
import sys
import numpy
from fastspawn import checkpoint

checkpoint()
numbers = numpy.arange(1000.0)
print(json.dumps({"sum": float((numbers * numbers).sum()), "input": sys.stdin.readline()}))
sys.stdout.flush()
sys.stdin.read()
"""
IMAGE = "memfd:fastspawn"
OWN = 512  # descriptors from here on are a resident's own (docs/reset.md)


def pss(pid: int) -> int:
    """KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no memory")


def image(pids: Iterable[int]) -> tuple[int, int]:
    """KiB of the file, and those that some process has in its page tables."""
    blocks = shown = 0
    for pid in pids:
        lines = iter(Path(f"/proc/{pid}/smaps").read_text().splitlines())
        for line in lines:
            if IMAGE not in line:
                continue
            shown += next(int(rest.split()[1]) for rest in lines if rest.startswith("Pss:"))
            with contextlib.suppress(PermissionError):  # not for everybody
                name = Path(f"/proc/{pid}/map_files/{line.split()[0]}")
                blocks = max(blocks, name.stat().st_blocks // 2)
    return blocks, shown


def children() -> list[int]:
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def is_resident(pid: int) -> bool:
    return sum(int(fd) >= OWN for fd in os.listdir(f"/proc/{pid}/fd")) > 4


async def resettable(command: list[str], n: int, requests: int) -> int:
    """Of the residents, after it was printed."""
    async with (
        Engine(spawners=1) as engine,
        Template(command, reset=True, at="checkpoint", engine=engine) as template,
    ):
        for _ in range(requests * 20):
            await asyncio.gather(*[template.run(input=b"x\n") for _ in range(n)])
            done = template.stats["resets"] >= n * requests
            if done and template.stats["residents"] == n:
                break
        else:
            raise SystemExit(f"no {n} residents: {template.not_reset or template.stats}")
        pids = children()
        residents = [pid for pid in pids if is_resident(pid)]
        others = [pid for pid in pids if pid not in residents]
        if len(residents) != n:
            raise SystemExit(f"{len(residents)} residents of {n}")
        total = sum(map(pss, residents))
        size, shown = image(pids)
        print(f"{n} residents: {total:,} KiB")
        print(f"their template: {sum(map(pss, others)):,} KiB")
        if size:
            print(f"image: {size:,} KiB, of which {size - shown:,} KiB are in no page table")
        return total


def plain(command: list[str], n: int) -> int:
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe) for _ in range(n)]
    try:
        for process in processes:
            assert process.stdin
            assert process.stdout
            process.stdin.write(b"x\n")
            process.stdin.flush()
            process.stdout.readline()
        total = sum(pss(process.pid) for process in processes)
    finally:
        for process in processes:
            process.communicate()
    print(f"{n} plain processes: {total:,} KiB")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.memory", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--residents", type=int, default=16)
    parser.add_argument("--requests", type=int, default=5, help="of each, at the least")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(PROGRAM)
        command = [sys.executable, str(program)]
        of_residents = asyncio.run(resettable(command, args.residents, args.requests))
        print(f"{of_residents / plain(command, args.residents):.3f}x")


if __name__ == "__main__":
    main()
