"""The handler rows: programs that take long to start, executed for every request and not.

Two comparisons, each between ways of our own server with the same command:

* `handlers`, under full load: a Python program with common imports, executed for every request,
  forked at its `checkpoint()`, and put back to it; the same with numpy; and beside them its
  function in gunicorn's workers, without a process for the request.
* `gaps`, one request at a time with an idle moment before each: a Node program, executed for every
  request and started ahead of it (`--strategy warm`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.harness import load, procs
from bench.harness.server import Server
from bench.harness.stats import quantile
from bench.ours import fastspawn
from bench.peers import builds
from bench.row import Options, Record, ServerRow, module, with_command

PYTHON_PROGRAM = "bench/cases/handler.py"
NODE_PROGRAM = "bench/cases/handler.mjs"
ANSWER = b'{"hi": 0, "with": ["asyncio", "email", "re", "urllib.request"]}\n'
CONNECTIONS, PATIENCE = 8, 20  # so much CPU for each: with 30 at once some wait for seconds
WAYS = {
    "direct": "executed for each request",
    "snapshot": "forked at its `checkpoint()`",
    "reset": "put back to its `checkpoint()` after each request",
}
GAP = 0.15  # seconds: Node has started within it


@dataclass(frozen=True)
class Handler:
    """A row with the part of the requests that it is measured with, since some take so long."""

    row: ServerRow
    requests: float = 1.0

    def measure(self, options: Options) -> Record:
        requests = max(60, round(options.requests * self.requests))
        checked = max(30, round(options.checked * self.requests))
        fewer = Options(requests, min(CONNECTIONS, options.connections), checked, PATIENCE)
        return self.row.measure(fewer)


def _python(
    name: str, words: Sequence[str], requests: float, checkpointed: str = "snapshot"
) -> Handler:
    frozen = "checkpoint" in words
    flags = ["--snapshot-at", "checkpoint"] if frozen else []
    imports = "json, re, email, urllib.request, asyncio" + ", numpy" * ("numpy" in words)
    strategy = checkpointed if frozen else "direct"
    command = (sys.executable, PYTHON_PROGRAM, *words)
    row = fastspawn(
        name,
        f"`--strategy {' '.join([strategy, *flags])}`: a Python program that imports {imports}, "
        f"{WAYS[strategy]}",
        *("--strategy", strategy, *flags),
        command=command,
    )
    if "numpy" in words:
        row = _with_numpy(row)
    return Handler(with_command(row, command, ANSWER), requests)


def _gunicorn(name: str, words: Sequence[str], requests: float) -> Handler:
    version = functools.partial(builds.python_version, "gunicorn")
    about = "that program's function" + " with numpy" * ("numpy" in words)
    row = ServerRow(
        name,
        f"{about} in gunicorn's own sync workers, 2 x cores + 1: no process for the request, "
        "nothing isolated",
        module("python.wsgi", "--in-process"),
        version,
        version,
    )
    if "numpy" in words:
        row = _with_numpy(row)
    return Handler(with_command(row, (sys.executable, PYTHON_PROGRAM, *words), ANSWER), requests)


def _with_numpy(row: ServerRow) -> ServerRow:
    def version() -> str:
        return f"{row.version()}, {builds.package('numpy')}"

    # Its linear algebra starts threads at the import otherwise, and threads can't be frozen.
    return replace(row, prepare=version, version=version, env={"OPENBLAS_NUM_THREADS": "1"})


HANDLERS = {
    handler.row.name: handler
    for handler in (
        _python("python-handler-direct", (), 0.02),
        _python("fastspawn-checkpoint", ("checkpoint",), 0.2),
        _python("fastspawn-reset-checkpoint", ("checkpoint",), 0.5, "reset"),
        _gunicorn("gunicorn-handler", (), 0.5),
        _python("python-numpy-direct", ("numpy",), 0.01),
        _python("fastspawn-checkpoint-numpy", ("checkpoint", "numpy"), 0.2),
        _python("fastspawn-reset-checkpoint-numpy", ("checkpoint", "numpy"), 0.5, "reset"),
        _gunicorn("gunicorn-handler-numpy", ("numpy",), 0.5),
    )
}


@dataclass(frozen=True)
class GapRow:
    """A server asked one request at a time; the figure is the time until its answer is there."""

    row: ServerRow

    @property
    def name(self) -> str:
        return self.row.name

    def prepare(self) -> None:
        self.row.prepare()
        builds.node()

    def version(self) -> str:
        return f"{self.row.version()}, {builds.node_version()}"

    def measure(self, answers: int) -> Record:
        row = with_command(self.row, (str(builds.node()), NODE_PROGRAM), b"hi\n")
        with row.launch() as server:
            load.ask_in_turn(server.port, 5, GAP, row.expected)
            before = _tree(server)
            times = load.ask_in_turn(server.port, answers, GAP, row.expected)
            usage = procs.usage(before, _tree(server))
        return {
            "gap_ms": GAP * 1e3,
            "answers": answers,
            "errors": 0,
            "p50_us": quantile(times, 0.5),
            "p99_us": quantile(times, 0.99),
            "max_us": max(times),
            "server_cpu_us": usage.server_us / answers,
            "switches": usage.switches / answers,
            "peak_rss_kib": usage.peak_rss_kib,
            "answers_checked": answers + 5,
        }


def _tree(server: Server) -> procs.Tree:
    found = procs.settled_tree(server.pid)
    server.remember_helpers(found)
    return found


GAPS = {
    f"node-handler-{name}": GapRow(fastspawn(f"node-handler-{name}", about, "--strategy", name))
    for name, about in (
        ("direct", "`--strategy direct`: a Node program, executed for each request"),
        ("warm", "`--strategy warm`: the same, started before its request came"),
    )
}
