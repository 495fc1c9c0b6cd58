"""The open-loop rows: latency at 70 % of what each server reached in the HTTP part of the same run.

Each server has its own rate, so that all are equally busy, and it stays the same in every round.
"""

from __future__ import annotations

from dataclasses import asdict

from bench import rows
from bench.harness import tools, vegeta
from bench.harness.load import LoadError
from bench.harness.stats import quantile
from bench.row import Options, Record, ServerRow, under_load
from bench.store import Results, by_round

SHARE = 0.7
NAMES = (
    *("fastspawn-direct", "fastspawn-snapshot", "fastspawn-effect"),
    *(rows.RUST, "go-nethttp", "node-single"),
)
QUICK = ("fastspawn-direct", "fastspawn-snapshot", rows.RUST, "go-nethttp")


def server_row(name: str) -> ServerRow:
    found = next(row for row in rows.ROWS if row.name == name)
    assert isinstance(found, ServerRow)
    return found


def rate(name: str, results: Results) -> int:
    """Requests per second for *name*; LoadError where its HTTP row has no figure."""
    row = results.section("http").get(name, {"rounds": []})
    if "unavailable" in row:
        raise tools.Unavailable(row["unavailable"])
    peaks = list(by_round(row, "requests_per_second").values())
    if not peaks:
        raise LoadError("its peak rate is not known: the HTTP row failed")
    return max(1, round(SHARE * quantile(peaks, 0.5)))


def measure(name: str, results: Results, options: Options, seconds: float) -> Record:
    """One launch under *seconds* of load."""
    row, wanted, program = server_row(name), rate(name, results), tools.vegeta()
    with row.launch() as server:
        found = under_load(
            server,
            options,
            row.expected,
            lambda: vegeta.attack(program, server.port, wanted, seconds, row.expected),
        )
    return {
        "share_of_peak": SHARE,
        **asdict(found.result),
        **found.costs(found.result.answers),
        "answers_checked": found.result.answers + 2 * options.checked,
    }
