"""One look at the figures, for people: what the live page and ``fastspawn top`` show.

Plain values, as JSON has them. Two looks tell rates, and the times of what ended between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from .meter import MOMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .meter import Snapshot


class RouteLook(TypedDict):
    """Counts are since the start, but for ``running`` and ``waiting``."""

    route: str
    strategy: str
    """As ``route_info`` has it, with the place of a snapshot; "" if the route is no more."""
    running: int
    waiting: int
    requests: int
    failed: int
    """Of these, answered with 5xx."""
    run: list[float]
    """Processes by their run time: how many up to each of ``moments``, and above."""
    kills: dict[str, int]
    resets: int | None
    """None: the route has had no residents."""
    retired: int
    leaves: dict[str, int]
    events: dict[str, int]


class Look(TypedDict):
    workers: int
    replaced: int
    connections: int
    dropped: dict[str, int]
    """Lines of the log, by what they were for."""
    moments: list[float]
    """Seconds: the upper bounds of ``run``'s buckets, but for the last, which has none."""
    routes: list[RouteLook]


def look(total: Snapshot) -> Look:
    """``total``: a sum of what ``Meters.snapshot`` gives."""
    now, counts = total["now"], total["counts"]
    served = now.get("routes", {})
    return {
        "workers": now.get("workers", 0),
        "replaced": now.get("replaced", 0),
        "connections": now.get("connections", 0),
        "dropped": _some(total["dropped"]),
        "moments": list(MOMENTS),
        "routes": [
            _route(title, counts[title], served.get(title, {}))
            for title in dict.fromkeys((*served, *counts))
        ],
    }


def _route(title: str, counts: Mapping[str, Any], now: Mapping[str, Any]) -> RouteLook:
    resets: dict[str, int] = counts["resets"]
    answers: dict[str, int] = counts["answers"]
    return {
        "route": title,
        "strategy": ", ".join(kind.strip() for kind in now.get("info", ())),
        "running": now.get("running", 0),
        "waiting": now.get("waiting", 0),
        "requests": sum(answers.values()),
        "failed": sum(count for key, count in answers.items() if key.split(" ")[1][0] == "5"),
        "run": counts["run"][:-1],
        "kills": _some(counts["kills"]),
        "resets": resets.get("requests"),
        "retired": resets.get("retired", 0),
        "leaves": _some(counts["leaves"]),
        "events": _some(counts["events"]),
    }


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def quantile(moments: Sequence[float], run: Sequence[float], share: float) -> float | None:
    """Of a histogram, as Prometheus's histogram_quantile: between two bounds by the rule of
    three, and the last bound for all above it. None: it is empty."""
    wanted, below, low = share * sum(run), 0.0, 0.0
    if wanted <= 0:
        return None
    for bound, count in zip(moments, run, strict=False):
        if count and below + count >= wanted:
            return low + (bound - low) * (wanted - below) / count
        below, low = below + count, bound
    return low
