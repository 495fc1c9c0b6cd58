"""A million requests to each strategy, and whether the server is as it was before.

    make million                    (N=10000; ARGS="--strategy reset")
    python tests/soak/million.py [--requests N] [--warm-up N] [--strategy NAME]... [--json FILE]

No trouble here (mixed.py has that): a client in C asks by 30 connections, each request with a nonce
in its query and in its body, and each answer has to have both, the status of its process, and
random numbers that no other has. After the last one the server has the descriptors and threads that
it had when it was warm, no child but what waits for requests, and a line in its log for each
request; its memory has grown by less than 1 MiB.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from soak.answers import Wrong, compile_c
from soak.mixed import Soak, be_subreaper
from soak.served import BOUND, Route
from support import async_poll

CONNECTIONS = 30
BATCH = 50_000
"""Requests, after which the log is rotated, or it would be gigabytes."""
GROWTH = 1024
"""KB that the server may grow by once it is warm: of what is no file's, whose share is less while
another Python runs."""
NAMES = ("direct", "main", "effect", "checkpoint", "reset", "warm", "pool")


class Million:
    def __init__(self, soak: Soak, asker: Path) -> None:
        self.soak = soak
        self.asker = str(asker)
        self.drawn = asker.with_name("drawn")
        self.nonce = 64

    async def ask(self, name: str, route: Route, requests: int) -> None:
        """Raises Wrong."""
        server, at, numbers = self.soak.served.server, f"/{name}", route.program.numbers
        given = int(not route.alike)
        words = (server.port, at, requests, CONNECTIONS, self.nonce, numbers, given, self.drawn)
        self.nonce += 64 * requests
        asker = await asyncio.create_subprocess_exec(
            self.asker, *map(str, words), stderr=asyncio.subprocess.PIPE
        )
        _, said = await asker.communicate()
        if asker.returncode:
            raise Wrong(f"{name}: {said.decode()}\n{server.errors()[-2000:]}")

    async def strategy(self, name: str, requests: int, warm_up: int) -> dict[str, float]:
        """Figures. Raises Wrong."""
        route = self.soak.served.routes[name]
        await self.ask(name, route, warm_up)
        await self.logged(name, warm_up)
        self.drawn.unlink()
        before, start = await self.soak.settled(), time.monotonic()
        for size in batches(requests):
            await self.ask(name, route, size)
            await self.logged(name, size)
        seconds = time.monotonic() - start
        after = await self.soak.settled()
        self.check_drawn(name, requests * route.program.numbers)
        print(
            f"{name}: {requests:,} requests in {seconds:.0f} s, 0 wrong; "
            f"descriptors {before.descriptors} -> {after.descriptors}, "
            f"threads {before.threads} -> {after.threads}, "
            f"memory {before.anon:,} -> {after.anon:,} KB (PSS {before.pss:,} -> {after.pss:,})",
            flush=True,
        )
        return {"requests": requests, "seconds": round(seconds), "grown": after.anon - before.anon}

    async def logged(self, name: str, requests: int) -> None:
        """A line for each, which a thread of the server's may write later. Raises Wrong."""
        served = self.soak.served
        before, path = served.lines, served.log_path
        with contextlib.suppress(AssertionError):
            await async_poll(lambda: path.read_bytes().count(b"\n") >= requests, "a log", BOUND)
        served.rotate()
        if served.lines - before != requests:
            raise Wrong(f"{name}: {served.lines - before} lines in the log for {requests} requests")

    def check_drawn(self, name: str, expected: int) -> None:
        drawn = array.array("Q", self.drawn.read_bytes())
        self.drawn.unlink()
        if len(drawn) != expected or len(set(drawn)) != len(drawn):
            raise Wrong(f"{name}: {len(drawn) - len(set(drawn))} random numbers came twice")


def batches(requests: int) -> Iterator[int]:
    for done in range(0, requests, BATCH):
        yield min(BATCH, requests - done)


async def run(folder: Path, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Raises Wrong."""
    soak, figures = Soak(folder, CONNECTIONS, 1), {}
    asker = compile_c(folder, "asker", "-pthread")
    for name in args.strategy or NAMES:
        async with soak.open(only=name):
            await soak.settled()
            figures[name] = await Million(soak, asker).strategy(name, args.requests, args.warm_up)
            if figures[name]["grown"] > args.growth:
                raise Wrong(f"{name}: the server has grown by {figures[name]['grown']} KB")
    return figures


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=1_000_000, help="to each strategy")
    parser.add_argument("--warm-up", type=int, default=50_000, help="before them")
    parser.add_argument("--growth", type=int, default=GROWTH, help="KB that the server may grow by")
    parser.add_argument("--strategy", action="append", choices=NAMES, help="of them only this")
    parser.add_argument("--json", type=Path, help="the figures")
    args = parser.parse_args()
    be_subreaper()
    with tempfile.TemporaryDirectory() as folder:
        try:
            figures = asyncio.run(run(Path(folder), args))
        except Wrong as error:
            print(error, file=sys.stderr)
            return False
    if args.json:
        args.json.write_text(json.dumps(figures))
    return True


if __name__ == "__main__":
    sys.exit(not main())
