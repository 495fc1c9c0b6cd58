"""``python -m fleet.predict``: servers behind HAProxy, and what bench/queueing.py says of them.

Each server is a machine of its own as far as its commands sleep: ``--max-inflight 2`` are its
places. Both get the same requests at the same moments, and how long one takes is measured first.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

from bench.harness.stats import quantile
from bench.queueing import arrivals, respond

from fleet.fleet import started
from fleet.haproxy import haproxy, weighted
from fleet.load import Load, Outcome

PLACES = 2


WAYS: dict[str, tuple[str, Callable[[str], str]]] = {
    "leastconn, weights": ("least", weighted),
    "leastconn": ("least", lambda text: text),
    "random(1)": (
        "random",
        lambda text: text.replace("balance leastconn", "balance random(1)"),
    ),
}
"""What HAProxy is told, and what the simulation calls it."""


def services(where: tuple[str, int], number: int) -> list[float]:
    """Seconds of requests that come one by one."""
    client = HTTPConnection(*where, timeout=60)
    found = []
    for _ in range(number):
        start = time.monotonic()
        client.request("GET", "/fetch")
        answer = client.getresponse()
        body = answer.read()
        assert body == b"done\n", (answer.status, body)
        found.append(time.monotonic() - start)
    client.close()
    return found


async def _run(load: Load) -> tuple[Outcome, float]:
    start = time.monotonic()
    return await load.run(), time.monotonic() - start


def compare(folder: Path, count: int, way: str, share: float, seconds: float) -> str:
    """A row: what was said to be, and what was."""
    policy, edit = WAYS[way]
    folder.mkdir()
    with (
        started(folder, count, "0", "--max-inflight", str(PLACES)) as members,
        haproxy(folder, [member.address for member in members], edit) as front,
    ):
        alone = services(front.where, 60)
        rate = share * count * PLACES / (sum(alone) / len(alone))
        moments = list(arrivals(rate, round(rate * seconds), random.Random(3)))
        outcome, took = asyncio.run(_run(Load(front.where, moments, 256, 0)))
    assert not outcome.failed, outcome.failed
    said = respond(moments, alone, count, PLACES, policy)
    real = outcome.seconds
    cells = [
        f"{count}",
        way,
        f"{share:.0%}",
        f"{len(real) / max(moments):.0f}",
        f"{len(real) / took:.0f}",
    ]
    for q in (0.5, 0.99):
        cells += [f"{quantile(said, q) * 1e3:.0f}", f"{quantile(real, q) * 1e3:.0f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.5, 0.8])
    asked = parser.parse_args()
    print("| servers | way | load | req/s said | real | p50 ms said | real | p99 ms said | real |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, 2, 4):
            for way in WAYS if count > 1 else ("leastconn",):
                for share in asked.shares:
                    name = f"{count}-{way}-{share}".replace(", ", "-")
                    print(
                        compare(Path(folder) / name, count, way, share, asked.seconds), flush=True
                    )


if __name__ == "__main__":
    main()
