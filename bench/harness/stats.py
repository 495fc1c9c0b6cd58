"""Medians with spread. Nothing here averages: one slow run must not move a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """A median with the extremes it was taken from."""

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


def spread(values: Sequence[float]) -> Spread | None:
    """Median, minimum and maximum; None when there is nothing to summarise."""
    if not values:
        return None
    return Spread(quantile(values, 0.5), min(values), max(values), len(values))


def paired_ratio(top: Mapping[int, float], bottom: Mapping[int, float]) -> Spread | None:
    """The spread of top/bottom over the rounds both have.

    Rows of one round ran within minutes of each other, so a machine that slows down for a while
    moves both sides of a pair; the ratio of two medians would compare unlike moments.
    """
    return spread([top[key] / bottom[key] for key in sorted(top) if bottom.get(key)])
