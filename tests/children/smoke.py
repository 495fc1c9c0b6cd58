"""``smoke.py FD [hungry]``: each way to a process once; what came of each is told on FD, as JSON.

"right" for one that did what it should. Whatever is not there may make it slower, not wrong. With
"hungry" the programs take all memory there is, and the kernel kills them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable

import fastspawn

HUNGRY = "hungry" in sys.argv
SCRIPT = "read a; echo $a; exit 3"
RIGHT = (3, b"in\n")
if HUNGRY:
    SCRIPT = "echo 1000 >/proc/self/oom_score_adj; exec tail /dev/zero"
    RIGHT = (-9, b"")


def spawn() -> bool:
    child = fastspawn.Popen(["sh", "-c", "exit 3"])
    return child.wait() == 3


def run() -> bool:
    done = fastspawn.run(["sh", "-c", SCRIPT], input=b"in\n", stdout=fastspawn.PIPE)
    return (done.returncode, done.stdout) == RIGHT


def crash() -> bool:
    return fastspawn.run(["sh", "-c", "kill -SEGV $$"]).returncode == -11


async def by_engine() -> bool:
    async with fastspawn.Engine() as engine:
        every = [engine.run(["sh", "-c", SCRIPT], b"in\n") for _ in range(3)]
        return {(one.returncode, one.stdout) for one in await asyncio.gather(*every)} == {RIGHT}


async def by_template(reset: bool) -> bool:
    async with fastspawn.Template(["sh"], at="main", reset=reset, start_timeout=45.0) as template:
        every = [await template.run(["-c", SCRIPT], b"in\n") for _ in range(5)]
        return {(one.returncode, one.stdout) for one in every} == {RIGHT}


PARTS: dict[str, Callable[[], bool]] = {
    "spawn": spawn,
    "run": run,
    "crash": crash,
    "engine": lambda: asyncio.run(by_engine()),
    "template": lambda: asyncio.run(by_template(False)),
    "reset": lambda: asyncio.run(by_template(True)),
}


def told(part: Callable[[], bool]) -> str:
    try:
        return "right" if part() else "wrong"
    except Exception as error:  # it is told whatever it is
        return repr(error)


os.set_inheritable(int(sys.argv[1]), False)
with open(int(sys.argv[1]), "w") as out:
    json.dump({name: told(part) for name, part in PARTS.items()}, out)
