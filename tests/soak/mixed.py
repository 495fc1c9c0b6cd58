"""Requests by HTTP to a server with all strategies, and every kind of trouble.

    make soak                       for 10 minutes (SECS=20; N=1000000: requests for each strategy)
    python tests/soak/mixed.py [--requests N | --seconds S] [--clients N] [--seed N] [--json FILE]

A route for each strategy: direct, snapshot at main, at the first effect and at a checkpoint, reset,
warm, pool. Each request has a nonce in its query and in its body, and its answer has to have both,
whole, with the status that the program ends with; the head is read to the last byte, too. A phase
has one kind of trouble with some of the requests: programs that crash, end at once, close their
output and go on, leave children, write without end, hang, ignore TERM; clients that leave at any
stage; kills of jobs, residents, spares, pools' workers, templates and server processes; reloads and
logs that are rotated; a strategy that gives up. After each the server has the descriptors, threads
and processes that it had before, and none of its children's children is anybody's.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import ctypes
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from soak.answers import Figures, Request, Wrong
from soak.asking import ENDLESS, PATIENCE, STAGES, Client, Manner, judge
from soak.processes import children, find, strike
from soak.served import BOUND, SLACK, SPARES, Census, Route, Served
from support import async_poll

ROUND = 2_000
"""Requests to each route in a round, which has all phases."""
GROWTH = 24 * 1024
"""KB that the server may grow by after its first round."""
PR_SET_CHILD_SUBREAPER = 36
GIVES_UP = "is snapshot: it does what cannot be undone"

KILL, TERM, SEGV, STOP = signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGSTOP
JOBS = tuple((kind, number) for kind in ("busy", "other") for number in (KILL, TERM, SEGV))


@dataclass
class Trouble:
    """What one request in ``each`` may get into."""

    orders: tuple[str, ...] = ("none",)
    each: int = 3
    leaves: bool = False
    """its client, at some stage"""
    strikes: tuple[tuple[str, int], ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    """of the server: it is told at the phase's start"""
    may_end: str = ""
    reloads: int = 0
    """after so many requests, again and again; and the log is rotated"""
    kills_server: int = 0
    """likewise: one of its processes"""
    gives_up: bool = False
    """all requests of strategy reset do what cannot be undone"""


PHASES = {
    "calm": Trouble(("copy",)),
    "ends": Trouble(("crash", "now", "close", "stay", "leave", "copy")),
    "clients leave": Trouble(("none", "copy", "wait", "deaf", "family", "flood"), leaves=True),
    "endless": Trouble(("flood",), options={"max-output": "100000"}, may_end="cut"),
    "late": Trouble(
        ("wait", "deaf", "family"), 10, options={"exec-timeout": "'500ms'"}, may_end="late"
    ),
    "kills": Trouble(("copy",), 10, strikes=(*JOBS, ("worker", KILL), ("resident", KILL))),
    "templates": Trouble(("copy",), 40, strikes=(("template", KILL), ("template", STOP))),
    "reloads": Trouble(("copy", "close"), reloads=150),
    "gives up": Trouble(("copy",), reloads=200, gives_up=True),
    "all": Trouble(
        ("copy", "crash", "now", "stay", "close", "leave"),
        strikes=(*JOBS, ("worker", KILL), ("template", KILL)),
        each=20,
        reloads=300,
    ),
}
LAST = Trouble(("copy", "now"), kills_server=100)
"""Of a server with several processes."""


