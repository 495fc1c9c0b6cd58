"""The figures in Prometheus's text format. Needs prometheus-client (``fastspawn[metrics]``)."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from .meter import MOMENTS, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

_BY_ROUTE: Final = (
    ("rejected", "requests_rejected", "Requests refused because too many ran and waited."),
    ("received", "request_body_bytes", "Bytes of the requests' bodies."),
    ("sent", "response_body_bytes", "Bytes of the answers' bodies."),
)
_BY_KIND: Final = (
    ("exits", "exits", "status", "Processes that exited, by status."),
    ("signals", "signals", "signal", "Processes that a signal ended."),
    ("kills", "kills", "reason", "Processes that the server ended: see docs/operation.md."),
    ("errors", "spawn_errors", "error", "Processes that could not be started."),
    ("events", "strategy_events", "event", "What befell the route's strategy."),
    ("leaves", "reset_leaves", "call", "Requests that did what cannot be undone."),
)
_RESETS: Final = (
    ("requests", "resets", 1, "Requests after which the process put itself back."),
    ("pages", "reset_pages", 1, "Pages of memory that were put back."),
    ("nanoseconds", "reset_seconds", 1e-9, "Time that it took to put processes back."),
    ("retired", "residents_retired", 1, "Processes that were not to serve once more."),
)
"""Of routes that have or had residents: what, its name, its unit."""
_HISTOGRAMS: Final = (
    ("queued", "queue_seconds", "From a request's turn to the start of its process."),
    ("spawned", "spawn_seconds", "To start a process and to hear of its end; not its run time."),
    ("run", "run_seconds", "The processes' run time."),
)
_NOW: Final = (
    ("running", "requests_in_flight", "Processes that run."),
    ("waiting", "requests_queued", "Requests that wait for a place."),
)


def render(total: Snapshot) -> bytes:
    """``total``: a sum of what ``Meters.snapshot`` gives."""
    return generate_latest(_Figures(total))


class _Figures(Collector):
    def __init__(self, total: Snapshot) -> None:
        self._counts: Snapshot = total["counts"]
        self._dropped: Snapshot = total["dropped"]
        self._now: Snapshot = {"routes": {}, "connections": 0, "workers": 0, **total["now"]}

    def collect(self) -> Iterator[Metric]:
        yield self._requests()
        for key, name, text in _BY_ROUTE:
            made = CounterMetricFamily(f"fastspawn_{name}", text, labels=["route"])
            for route, counts in self._counts.items():
                made.add_metric([route], counts[key])
            yield made
        for key, name, label, text in _BY_KIND:
            made = CounterMetricFamily(f"fastspawn_{name}", text, labels=["route", label])
            for route, counts in self._counts.items():
                for kind, count in counts[key].items():
                    made.add_metric([route, kind], count)
            yield made
        for key, name, unit, text in _RESETS:
            made = CounterMetricFamily(f"fastspawn_{name}", text, labels=["route"])
            for route, counts in self._counts.items():
                if key in counts["resets"]:
                    made.add_metric([route], counts["resets"][key] * unit)
            yield made
        for key, name, text in _HISTOGRAMS:
            yield self._histogram(key, f"fastspawn_{name}", text)
        for key, name, text in _NOW:
            gauge = GaugeMetricFamily(f"fastspawn_{name}", text, labels=["route"])
            for route, now in self._now["routes"].items():
                gauge.add_metric([route], now[key])
            yield gauge
        yield self._info()
        yield GaugeMetricFamily(
            "fastspawn_connections", "Clients' connections.", self._now["connections"]
        )
        yield GaugeMetricFamily("fastspawn_workers", "Server processes.", self._now["workers"])
        yield CounterMetricFamily(
            "fastspawn_workers_replaced",
            "Server processes that ended by themselves.",
            self._now.get("replaced", 0),
        )

        yield self._lost()

    def _lost(self) -> Metric:
        made = CounterMetricFamily(
            "fastspawn_log_lines_dropped", "Lines that nobody took in time.", labels=["log"]
        )
        for log, count in self._dropped.items():
            made.add_metric([log], count)
        return made

    def _requests(self) -> Metric:
        made = CounterMetricFamily(
            "fastspawn_requests", "Requests answered.", labels=["route", "method", "status"]
        )
        for route, counts in self._counts.items():
            for key, count in counts["answers"].items():
                made.add_metric([route, *key.split(" ")], count)
        return made

    def _histogram(self, key: str, name: str, text: str) -> Metric:
        made = HistogramMetricFamily(name, text, labels=["route"])
        bounds = [*map(str, MOMENTS), "+Inf"]
        for route, counts in self._counts.items():
            *buckets, total = counts[key]
            made.add_metric([route], list(zip(bounds, accumulate(buckets), strict=True)), total)
        return made

    def _info(self) -> Metric:
        made = InfoMetricFamily("fastspawn_route", "How processes come to be.", labels=["route"])
        for route, now in self._now["routes"].items():
            for kind in now["info"]:
                strategy, at = kind.split(" ")
                made.add_metric([route], {"strategy": strategy, "snapshot_at": at})
        return made
