"""What processes take that are ready for a request: ``python -m bench.cases.memory_host WAY N``.

Prints one line of JSON: how many processes there are (the template included), and the sum of their
proportional set sizes, in KiB.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from bench.harness import procs
from fastspawn import Template

PROGRAM = "bench/cases/handler.py"
PATIENCE = 2_000  # times that all are asked at once


def argv(*words: str) -> list[str]:
    return [sys.executable, PROGRAM, "numpy", *words]


def pss_kib(pid: int) -> int:
    """proc_pid_smaps_rollup(5)"""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no memory")


def show() -> None:
    """What this process's descendants take."""
    own = os.getpid()
    found = [each.pid for each in procs.settled_tree(own) if each.pid != own]
    print(json.dumps({"processes": len(found), "pss_kib": sum(map(pss_kib, found))}))


def executed(count: int) -> None:
    """They have answered, and wait for the end of their input."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    argv("wait"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(count)
        ]
        for process in processes:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["hi"] == 0
        show()


async def reset(count: int) -> None:
    """Each has answered, was put back, and waits for the next request."""
    async with Template(argv("checkpoint"), size=1, at="checkpoint", reset=True) as template:
        await template.run()
        for _ in range(PATIENCE):
            await asyncio.gather(*(template.run() for _ in range(count)))
            if template.not_reset:
                raise NotImplementedError(template.not_reset)
            if template.stats["residents"] == count:
                break
        else:
            raise NotImplementedError(f"{template.stats['residents']} residents of {count}")
        for _ in range(3):  # those that are new answer, too
            await asyncio.gather(*(template.run() for _ in range(count)))
        show()


def main() -> None:
    way, count = sys.argv[1], int(sys.argv[2])
    if way == "exec":
        executed(count)
    else:
        asyncio.run(reset(count))


if __name__ == "__main__":
    main()
