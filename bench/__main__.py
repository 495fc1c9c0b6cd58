"""``python -m bench``: options, the run of a plan, what is told meanwhile."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import (
    freeze,
    growth,
    handlers,
    lag,
    library,
    openloop,
    phases,
    report,
    rows,
    stall,
    waiting,
    web,
)
from bench.compare import compare
from bench.harness import tools
from bench.harness.progress import Progress
from bench.harness.server import environment
from bench.plan import SECTIONS, Plan, attribute, chosen_rows
from bench.row import Row
from bench.slower import slower
from bench.store import Results


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, help="launches of each row (default 3)")
    add("--requests", type=int, help="requests per launch (default 10000, --quick: 2000)")
    add("--connections", type=int, default=30, help="concurrent connections (default 30)")
    add("--rows", help="only these rows or groups of rows, comma-separated (see --list)")
    add("--quick", action="store_true", help="a short run of the main rows")
    add("--resume", action="store_true", help="go on with the run in --output and its options: what"
        " was measured stays, what is missing or of another section is added")  # fmt: skip
    add(
        "--another-commit",
        action="store_true",
        help="with --resume: although it is not the commit"
        " that was measured first; the report names both",
    )
    add("--compare", nargs=2, type=Path, metavar=("A", "B"), help="tell whether two runs' JSON"
        " files have the same ranking, and ratios within 10 %%")  # fmt: skip
    add("--slower", nargs=2, type=Path, metavar=("BEFORE", "NOW"), help="tell which rows of two"
        " runs' JSON files are slower now, by more than 3 %% and beyond noise")  # fmt: skip
    add("--list", action="store_true", help="list the rows and leave")
    add("--output", type=Path, help="where the JSON goes (default results/latest.json for a full"
        " run, else bench/.cache/last.json)")  # fmt: skip
    for section in SECTIONS:
        add(f"--{section}", action="store_true", help=f"only the {section} part (may be combined)")
    options = parser.parse_args(arguments)
    quick = options.quick
    partial = quick or options.rows or any(getattr(options, attribute(name)) for name in SECTIONS)
    partial = partial or options.rounds or options.requests
    if options.output is None:
        options.output = tools.CACHE / "last.json" if partial else report.LATEST
    options.rounds = options.rounds or 3
    options.requests = options.requests or (2_000 if quick else 10_000)
    options.checked = 100 if quick else 200
    options.seconds = 5 if quick else 6  # of load at a fixed rate
    options.asked = 15 if quick else 30  # requests one after another
    options.batches, options.spawns = (4, 50) if quick else (12, 100)
    for name in ("rounds", "requests", "connections"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def show_list() -> None:
    for row in rows.ROWS:
        print(f"http     {row.name:24} {row.about} [{version_or_reason(row)}]")
    for name, handler in handlers.HANDLERS.items():
        print(f"handlers {name:24} {handler.row.about}")
    for name, page in web.WEB.items():
        print(f"web      {name:24} {page.row.about} [{version_or_reason(page.row)}]")
    for name, row in rows.PROGRAM_ROWS.items():
        print(f"programs {name:24} {row.about}")
    for name, gap in handlers.GAPS.items():
        print(f"gaps     {name:24} {gap.row.about}")
    print(f"open-loop {', '.join(openloop.NAMES)}")
    for name, about in waiting.WAYS.items():
        print(f"memory   {name:24} {about}")
    for name, about in library.ABOUT.items():
        print(f"library  {name:24} {about}")
    for curve in growth.CURVES:
        print(f"growth   {curve.section:24} {', '.join(curve.names)}")
    print(f"phases   {', '.join(phases.NAMES)}")
    print(f"stall    {', '.join(stall.WAYS)}")
    print(f"lag      {', '.join(lag.NAMES)}")
    print(f"freeze   {', '.join(f'freeze-{name}' for name in freeze.PROGRAMS)}")
    for name, members in rows.GROUPS.items():
        print(f"group    {name:24} {', '.join(members)}")


def version_or_reason(row: Row) -> str:
    """What a row would run here, or why it would not."""
    try:
        with tools.without_building():
            return row.version()
    except tools.Unavailable as error:
        return f"not available: {tools.without_paths(str(error))}"


def loaded(path: Path) -> Results | None:
    """A run of before, None if there is none that can be read."""
    try:
        return Results.load(path)
    except (OSError, ValueError):
        return None


TOLD = (
    *("rounds", "requests", "connections", "checked", "seconds"),
    *("asked", "batches", "spawns", "quick", "rows"),
)
"""The options that a run's JSON holds."""

