"""The loop-stall rows: how long a spawn holds up the event loop that it is made on.

Each launch is a process of its own (cases/stall_host.py) with 100 MiB of touched memory, which
spawns on its loop while a ticker of 1 ms on the same loop records how late it fires.
"""

from __future__ import annotations

import json
import subprocess
import sys

from bench.harness.server import environment
from bench.harness.stats import quantile
from bench.harness.tools import ROOT
from bench.library import WorkerError
from bench.row import Record

WAYS = ("aio-exec-30", "aio-exec-uvloop-30", "aio-run-30", "asyncio-30", "uvloop-30")


def measure(way: str, spawns: int) -> Record:
    """One launch. Raises WorkerError if it fails or an output is wrong."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.cases.stall_host", way, str(spawns)],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise WorkerError(f"{way}: status {done.returncode}: {done.stderr.strip()[-200:]}")
    told = json.loads(done.stdout)
    if told["wrong"]:
        raise WorkerError(f"{way}: {told['wrong']} of {told['spawns']} outputs were wrong")
    lags = [lag * 1e3 for lag in told["lags"]]
    return {
        "ticks": len(lags),
        "lag_p50_ms": quantile(lags, 0.5),
        "lag_p99_ms": quantile(lags, 0.99),
        "lag_max_ms": max(lags),
    }
