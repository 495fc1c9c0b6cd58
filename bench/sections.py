"""The article's table beside ours, and the order in which all tables are read."""

from __future__ import annotations

import functools
from collections.abc import Callable

from bench import resets, rows
from bench.harness.stats import paired_ratio
from bench.store import Results, by_round
from bench.tables import (
    GROWTH,
    HANDLER_BASES,
    Row,
    Table,
    figure,
    freeze_table,
    gaps_table,
    growth_tables,
    http_table,
    lag_table,
    library_table,
    memory_table,
    number,
    open_loop_table,
    phase_tables,
    stall_table,
    stdlib_cpu_table,
    times,
    without_figures,
)
from bench.webtable import web_tables

ARTICLE = (
    ("Rust, tokio", rows.RUST, 5466),
    ("Go", "go-nethttp", 5227),
    ("Node server, Bun workers", "node-pool-bun", 3281),
    ("Node, resettable pool", "node-pool", 2428),
    ("Deno", "deno-single", 2290),
    ("Bun", "bun-single", 2208),
    ("Node, cluster", "node-cluster", 1766),
    ("Node", "node-single", 651),
    ("Node, worker threads", "node-threads", 611),
)
"""What the article calls a server, our row of that kind, and its requests per second there."""

FIRST = ("fastspawn-reset", "fastspawn-effect", "fastspawn-snapshot", "fastspawn-direct")


def article_table(found: dict[str, Row]) -> Table:
    """Its figures beside ours: on other machines, so only the ratios to Rust compare."""
    head = ["server", "row", "req/s", "to Rust", "p99 ms", "server CPU us/req"]
    head += ["article: req/s", "article: to Rust"]
    rust_there = ARTICLE[0][2]
    base = by_round(found[rows.RUST], "requests_per_second") if rows.RUST in found else {}
    ours = [
        (f"**{name.replace('fastspawn-', 'fastspawn, ')}**", name, 0)
        for name in FIRST
        if name in found
    ]
    lines = []
    for called, name, there in (*ours, *ARTICLE):
        row = found.get(name, {"rounds": []})
        line = without_figures(name, row, 5)
        if line is not None:
            line[1] = line[1].partition(":")[0]  # the table of all servers says why
        if line is None:
            rates = by_round(row, "requests_per_second")
            line = [f"`{name}`", figure(rates.values(), around=False)]
            line.append(times(paired_ratio(rates, base)))
            line.append(figure(by_round(row, "p99_us").values(), 1e-3, 1, False))
            line.append(figure(by_round(row, "server_cpu_us").values(), around=False))
        told = [number(there), f"{there / rust_there:.2f}x"] if there else ["-", "-"]
        lines.append([called, *line, *told])
    about = (
        "The article measured on 8 virtual CPUs, so requests per second do not compare between "
        "its column and ours; the ratios to the Rust server of the same run do."
    )
    return Table("The article's table, beside ours", head, lines, about=about)


STRATEGIES = (
    (
        *("http", "`echo hi`"),
        ("direct", "fastspawn-direct"),
        ("snapshot at `main`", "fastspawn-snapshot"),
        ("snapshot at the first effect", "fastspawn-effect"),
        ("reset to `main`", "fastspawn-reset-main"),
        ("reset to before the first effect", "fastspawn-reset"),
        ("warm, without idle moments", "fastspawn-warm"),
        ("pool", "fastspawn-pool"),
        ("subprocess", "stdlib-asyncio"),
        ("subprocess, on uvloop", "uvloop-subprocess"),
    ),
    (
        *("handlers", "Python that imports much"),
        ("direct", "python-handler-direct"),
        ("snapshot with a checkpoint", "fastspawn-checkpoint"),
        ("reset to a checkpoint", "fastspawn-reset-checkpoint"),
    ),
    (
        *("handlers", "the same with numpy"),
        ("direct", "python-numpy-direct"),
        ("snapshot with a checkpoint", "fastspawn-checkpoint-numpy"),
        ("reset to a checkpoint", "fastspawn-reset-checkpoint-numpy"),
    ),
    (
        *("gaps", "Node, after idle moments"),
        ("direct", "node-handler-direct"),
        ("warm", "node-handler-warm"),
    ),
)
"""A section, a program, and rows that run it by a strategy each; the first is compared with."""


def strategies_table(results: Results) -> Table:
    """What docs/strategies.md shows: each strategy beside `direct`, with the same program."""
    head = ["strategy", "program", "row", "req/s", "p50 ms", "server CPU us/req"]
    head += ["of it helpers", "child CPU us/req", "req/s to direct", "p50 to direct"]
    lines = []
    for section, program, *ways in STRATEGIES:
        found = results.section(section)
        base = found.get(ways[0][1], {"rounds": []})
        for strategy, name in ways:
            if name not in found and "reset" in name:
                continue  # a run from before there was such a row
            row = found.get(name, {"rounds": []})
            line = without_figures(name, row, 8)
            if line is not None:
                line[1] = line[1].partition(":")[0]  # docs/benchmarks.md says why
            else:
                rates, halves = by_round(row, "requests_per_second"), by_round(row, "p50_us")
                line = [f"`{name}`", figure(rates.values(), around=False)]
                line.append(figure(halves.values(), 1e-3, 1, False))
                for column in ("server_cpu_us", "helper_cpu_us", "child_cpu_us"):
                    line.append(figure(by_round(row, column).values(), around=False))
                line.append(times(paired_ratio(rates, by_round(base, "requests_per_second"))))
                line.append(times(paired_ratio(halves, by_round(base, "p50_us"))))
            lines.append([strategy, program, *line])
    return Table("What each strategy costs", head, lines)


def program_tables(found: dict[str, Row]) -> list[Table]:
    """One for each program, with its own rows to compare with."""
    tables = []
    for program in rows.PROGRAMS:
        ours = {name: row for name, row in found.items() if name.startswith(f"{program}-")}
        bases = {way: f"{program}-{way}" for way in ("direct", "effect", "rust")}
        if ours:
            title = f"`{' '.join(rows.PROGRAMS[program][0])}` for each request"
            tables.append(http_table(ours, title, bases))
    return tables


# ---- all of them --------------------------------------------------------------------------------


def all_tables(results: Results) -> list[tuple[str, list[Table]]]:
    """What a run has figures for, as (section, tables), in the order in which it is read."""
    handlers = "A Python program that imports much"
    makers: dict[str, Callable[[dict[str, Row]], list[Table]]] = {
        "article": lambda found: [article_table(found)],
        "http": lambda found: [http_table(found)],
        "open-loop": lambda found: [open_loop_table(found)],
        "handlers": lambda found: [http_table(found, handlers, HANDLER_BASES)],
        "web": web_tables,
        "programs": program_tables,
        "gaps": lambda found: [gaps_table(found)],
        "memory": lambda found: [memory_table(found)],
        "library": lambda found: [library_table(found), stdlib_cpu_table(found)],
        **{name: functools.partial(growth_tables, name) for name in GROWTH},
        "phases": phase_tables,
        "loop_stall": lambda found: [stall_table(found)],
        "loop_lag": lambda found: [lag_table(found)],
        "freeze": lambda found: [freeze_table(found)],
    }
    tables = [
        (name, make(found))
        for name, make in makers.items()
        if (found := results.section("http" if name == "article" else name))
    ]
    judged = resets.judged(results)
    return [*tables, ("resets", judged)] if judged else tables
