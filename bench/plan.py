"""The plan of a run: from the options to units, each of which fills in one round of one row.

Sections run one after another, the rounds of a section one after another, and the rows of a round
in an order drawn from the run's seed. Rows are compared within a section only.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from bench import (
    freeze,
    growth,
    handlers,
    lag,
    library,
    openloop,
    phases,
    rows,
    stall,
    waiting,
    web,
)
from bench.harness import tools
from bench.harness.load import LoadError
from bench.harness.server import ServerError
from bench.harness.stats import quantile
from bench.row import Options, Record, Row, ServerRow
from bench.store import Results, by_round

SECTIONS = (
    *("http", "open-loop", "handlers", "web", "programs", "gaps"),
    *("memory", "library", "growth", "stall", "lag", "freeze", "phases"),
)
QUICK_SECTIONS = ("http", "open-loop", "handlers")
FAILURES = (LoadError, ServerError, library.WorkerError)
RATE = 1_000.0  # requests per second of a row that nothing is known about
OVERHEAD = 1.0  # seconds that a server's start, checks and end take


def attribute(section: str) -> str:
    """What argparse calls a section's flag."""
    return section.replace("-", "_")


@dataclass(frozen=True)
class Unit:
    """One launch of one row in one round."""

    kind: str  # units of one kind take about as long as each other
    label: str
    guess: float  # seconds
    run: Callable[[], None]
    done: bool  # by the run that this one goes on with


