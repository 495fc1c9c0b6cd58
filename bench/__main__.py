"""``python -m bench``: plans the units of a run, shuffles them within each round, runs them."""

from __future__ import annotations

import argparse
import random
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import freeze, lag, library, report, rows, stall
from bench.cases.ways import WAYS
from bench.harness import tools
from bench.harness.load import LoadError
from bench.harness.progress import Progress
from bench.harness.server import ServerError, environment
from bench.row import Options, Record, Row
from bench.store import Results

SECTIONS = ("http", "library", "growth", "stall", "lag", "freeze")
FAILURES = (LoadError, ServerError, library.WorkerError)


@dataclass(frozen=True)
class Unit:
    """One launch of one row in one round."""

    kind: str  # units of one kind take about as long as each other
    label: str
    guess: float  # seconds
    run: Callable[[], None]


class Plan:
    """Turns the options into units that fill in the results."""

    def __init__(self, options: argparse.Namespace, results: Results, wanted: set[str]) -> None:
        self._options = options
        self._results = results
        self._wanted = wanted

    def sections(self) -> list[str]:
        chosen = [name for name in SECTIONS if getattr(self._options, name)]
        return chosen or list(SECTIONS)

    def round(self, number: int) -> list[Unit]:
        units: list[Unit] = []
        for section in self.sections():
            part: list[Unit] = getattr(self, f"_{section}")(number)
            random.shuffle(part)
            units += part
        return units

    def _guarded(
        self, section: str, name: str, about: str, number: int, work: Callable[[], Record]
    ) -> Callable[[], None]:
        """The unit's work, with its figures or its failure put where they belong."""
        row = self._results.row(section, name, about)

        def run() -> None:
            if "unavailable" in row:
                return
            try:
                record = work()
            except tools.Unavailable as error:
                row["unavailable"] = tools.without_paths(str(error))
            except FAILURES as error:
                row["rounds"].append({"round": number, "failed": tools.without_paths(str(error))})
            else:
                row["rounds"].append({"round": number, **record})

        return run

    def _http(self, number: int) -> list[Unit]:
        options = Options(self._options.requests, self._options.connections, self._options.checked)
        units = []
        for row in rows.ROWS:
            if row.name not in self._wanted:
                continue

            def work(row: Row = row) -> Record:
                row.prepare()
                self._results.row("http", row.name, row.about)["version"] = row.version()
                return row.measure(options)

            guarded = self._guarded("http", row.name, row.about, number, work)
            label = f"http {row.name}, round {number + 1}"
            units.append(Unit(f"http {row.name}", label, 3 + options.requests / 1200, guarded))
        return units

    def _library(self, number: int) -> list[Unit]:
        ways = [way for way in WAYS if way in self._wanted]
        targets = {way: self._results.row("library", way, library.about(way)) for way in ways}

        def run() -> None:
            try:
                found = library.measure_ways(ways, self._options.batches, self._options.spawns)
            except library.WorkerError as error:
                # The batches of one round are compared with each other: none counts without all.
                found = {way: {} for way in ways}
                why = tools.without_paths(str(error))
                for target in targets.values():
                    target["rounds"].append({"round": number, "failed": why})
            for way, series in found.items():
                if isinstance(series, str):
                    targets[way]["unavailable"] = tools.without_paths(series)
                elif series:
                    targets[way]["rounds"].append({"round": number, **series})

        spawns = len(ways) * self._options.batches * self._options.spawns
        label = f"library, round {number + 1}"
        return [Unit("library", label, 3 + spawns / 900, run)] if ways else []

    def _growth(self, number: int) -> list[Unit]:
        units = []
        for kind, section in (("fds", "growth_fds"), ("memory-mib", "growth_memory")):
            for way in library.GROWTH_WAYS:
                if way not in self._wanted:
                    continue

                def work(way: str = way, kind: str = kind) -> Record:
                    batches, spawns = self._options.batches, self._options.spawns
                    return {"levels": library.measure_growth(way, kind, batches, spawns)}

                guarded = self._guarded(section, way, library.about(way), number, work)
                guess = 2 + 2 * self._options.batches * self._options.spawns / 700
                label = f"{section} {way}, round {number + 1}"
                units.append(Unit(f"{section} {way}", label, guess, guarded))
        return units

    def _stall(self, number: int) -> list[Unit]:
        spawns = 20 * self._options.spawns
        units = []
        for name in stall.WAYS:
            if name not in self._wanted:
                continue

            def work(name: str = name) -> Record:
                return stall.measure(name, spawns)

            guarded = self._guarded("loop_stall", name, library.about(name), number, work)
            label = f"loop_stall {name}, round {number + 1}"
            units.append(Unit(f"loop_stall {name}", label, 3 + spawns / 900, guarded))
        return units

    def _freeze(self, number: int) -> list[Unit]:
        count = 6 * self._options.spawns
        units = []
        for name in freeze.PROGRAMS:
            if f"freeze-{name}" not in self._wanted:
                continue

            def work(name: str = name) -> rows.Record:
                return freeze.measure(name, count)

            guarded = self._guarded("freeze", name, freeze.about(name), number, work)
            label = f"freeze {name}, round {number + 1}"
            units.append(Unit(f"freeze {name}", label, 1 + 3 * count / 900, guarded))
        return units

    def _lag(self, number: int) -> list[Unit]:
        requests = max(500, self._options.requests // 2)
        checked = self._options.checked // 2
        options = Options(requests, self._options.connections, checked)
        units = []
        for name in lag.NAMES:
            if name not in self._wanted:
                continue

            def work(name: str = name) -> Record:
                lag.server_row(name).prepare()
                return lag.measure(name, options)

            about = lag.server_row(name).about
            guarded = self._guarded("loop_lag", name, about, number, work)
            label = f"loop_lag {name}, round {number + 1}"
            units.append(Unit(f"loop_lag {name}", label, 3 + requests / 900, guarded))
        return units


def all_names() -> list[str]:
    names = [row.name for row in rows.ROWS]
    frozen = [f"freeze-{name}" for name in freeze.PROGRAMS]
    return [*names, *WAYS, *frozen, *(name for name in lag.NAMES if name not in names)]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, help="launches of each row (default 5, --quick: 2)")
    add("--requests", type=int, help="requests per launch (default 10000, --quick: 2000)")
    add("--connections", type=int, default=30, help="concurrent connections (default 30)")
    add("--rows", help="only these rows or groups of rows, comma-separated (see --list)")
    add("--quick", action="store_true", help="a short run, to see that all works")
    add("--list", action="store_true", help="list the rows and leave")
    add("--output", type=Path, help="where the JSON goes (default results/latest.json for a full"
        " run, else bench/.cache/last.json)")  # fmt: skip
    for section in SECTIONS:
        add(f"--{section}", action="store_true", help=f"only the {section} part (may be combined)")
    options = parser.parse_args(arguments)
    quick = options.quick
    partial = quick or options.rows or any(getattr(options, name) for name in SECTIONS)
    partial = partial or options.rounds or options.requests
    if options.output is None:
        options.output = tools.CACHE / "last.json" if partial else report.LATEST
    options.rounds = options.rounds or (2 if quick else 5)
    options.requests = options.requests or (2_000 if quick else 10_000)
    options.checked = 100 if quick else 500
    options.batches, options.spawns = (4, 50) if quick else (12, 100)
    for name in ("rounds", "requests", "connections"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def show_list() -> None:
    for row in rows.ROWS:
        print(f"http     {row.name:24} {row.about} [{version_or_reason(row)}]")
    for name in WAYS:
        print(f"library  {name:24} {library.about(name)}")
    print(f"growth   {', '.join(library.GROWTH_WAYS)}")
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


def chosen_rows(text: str | None, quick: bool = False) -> set[str]:
    """The names that *text* means, of which a name may be a group's; all of them for None."""
    names = all_names()
    if text is None:
        left_out = {row.name for row in rows.ROWS} - set(rows.GROUPS["quick"])
        return set(names) - left_out if quick else set(names)
    chosen: set[str] = set()
    for name in filter(None, (part.strip() for part in text.split(","))):
        chosen.update(rows.GROUPS.get(name, [name]))
    if unknown := sorted(chosen - set(names)):
        raise tools.Unavailable(f"no row named {', '.join(unknown)} (see --list)")
    return chosen


def run(options: argparse.Namespace) -> int:
    wanted = chosen_rows(options.rows, options.quick)
    kept = ("rounds", "requests", "connections", "checked", "batches", "spawns", "quick", "rows")
    told = {name: getattr(options, name) for name in kept}
    results = Results.new(tools.describe(told, environment()["PATH"]))
    plan = Plan(options, results, wanted)
    if {"http", "lag"} & set(plan.sections()):
        tools.bombardier()
    rounds = [plan.round(number) for number in range(options.rounds)]
    units = [unit for part in rounds for unit in part]
    if not units:
        raise tools.Unavailable("no row of that name in the chosen part")
    progress = Progress([(unit.kind, unit.guess) for unit in units])
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
        return run(options)
    except tools.Unavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbench: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
