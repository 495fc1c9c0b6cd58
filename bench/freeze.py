"""The freeze rows: how many processes of common programs a second, by where they begin.

Each launch is a process of its own (cases/freeze_host.py), with an engine and templates in it and
without HTTP.
"""

from __future__ import annotations

import json
import subprocess
import sys

from bench.harness.server import environment
from bench.harness.tools import ROOT, Unavailable
from bench.library import WorkerError
from bench.row import Record

PROGRAMS: dict[str, tuple[str, ...]] = {
    "echo": ("echo", "hi"),
    "true": ("true",),
    "date": ("date",),
    "cat": ("cat", "/etc/passwd"),
    "sort": ("sort", "/etc/passwd"),
    "head": ("head", "-1", "/etc/passwd"),
    "sha256sum": ("sha256sum", "/etc/passwd"),
    "ls": ("ls", "/"),
    "id": ("id",),
    "env": ("env",),
    "seq": ("seq", "10"),
    "grep": ("grep", "root", "/etc/passwd"),
    "sed": ("sed", "-n", "1p", "/etc/passwd"),
    "awk": ("awk", "BEGIN{print 1}"),
    "sh": ("sh", "-c", "echo hi"),
    "bash": ("bash", "-c", "echo hi"),
    "perl": ("perl", "-e", "print 1"),
    "git": ("git", "--version"),
    "jq": ("jq", "-n", "1"),
    "sqlite3": ("sqlite3", ":memory:", "select 1"),
    "openssl": ("openssl", "version"),
    "ruby": ("ruby", "-e", "puts 1"),
    "python3": ("python3", "-c", "print(1)"),
    "node": ("node", "-e", "console.log(1)"),
}
COUNTS = {"python3": 150, "node": 60, "ruby": 150}
"""For the slow ones; else as many as are asked for."""


def about(name: str) -> str:
    return f"`{' '.join(PROGRAMS[name])}`"


def measure(name: str, count: int) -> Record:
    """One launch. Raises WorkerError if it fails."""
    count = min(count, COUNTS.get(name, count))
    done = subprocess.run(
        [sys.executable, "-m", "bench.cases.freeze_host", str(count), *PROGRAMS[name]],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise WorkerError(f"{name}: status {done.returncode}: {done.stderr.strip()[-200:]}")
    told: Record = json.loads(done.stdout)
    if "unavailable" in told:
        raise Unavailable(str(told["unavailable"]))
    if told["statuses"] != [0]:
        raise WorkerError(f"{name}: exit statuses {told['statuses']}")
    return told
