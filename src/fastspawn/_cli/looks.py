"""Looks at a server's figures from elsewhere: at what its live page shows, or Prometheus reads."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    from prometheus_client import Metric

    from fastspawn.serve.figures.look import Look, RouteLook

    Sample: TypeAlias = "dict[str, dict[str, dict[str, float]]]"
    """By name, route and kind."""

_PATIENCE: Final = 10.0
"""Seconds for an answer."""
_JSON: Final = "application/json"
_KINDS: Final = ("strategy", "snapshot_at", "status", "reason", "event", "call", "log", "le")
"""Labels of Prometheus's that tell kinds apart; in a look one goes by its name alone."""


class NoFiguresError(Exception):
    """Why there are none, in words."""


def fetch(url: str) -> Look:
    """``url``: of serve --live-path or --metrics-path. Raises NoFiguresError."""
    whole = url + ("&" if "?" in url else "?") + "figures"  # which the other path ignores
    try:
        with urllib.request.urlopen(whole, timeout=_PATIENCE) as answer:
            kind, text = answer.headers.get_content_type(), answer.read().decode()
        found: Look | None = json.loads(text) if kind == _JSON else _from_prometheus(text)
    except urllib.error.HTTPError as error:
        raise NoFiguresError(f"{url}: {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise NoFiguresError(f"{url}: {getattr(error.reason, 'strerror', error.reason)}") from error
    except (OSError, http.client.HTTPException) as error:
        raise NoFiguresError(f"{url}: {str(error).strip() or type(error).__name__}") from error
    except ValueError:
        found = None
    if not isinstance(found, dict) or "routes" not in found:
        raise NoFiguresError(
            f"{url}: no figures of fastspawn: see serve --live-path and --metrics-path"
        )
    return found


# ---- Prometheus ----


def _from_prometheus(text: str) -> Look | None:
    if "\n# TYPE fastspawn_" not in text:
        return None
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        raise NoFiguresError(
            "needs prometheus-client for this URL: pip install 'fastspawn[metrics]'; or ask the "
            "path of serve --live-path"
        ) from None
    sample = _sample(text_string_to_metric_families(text))

    def whole(name: str) -> int:
        return int(_one(sample, name, ""))

    bounds = next(iter(sample.get("run_seconds_bucket", {}).values()), {})
    return {
        "workers": whole("workers"),
        "replaced": whole("workers_replaced_total"),
        "connections": whole("connections"),
        "dropped": _counts(sample, "log_lines_dropped_total", ""),
        "moments": [float(bound) for bound in bounds if bound != "+Inf"],
        "routes": [_route(sample, route) for route in sample.get("run_seconds_count", {})],
    }


def _sample(families: Iterable[Metric]) -> Sample:
    sample: Sample = {}
    for family in families:
        for name, labels, value, *_ in family.samples:
            rest = " ".join(labels[key] for key in _KINDS if key in labels)
            routes = sample.setdefault(name.removeprefix("fastspawn_"), {})
            kinds = routes.setdefault(labels.get("route", ""), {})
            kinds[rest] = kinds.get(rest, 0.0) + value
    return sample


def _one(sample: Sample, name: str, route: str) -> float:
    return sum(sample.get(name, {}).get(route, {}).values())


def _counts(sample: Sample, name: str, route: str) -> dict[str, int]:
    found = sample.get(name, {}).get(route, {})
    return {kind: int(count) for kind, count in found.items() if count}


def _route(sample: Sample, route: str) -> RouteLook:
    def whole(name: str) -> int:
        return int(_one(sample, name, route))

    answers = _counts(sample, "requests_total", route)
    upto = list(sample["run_seconds_bucket"][route].values())
    return {
        "route": route,
        "strategy": ", ".join(_kinds(sample, route)),
        "running": whole("requests_in_flight"),
        "waiting": whole("requests_queued"),
        "requests": sum(answers.values()),
        "failed": sum(count for status, count in answers.items() if status[0] == "5"),
        "run": [count - before for before, count in zip([0.0, *upto], upto, strict=False)],
        "kills": _counts(sample, "kills_total", route),
        "resets": whole("resets_total") if route in sample.get("resets_total", {}) else None,
        "retired": whole("residents_retired_total"),
        "leaves": _counts(sample, "reset_leaves_total", route),
        "events": _counts(sample, "strategy_events_total", route),
    }


def _kinds(sample: Sample, route: str) -> list[str]:
    return [kind.strip() for kind in sample.get("route_info", {}).get(route, {})]
