"""The growth curves: what becomes of a figure as something around it grows.

Two kinds. Spawns without HTTP, beside descriptors, memory and environment of the parent: a process
of its own at each level, all of them alive at the same time and taking turns. And servers under
load, against concurrency, size of the answer, server processes and spawner threads: one launch
goes through all levels in a random order, or one launch per level where the level is a flag.

Every row of a curve is ``{"levels": {LEVEL: figures}}`` in each round, with the levels as strings.
"""

from __future__ import annotations

import http.client
import random
import resource
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench import library, rows
from bench.harness import load, procs, tools
from bench.harness.server import Server
from bench.library import Series, Worker, take_turns
from bench.openloop import server_row
from bench.row import Record, ServerRow, with_command

Levels = Sequence[int]
Figures = dict[str, float]
MOST_ROUNDS = 3
"""A growth run is to fit in ten minutes, and its intervals come from the batches, too."""

SPAWN_WAYS = (
    *("engine-1", "engine-30", "caller", "posix-spawn", "subprocess-run"),
    *("asyncio-30", "uvloop-30"),
)
SERVERS = ("fastspawn-direct", "fastspawn-snapshot", rows.RUST, "go-nethttp")
OURS = SERVERS[:2]


@dataclass(frozen=True)
class Curve:
    """A section of the results. *work* measures one row in one round."""

    section: str
    names: Sequence[str]
    levels: Levels
    work: Callable[[str, Levels, float], Record]  # row, levels, share of the usual load
    seconds: float  # what a round of one row takes, roughly
    quick_levels: Levels | None = None  # None: the same

    def measure(self, name: str, quick: bool) -> Record:
        """One round of one row. Raises what its rows raise."""
        levels = (self.quick_levels or self.levels) if quick else self.levels
        return self.work(name, levels, 0.25 if quick else 1.0)

    def about(self, name: str) -> str:
        return library.about(name) if name in SPAWN_WAYS else server_row(name).about

    def prepare(self, name: str) -> None:
        """Build what is missing. Raises Unavailable."""
        if name not in SPAWN_WAYS:
            server_row(name).prepare()


# ---- spawns without HTTP ------------------------------------------------------------------------

BATCHES, SPAWNS = 4, 60


def _spawns(kind: str) -> Callable[[str, Levels, float], Record]:
    def work(way: str, levels: Levels, share: float) -> Record:
        batches, spawns = max(2, round(BATCHES * share)), max(30, round(SPAWNS * share))
        return {"levels": measure_spawns(way, kind, levels, batches, spawns)}

    return work


def measure_spawns(
    way: str, kind: str, levels: Levels, batches: int, spawns: int
) -> dict[str, Series]:
    """One round of one way: a process at each level of *kind*, taking turns.

    Levels of memory that this machine has no room for beside the others are left out; one of
    descriptors is lowered to what the hard limit allows.
    """
    if kind == "memory-mib":
        levels = fitting(levels, available_mib() - 1024)
    if kind == "fds":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = 1 << 20 if hard == resource.RLIM_INFINITY else hard - 500  # what a worker asks for
        levels = sorted({min(level, room) for level in levels})
    with ExitStack() as stack:
        workers = {
            str(level): stack.enter_context(Worker(way, f"--{kind}", str(level)))
            for level in levels
        }
        return take_turns(workers, batches, spawns)


def fitting(levels: Levels, room: int) -> Levels:
    """The smaller ones of *levels*, as many as have room together. Raises Unavailable for one."""
    kept: list[int] = []
    for level in sorted(levels):
        if sum(kept) + level <= room:
            kept.append(level)
    if len(kept) < 2:
        raise tools.Unavailable(f"needs {sum(sorted(levels)[:2]) + 1024} MiB of free memory")
    return kept


def available_mib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


# ---- servers under load -------------------------------------------------------------------------


def _under_load(server: Server, requests: int, connections: int, expected: bytes) -> Figures:
    """Check an answer, load, sample on both sides of the load, check again."""
    check_answer(server.port, expected)
    before = procs.settled_tree(server.pid)
    server.remember_helpers(before)
    program = tools.bombardier()
    result = load.bombard(program, server.port, requests, connections, patience=60)
    after = procs.settled_tree(server.pid)
    server.remember_helpers(after)
    if result.bytes_read < requests * len(expected):
        raise load.LoadError(f"bombardier read {result.bytes_read} bytes, which is too few")
    check_answer(server.port, expected)
    usage = procs.usage(before, after)
    return {
        **asdict(result),
        "server_cpu_us": usage.server_us / requests,
        "switches": usage.switches / requests,
        "peak_rss_kib": usage.peak_rss_kib,
    }


