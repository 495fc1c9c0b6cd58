"""Load at a fixed rate, by pace.c: a request goes out when it is due, answered or not the others.

A client that waits for an answer before it asks again asks less just when the server is slow, and
so measures only the good moments. Here a latency counts from the moment at which the request was
due, so that what was sent late, on a machine that is shared with the server, is in it;
`sent_p99_us` counts from the sending. Every status and every body is compared.

Why one of our own: on two cores what the client takes is missing to the server. At 5,000 requests
per second vegeta takes 76 us of CPU for each, this 22 and bombardier (not at a fixed rate) 16.
h2load takes 18, but sends for each connection in steps of 10 ms, and so for all at once.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path

from bench.harness import tools
from bench.harness.load import LoadError

CONNECTIONS = 256
"""Open from the start, and those used last are used first. A request that finds none free is
late."""


@dataclass(frozen=True)
class Paced:
    """Latencies in microseconds, the rate in requests per second."""

    rate: float
    seconds: float
    answers: int
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    sent_p99_us: float
    late_p99_us: float  # the sending behind the moment at which it was due
    errors: int = 0


@tools.once
def program() -> Path:
    return tools.compiled("pace", ["-std=gnu11"], [tools.BENCH / "pace.c"])


def attack(pace: Path, port: int, rate: int, seconds: float, expected: bytes) -> Paced:
    """Send *rate* requests per second for *seconds*. Raises LoadError for a wrong answer."""
    command = [str(pace), str(port), str(rate), str(seconds), str(CONNECTIONS), expected.decode()]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + 60, check=False
        )
    except subprocess.TimeoutExpired:
        raise LoadError(f"pace did not finish within {seconds + 60:.0f} s") from None
    if done.returncode != 0:
        raise LoadError(f"exit status {done.returncode}: {done.stderr.strip()[:200]}")
    told = json.loads(done.stdout)
    if told["wrong"]:
        raise LoadError(f"{told['wrong']} of {told['answers']} answers were wrong: {told['told']}")
    names = {field.name for field in fields(Paced)}
    return Paced(rate=rate, **{name: value for name, value in told.items() if name in names})
