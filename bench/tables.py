"""The tables of a run, as cells of text with a little Markdown; ``report.py`` places them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import rows
from bench.harness.stats import Spread, paired_ratio, spread
from bench.ours import STDLIB
from bench.phases import PHASES
from bench.store import by_round, failure

Row = dict[str, Any]
GREY = "#7a828e"
"""Of text and axes in pictures: stands out from light and from dark ground."""


@dataclass(frozen=True)
class Table:
    """The first column names the row; a note is a line of its own below."""

    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    about: str = ""


def number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}"


def figure(
    values: Iterable[float], scale: float = 1.0, digits: int = 0, around: bool = True
) -> str:
    """A median, with its interval unless *around* is False; a dash for no values."""
    found = spread([value * scale for value in values])
    if found is None:
        return "-"
    text = number(found.median, digits)
    if around and found.size > 1:
        text += f" ({number(found.low, digits)} to {number(found.high, digits)})"
    return text


def times(found: Spread | None) -> str:
    return "-" if found is None else f"{found.median:.2f}x"


def without_figures(name: str, row: Row, width: int) -> list[str] | None:
    """The line of a row that has nothing to show, with the reason in its first figure's place."""
    reason = failure(row)
    if reason:
        told = f"**failed**: {reason}"
    elif "unavailable" in row:
        told = f"not available: {row['unavailable']}"
    elif not row["rounds"]:
        told = "not run"
    else:
        return None
    return [f"`{name}`", told.replace("|", "/"), *[""] * (width - 2)]


HTTP_BASES = {"stdlib": STDLIB, "rust": rows.RUST, "floor": rows.FLOOR}
HANDLER_BASES = {"direct": "python-handler-direct", "numpy direct": "python-numpy-direct"}


def http_table(
    found: dict[str, Row],
    title: str = "One process per request over HTTP",
    bases: Mapping[str, str] = HTTP_BASES,
) -> Table:
    head = ["server", "req/s", "p50 ms", "p99 ms", "server CPU us/req", "of it helpers"]
    head += ["child CPU us/req", "errors", *(f"to {base}" for base in bases)]
    rate = "requests_per_second"
    lines = []
    for name, row in found.items():
        line = without_figures(name, row, len(head))
        if line is None:
            line = [f"`{name}`", figure(by_round(row, rate).values())]
            line += [
                figure(by_round(row, f).values(), 1e-3, 1, False) for f in ("p50_us", "p99_us")
            ]
            line.append(figure(by_round(row, "server_cpu_us").values()))
            for column in ("helper_cpu_us", "child_cpu_us"):
                line.append(figure(by_round(row, column).values(), around=False))
            line.append(number(sum(by_round(row, "errors").values())))
            for base in bases.values():
                other = by_round(found[base], rate) if base in found else {}
                line.append(times(paired_ratio(by_round(row, rate), other)))
        lines.append(line)
    return Table(title, head, lines, notes(found))


def open_loop_table(found: dict[str, Row]) -> Table:
    head = ["server", "req/s", "p50 ms", "p99 ms", "p99.9 ms", "server CPU us/req"]
    head += ["child CPU us/req", "p99 to rust"]
    base = by_round(found[rows.RUST], "p99_us") if rows.RUST in found else {}
    common = {rate for row in found.values() for rate in by_round(row, "common_rate").values()}
    if common:  # an older run has none
        at = " to ".join(number(rate) for rate in sorted({min(common), max(common)}))
        head += [f"p50 ms at {at}/s", f"p99 ms at {at}/s", "client's share of CPU"]
    lines = []
    for name, row in found.items():
        line = without_figures(name, row, len(head))
        if line is None:
            line = [f"`{name}`", figure(by_round(row, "rate").values(), around=False)]
            for column in ("p50_us", "p99_us", "p999_us"):
                line.append(figure(by_round(row, column).values(), 1e-3, 1))
            for column in ("server_cpu_us", "child_cpu_us"):
                line.append(figure(by_round(row, column).values(), around=False))
            line.append(times(paired_ratio(by_round(row, "p99_us"), base)))
            line += _at_common_rate(row) if common else []
        lines.append(line)
    return Table("Latency at 70 % of each server's own peak rate", head, lines, notes(found))


def _at_common_rate(row: Row) -> list[str]:
    cells = [
        figure(by_round(row, f"common_{column}").values(), 1e-3, 1)
        for column in ("p50_us", "p99_us")
    ]
    client, server, child = (
        by_round(row, f"{part}_cpu_us") for part in ("load", "server", "child")
    )
    share = [client[key] / (client[key] + server[key] + child[key]) for key in client]
    return [*cells, f"{figure(share, 100, around=False)} %"]