def check_answer(port: int, expected: bytes) -> None:
    """Ask once and compare all of the body, however long. Raises LoadError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise load.LoadError(f"{type(error).__name__}: {error}") from None
    finally:
        connection.close()
    if answer.status != 200 or body != expected:
        raise load.LoadError(f"status {answer.status}, {len(body)} bytes: {body[:60]!r}")


def launch(row: ServerRow, *flags: str) -> Server:
    """The row's server, with more *flags* of its own."""
    return replace(row, argv=lambda port: [*row.argv(port), *flags]).launch()


def _shuffled(levels: Levels) -> list[int]:
    return random.sample(levels, len(levels))


def _in_order(levels: Levels, found: Mapping[int, Figures]) -> Record:
    return {"levels": {str(level): found[level] for level in levels}}


def _concurrency(name: str, levels: Levels, share: float) -> Record:
    """The same load of `echo hi`, from so many connections at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 8192:  # 1,000 connections, each with a child's pipe; servers inherit it
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    row = server_row(name)
    found: dict[int, Figures] = {}
    with launch(row) as server:
        load.check_answers(server.port, 200, 30, row.expected)
        for level in _shuffled(levels):
            requests = max(3 * level, round((600 if level < 3 else 1800) * share))
            found[level] = _under_load(server, requests, level, row.expected)
    return _in_order(levels, found)


OUTPUT_CONNECTIONS = 4
OUTPUT_REQUESTS = {0: 1200, 1 << 10: 1200, 64 << 10: 800, 1 << 20: 200, 16 << 20: 32, 100 << 20: 8}


def _output(name: str, levels: Levels, share: float) -> Record:
    """`head -c SIZE /dev/zero`, 4 at a time; a launch for each size."""
    found: dict[int, Figures] = {}
    for level in _shuffled(levels):
        command = ("head", "-c", str(level), "/dev/zero")
        row = with_command(server_row(name), command, bytes(level))
        requests = max(2 * OUTPUT_CONNECTIONS, round(OUTPUT_REQUESTS[level] * share))
        with launch(row) as server:
            found[level] = _under_load(server, requests, OUTPUT_CONNECTIONS, row.expected)
            found[level]["mib_per_second"] = found[level]["requests_per_second"] * level / (1 << 20)
    return _in_order(levels, found)


def _by_flag(flag: str) -> Callable[[str, Levels, float], Record]:
    """`echo hi` from 30 connections, with a flag of our server set to each level."""

    def work(name: str, levels: Levels, share: float) -> Record:
        row = server_row(name)
        found: dict[int, Figures] = {}
        for level in _shuffled(levels):
            with launch(row, flag, str(level)) as server:
                load.check_answers(server.port, 200, 30, row.expected)
                found[level] = _under_load(server, round(3000 * share), 30, row.expected)
        return _in_order(levels, found)

    return work


# ---- all of them --------------------------------------------------------------------------------

CURVES = (
    Curve(
        *("growth_fds", SPAWN_WAYS, (0, 100, 1_000, 5_000, 20_000)),
        *(_spawns("fds"), 5),
        quick_levels=(0, 20_000),
    ),
    Curve(
        *("growth_memory", SPAWN_WAYS, (0, 128, 1_024, 8_192)),
        *(_spawns("memory-mib"), 9),
        quick_levels=(0, 1_024),
    ),
    Curve(
        *("growth_environment", SPAWN_WAYS, (0, 4 << 10, 32 << 10, 256 << 10, 1 << 20)),
        *(_spawns("environment"), 6),
    ),
    Curve(
        *("growth_concurrency", SERVERS, (1, 3, 10, 30, 100, 300, 1_000)),
        *(_concurrency, 11),
    ),
    Curve(*("growth_output", SERVERS, tuple(OUTPUT_REQUESTS)), *(_output, 14)),
    Curve(*("growth_workers", OURS, (1, 2, 4)), *(_by_flag("--workers"), 10)),
    Curve(*("growth_spawners", OURS[:1], (1, 2, 4, 8)), *(_by_flag("--spawners"), 12)),
)
