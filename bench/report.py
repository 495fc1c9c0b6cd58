"""Writes the tables of README.md from a run's JSON: ``python -m bench.report [--check]``.

The tables stand between two marker lines. ``--check`` writes nothing and exits 1 when what
stands there is not what the JSON says, so that a figure in the README cannot be made by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import rows
from bench.harness.stats import Spread, paired_ratio, spread
from bench.harness.tools import ROOT
from bench.store import Results, by_round, failure

LATEST = ROOT / "bench" / "results" / "latest.json"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
Row = dict[str, Any]


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


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in head[1:])]
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *lines)]


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


HTTP_BASES = {"stdlib": rows.STDLIB, "rust": rows.RUST, "floor": rows.FLOOR}
HANDLER_BASES = {"direct": "python-handler-direct", "numpy direct": "python-numpy-direct"}


def http_table(found: dict[str, Row], bases: Mapping[str, str] = HTTP_BASES) -> list[str]:
    head = ["server", "req/s", "p50 ms", "p99 ms", "server CPU us/req", "child CPU us/req"]
    head += ["errors", *(f"to {base}" for base in bases)]
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
            line.append(figure(by_round(row, "child_cpu_us").values(), around=False))
            line.append(number(sum(by_round(row, "errors").values())))
            for base in bases.values():
                other = by_round(found[base], rate) if base in found else {}
                line.append(times(paired_ratio(by_round(row, rate), other)))
        lines.append(line)
    return [*table(head, lines), "", *notes(found)]


def open_loop_table(found: dict[str, Row]) -> list[str]:
    head = ["server", "req/s", "p50 ms", "p99 ms", "p99.9 ms", "server CPU us/req"]
    head += ["child CPU us/req", "p99 to rust"]
    base = by_round(found[rows.RUST], "p99_us") if rows.RUST in found else {}
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
        lines.append(line)
    return [*table(head, lines), "", *notes(found)]


def gaps_table(found: dict[str, Row]) -> list[str]:
    head = ["server", "p50 ms", "p99 ms", "server CPU us/req"]
    lines = []
    for name, row in found.items():
        line = without_figures(name, row, len(head))
        if line is None:
            line = [f"`{name}`"]
            line += [figure(by_round(row, f"p{q}_us").values(), 1e-3, 1) for q in (50, 99)]
            line.append(figure(by_round(row, "server_cpu_us").values()))
        lines.append(line)
    return [*table(head, lines), "", *notes(found)]


CPU_BASES = ("asyncio-30", "uvloop-30")
"""What the parent's CPU is compared with."""


def library_table(found: dict[str, Row]) -> list[str]:
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
    return [*table(head, lines), "", *notes(found)]


def merged(row: Row, column: str, level: str | None = None) -> dict[int, float]:
    """All batches of all rounds, keyed so that batches taken in turn share a key."""
    values: dict[int, float] = {}
    if failure(row):
        return values
    for record in row["rounds"]:
        series = record if level is None else record["levels"][level]
        for index, value in enumerate(series[column]):
            values[record["round"] * 1000 + index] = value
    return values


def growth_table(found: dict[str, Row], unit: str) -> list[str]:
    levels = next(
        (list(record["levels"]) for row in found.values() for record in row["rounds"]
         if "levels" in record),
        [],
    )  # fmt: skip
    head = ["call", *(f"wall us, {number(int(level))} {unit}" for level in levels), "last to first"]
    lines = []
    for name, row in found.items():
        line = without_figures(name, row, max(2, len(head)))
        if line is None:
            walls = [merged(row, "wall_us", level) for level in levels]
            line = [f"`{name}`", *(figure(wall.values()) for wall in walls)]
            line.append(times(paired_ratio(walls[-1], walls[0])))
        lines.append(line)
    return table(head, lines)


def lag_table(found: dict[str, Row]) -> list[str]:
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
    return table(head, lines)


def freeze_table(found: dict[str, Row]) -> list[str]:
    ways = ("exec", "main", "effect")
    head = ["program", *(f"{way}/s" for way in ways), "main to exec", "effect to exec"]
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
    return [*table(head, lines), "", *notes(found)]


def by_way(row: Row, way: str, column: str) -> dict[int, float]:
    return {
        record["round"]: record["ways"][way][column]
        for record in row["rounds"]
        if way in record.get("ways", {})
    }