def gaps_table(found: dict[str, Row]) -> Table:
    head = ["server", "p50 ms", "p99 ms", "server CPU us/req"]
    lines = []
    for name, row in found.items():
        line = without_figures(name, row, len(head))
        if line is None:
            line = [f"`{name}`"]
            line += [figure(by_round(row, f"p{q}_us").values(), 1e-3, 1) for q in (50, 99)]
            line.append(figure(by_round(row, "server_cpu_us").values()))
        lines.append(line)
    return Table(
        "A Node program, asked one request at a time after idle moments", head, lines, notes(found)
    )


CPU_BASES = ("asyncio-30", "uvloop-30")
"""What the parent's CPU is compared with."""


def library_table(found: dict[str, Row]) -> Table:
    head = ["call", "wall us per spawn", "parent CPU us", "child CPU us", "wall to subprocess.run"]
    head += [f"CPU to {base}" for base in CPU_BASES]
    base = merged(found["subprocess-run"], "wall_us") if "subprocess-run" in found else {}
    lines = []
    for name, row in found.items():
        line = without_figures(name, row, len(head))
        if line is None:
            line = [f"`{name}`"]
            line += [
                figure(merged(row, column).values(), around=column != "child_cpu_us")
                for column in ("wall_us", "parent_cpu_us", "child_cpu_us")
            ]
            line.append(times(paired_ratio(merged(row, "wall_us"), base)))
            for other_name in CPU_BASES:
                base_row = found.get(other_name)
                other = merged(base_row, "parent_cpu_us") if base_row else {}
                line.append(times(paired_ratio(merged(row, "parent_cpu_us"), other)))
        lines.append(line)
    return Table("One spawn, without HTTP", head, lines, notes(found))


STDLIB_CPU = (
    ("fastspawn-run-output", "subprocess-run-output", 0.45),
    ("aio-exec-30", "asyncio-30", 0.5),
    ("aio-exec-uvloop-30", "uvloop-30", 0.25),
    ("aio-run-30", "asyncio-30", 0.2),
)
"""A call, what it stands in for, and the most of its CPU that it is to take."""


def stdlib_cpu_table(found: dict[str, Row]) -> Table:
    head = ["call", "in the place of", "parent CPU us", "its", "ratio", "at most"]
    lines = []
    for ours, theirs, most in STDLIB_CPU:
        if ours not in found or theirs not in found:
            continue
        pair = [merged(found[name], "parent_cpu_us") for name in (ours, theirs)]
        line = [f"`{ours}`", f"`{theirs}`", *(figure(values.values()) for values in pair)]
        lines.append([*line, times(paired_ratio(*pair)), f"{most:.2f}"])
    return Table("Parent CPU of a spawn against the standard library's", head, lines)


def merged(row: Row, column: str) -> dict[int, float]:
    """All batches of all rounds, keyed so that batches taken in turn share a key."""
    values: dict[int, float] = {}
    for record in () if failure(row) else row["rounds"]:
        for index, value in enumerate(record[column]):
            values[record["round"] * 1000 + index] = value
    return values


@dataclass(frozen=True)
class Growth:
    """How a curve is shown."""

    title: str
    x: str  # what grows
    unit: Callable[[int], str]
    figures: Sequence[tuple[str, str, float, int]]  # column, its name, scale, digits

    def head(self, levels: Iterable[str]) -> list[str]:
        return [self.unit(int(level)) for level in levels]


