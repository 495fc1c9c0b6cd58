"""Whether a run is slower than one before: ``python -m bench --slower BEFORE.json NOW.json``.

Of each row that has figures in both runs, the speed now to the speed before, round by round: the
first round to the first, so runs whose rounds took turns see the same moments of the machine. Where
both have the section's yardstick, a program that is not ours (compare.py), a speed is that in its
terms: a machine that is slower throughout is no difference.

A row is slower when the median of its ratios is below 1 by more than LESS, and so by some amount is
all of their interval. Where the median is, but not the interval, it cannot be told apart from
noise, which more rounds could.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.compare import YARDSTICKS, Yardstick
from bench.harness.stats import Spread, paired_ratio
from bench.store import Results
from bench.tables import Row

LESS = 0.03
SECTIONS = {**YARDSTICKS, "programs": Yardstick("requests_per_second", "")}
TIMES = {"open-loop", "gaps", "library"}
"""Sections whose figure is a time: the less, the faster."""


@dataclass(frozen=True)
class Slower:
    """One section of two runs; a row with the ratio of its speeds."""

    section: str
    compared: int
    slower: dict[str, Spread]
    unclear: dict[str, Spread]
    """More than LESS slower by the median, but not beyond noise."""

    def __str__(self) -> str:
        head = f"{self.section}: {self.compared} rows, {len(self.slower) or 'none'} slower"
        lines = [f"`{name}`: {_told(found)}" for name, found in self.slower.items()]
        lines += [f"`{name}`: {_told(found)}, within noise" for name, found in self.unclear.items()]
        return "\n  ".join([head, *lines])


def _told(found: Spread) -> str:
    change, low, high = ((value - 1) * 100 for value in (found.median, found.low, found.high))
    return f"speed {change:+.1f} % ({low:+.1f} to {high:+.1f} %)"


def slower(before: Results, now: Results) -> list[Slower]:
    """Each section that both runs have rows of."""
    found = [
        _section(name, yardstick, before.section(name), now.section(name))
        for name, yardstick in SECTIONS.items()
    ]
    return [section for section in found if section.compared]


def _section(
    section: str, yardstick: Yardstick, before: dict[str, Row], now: dict[str, Row]
) -> Slower:
    speeds = [_speeds(section, yardstick, run) for run in (before, now)]
    if all(yardstick.base in run for run in speeds):
        speeds = [_to_base(run, yardstick.base) for run in speeds]
    changes = {
        name: change
        for name, was in speeds[0].items()
        if name in speeds[1] and (change := paired_ratio(speeds[1][name], was))
    }
    less = {name: change for name, change in changes.items() if change.median < 1 - LESS}
    certain = {name: change for name, change in less.items() if change.high < 1}
    unclear = {name: change for name, change in less.items() if name not in certain}
    return Slower(section, len(changes), certain, unclear)


def _speeds(
    section: str, yardstick: Yardstick, run: dict[str, Row]
) -> dict[str, Mapping[int, float]]:
    """By row and round; none of a row that failed or was not to be had."""
    found = {name: yardstick.values(row) for name, row in run.items()}
    if section in TIMES:
        found = {
            name: {key: 1 / value for key, value in values.items() if value}
            for name, values in found.items()
        }
    return {name: values for name, values in found.items() if values}


def _to_base(run: dict[str, Mapping[int, float]], base: str) -> dict[str, Mapping[int, float]]:
    return {
        name: {key: value / run[base][key] for key, value in values.items() if key in run[base]}
        for name, values in run.items()
        if name != base
    }
