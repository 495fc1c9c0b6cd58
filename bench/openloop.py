"""The open-loop rows: latency at 70 % of what each server reached in the HTTP part of the same run,
and at one rate that is the same for all.

At its own rate each server is as busy as the others, and it stays the same in every round. The
common one is that of the slowest strategy of ours; whoever's own is below it is not asked.
"""

from __future__ import annotations

from dataclasses import asdict

from bench import rows
from bench.harness import pace, tools
from bench.harness.load import LoadError
from bench.harness.server import Server
from bench.harness.stats import quantile
from bench.row import Loaded, Options, Record, ServerRow, under_load
from bench.store import Results, by_round

SHARE = 0.7
NAMES = (
    *("fastspawn-direct", "fastspawn-snapshot", "fastspawn-effect", "fastspawn-reset"),
    *(rows.RUST, "go-nethttp", "node-single"),
)
QUICK = ("fastspawn-direct", "fastspawn-snapshot", rows.RUST, "go-nethttp")
COMMON = ("p50_us", "p99_us", "late_p99_us")
"""What is told of the common rate."""


def server_row(name: str) -> ServerRow:
    found = next(row for row in rows.ROWS if row.name == name)
    assert isinstance(found, ServerRow)
    return found


def peak(name: str, results: Results) -> float | None:
    """Requests per second in its HTTP row; None where that has no figure."""
    row = results.section("http").get(name, {"rounds": []})
    peaks = list(by_round(row, "requests_per_second").values())
    return quantile(peaks, 0.5) if peaks else None


def rate(name: str, results: Results) -> int:
    """Requests per second for *name*; LoadError where its HTTP row has no figure."""
    row = results.section("http").get(name, {})
    if "unavailable" in row:
        raise tools.Unavailable(row["unavailable"])
    found = peak(name, results)
    if found is None:
        raise LoadError("its peak rate is not known: the HTTP row failed")
    return max(1, round(SHARE * found))


def common_rate(results: Results) -> int:
    """That of our slowest; 0 if none of ours was measured."""
    ours = (peak(name, results) for name in NAMES if name.startswith("fastspawn"))
    return round(SHARE * min(filter(None, ours), default=0))


def measure(name: str, results: Results, options: Options, seconds: float) -> Record:
    """One launch under *seconds* of load at its own rate, and half as long at the common one."""
    row, wanted, common = server_row(name), rate(name, results), common_rate(results)
    program = pace.program()

    def attack(server: Server, rate: int, seconds: float) -> Loaded[pace.Paced]:
        return under_load(
            server,
            options,
            row.expected,
            lambda: pace.attack(program, server.port, rate, seconds, row.expected),
        )

    with row.launch() as server:
        found = attack(server, wanted, seconds)
        beside = found if common == wanted else None
        if 0 < common < wanted:
            beside = attack(server, common, seconds / 2)
    told = asdict(beside.result) if beside else {}
    return {
        "share_of_peak": SHARE,
        "peak": peak(name, results),
        **asdict(found.result),
        **found.costs(found.result.answers),
        **({"common_rate": common} if beside else {}),
        **{f"common_{figure}": told[figure] for figure in COMMON if beside},
        "answers_checked": found.result.answers + 2 * options.checked,
    }
