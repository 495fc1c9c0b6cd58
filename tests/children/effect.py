"""Requests to a template at the first effect, while what it came from changes and it is killed.

    python tests/children/effect.py [REQUESTS [EVERY]]

A program reads a file, then looks for another, before its first effect; then it says what it found,
its input and its pid. EVERY seconds (default 0.3) the file changes, in its place or by another in
its place, and the other one comes or goes; as often a process of the template is killed. REQUESTS
(default 200,000) are made, 30 at a time. An answer may be as old as the documentation says, and no
older; it must have the input and the pid of its own request.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fastspawn import Command, Template
from soak.processes import children, find, strike

AT_ONCE = 30
CHOOSE = random.Random()
FILES = 12
"""As many as the program comes from, at most: itself, its libraries, and the two."""
BOUND = 0.1 + FILES * 0.001
SOURCE = r"""
#include <stdio.h>
#include <unistd.h>
int main(void) {
    char number[20] = "", input[100] = "";
    FILE *file = fopen("file", "r");
    fgets(number, sizeof number, file);
    int other = access("other", F_OK) == 0;
    fgets(input, sizeof input, stdin);
    printf("%s %d %s %d\n", number, other, input, (int)getpid());
}
"""


class World:
    """The files, and when they came to be as they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begun = [0.0]
        self.done = [0.0]
        (folder / "file").write_text(f"{0:08}")

    def change(self) -> None:
        number = len(self.done)
        self.begun.append(time.monotonic())
        # The program looks at this one last: it is never behind the number that it has read.
        if number % 4 == 1:
            (self.folder / "other").touch()
        elif number % 4 == 3:
            (self.folder / "other").unlink()
        if number % 2:
            file = os.open(self.folder / "file", os.O_WRONLY)
            os.pwrite(file, b"%08d" % number, 0)
            os.close(file)
        else:
            (self.folder / "new").write_text(f"{number:08}")
            (self.folder / "new").rename(self.folder / "file")
        self.done.append(time.monotonic())

    def may_say(self, number: int, other: bool, asked: float) -> bool:
        """Is it what was so at some time after ``asked`` less the bound?"""
        last = number >= len(self.done) - 1
        new_enough = last or self.done[number + 1] >= asked - BOUND
        # The two files are not looked at at the same moment.
        around = {(n % 4) in (1, 2) for n in (number, number + 1)}
        return number < len(self.begun) and new_enough and other in around


class Soak:
    def __init__(self, world: World, template: Template, requests: int) -> None:
        self.world = world
        self.template = template
        self.left = requests
        self.answered = self.wrong = self.kills = self.forked = 0

    async def client(self) -> None:
        while self.left > 0:
            self.left -= 1
            token, asked = f"token-{self.left}", time.monotonic()
            result = await self.template.run(input=token.encode())
            self.answered += 1
            try:
                number, other, input, pid = result.stdout.decode().split()
                right = (input, int(pid)) == (token, result.pid) and not result.returncode
                right = right and self.world.may_say(int(number), other == "1", asked)
            except ValueError:
                right = False
            if not right:
                self.wrong += 1
                age = f"asked {time.monotonic() - asked:.3f} s ago, {len(self.world.done)} changes"
                print(f"{token}: {result}, {age}", file=sys.stderr)

    async def disturb(self, every: float) -> None:
        while True:
            await asyncio.sleep(every / 2)
            self.world.change()
            await asyncio.sleep(every / 2)
            # Once it has forked: on a slow machine kills by the clock would leave none that does.
            if self.template.stats["forked"] == self.forked:
                continue
            pidfd = find("template", (), CHOOSE)
            if pidfd is not None:
                self.forked = self.template.stats["forked"]
                self.kills += strike(pidfd, signal.SIGKILL)

    async def run(self, every: float) -> None:
        disturbing = asyncio.create_task(self.disturb(every))
        await asyncio.gather(*(self.client() for _ in range(AT_ONCE)))
        disturbing.cancel()


async def soak(folder: Path, requests: int, every: float) -> bool:
    (folder / "program.c").write_text(SOURCE)
    subprocess.run(["cc", "-O1", "-w", "program.c", "-o", "program"], cwd=folder, check=True)
    world, start = World(folder), time.monotonic()
    command = Command([folder / "program"], cwd=folder)
    async with Template(command, size=2, at="effect") as template:
        it = Soak(world, template, requests)
        await it.run(every)
        took = time.monotonic() - start
        print(
            f"{it.answered} requests, {it.answered / took:.0f} a second: {it.wrong} wrong; "
            f"{len(world.done) - 1} changes, {it.kills} kills"
        )
        print(template.stats)
        forked = template.stats["forked"]
    left = children()
    print(f"{len(left)} processes left")
    disturbed = len(world.done) > 1 and it.kills > 0
    return not it.wrong and not left and it.answered == requests and disturbed and forked > 0


def main(requests: str = "200000", every: str = "0.3") -> bool:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(soak(Path(folder), int(requests), float(every)))


if __name__ == "__main__":
    sys.exit(not main(*sys.argv[1:]))
