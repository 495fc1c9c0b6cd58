"""``python -m bench.queueing``: how long requests take on 1 to 1,000 machines, by who gets which.

A machine has some places, each of which works on one request at a time; others wait in order, as
``max-inflight`` and the queue have it. Requests come at random moments (a Poisson process), take
as long as some that were measured (without those: exponential times), and go to

* ``random``: any machine, which is also what DNS and the kernel's SO_REUSEPORT do,
* ``rotating``: one after the other,
* ``two``: of two that are drawn, the one with fewer requests,
* ``least``: the one with the fewest requests (HAProxy's leastconn).

Machines fail never, and what is between them and the clients takes no time.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace

from bench.harness.stats import quantile

POLICIES = ("random", "rotating", "two", "least")


class Machines:
    """``count`` of them with ``places`` each, and who is where."""

    def __init__(self, count: int, places: int, policy: str, chance: random.Random) -> None:
        self._count = count
        self._chance = chance
        self._free_at = [[0.0] * places for _ in range(count)]
        """Of each machine a heap: when each place is done with what it has been given."""
        self._here = [0] * count
        self._leaving: list[tuple[float, int]] = []
        """A heap: when a request ends, and where."""
        self._turn = -1
        # For ``least``: all machines as (requests, a number by chance, which). Stale ones of
        # other numbers of requests are skipped.
        self._fewest = [(0, chance.random(), machine) for machine in range(count)]
        heapify(self._fewest)
        choices: dict[str, Callable[[], int]] = {
            "random": lambda: chance.randrange(count),
            "rotating": self._rotate,
            "two": self._two,
            "least": self._least,
        }
        self._choose = choices[policy]

    def take(self, now: float, seconds: float) -> float:
        """A request that comes ``now`` and needs a place for ``seconds``: when it is answered.
        Calls come in order of ``now``."""
        while self._leaving and self._leaving[0][0] <= now:
            self._move(heappop(self._leaving)[1], -1)
        machine = self._choose()
        self._move(machine, +1)
        free_at = self._free_at[machine]
        end = max(now, free_at[0]) + seconds
        heapreplace(free_at, end)
        heappush(self._leaving, (end, machine))
        return end

    def _move(self, machine: int, by: int) -> None:
        self._here[machine] += by
        heappush(self._fewest, (self._here[machine], self._chance.random(), machine))

    def _rotate(self) -> int:
        self._turn = (self._turn + 1) % self._count
        return self._turn

    def _two(self) -> int:
        one, other = self._chance.randrange(self._count), self._chance.randrange(self._count)
        return one if self._here[one] <= self._here[other] else other

    def _least(self) -> int:
        while self._fewest[0][0] != self._here[self._fewest[0][2]]:
            heappop(self._fewest)
        return self._fewest[0][2]


def arrivals(rate: float, number: int, chance: random.Random) -> Iterator[float]:
    """Moments, in seconds, of a Poisson process."""
    now = 0.0
    for _ in range(number):
        now += chance.expovariate(rate)
        yield now


def respond(
    moments: Sequence[float],
    services: Sequence[float],
    machines: int,
    places: int,
    policy: str,
    seed: int = 1,
) -> list[float]:
    """Seconds from each of ``moments`` to its answer. ``services``: seconds to draw from."""
    chance = random.Random(seed)
    ours = Machines(machines, places, policy, chance)
    return [ours.take(now, chance.choice(services)) - now for now in moments]


@dataclass(frozen=True)
class Row:
    machines: int
    load: float
    """Of all places, the share that is busy on average."""
    policy: str
    p50: float
    p99: float


def simulate(
    services: Sequence[float], machines: int, places: int, load: float, policy: str, number: int
) -> Row:
    """``number`` requests, without the first third, in which the machines fill."""
    rate = load * machines * places / (sum(services) / len(services))
    moments = list(arrivals(rate, number, random.Random(2)))
    seconds = respond(moments, services, machines, places, policy)[number // 3 :]
    return Row(machines, load, policy, quantile(seconds, 0.5), quantile(seconds, 0.99))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--places", type=int, default=8, help="of a machine: its cores")
    parser.add_argument("--services", help="a file with measured seconds, one a line")
    parser.add_argument("--requests", type=int, default=100_000)
    asked = parser.parse_args()
    if asked.services is None:
        services = [-math.log(1 - (i + 0.5) / 1000) for i in range(1000)]  # exponential
    else:
        with open(asked.services) as file:
            services = [float(line) for line in file]
    mean = sum(services) / len(services)
    loads = (0.5, 0.7, 0.8, 0.9)
    print(f"p50 and p99 in mean service times ({mean * 1e3:.1f} ms), {asked.places} places each\n")
    print("| machines | policy |" + "".join(f" load {load:.0%} |" for load in loads))
    print("| ---: | --- |" + " ---: |" * len(loads))
    for machines in (1, 2, 4, 10, 100, 1000):
        for policy in POLICIES if machines > 1 else POLICIES[:1]:
            rows = [
                simulate(services, machines, asked.places, load, policy,
                         max(asked.requests, 600 * machines))
                for load in loads
            ]  # fmt: skip
            cells = "".join(f" {row.p50 / mean:.1f}, {row.p99 / mean:.1f} |" for row in rows)
            print(f"| {machines:,} | {policy} |{cells}", flush=True)


if __name__ == "__main__":
    main()