NOT_COMPARED = ("date", "load_before", "order_seed")
"""What may differ between the two halves of a run."""


def opened(options: argparse.Namespace) -> Results:
    """The results to fill in: new ones, or with --resume those of the run that is gone on with."""
    told = {name: getattr(options, name) for name in TOLD}
    meta = tools.describe(told, environment()["PATH"])
    if not options.resume:
        return Results.new({**meta, "order_seed": random.randrange(1 << 32)})
    try:
        results = Results.load(options.output)
    except (OSError, ValueError) as error:
        raise tools.Unavailable(f"nothing to go on with: {error}") from None
    before, now = results.meta, json.loads(json.dumps(meta))
    names = sorted((before.keys() | now.keys()) - {*NOT_COMPARED, "later_commits"})
    if options.another_commit:
        names.remove("commit")
    before["options"]["rounds"] = max(before["options"]["rounds"], now["options"]["rounds"])
    if other := [told for name in names for told in differences(name, before, now)]:
        raise tools.Unavailable(f"can't go on with {options.output.name}: {'; '.join(other)}")
    measured = [before["commit"], *before.get("later_commits", ())]
    if now["commit"] not in measured:
        results.meta["later_commits"] = [*measured[1:], now["commit"]]
    results.retry_unavailable()
    return results


def differences(name: str, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In what one entry differs, the entries of a dictionary one by one."""
    old, new = before.get(name), now.get(name)
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            told for key in sorted(old.keys() | new.keys()) for told in differences(key, old, new)
        ]
    return [] if old == new else [f"{name} was {old}, is {new}"]


def both(before: Path, after: Path) -> tuple[Results, Results]:
    try:
        return Results.load(before), Results.load(after)
    except (OSError, ValueError) as error:
        raise tools.Unavailable(f"nothing to compare: {error}") from None


def show_comparison(before: Path, after: Path) -> int:
    """0 when two runs say the same, 1 when they do not."""
    found = compare(*both(before, after))
    if not found:
        raise tools.Unavailable("nothing to compare: the runs have no section in common")
    print(*found, sep="\n")
    return 0 if all(comparison.same for comparison in found) else 1


def show_slower(before: Path, now: Path) -> int:
    """0 when no row is slower than it was, 1 when one is."""
    found = slower(*both(before, now))
    if not found:
        raise tools.Unavailable("nothing to compare: the runs have no row in common")
    print(*found, sep="\n")
    return 1 if any(section.slower for section in found) else 0


def run(options: argparse.Namespace) -> int:
    wanted = chosen_rows(options.rows, options.quick)
    previous = loaded(report.LATEST) or loaded(options.output)
    results = opened(options)
    plan = Plan(options, results, wanted, previous)
    units = plan.units()
    if not units and not options.resume:
        raise tools.Unavailable("no row of that name in the chosen part")
    progress = Progress([(unit.kind, unit.guess) for unit in units])
    launches = f"{len(units)} launch{'es' * (len(units) != 1)}"
    progress.note(f"{launches}, about {max(1, round(progress.left() / 60))} min")
    for unit in units:
        progress.start(unit.kind, unit.label)
        failed_before = len(results.failed())
        unit.run()
        progress.finish(unit.kind)
        if len(results.failed()) > failed_before:
            progress.note(f"failed: {unit.label}")
        results.save(options.output)
    progress.close()
    print(report.render(results), end="")
    return 1 if results.failed() else 0


def main() -> int:
    options = parse(None)
    if options.list:
        show_list()
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started, too
    try:
        if options.compare:
            return show_comparison(*options.compare)
        if options.slower:
            return show_slower(*options.slower)
        return run(options)
    except tools.Unavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbench: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