class Phase:
    """So many requests to each route, a kind of trouble with some."""

    def __init__(self, soak: Soak, name: str, trouble: Trouble, requests: int) -> None:
        self.soak, self.name, self.trouble, self.requests = soak, name, trouble, requests
        self.figures, self.choose = Figures(), soak.choose

    async def run(self) -> Figures:
        """Raises Wrong."""
        routes = self.soak.served.routes.items()
        turns = {name: iter(range(self.requests)) for name, _ in routes}
        clients = [
            asyncio.ensure_future(self.client(name, route, turns[name]))
            for name, route in routes
            for _ in range(self.soak.clients)
        ]
        others = [asyncio.ensure_future(other) for other in self.others()]
        try:
            await asyncio.gather(*clients)
        finally:
            for task in (*clients, *others):
                task.cancel()
            ends = await asyncio.gather(*clients, *others, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        return self.figures

    def others(self) -> Iterator[Coroutine[Any, Any, None]]:
        if self.trouble.reloads:
            yield self.again_and_again(self.trouble.reloads, self.reload)
        if self.trouble.kills_server:
            yield self.again_and_again(self.trouble.kills_server, self.kill_server)

    async def again_and_again(
        self, each: int, act: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        due = 0
        while True:
            due += each
            await self.done(due)
            await act()

    async def done(self, requests: int) -> None:
        await async_poll(lambda: self.figures.requests >= requests, "requests", 2 * PATIENCE)

    async def reload(self) -> None:
        await self.soak.served.reload(**self.trouble.options)
        self.soak.served.rotate()
        self.figures.counts["reloads"] += 1

    async def kill_server(self) -> None:
        """A new one comes in its place."""
        pids = children(self.soak.served.pid)
        os.kill(self.choose.choice(pids), KILL)
        self.figures.counts["server processes killed"] += 1
        await async_poll(
            lambda: len(children(self.soak.served.pid)) == len(pids), "another process", BOUND
        )

    async def client(self, name: str, route: Route, turns: Iterator[int]) -> None:
        client = Client(self.soak.served.server.port, self.figures)
        try:
            for _ in turns:
                asked, manner, strikes = self.request(route)
                try:
                    await self.ask(client, name, route, asked, manner, strikes)
                except Wrong as error:
                    raise Wrong(f"/{name}: {error}: {asked} {manner}"[:2000]) from None
                self.figures.requests += 1
        finally:
            client.leave()

    def request(self, route: Route) -> tuple[Request, Manner, bool]:
        """The last: whoever may be struck is, until it has its answer."""
        trouble, choose = self.trouble, self.choose
        troubled = choose.randrange(trouble.each) == 0
        strikes = troubled and bool(trouble.strikes)
        order = choose.choice(trouble.orders) if troubled else "none"
        if strikes and any(kind == "busy" for kind, _ in trouble.strikes):
            order = "wait"
        if trouble.gives_up and route.strategy == "reset":
            order = "leave"
        elif order in self.soak.cannot(route):
            order = "copy"
        manner = Manner(chunked=choose.random() < 0.3, half=choose.random() < 0.1)
        if troubled and trouble.leaves:
            until = choose.choice(STAGES)
            some = choose.choice([0, 100_000]) if order == "flood" else 0
            manner = Manner(until, some, choose.random() < 0.5, manner.chunked)
        return self.soak.request(route, order), manner, strikes

    async def ask(
        self,
        client: Client,
        name: str,
        route: Route,
        asked: Request,
        manner: Manner,
        strikes: bool,
    ) -> None:
        """Raises Wrong."""
        run = asyncio.ensure_future(client.ask(f"/{name}", asked, manner))
        try:
            while strikes and not run.done():
                self.strike()
                if asked.order not in ENDLESS:
                    break
                await asyncio.wait([run], timeout=0.01)
            got = await asyncio.wait_for(run, PATIENCE)
        except (ConnectionError, EOFError) as error:
            self.figures.counts["connections lost"] += 1
            if not self.trouble.kills_server:
                raise Wrong(f"the connection was lost: {error!r}") from None
            client.leave()
            return
        except asyncio.TimeoutError:
            raise Wrong("no answer") from None
        if manner.until:
            client.leave(abruptly=manner.abruptly)
        if got is None:
            self.figures.counts["left"] += 1
            return
        if self.trouble.kills_server and not got.whole:
            self.figures.counts["connections lost"] += 1
            return
        try:
            judge(route.program, asked, got, self.figures, manner, self.trouble.may_end)
        except Wrong as error:
            raise Wrong(f"{error}: {got}"[:2000]) from None

    def strike(self) -> None:
        kind, number = self.choose.choice(self.trouble.strikes)
        pidfd = find(kind, (), self.choose, self.soak.served.pid)
        if pidfd is None:
            return
        # Before it is sent: the answer may be here sooner than we are told that it was.
        if kind != "template":
            self.figures.struck[number] += 1
        self.figures.counts[f"{kind} struck"] += strike(pidfd, number)


class Soak:
    def __init__(self, folder: Path, clients: int, seed: int) -> None:
        self.folder, self.clients = folder, clients
        self.choose = random.Random(seed)
        self.requests = 0
        self.totals: collections.Counter[str] = collections.Counter()
        self.base: tuple[int, int] | None = None
        self.pss: list[int] = []
        """The server's, after each phase."""
        self.served: Served

    @contextlib.asynccontextmanager
    async def open(self, workers: int = 1, only: str = "") -> AsyncIterator[None]:
        """Raises Wrong, if it does not end as it should."""
        folder = self.folder / f"{only or 'all'}-{workers}"
        folder.mkdir()
        self.served = Served(folder, workers, only)
        self.base = None
        try:
            yield
            with contextlib.suppress(AssertionError):
                await async_poll(lambda: not self.served.reap(), "their ends")
            self.served.rotate()
            if (status := self.served.stop()) != 0:
                raise Wrong(f"the server's status: {status}")
            if "Traceback" in self.served.server.errors():
                raise Wrong(self.served.server.errors()[-4000:])
            if left := self.served.reap():
                raise Wrong(f"processes that are left: {left}")
        finally:
            self.served.server.stop()

    def cannot(self, route: Route) -> frozenset[str]:
        """Orders. Of a resident, two that leave in turn end the strategy; a pool's worker kills
        what is left of a group."""
        by = {"reset": {"leave", "stay", "family"}, "pool": {"stay"}}
        late = {"now"} if route.alike else set()
        return route.program.cannot | by.get(route.strategy, set()) | late

    def request(self, route: Route, order: str) -> Request:
        nonce = self.choose.getrandbits(60)
        given = f"now{nonce}" if order == "now" else f"g{nonce * 7}"
        lines = self.choose.randrange(1, route.program.lines) if order == "copy" else 0
        more = b"".join(b"%030d\n" % self.choose.getrandbits(90) for _ in range(lines))
        return Request(nonce, order, "-" if route.alike else given, more)

    async def phase(self, name: str, trouble: Trouble, requests: int) -> None:
        """Raises Wrong."""
        start, served = time.monotonic(), self.served
        gave_up = served.server.errors().count(GIVES_UP)
        if trouble.options:
            await served.reload(**trouble.options)
        figures = await Phase(self, name, trouble, requests).run()
        took = time.monotonic() - start
        if trouble.gives_up:
            await self.give_up(gave_up)
        if trouble.options or trouble.gives_up or trouble.reloads:
            await served.reload()
        census = await self.settled()
        served.rotate()
        check_drawn(figures)
        gave_up = served.server.errors().count(GIVES_UP) - gave_up
        self.requests += figures.requests
        self.pss.append(census.pss)
        figures.counts["requests killed"] = sum(figures.died.values())
        figures.counts["times a strategy gave up"] = gave_up
        self.totals.update(figures.counts)
        told = ", ".join(f"{count} {word}" for word, count in figures.counts.items() if count)
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(census.kinds().items()))
        print(
            f"{name}: {figures.requests} requests, {took:.1f} s: {told}; "
            f"{kinds}; {census.descriptors} descriptors, {census.threads} threads, "
            f"{census.pss / 1024:.1f} MB (PSS)",
            flush=True,
        )

    async def give_up(self, before: int) -> None:
        """More of that, if there was no resident yet. Raises Wrong."""
        end = time.monotonic() + PATIENCE
        while self.served.server.errors().count(GIVES_UP) == before:
            if time.monotonic() > end:
                raise Wrong("no strategy gives up")
            await Phase(self, "gives up", Trouble(gives_up=True), 5).run()

    async def settled(self) -> Census:
        """When nobody asks. Each resident is a socket and a pidfd. Raises Wrong."""
        spares = SPARES * self.served.workers
        census = self.served.look()
        left: list[int] = []

        def all_there() -> bool:
            nonlocal census
            census, left[:] = self.served.look(), self.served.reap()
            kinds = census.kinds()
            if left or kinds["busy"] or kinds["other"] > spares:
                return False
            if kinds["worker"] < self.served.pool:  # whose pool refuses when none is left
                return False
            if any(child.state == "Z" for child in census.children):
                return False
            if self.served.workers > 1:
                return True
            now = census.descriptors - 2 * kinds["resident"], census.threads
            self.base = self.base or now
            return now[0] <= self.base[0] + SLACK and now[1] == self.base[1]

        try:
            await async_poll(all_there, "only what waits for requests", BOUND)
        except AssertionError:
            raise Wrong(f"left: {left}, {census} for {self.base}") from None
        return census


def check_drawn(figures: Figures) -> None:
    if len(set(figures.drawn)) != len(figures.drawn):
        raise Wrong("random numbers that were there before")


def rounds(
    names: list[str], requests: int | None, seconds: float | None
) -> Iterator[tuple[str, int]]:
    """The phases, and how many requests to each route each has."""
    end = time.monotonic() + seconds if seconds else float("inf")
    left = requests or sys.maxsize
    while left > 0:
        size = min(left, ROUND if requests else ROUND // 20)
        left -= size
        for i, name in enumerate(names):
            if time.monotonic() >= end:
                return
            yield name, size * (i + 1) // len(names) - size * i // len(names)


async def run(soak: Soak, args: argparse.Namespace) -> None:
    """Raises Wrong."""
    name = "start"
    try:
        async with soak.open():
            await soak.settled()
            for name, size in rounds(args.phase, args.requests, args.seconds):
                await soak.phase(name, PHASES[name], size)
            grown = soak.pss[-1] - soak.pss[min(len(args.phase), len(soak.pss)) - 1]
            if grown > GROWTH:
                raise Wrong(f"the server has grown by {grown} KB: {soak.pss}")
        name = "server processes"
        async with soak.open(workers=2):
            await soak.phase(name, LAST, max(20, soak.requests // 700))
    except (Wrong, AssertionError) as error:
        raise Wrong(f"{name}: {error}") from None


def be_subreaper() -> None:
    """What loses its parent below us is ours then."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, help="to each route")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--clients", type=int, default=5, help="of each route, at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--phase", action="append", choices=PHASES, help="of them only this")
    parser.add_argument("--json", type=Path, help="the figures")
    args = parser.parse_args()
    args.phase = args.phase or list(PHASES)
    if args.requests is args.seconds is None:
        args.seconds = 600
    be_subreaper()
    start, wrong = time.monotonic(), ""
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), args.clients, args.seed)
        try:
            asyncio.run(run(soak, args))
        except Wrong as error:
            wrong = str(error)
            print(wrong, file=sys.stderr)
    seconds = time.monotonic() - start
    print(f"{soak.requests} requests in {seconds:.0f} s: {int(bool(wrong))} wrong")
    if args.json:
        args.json.write_text(json.dumps({"requests": soak.requests, "seconds": round(seconds)}))
    return not wrong


if __name__ == "__main__":
    sys.exit(not main())
