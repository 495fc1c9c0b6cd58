"""Requests to residents that are killed, or whose requests end in any other way than by themselves.

    make soak-reset                    1,000,000 requests (N=10000; SECS=60: for so long)
    python tests/soak/reset.py [--requests N | --seconds S] [--clients N] [--seed N]

Four templates (a C program at main and at its first effect, sh, Python at its checkpoint) answer
with the nonces that they get by input, argument and environment, with random numbers, and with
what they find of the request before; then they leave traces. A phase has one kind of trouble:
residents or templates are killed, requests have deadlines, are cancelled, write too much, crash,
leave. After each no descriptor, thread, process or memory is there that was not before, and a line
tells. It ends with the first answer that is neither the request's own nor what the trouble
explains.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import random
import signal
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fastspawn import Command, Engine, Limits, Template
from fastspawn._result import Result
from fastspawn._sinks import Run
from soak.answers import CAP, Figures, Program, Request, Wrong, check, programs
from soak.processes import Child, children, descriptors, find, look_at, strike, threads
from support import async_poll

SPAWNERS = 2
ROUND = 120_000
"""Requests in a round, which has all phases."""
SLACK = 8 * SPAWNERS
"""Descriptors that spawners may keep for their next processes."""
GROWN, MORE = 1.5, 24 * 1024
"""A resident's memory: how many times that of a first one, which has touched little so far, and
how many KB besides."""


# ---- trouble -------------------------------------------------------------------------------------

KILL, TERM, SEGV = signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV


@dataclass
class Trouble:
    """What one request in `each` may get into."""

    orders: tuple[str, ...] = ("none",)
    strikes: tuple[tuple[str, int], ...] = ()
    limits: Callable[[Soak], Limits] | None = None
    of_all: bool = False
    """the limits are those of all requests"""
    cancels: bool = False
    each: int = 30


def soon(soak: Soak) -> Limits:
    """About when a request ends."""
    timeout = soak.choose.expovariate(1 / soak.pace)
    return Limits(timeout=timeout, kill_grace=soak.choose.choice([0, 2.0]))


PHASES = {
    "calm": Trouble(("none", "copy"), each=10),
    "kill": Trouble(strikes=(("busy", KILL),)),
    "term": Trouble(strikes=(("busy", TERM),)),
    "segv": Trouble(strikes=(("busy", SEGV),)),
    "templates": Trouble(strikes=(("template", KILL),), each=400),
    "deadlines": Trouble(("wait", "none", "copy"), limits=soon),
    "races": Trouble(limits=soon, of_all=True),
    "cancelled": Trouble(("wait", "none", "copy"), cancels=True),
    "capped": Trouble(("flood",), limits=lambda _: Limits(max_output=CAP)),
    "crashes": Trouble(("crash",)),
    "leaves": Trouble(("leave",), each=200),
    "all": Trouble(
        ("wait", "crash", "copy", "none"),
        (("busy", KILL), ("busy", TERM), ("busy", SEGV), ("template", KILL)),
        limits=soon,
        cancels=True,
        each=100,
    ),
}


class Phase:
    """So many requests, a kind of trouble with some."""

    def __init__(self, soak: Soak, trouble: Trouble, requests: int) -> None:
        self.soak, self.trouble, self.requests = soak, trouble, requests
        self.figures, self.choose = Figures(), soak.choose

    async def run(self) -> Figures:
        """Raises Wrong."""
        tasks = [
            asyncio.ensure_future(client)
            for name, template in self.soak.templates.items()
            for client in self.clients(self.soak.programs[name], template)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self.figures

    def clients(self, program: Program, template: Template) -> list[Coroutine[Any, Any, None]]:
        turns = iter(range(round(self.requests * program.share)))
        # Those that served last are those that serve next.
        latest: collections.deque[int] = collections.deque(maxlen=2)
        return [self.client(program, template, turns, latest) for _ in range(self.soak.clients)]

    async def client(
        self,
        program: Program,
        template: Template,
        turns: Iterator[int],
        latest: collections.deque[int],
    ) -> None:
        for _ in turns:
            troubled = self.choose.randrange(self.trouble.each) == 0
            if troubled and self.trouble.strikes:
                pid = await self.ask_and_kill(program, template, latest)
            else:
                pid = await self.ask(program, template, troubled)
            if pid and pid not in latest:
                latest.appendleft(pid)
            self.figures.requests += 1

    async def ask_and_kill(
        self, program: Program, template: Template, latest: Iterable[int]
    ) -> int | None:
        """One that is sure to be at it (or a template process), or whoever is there, just now."""
        kind, number = self.choose.choice(self.trouble.strikes)
        if kind == "busy" and program.at != "effect" and self.choose.random() < 0.5:
            asked = self.request(program, "wait")
            # One that a fork got waits for its limit.
            command = program.command(asked.given, Limits(timeout=3, kill_grace=0))
            run = asyncio.ensure_future(self.answer(program, template, asked, command))
            while not run.done():
                self.strike(find(kind, (), self.choose), kind, number)
                await asyncio.wait([run], timeout=0.002)
            return await run
        pidfd = find("resident" if kind == "busy" else kind, latest, self.choose)
        asked = self.request(program, "copy")
        command = template.command if program.at == "effect" else program.command(asked.given)
        run = asyncio.ensure_future(self.answer(program, template, asked, command))
        await asyncio.sleep(0)
        time.sleep(self.choose.expovariate(5000))
        self.strike(pidfd, kind, number)
        return await run

    def strike(self, pidfd: int | None, kind: str, number: int) -> None:
        hit = pidfd is not None and strike(pidfd, number)
        if kind == "busy":
            self.figures.struck[number] += hit
        self.figures.counts["templates killed" if kind == "template" else "residents killed"] += hit

    def request(self, program: Program, order: str) -> Request:
        if order in program.cannot:
            order = "none"
        lines = self.choose.randrange(1, program.lines) if order == "copy" else 0
        more = b"".join(b"%030d\n" % self.choose.getrandbits(90) for _ in range(lines))
        nonce = self.choose.getrandbits(60)
        return Request(nonce, order, "-" if program.at == "effect" else f"g{nonce * 7}", more)

    async def ask(self, program: Program, template: Template, troubled: bool) -> int | None:
        """Who answered; None: nobody needed to."""
        trouble = self.trouble
        asked = self.request(program, self.choose.choice(trouble.orders) if troubled else "none")
        limited = trouble.limits if troubled or trouble.of_all else None
        cancelled = trouble.cancels and troubled
        if limited and cancelled:  # one of both
            cancelled = self.choose.random() < 0.5
            limited = None if cancelled else limited
        if program.at == "effect" and not limited:
            command = template.command  # no other is one of its forks'
        else:
            command = program.command(asked.given, limited(self.soak) if limited else None)
        if cancelled:
            await self.cancel(self.run_one(command, template, asked.input))
            return None
        return await self.answer(program, template, asked, command)

    async def answer(
        self, program: Program, template: Template, asked: Request, command: Command
    ) -> int:
        """Who answered. Raises Wrong."""
        result = await self.run_one(command, template, asked.input)
        try:
            check(program, asked, result, self.figures)
        except Wrong as error:
            raise Wrong(f"{error}: {asked}: {result} {result.stderr!r}") from None
        return result.pid

    async def run_one(self, command: Command, template: Template, data: bytes) -> Result:
        """Template.run(), with limits of its own."""
        future = asyncio.get_running_loop().create_future()
        job: Any = self.soak.engine.submit(command, Run(future), data, False, False, template)
        try:
            job = await future
        except asyncio.CancelledError:
            job.cancel()
            raise
        return Result.of(command.argv, job)

    async def cancel(self, run: Coroutine[Any, Any, Result]) -> None:
        task = asyncio.ensure_future(run)
        await asyncio.wait([task], timeout=self.choose.expovariate(1 / self.soak.pace))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self.figures.counts["cancelled"] += task.cancelled()


# ---- all of it -----------------------------------------------------------------------------------


class Soak:
    def __init__(self, folder: Path, clients: int, seed: int) -> None:
        self.clients = clients
        self.programs = programs(folder)
        self.choose = random.Random(seed)
        self.engine = Engine(SPAWNERS)
        self.templates: dict[str, Template] = {}
        self.past: collections.Counter[str] = collections.Counter()
        """Of templates that are closed."""
        self.requests = 0
        self.pace = 0.01
        """Seconds that a request took, of late."""
        self.drawn: array[int] = array("Q")
        self.base: tuple[int, int] | None = None
        self.rss: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with self.engine:
            for name in self.programs:
                await self.open_template(name)
            yield
            for template in self.templates.values():
                await template.close()

    async def open_template(self, name: str) -> None:
        program = self.programs[name]
        self.templates[name] = Template(
            program.command(), engine=self.engine, at=program.at, reset=True
        )
        await self.templates[name].start()

    def stats(self) -> collections.Counter[str]:
        total = self.past.copy()
        for template in self.templates.values():
            total.update(template.stats)
        return total

    async def settled(self) -> list[Child]:
        """The residents, when nothing is asked, and nothing else is there but the template
        processes. Each is a socket and a pidfd."""
        found: list[Child] = []
        more = (0, 0)

        def all_there() -> bool:
            nonlocal more
            stats = self.stats()
            found[:] = [child for pid in children() if (child := look_at(pid))]
            residents = sum(child.kind == "resident" for child in found)
            zombies = sum(child.state == "Z" for child in found)
            more = descriptors() - 2 * residents, threads()
            self.base = self.base or more
            wanted = stats["residents"] + stats["processes"]
            return (
                not zombies
                and (residents, len(found)) == (stats["residents"], wanted)
                and more[0] <= self.base[0] + SLACK
                and more[1] == self.base[1]
            )

        try:
            await async_poll(all_there, "only templates and residents")
        except AssertionError:
            stats = dict(self.stats())
            raise Wrong(f"left: {found}, {more} for {self.base}, {stats}") from None
        return [child for child in found if child.kind == "resident"]

    async def phase(self, name: str, requests: int) -> None:
        """Raises Wrong."""
        before, start = self.stats(), time.monotonic()
        figures = await Phase(self, PHASES[name], requests).run()
        took = time.monotonic() - start
        self.requests += figures.requests
        self.pace = took / figures.requests * self.clients * len(self.programs)
        residents, stats = await self.settled(), self.stats()
        self.check_drawn(figures.drawn)
        self.check_memory(residents)
        new = {key: stats[key] - before[key] for key in ("resets", "leaves", "made", "retired")}
        died = {f"by {signal.Signals(n).name}": k for n, k in sorted(figures.died.items())}
        print(
            f"{name}: {figures.requests} requests, {figures.requests / took:.0f} a second: "
            f"{words(figures.counts | died)}; {words(new)}; {len(residents)} residents, "
            f"{sum(child.pss for child in residents) // 1024} MB (PSS); "
            f"{len(self.drawn)} random numbers, none twice",
            flush=True,
        )
        if new["resets"] < figures.requests // 4 and not PHASES[name].of_all:
            raise Wrong(f"few were done by residents: {new}")
        await self.check_places("leave" in PHASES[name].orders)

    async def check_places(self, may_leave: bool) -> None:
        """Two that leave at once, one after the other, and there are no residents any more."""
        for name, template in list(self.templates.items()):
            if template.stats["without"]:
                print(f"{name}: forks from here on: {template.not_reset}", flush=True)
                if not may_leave:
                    raise Wrong("nothing explains it")
                await template.close()
                self.past.update({**template.stats, "processes": 0, "residents": 0})
                await self.open_template(name)

    def check_drawn(self, drawn: array[int]) -> None:
        self.drawn.extend(drawn)
        parts = 1 + len(self.drawn) // 300_000
        for part in range(parts):
            some = [number for number in self.drawn if number % parts == part]
            if len(set(some)) != len(some):
                raise Wrong("random numbers that were there before")

    def check_memory(self, residents: list[Child]) -> None:
        for child in residents:
            first = self.rss.setdefault(child.program, child.rss)
            if child.rss > GROWN * first + MORE:
                raise Wrong(f"a resident's memory: {first} KB at first, {child} now")


def words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def rounds(requests: int | None, seconds: float | None) -> Iterator[tuple[str, int]]:
    """The phases, and how many requests each has."""
    end = time.monotonic() + seconds if seconds else float("inf")
    left = requests or sys.maxsize
    while left > 0:
        size = min(left, ROUND if requests else ROUND // 10)
        left -= size
        for i, name in enumerate(PHASES):
            if time.monotonic() >= end:
                return
            yield name, size * (i + 1) // len(PHASES) - size * i // len(PHASES)


async def run(folder: Path, args: argparse.Namespace) -> bool:
    soak, start, wrong = Soak(folder, args.clients, args.seed), time.monotonic(), 0
    async with soak.open():
        try:
            for name, size in rounds(args.requests, args.seconds):
                await soak.phase(name, size)
        except Wrong as error:
            wrong = 1
            print(f"{name}: {error}", file=sys.stderr)
        stats = soak.stats()
    left = children()
    print(
        f"{soak.requests} requests in {time.monotonic() - start:.0f} s, {stats['resets']} resets "
        f"of {stats['made']} residents: {wrong} wrong; {len(left)} processes left"
    )
    return not wrong and not left


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--clients", type=int, default=6, help="of each template, at once")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.requests is args.seconds is None:
        args.requests = 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(Path(folder), args))


if __name__ == "__main__":
    sys.exit(not main())