def in_bytes(size: int) -> str:
    """A power of 1024 in its unit."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024 or unit == "MiB":
            return f"{size:,} {unit}"
        size //= 1024
    raise AssertionError


SPAWN_FIGURES = (("wall_us", "us per spawn", 1.0, 0),)
LOAD_FIGURES = (("requests_per_second", "req/s", 1.0, 0), ("p99_us", "p99 ms", 1e-3, 1))
GROWTH = {
    "growth_fds": Growth(
        "One spawn with open descriptors in the parent",
        *("open descriptors", number, SPAWN_FIGURES),
    ),
    "growth_memory": Growth(
        "One spawn with touched memory in the parent",
        *("touched memory", lambda mib: in_bytes(mib << 20) if mib else "0", SPAWN_FIGURES),
    ),
    "growth_environment": Growth(
        "One spawn with a large environment",
        *("environment", in_bytes, SPAWN_FIGURES),
    ),
    "growth_concurrency": Growth("Connections at once", "connections", number, LOAD_FIGURES),
    "growth_output": Growth(
        "Size of the answer, 4 connections",
        *("answer", in_bytes, LOAD_FIGURES),
    ),
    "growth_workers": Growth(
        "Server processes (`--workers`), 30 connections",
        *("server processes", number, LOAD_FIGURES),
    ),
    "growth_spawners": Growth(
        "Spawner threads (`--spawners`), 30 connections",
        *("spawner threads", number, LOAD_FIGURES),
    ),
}


def levels_of(found: dict[str, Row]) -> list[str]:
    """All that any row was measured at, in order."""
    seen = {level for row in found.values() for record in row["rounds"]
            for level in record.get("levels", ())}  # fmt: skip
    return sorted(seen, key=int)


def at_level(row: Row, column: str, level: str) -> dict[int, float]:
    """A figure of a row at one level, by round, or by round and batch."""
    values: dict[int, float] = {}
    for record in () if failure(row) else row["rounds"]:
        found = record["levels"].get(level, {}).get(column, [])
        for index, value in enumerate(found if isinstance(found, list) else [found]):
            values[record["round"] * 1000 + index] = value
    return values


def growth_tables(section: str, found: dict[str, Row]) -> list[Table]:
    shown, levels, tables = GROWTH[section], levels_of(found), []
    for column, called, scale, digits in shown.figures:
        head = ["call" if shown.figures is SPAWN_FIGURES else "server"]
        head += [*shown.head(levels), "last to first"]
        lines = []
        for name, row in found.items():
            line = without_figures(name, row, len(head))
            if line is None:
                values = [at_level(row, column, level) for level in levels]
                line = [f"`{name}`", *(figure(v.values(), scale, digits) for v in values)]
                line.append(times(paired_ratio(values[-1], values[0])))
            lines.append(line)
        tables.append(Table(f"{shown.title}: {called}", head, lines))
    return tables


def phase_tables(found: dict[str, Row]) -> list[Table]:
    """Calls and CPU per request at each number of connections."""
    tables = []
    levels = levels_of(found) or ["1"]  # for the reasons why there are none
    for column, called, digits in (("calls", "system calls", 1), ("cpu_us", "CPU us", 0)):
        for level in levels:
            head = ["server", *PHASES, "sum", "switches, server", "switches, child"]
            lines = []
            for name, row in found.items():
                line = without_figures(name, row, len(head))
                if line is None:
                    told = row["rounds"][0]["levels"][level]
                    figures = [told[column][phase] for phase in PHASES]
                    line = [f"`{name}`"]
                    line += [number(value, digits) for value in (*figures, sum(figures))]
                    switches = told["switches"]
                    line += [number(switches.get(who, 0.0), 1) for who in ("server", "child")]
                lines.append(line)
            title = f"Where the time goes: {called} per request, {level} connection"
            title += "s" * (level != "1")
            tables.append(Table(title, head, lines))
    tables += [calls_table(found, level) for level in levels_of(found)]
    return tables


def lag_table(found: dict[str, Row]) -> Table:
    head = ["server", "lag p50 ms", "lag p99 ms", "lag max ms", "req/s"]
    lines = []
    for name, row in found.items():
        line = without_figures(name, row, len(head))
        if line is None:
            line = [f"`{name}`"]
            line += [figure(by_round(row, f"lag_{q}_ms").values(), 1, 2) for q in ("p50", "p99")]
            line.append(figure(by_round(row, "lag_max_ms").values(), 1, 1))
            line.append(figure(by_round(row, "requests_per_second").values(), around=False))
        lines.append(line)
    return Table("Event-loop lag while the command sleeps 10 ms", head, lines)


def memory_table(found: dict[str, Row]) -> Table:
    head = ["way", "PSS MiB", "processes", "to executed"]
    base = by_round(found.get("memory-numpy-exec", {"rounds": []}), "pss_kib")
    lines = []
    for name, row in found.items():
        line = without_figures(name, row, len(head))
        if line is None:
            memory = by_round(row, "pss_kib")
            line = [f"`{name}`", figure(memory.values(), 1 / 1024, 1)]
            line.append(figure(by_round(row, "processes").values(), around=False))
            line.append(times(paired_ratio(memory, base)))
        lines.append(line)
    title = "Memory of processes that are ready for a request each"
    return Table(title, head, lines, notes(found))


def freeze_table(found: dict[str, Row]) -> Table:
    measured = {way for row in found.values() for record in row["rounds"]
                for way in record.get("ways", ())}  # fmt: skip
    ways = ["exec", "main", "effect"]
    ways += [way for way in ("reset-main", "reset-effect") if way in measured]
    head = ["program", *(f"{way}/s" for way in ways), *(f"{way} to exec" for way in ways[1:])]
    head += [*(f"{way} CPU us" for way in ways), "stops before"]
    lines = []
    for name, row in found.items():
        line = without_figures(name, row, len(head))
        if line is None:
            rates = {way: by_way(row, way, "per_second") for way in ways}
            line = [f"`{name}`", *(figure(rates[way].values(), around=False) for way in ways)]
            line += [times(paired_ratio(rates[way], rates["exec"])) for way in ways[1:]]
            line += [figure(by_way(row, way, "cpu_us").values(), around=False) for way in ways]
            stopped = next((r["stopped"] for r in row["rounds"] if r.get("stopped")), None)
            line.append(stopped or str(row["rounds"][0].get("why_not", {}).get("effect", "")))
        lines.append(line)
    return Table(
        "Processes a second, by where they begin (30 at a time, no HTTP)", head, lines, notes(found)
    )


def by_way(row: Row, way: str, column: str) -> dict[int, float]:
    return {
        record["round"]: record["ways"][way][column]
        for record in row["rounds"]
        if way in record.get("ways", {})
    }


def stall_table(found: dict[str, Row]) -> Table:
    head = ["call", "lag p50 ms", "lag p99 ms", "lag max ms"]
    lines = []
    for name, row in found.items():
        line = without_figures(name, row, len(head))
        if line is None:
            line = [f"`{name}`"]
            line += [figure(by_round(row, f"lag_{q}_ms").values(), 1, 2) for q in ("p50", "p99")]
            line.append(figure(by_round(row, "lag_max_ms").values(), 1, 1))
        lines.append(line)
    return Table("Event-loop lag of a 100 MiB process that spawns", head, lines, notes(found))


def notes(found: dict[str, Row]) -> list[str]:
    return [
        f"`{name}`: {row['about']}{f' [{version}]' if (version := row.get('version')) else ''}"
        f"{remarks(row)}"
        for name, row in found.items()
    ]


def calls_table(found: dict[str, Row], level: str) -> Table:
    """Each of the servers' system calls by its name, without those of the children."""
    told = {
        name: {
            call.removeprefix("server "): count
            for call, count in row["rounds"][0]["levels"][level]["by_name"].items()
            if call.startswith("server ")
        }
        for name, row in found.items()
        if row["rounds"] and not failure(row)
    }
    sums = {call: sum(calls.get(call, 0.0) for calls in told.values())
            for calls in told.values() for call in calls}  # fmt: skip
    lines = [
        [
            f"`{call}`",
            *(number(calls[call], 2) if call in calls else "-" for calls in told.values()),
        ]
        for call in sorted(sums, key=lambda call: (-sums[call], call))
    ]
    title = f"Where the time goes: the server's calls by name, {level} connection"
    title += "s" * (level != "1")
    about = "Those that fewer than one request in twenty makes are left out."
    return Table(title, ["call", *told], lines, about=about)