class Plan:
    """Turns the options into units that fill in the results."""

    def __init__(
        self,
        options: argparse.Namespace,
        results: Results,
        wanted: set[str],
        previous: Results | None = None,
    ) -> None:
        """*previous*: another run, to guess from how long this one takes."""
        self._options = options
        self._results = results
        self._wanted = wanted
        self._previous = previous

    def sections(self) -> list[str]:
        """The chosen ones, and what they need: open-loop rates are shares of HTTP rates."""
        chosen = [name for name in SECTIONS if getattr(self._options, attribute(name))]
        needed = ["http"] if "open-loop" in chosen and "http" not in chosen else []
        default = QUICK_SECTIONS if self._options.quick else SECTIONS
        return [*needed, *chosen] or list(default)

    def units(self) -> list[Unit]:
        """Those that are left to do, in order."""
        units: list[Unit] = []
        seed = self._results.meta["order_seed"]
        for section in self.sections():
            for number in range(self._options.rounds):
                part: list[Unit] = getattr(self, f"_{attribute(section)}")(number)
                random.Random(f"{seed} {section} {number}").shuffle(part)
                units += part
        return [unit for unit in units if not unit.done]

    def _unit(
        self,
        section: str,
        name: str,
        about: str,
        number: int,
        guess: float,
        work: Callable[[], Record],
    ) -> Unit:
        """A unit whose figures, or whose failure, are put where they belong."""
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

        label = f"{section} {name}, round {number + 1}"
        return Unit(f"{section} {name}", label, guess, run, _has(row, number))

    def _prepare(self, section: str, name: str, row: Row | handlers.GapRow) -> None:
        """Build what the row needs; its versions go to the results."""
        row.prepare()
        self._results.section(section)[name]["version"] = row.version()

    def _guess(self, section: str, name: str, requests: float, rate: float = RATE) -> float:
        """Seconds that a launch under so many requests takes."""
        if self._previous and (row := self._previous.section(section).get(name)):
            seen = list(by_round(row, "requests_per_second").values())
            rate = quantile(seen, 0.5) if seen else rate
        return OVERHEAD + requests / rate

    def _load(self, share: float = 1.0) -> Options:
        options = self._options
        return Options(
            max(1, round(options.requests * share)), options.connections, options.checked
        )

    def _http(self, number: int) -> list[Unit]:
        named, units = self._options.rows is not None, []
        chosen = self._chosen("http")
        for row in rows.ROWS:
            if row.name not in self._wanted or not (chosen or row.name in openloop.NAMES):
                continue
            # A row that only rounds off the table is measured with fewer, unless it is asked for.
            load = self._load(1.0 if named or row.name in rows.MAIN else rows.MINOR_SHARE)

            def work(row: Row = row, load: Options = load) -> Record:
                self._prepare("http", row.name, row)
                return row.measure(load)

            guess = self._guess("http", row.name, load.requests + 2 * load.checked)
            units.append(self._unit("http", row.name, row.about, number, guess, work))
        return units

    def _chosen(self, section: str) -> bool:
        """Whether a section is measured for itself, not because another one needs it."""
        flags = {name: getattr(self._options, attribute(name)) for name in SECTIONS}
        return bool(flags[section]) or not any(flags.values())

    def _open_loop(self, number: int) -> list[Unit]:
        load, seconds, units = self._load(), self._options.seconds, []
        for name in openloop.QUICK if self._options.quick else openloop.NAMES:
            if name not in self._wanted:
                continue

            def work(name: str = name) -> Record:
                self._prepare("open-loop", name, openloop.server_row(name))
                return openloop.measure(name, self._results, load, seconds)

            about, guess = openloop.server_row(name).about, OVERHEAD + 1 + seconds
            units.append(self._unit("open-loop", name, about, number, guess, work))
        return units

    def _handlers(self, number: int) -> list[Unit]:
        load, units = self._load(), []
        for name, handler in handlers.HANDLERS.items():
            if name not in self._wanted:
                continue

            def work(name: str = name, handler: handlers.Handler = handler) -> Record:
                self._prepare("handlers", name, handler.row)
                return handler.measure(load)

            about, requests = handler.row.about, load.requests * handler.requests
            guess = self._guess("handlers", name, requests, 20 if "direct" in name else RATE)
            units.append(self._unit("handlers", name, about, number, guess, work))
        return units

    def _web(self, number: int) -> list[Unit]:
        load, units = self._load(), []
        for name, row in web.WEB.items():
            if name not in self._wanted:
                continue

            def work(name: str = name, row: web.WebRow = row) -> Record:
                self._prepare("web", name, row.row)
                return row.measure(load)

            rate = web.SLOW if row.requests <= web.PAGE_SHARE else RATE
            guess = self._guess("web", name, load.requests * row.requests, rate)
            units.append(self._unit("web", name, row.row.about, number, guess, work))
        return units

    def _programs(self, number: int) -> list[Unit]:
        units = []
        for name, row in rows.PROGRAM_ROWS.items():
            if name not in self._wanted:
                continue

            share = rows.PROGRAM_SHARES.get(row.command[0], rows.PROGRAM_SHARE)
            load = replace(self._load(share), patience=handlers.PATIENCE)
            load = replace(load, checked=max(load.connections, round(load.checked * share)))

            def work(name: str = name, row: ServerRow = row, load: Options = load) -> Record:
                self._prepare("programs", name, row)
                return row.measure(load)

            guess = self._guess(
                "programs",
                name,
                load.requests + 2 * load.checked,
                40 if share < rows.PROGRAM_SHARE else RATE,
            )
            units.append(self._unit("programs", name, row.about, number, guess, work))
        return units

    def _gaps(self, number: int) -> list[Unit]:
        units = []
        for name, row in handlers.GAPS.items():
            if name not in self._wanted:
                continue

            def work(name: str = name, row: handlers.GapRow = row) -> Record:
                self._prepare("gaps", name, row)
                return row.measure(self._options.asked)

            guess = 2 + self._options.asked * (handlers.GAP + 0.05)
            units.append(self._unit("gaps", name, row.row.about, number, guess, work))
        return units

    def _memory(self, number: int) -> list[Unit]:
        units = []
        for name, about in waiting.WAYS.items():
            if name not in self._wanted:
                continue

            def work(name: str = name) -> Record:
                self._results.section("memory")[name]["version"] = waiting.version()
                return waiting.measure(name)

            units.append(self._unit("memory", name, about, number, 6, work))
        return units

    def _library(self, number: int) -> list[Unit]:
        ways = [way for way in library.ABOUT if way in self._wanted]
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
        done = any(_has(target, number) for target in targets.values())
        label = f"library, round {number + 1}"
        return [Unit("library", label, 3 + spawns / 900, run, done)] if ways else []

    def _growth(self, number: int) -> list[Unit]:
        quick, units = self._options.quick, []
        # One round in a run of everything, or it would take a quarter of an hour more.
        if number >= (growth.MOST_ROUNDS if self._options.growth and not quick else 1):
            return []
        for curve in growth.CURVES:
            for name in curve.names:
                if name not in self._wanted:
                    continue

                def work(curve: growth.Curve = curve, name: str = name) -> Record:
                    curve.prepare(name)
                    return curve.measure(name, quick)

                about, guess = curve.about(name), curve.seconds * (0.4 if quick else 1)
                units.append(self._unit(curve.section, name, about, number, guess, work))
        return units

    def _phases(self, number: int) -> list[Unit]:
        """Once: what is counted is the same in every round."""
        units = []
        for name in phases.NAMES if number == 0 else ():
            if name not in self._wanted:
                continue

            def work(name: str = name) -> Record:
                self._prepare("phases", name, openloop.server_row(name))
                return phases.measure(name, 100 if self._options.quick else 600)

            about = openloop.server_row(name).about
            units.append(self._unit("phases", name, about, number, 8, work))
        return units

    def _stall(self, number: int) -> list[Unit]:
        spawns = 20 * self._options.spawns
        units = []
        for name in stall.WAYS:
            if name not in self._wanted:
                continue

            def work(name: str = name) -> Record:
                return stall.measure(name, spawns)

            about, guess = library.about(name), 3 + spawns / 900
            units.append(self._unit("loop_stall", name, about, number, guess, work))
        return units

    def _freeze(self, number: int) -> list[Unit]:
        count = 3 * self._options.spawns
        units = []
        for name in freeze.PROGRAMS:
            if f"freeze-{name}" not in self._wanted:
                continue

            def work(name: str = name) -> Record:
                return freeze.measure(name, count)

            about, guess = freeze.about(name), 1 + 3 * count / 900
            units.append(self._unit("freeze", name, about, number, guess, work))
        return units

    def _lag(self, number: int) -> list[Unit]:
        requests = max(500, self._options.requests // 4)
        checked = self._options.checked // 2
        options = Options(requests, self._options.connections, checked)
        units = []
        for name in lag.NAMES:
            if name not in self._wanted:
                continue

            def work(name: str = name) -> Record:
                lag.server_row(name).prepare()
                return lag.measure(name, options)

            about, guess = lag.server_row(name).about, 3 + requests / 900
            units.append(self._unit("loop_lag", name, about, number, guess, work))
        return units


def _has(row: dict[str, object], number: int) -> bool:
    records = row["rounds"]
    assert isinstance(records, list)
    return any(record["round"] == number for record in records)


def all_names() -> list[str]:
    names = [row.name for row in rows.ROWS]
    names += [*handlers.HANDLERS, *web.WEB, *rows.PROGRAM_ROWS, *handlers.GAPS, *waiting.WAYS]
    names += library.ABOUT
    names += [f"freeze-{name}" for name in freeze.PROGRAMS]
    return [*names, *(name for name in lag.NAMES if name not in names)]


def chosen_rows(text: str | None, quick: bool = False) -> set[str]:
    """The names that *text* means, of which a name may be a group's; all of them for None."""
    names = all_names()
    if text is None:
        left_out = {row.name for row in rows.ROWS} - set(rows.GROUPS["quick"])
        left_out |= {name for name in handlers.HANDLERS if "numpy" in name}
        return set(names) - left_out if quick else set(names)
    chosen: set[str] = set()
    for name in filter(None, (part.strip() for part in text.split(","))):
        chosen.update(rows.GROUPS.get(name, [name]))
    if unknown := sorted(chosen - set(names)):
        raise tools.Unavailable(f"no row named {', '.join(unknown)} (see --list)")
    return chosen
