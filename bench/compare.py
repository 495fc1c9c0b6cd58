"""Whether two runs say the same: ``python -m bench --compare A.json B.json``.

Two rows of a section have an order in a run when their intervals do not overlap, else they are a
tie. The ranking is another one when two rows have opposite orders in the two runs; a tie in one of
them is none. Ratios are those of the report: to one row of the section, round by round.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from bench import rows
from bench.harness.stats import paired_ratio, spread
from bench.store import Results, by_round
from bench.tables import Row, merged

CLOSE = 1.1
"""Ratios of two runs differ when one is more than this many times the other."""


@dataclass(frozen=True)
class Yardstick:
    """What a section is compared by."""

    figure: str
    base: str  # the row that ratios are taken to
    batches: bool = False  # a round has several values

    def values(self, row: Row) -> dict[int, float]:
        """Empty for a row that has failed or was not to be had."""
        return merged(row, self.figure) if self.batches else by_round(row, self.figure)


YARDSTICKS = {
    "http": Yardstick("requests_per_second", rows.RUST),
    "open-loop": Yardstick("p99_us", rows.RUST),
    "handlers": Yardstick("requests_per_second", "python-handler-direct"),
    "web": Yardstick("requests_per_second", "flask-hello-gunicorn"),
    "gaps": Yardstick("p50_us", "node-handler-direct"),
    "library": Yardstick("wall_us", "subprocess-run", batches=True),
}


@dataclass(frozen=True)
class Comparison:
    """One section of two runs."""

    section: str
    compared: int  # rows that have figures in both
    swapped: list[str]
    apart: list[str]  # ratios that are not close
    alone: list[str]  # rows of both runs that have figures in one of them only

    @property
    def same(self) -> bool:
        return not (self.swapped or self.apart or self.alone)

    def __str__(self) -> str:
        ranking = "another ranking" if self.swapped else "the same ranking"
        ratios = f"{len(self.apart) or 'no'} ratio{'s' * (len(self.apart) != 1)}"
        head = f"{self.section}: {self.compared} rows, {ranking}, {ratios} more than 10 % apart"
        return "\n  ".join([head, *self.swapped, *self.apart, *self.alone])


def compare(before: Results, after: Results) -> list[Comparison]:
    """Each section that has figures in both runs."""
    found = [
        _section(name, yardstick, before.section(name), after.section(name))
        for name, yardstick in YARDSTICKS.items()
        if before.section(name) and after.section(name)
    ]
    return [comparison for comparison in found if comparison.compared or comparison.alone]


def _section(
    section: str, yardstick: Yardstick, before: dict[str, Row], after: dict[str, Row]
) -> Comparison:
    old, new = (
        {name: values for name, row in run.items() if (values := yardstick.values(row))}
        for run in (before, after)
    )
    both = [name for name in old if name in new]
    swapped = [
        f"`{first}` and `{second}` have changed places"
        for first, second in itertools.combinations(both, 2)
        if order(old[first], old[second]) * order(new[first], new[second]) < 0
    ]
    apart = []
    for name in both:
        was, now = (_ratio(run, name, yardstick.base) for run in (old, new))
        if was and now and max(was / now, now / was) > CLOSE:
            change = (now / was - 1) * 100
            apart.append(
                f"`{name}` to `{yardstick.base}`: {was:.2f}x, then {now:.2f}x ({change:+.0f} %)"
            )
    # A row that one of the runs was not to have, as a quick one, is no difference.
    alone = [
        f"`{name}` has figures in one run only"
        for name in sorted(old.keys() ^ new.keys())
        if name in before and name in after
    ]
    return Comparison(section, len(both), swapped, apart, alone)


def order(first: Mapping[int, float], second: Mapping[int, float]) -> int:
    """1 when *first* is more, -1 when it is less, 0 when the intervals overlap: a tie."""
    one, other = spread(list(first.values())), spread(list(second.values()))
    if one is None or other is None:
        return 0
    return (one.low > other.high) - (one.high < other.low)


def _ratio(run: Mapping[str, dict[int, float]], name: str, base: str) -> float | None:
    found = paired_ratio(run[name], run.get(base, {}))
    return found and found.median
