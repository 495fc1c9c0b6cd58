"""Medians with their intervals. Nothing here averages: one slow run must not move a figure."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """A median with its 95 % bootstrap interval: where it would lie had other rounds been run.

    With five values or fewer that is nearly from the smallest to the largest.
    """

    median: float
    low: float
    high: float
    size: int  # how many values


def quantile(values: Sequence[float], q: float) -> float:
    """The *q* quantile (0 to 1) of *values*, linear between neighbours; NaN when empty."""
    if not values:
        return math.nan
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


DRAWS = 1_000


def spread(values: Sequence[float]) -> Spread | None:
    """Median and interval, the same each time for the same values; None for no values."""
    if not values:
        return None
    draw = random.Random(0)
    medians = [quantile(draw.choices(values, k=len(values)), 0.5) for _ in range(DRAWS)]
    low, high = quantile(medians, 0.025), quantile(medians, 0.975)
    return Spread(quantile(values, 0.5), low, high, len(values))


def paired_ratio(top: Mapping[int, float], bottom: Mapping[int, float]) -> Spread | None:
    """The spread of top/bottom over the rounds both have.

    Rows of one round ran within minutes of each other, so a machine that slows down for a while
    moves both sides of a pair; the ratio of two medians would compare unlike moments.
    """
    return spread([top[key] / bottom[key] for key in sorted(top) if bottom.get(key)])