def remarks(row: Row) -> str:
    """What has to be said: answers whose bytes could not be counted, and what a server still held
    after the load that it did not hold before.
    """
    more = {
        kind: max(
            (record["idle_after"][kind] - record["idle_before"][kind] for record in row["rounds"]
             if "idle_after" in record),
            default=0,
        )
        for kind in ("fds", "threads", "processes", "zombies")
    }  # fmt: skip
    told = ", ".join(f"{count} {kind}" for kind, count in more.items() if count > 0)
    parts = [f"left after the load: {told}"] if told else []
    if any(record.get("bytes_checked") is False for record in row["rounds"]):
        parts.append("answers differ in size, so their bytes were not counted")
    return f" ({'; '.join(parts)})" if parts else ""


def python_build(told: dict[str, Any]) -> str:
    """How the interpreter was compiled."""
    words = [f"{'' if told[name] else 'no '}{name.upper()}" for name in ("pgo", "lto")
             if told.get(name) is not None]  # fmt: skip
    return ", ".join(words) or "does not say how it was built"


def preamble(meta: dict[str, Any]) -> str:
    options, packages = meta["options"], meta["packages"]
    versions = [f"{meta['python']} ({python_build(meta.get('python_build', {}))})"]
    versions += [f"{name} {version}" for name, version in packages.items() if version]
    versions += [f"{name} {version}" for name, version in meta["crates"].items()]
    versions += [meta["rustc"] or "no rustc", f"bombardier {meta['bombardier']}"]
    versions += [f"vegeta {meta['vegeta']}"] if "vegeta" in meta else []
    commits = [meta["commit"], *meta.get("later_commits", ())]
    commit = ", then ".join((name or "none")[:12] for name in commits)
    commit += " with changes" * bool(meta["uncommitted_changes"])
    return (
        f"Measured {meta['date'][:10]} on {meta['cpu']}, {meta['cores']} cores, {meta['kernel']}, "
        f"the load generator on the same machine: `bombardier -c {options['connections']} -n "
        f"{options['requests']}`, {options['rounds']} interleaved rounds. Medians, with their 95 % "
        "bootstrap interval in brackets; a ratio is the median of the ratios within each round. "
        f"{', '.join(versions)}; commit {commit}."
    )
