"""Servers that are killed, drained and restarted under a steady load, for as long as one likes.

Prints what became of the requests, and fails if one did that must not.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fleet.fleet import behind_haproxy, check
from fleet.load import Load, Outcome, steady, under_load


def show(title: str, outcome: Outcome, done: Counter[str]) -> None:
    unsure = sum(name in done for name in outcome.unsure)
    print(
        f"{title}: {outcome.sent['GET']:,} GET and {outcome.sent['POST']:,} POST, "
        f"failed: {dict(outcome.failed) or 'none'} (of these {unsure} were done), "
        f"p50 {outcome.percentile(50) * 1e3:.0f} ms, p99 {outcome.percentile(99) * 1e3:.0f} ms, "
        f"most {outcome.percentile(100) * 1e3:.0f} ms",
        flush=True,
    )


def every(period: float, seconds: float) -> Iterator[None]:
    start = time.monotonic()
    for number in itertools.count(1):
        if number * period > seconds:
            time.sleep(max(start + seconds - time.monotonic(), 0))
            return
        time.sleep(max(start + number * period - time.monotonic(), 0))
        yield


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--period", type=float, default=5, help="from one kill and drain to the next"
    )
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    parser.add_argument("--posts", type=int, default=10, help="every how many is a POST; 0: none")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, behind_haproxy(Path(folder)) as (ours, _):
        for title, work, killed in (
            ("killed and drained", lambda: ours.chaos(every(asked.period, asked.seconds)), True),
            ("rolling restart", ours.roll, False),
        ):
            before = ours.noted()
            load = Load(ours.where, steady(asked.rate), 64, asked.posts)
            outcome = asyncio.run(under_load(load, work))
            done = ours.noted() - before
            show(title, outcome, done)
            check(outcome, done, killed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
