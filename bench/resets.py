"""What processes that put themselves back are judged by, and what a run says to it.

Each figure is a ratio of two rows of the same section, within each round, but for the one of a
single process without HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench import rows
from bench.harness.stats import Spread, paired_ratio, quantile, spread
from bench.store import Results, by_round, failure
from bench.tables import Table, number

RATE = ("requests_per_second",)
CPU = ("server_cpu_us", "child_cpu_us")  # templates and residents are in the server's
FORK, RESET = "fastspawn-checkpoint", "fastspawn-reset-checkpoint"


@dataclass(frozen=True)
class Wanted:
    """A ratio, as it should be."""

    about: str
    section: str
    row: str
    base: str
    figures: tuple[str, ...]
    """Their sum is compared."""
    bound: float
    least: bool = True
    """It is to be at least that, not at most."""


WANTED = (
    Wanted("`echo` over HTTP, req/s to effect", "http", "fastspawn-reset", "fastspawn-effect",
           RATE, 2.2),
    Wanted("`echo` over HTTP, req/s to Rust", "http", "fastspawn-reset", rows.RUST, RATE, 7),
    Wanted("`echo` over HTTP, all CPU of a request to effect", "http", "fastspawn-reset",
           "fastspawn-effect", CPU, 0.5, False),
    Wanted("`echo` at 70 % of its own peak, p99 to effect", "open-loop", "fastspawn-reset",
           "fastspawn-effect", ("p99_us",), 1, False),
    Wanted("`echo` at the same rate as effect, p99 to effect", "open-loop", "fastspawn-reset",
           "fastspawn-effect", ("common_p99_us",), 1, False),
    Wanted("Python handler, req/s to its fork", "handlers", RESET, FORK, RATE, 7),
    Wanted("Python handler, req/s to exec", "handlers", RESET, "python-handler-direct", RATE, 150),
    Wanted("Python handler, req/s to gunicorn sync", "handlers", RESET, "gunicorn-handler",
           RATE, 0.5),
    Wanted("Python with numpy, req/s to its fork", "handlers", f"{RESET}-numpy", f"{FORK}-numpy",
           RATE, 5),
    Wanted("memory of 16 of them, to 16 executed", "memory", "memory-numpy-reset",
           "memory-numpy-exec", ("pss_kib",), 0.25, False),
)  # fmt: skip
ALONE, ALONE_FORK = "c-template-reset-1", "c-template-1"
ALONE_PER_SECOND, ALONE_TO_FORK = 20_000, 20_000 / 4_300


def _sums(row: dict[str, Any], figures: tuple[str, ...]) -> dict[int, float]:
    columns = [by_round(row, name) for name in figures]
    return {key: sum(column[key] for column in columns) for key in columns[0]}


def ratio_of(found: Mapping[str, dict[str, Any]], wanted: Wanted) -> Spread | None:
    if wanted.row not in found or wanted.base not in found:
        return None
    return paired_ratio(*(_sums(found[name], wanted.figures) for name in (wanted.row, wanted.base)))


def _per_second(found: Mapping[str, dict[str, Any]], name: str) -> dict[int, float]:
    """Runs per second of one process, by round."""
    row = found.get(name, {"rounds": []})
    rounds = [] if failure(row) else row["rounds"]
    return {record["round"]: 1e6 / quantile(record["wall_us"], 0.5) for record in rounds}


def judgement(about: str, measured: Spread, bound: float, least: bool, digits: int) -> list[str]:
    met = measured.median >= bound if least else measured.median <= bound
    unit = "x" if digits else "/s"
    values = [f"{number(value, digits)}{unit}" for value in measured[:3]]
    return [
        about,
        f"at {'least' if least else 'most'} {number(bound, 2 if digits else 0)}{unit}",
        f"{values[0]} ({values[1]} to {values[2]})",
        "yes" if met else "**no**",
    ]


def judged(results: Results) -> list[Table]:
    """One table; none for a run without such rows."""
    lines = [
        judgement(wanted.about, measured, wanted.bound, wanted.least, 2)
        for wanted in WANTED
        if (measured := ratio_of(results.section(wanted.section), wanted)) is not None
    ]
    alone, fork = (_per_second(results.section("library"), name) for name in (ALONE, ALONE_FORK))
    about = "`echo` without HTTP, from C, one process"
    if (measured := spread(list(alone.values()))) is not None:
        lines.append(judgement(about, measured, ALONE_PER_SECOND, True, 0))
    if (measured := paired_ratio(alone, fork)) is not None:
        lines.append(judgement(f"{about}, to its fork", measured, ALONE_TO_FORK, True, 2))
    head = ["reset: what, to what", "wanted", "measured", "met"]
    return [Table("What resets are judged by", head, lines)] if lines else []
