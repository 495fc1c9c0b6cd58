"""The memory rows: what many processes of the Python program with numpy take that are ready for a
request each.

Each launch is a process of its own (cases/memory_host.py), whose children are looked at when all
have done their work once: the sum of their proportional set sizes (PSS), what starts them included.
"""

from __future__ import annotations

import json
import subprocess
import sys

from bench.harness.server import environment
from bench.harness.tools import ROOT
from bench.library import WorkerError
from bench.peers import builds
from bench.row import Record

PROCESSES = 16
WAYS = {
    "memory-numpy-exec": f"{PROCESSES} executed processes that have imported json, re, email, "
    "urllib.request, asyncio and numpy, and answered",
    "memory-numpy-reset": f"{PROCESSES} processes that were put back to its `checkpoint()`, and "
    "their template",
}


def version() -> str:
    return builds.package("numpy")


def measure(name: str) -> Record:
    """One launch. Raises WorkerError if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.cases.memory_host", name.rpartition("-")[2], str(PROCESSES)],
        cwd=ROOT,
        # As in the handlers' rows.
        env={**environment(), "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise WorkerError(f"{name}: status {done.returncode}: {done.stderr.strip()[-200:]}")
    told: Record = json.loads(done.stdout)
    return told
