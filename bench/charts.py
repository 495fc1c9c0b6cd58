"""The pictures, as SVG. The same figures give the same bytes: no dates, no random ids.

They have to be readable on light and on dark ground: transparent, text and axes of a grey that
stands out from both, colours of middling lightness. Text stays text. Bars begin at zero; what grows
is drawn on logarithmic axes; every point has its interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from bench import rows
from bench.harness.stats import Spread, spread
from bench.phases import PHASES
from bench.sections import ARTICLE, FIRST
from bench.store import Results, by_round
from bench.tables import GREY, GROWTH, Row, at_level, levels_of, merged, number

COLOURS = {
    "fastspawn-direct": "#2f81f7",
    "engine-1": "#2f81f7",
    "fastspawn-snapshot": "#8b5cf6",
    "engine-30": "#8b5cf6",
    "fastspawn-effect": "#d6409f",
    "caller": "#d6409f",
    rows.RUST: "#d2691e",
    "subprocess-run": "#d2691e",
    "go-nethttp": "#0f9f94",
    "posix-spawn": "#0f9f94",
    "asyncio-30": "#b08800",
    "uvloop-30": "#5f9c2f",
}
OURS, OTHERS = "#7fb0f5", "#9aa0a6"
OUR_ROWS = ("fastspawn-", "engine-", "aio-", "caller")
MARKERS = "os^Dv<>"
PHASE_COLOURS = (
    *("#2f81f7", "#56c2e6", "#8b5cf6", "#d2691e", "#9aa0a6"),
    *("#0f9f94", "#d6409f", "#5f9c2f", "#d8a200", "#b4533c"),
)
STYLE = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), GREY
    ),
    "grid.color": GREY,
}


def draw(results: Results, name: str, title: str, stamp: str, path: Path) -> None:
    """Write the picture of a section; *stamp* says of which figures it is."""
    with style.context({**STYLE, "svg.hashsalt": name}):
        figure = _figure(results, name)
        figure.savefig(
            path,
            transparent=True,
            metadata={"Date": None, "Creator": None, "Title": title, "Description": stamp},
        )


def colour(name: str) -> str:
    """A row's own, or that of ours, or that of everyone else."""
    return COLOURS.get(name) or (OURS if name.startswith(OUR_ROWS) else OTHERS)


def _figure(results: Results, name: str) -> Figure:
    found = results.section("http" if name == "article" else name)
    if name == "article":
        names = [*FIRST, *(row for _, row, _ in ARTICLE)]
        shown = {row: found[row] for row in names if row in found}
        return bars(_medians(shown, "requests_per_second"), "requests per second")
    if name in ("http", "handlers"):
        return bars(_medians(found, "requests_per_second"), "requests per second")
    if name in ("loop_stall", "loop_lag"):
        return bars(_medians(found, "lag_p99_ms"), "p99 of the event loop's lag, ms")
    if name == "open-loop":
        return bars(_medians(found, "p99_us", 1e-3), "p99 latency, ms")
    if name == "library":
        walls = {row: spread(list(merged(found[row], "wall_us").values())) for row in found}
        return bars({row: wall for row, wall in walls.items() if wall}, "microseconds per spawn")
    if name == "phases":
        return phases(found)
    return growth(name, found)


def _medians(found: dict[str, Row], column: str, scale: float = 1.0) -> dict[str, Spread]:
    told = {}
    for name, row in found.items():
        if median := spread([value * scale for value in by_round(row, column).values()]):
            told[name] = median
    return told


def _thousands(value: float, _: object = None) -> str:
    return number(value, 0 if value >= 10 or value == int(value) else 1)


# ---- bars ----------------------------------------------------------------------------------------


