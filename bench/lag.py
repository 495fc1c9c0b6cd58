"""The loop-lag rows: how late a server's event loop is while its commands take time.

The server runs in cases/lag_host.py, which ticks on the server's own loop. The row `ticker-only`
is the same ticker in a process that does nothing, while one of the servers is under load beside
it: how late the machine alone makes a timer at that load.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import rows
from bench.harness import load, tools
from bench.harness.server import Server, ServerError
from bench.harness.stats import quantile
from bench.row import Options, Record, ServerRow, with_command

COMMAND = ("sleep", "0.01")
HOST = ("-m", "bench.cases.lag_host")
TICKER = "ticker-only"
NAMES = ("fastspawn-direct", "stdlib-asyncio", "uvloop-subprocess", "threadpool-run", TICKER)


def hosted(row: ServerRow, out: Path) -> Callable[[int], Sequence[str]]:
    """*row*'s command line with its interpreter running lag_host.py first."""

    def argv(port: int) -> list[str]:
        interpreter, *rest = row.argv(port)
        return [interpreter, *HOST, str(out), *rest, "--", *COMMAND]

    return argv


def server_row(name: str) -> ServerRow:
    """The server behind a lag row; `ticker-only` stands beside the tokio server."""
    wanted = rows.RUST if name == TICKER else name
    found = next(row for row in rows.ROWS if row.name == wanted)
    assert isinstance(found, ServerRow)
    return with_command(found, COMMAND, b"")


def measure(name: str, options: Options) -> Record:
    """One launch under load; the lag is that of the ticks within the measured load."""
    row = server_row(name)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        out = Path(folder) / "ticks.json"
        program = tools.bombardier()
        if name == TICKER:
            ticker = Ticker(out)
            stack.callback(ticker.end)
            server = stack.enter_context(Server(lambda port: [*row.argv(port), "--", *COMMAND]))
        else:
            server = stack.enter_context(Server(hosted(row, out)))
        load.check_answers(server.port, options.checked, options.connections, row.expected)
        start = time.monotonic()
        result = load.bombard(program, server.port, options.requests, options.connections)
        end = time.monotonic()
        load.check_answers(server.port, options.checked, options.connections, row.expected)
        stack.close()
        if not out.exists():
            raise ServerError("the ticker left no record: the server did not end by itself")
        lags = [lag * 1e3 for at, lag in json.loads(out.read_text()) if start <= at <= end]
    if not lags:
        raise ServerError("the event loop did not tick once under load")
    return {
        "requests_per_second": result.requests_per_second,
        "ticks": len(lags),
        "lag_p50_ms": quantile(lags, 0.5),
        "lag_p99_ms": quantile(lags, 0.99),
        "lag_max_ms": max(lags),
        "answers_checked": 2 * options.checked,
        "errors": 0,
    }


class Ticker:
    """lag_host.py alone."""

    def __init__(self, out: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *HOST, str(out)], cwd=tools.ROOT, start_new_session=True
        )

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(15)