def stall_table(found: dict[str, Row]) -> list[str]:
    head = ["call", "lag p50 ms", "lag p99 ms", "lag max ms"]
    lines = []
    for name, row in found.items():
        line = without_figures(name, row, len(head))
        if line is None:
            line = [f"`{name}`"]
            line += [figure(by_round(row, f"lag_{q}_ms").values(), 1, 2) for q in ("p50", "p99")]
            line.append(figure(by_round(row, "lag_max_ms").values(), 1, 1))
        lines.append(line)
    return [*table(head, lines), "", *notes(found)]


def notes(found: dict[str, Row]) -> list[str]:
    return [
        f"- `{name}`: {row['about']}{f' [{version}]' if (version := row.get('version')) else ''}"
        f"{remarks(row)}"
        for name, row in found.items()
    ]


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


def preamble(meta: dict[str, Any]) -> list[str]:
    options, packages = meta["options"], meta["packages"]
    versions = [f"{meta['python']} ({python_build(meta.get('python_build', {}))})"]
    versions += [f"{name} {version}" for name, version in packages.items() if version]
    versions += [f"{name} {version}" for name, version in meta["crates"].items()]
    versions += [meta["rustc"] or "no rustc", f"bombardier {meta['bombardier']}"]
    versions += [f"vegeta {meta['vegeta']}"] if "vegeta" in meta else []
    commit = (meta["commit"] or "none")[:12] + (" with changes" * bool(meta["uncommitted_changes"]))
    text = (
        f"Measured {meta['date'][:10]} on {meta['cpu']}, {meta['cores']} cores, {meta['kernel']}, "
        f"the load generator on the same machine: `bombardier -c {options['connections']} -n "
        f"{options['requests']}`, {options['rounds']} interleaved rounds. Medians, with their 95 % "
        "bootstrap interval in brackets; a ratio is the median of the ratios within each round. "
        f"{', '.join(versions)}; commit {commit}."
    )
    return [text]


def render(results: Results) -> str:
    """All tables a run has figures for, as Markdown."""
    blocks = [preamble(results.meta)]
    makers = (
        ("http", "One process per request over HTTP", http_table),
        ("library", "One spawn, without HTTP", library_table),
        ("open-loop", "Latency at 70 % of each server's own peak rate", open_loop_table),
        (
            "handlers",
            "A Python program that imports much",
            lambda found: http_table(found, HANDLER_BASES),
        ),
        ("gaps", "A Node program, asked one request at a time after idle moments", gaps_table),
        (
            "growth_fds",
            "One spawn with open descriptors in the parent",
            lambda found: growth_table(found, "fds"),
        ),
        (
            "growth_memory",
            "One spawn with touched memory in the parent",
            lambda found: growth_table(found, "MiB"),
        ),
        ("loop_stall", "Event-loop lag of a 100 MiB process that spawns", stall_table),
        ("loop_lag", "Event-loop lag while the command sleeps 10 ms", lag_table),
        ("freeze", "Processes a second, by where they begin (30 at a time, no HTTP)", freeze_table),
    )
    for section, title, maker in makers:
        if found := results.section(section):
            blocks += [[f"**{title}**"], maker(found)]
    return "\n\n".join("\n".join(block).strip() for block in blocks) + "\n"


def replaced(readme: str, tables: str) -> str:
    """*readme* with *tables* between its markers; ValueError when they are not there once each."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.find(BEGIN) > readme.find(END):
        raise ValueError(f"needs one line {BEGIN} and, below it, one line {END}")
    head, _, rest = readme.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{tables}\n{END}{rest.partition(END)[2]}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("results", nargs="?", type=Path, default=LATEST)
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    parser.add_argument("--print", action="store_true", help="print the tables, touch no file")
    options = parser.parse_args()
    try:
        tables = render(Results.load(options.results))
        if options.print:
            print(tables, end="")
            return 0
        before = options.readme.read_text(encoding="utf-8")
        after = replaced(before, tables)
    except OSError as error:
        print(f"bench.report: {error.strerror}: {error.filename}", file=sys.stderr)
        return 2
    except (ValueError, KeyError) as error:
        print(f"bench.report: {options.readme.name}: {error}", file=sys.stderr)
        return 2
    if before == after:
        return 0
    if options.check:
        print(
            f"bench.report: {options.readme.name} is not what {options.results.name} says; "
            "run `python -m bench.report`",
            file=sys.stderr,
        )
        return 1
    options.readme.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