def bars(found: dict[str, Spread], label: str) -> Figure:
    """A bar for each row from zero to its median, with its interval and its figure."""
    figure = Figure(figsize=(8, 0.7 + 0.27 * max(1, len(found))), layout="constrained")
    axes = figure.subplots()
    places = range(len(found))
    medians = [told.median for told in found.values()]
    axes.barh(
        places,
        medians,
        height=0.66,
        color=[colour(name) for name in found],
        xerr=_errors(found.values()),
        error_kw={"ecolor": GREY, "elinewidth": 1, "capsize": 2},
    )
    for place, told in zip(places, found.values(), strict=True):
        axes.annotate(
            _thousands(round(told.median, 1)),
            (max(told.median, told.high), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=GREY,
            fontsize=8,
        )
    axes.set_yticks(places, list(found))
    axes.set_ylim(len(found) - 0.4, -0.6)  # the first on top
    axes.grid(visible=False, axis="y")
    axes.set_xlim(
        0, 1.12 * max((max(told.median, told.high) for told in found.values()), default=1)
    )
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.set_xlabel(label)
    return figure


def _errors(spreads: Iterable[Spread]) -> tuple[list[float], list[float]]:
    """How far the intervals reach below and above their medians."""
    told = list(spreads)
    below = [max(0.0, one.median - one.low) for one in told]
    return below, [max(0.0, one.high - one.median) for one in told]


# ---- curves --------------------------------------------------------------------------------------


def growth(section: str, found: dict[str, Row]) -> Figure:
    """A curve for each row, in a panel for each figure."""
    shown, levels = GROWTH[section], levels_of(found)
    count = len(shown.figures)
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, count, squeeze=False)[0]
    for axes, (column, called, scale, _) in zip(panels, shown.figures, strict=True):
        for index, (name, row) in enumerate(found.items()):
            points = [
                (int(level), told)
                for level in levels
                if (told := spread([v * scale for v in at_level(row, column, level).values()]))
            ]
            if points:
                axes.errorbar(
                    [x for x, _ in points],
                    [told.median for _, told in points],
                    yerr=_errors(told for _, told in points),
                    label=name,
                    color=colour(name),
                    marker=MARKERS[index % len(MARKERS)],
                    markersize=4,
                    linewidth=1.4,
                    capsize=2,
                )
        _grow(axes, [int(level) for level in levels], shown.head(levels))
        axes.set_xlabel(shown.x)
        axes.set_ylabel(called)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, max(1, len(labels))))
    return figure


def _grow(axes: Axes, levels: Sequence[int], labels: Sequence[str]) -> None:
    """Logarithmic axes; zero has a place of its own, a decade below the first level."""
    first = next((level for level in levels if level > 0), 1)
    if 0 in levels:
        axes.set_xscale("symlog", linthresh=first, linscale=0.5)
    else:
        axes.set_xscale("log")
    axes.set_xticks(levels, labels, rotation=35 if len(levels) > 4 else 0, fontsize=8)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 10 * low:  # without a decade in sight, noise would look like growth
        middle = (low * high) ** 0.5
        axes.set_ylim(middle / 10**0.5, middle * 10**0.5)
    few = axes.get_ylim()[1] < 300 * axes.get_ylim()[0]
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="both", axis="y", alpha=0.2)


# ---- stacks --------------------------------------------------------------------------------------


def phases(found: dict[str, Row]) -> Figure:
    """Calls and CPU of one request, stacked by phase, at each number of connections."""
    shown = {name: row["rounds"][0] for name, row in found.items() if _held(row)}
    levels = levels_of({name: found[name] for name in shown})
    height = 1.3 + len(levels) * (0.6 + 0.3 * len(shown))
    figure = Figure(figsize=(8, height), layout="constrained")
    grid = figure.subplots(max(1, len(levels)), 2, squeeze=False, sharex="col")
    for place, column in enumerate(("calls", "cpu_us")):
        sums = [sum(told[column].values()) for record in shown.values()
                for told in record["levels"].values()]  # fmt: skip
        grid[0][place].set_xlim(0, 1.05 * max(sums, default=1))
    for line, level in zip(grid, levels, strict=False):
        for axes, column, label in zip(
            line, ("calls", "cpu_us"), ("system calls", "CPU, microseconds"), strict=True
        ):
            _stack(axes, {name: record["levels"][level][column] for name, record in shown.items()})
            axes.set_title(f"{level} connection{'s' * (level != '1')}", fontsize=9, loc="left")
            axes.set_xlabel(f"{label} per request")
        line[1].set_yticklabels([])
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    return figure


def _held(row: Row) -> bool:
    return bool(row["rounds"]) and "levels" in row["rounds"][0]


def _stack(axes: Axes, found: dict[str, dict[str, float]]) -> None:
    begin = [0.0] * len(found)
    for phase, colour in zip(PHASES, PHASE_COLOURS, strict=True):
        widths = [told[phase] for told in found.values()]
        axes.barh(range(len(found)), widths, left=begin, height=0.66, color=colour, label=phase)
        begin = [start + width for start, width in zip(begin, widths, strict=True)]
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
