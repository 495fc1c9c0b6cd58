"""What a row of the HTTP table is, and how one launch of it is measured; ``rows.py`` has them."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Generic, TypeVar

from bench.harness import load, procs, tools
from bench.harness.server import Server, ServerError, environment

COMMAND = ("echo", "hi")
EXPECTED = b"hi\n"
Record = dict[str, object]


@dataclass(frozen=True)
class Options:
    """What one launch is measured with."""

    requests: int = 10_000
    connections: int = 30
    checked: int = 200  # answers compared before the measured load, and again after it
    patience: int = 2  # seconds until bombardier gives an answer up; 2 is its default


@dataclass(frozen=True)
class ServerRow:
    """A server; *argv* makes its command line from the port.

    *prepare* builds what is missing and *version* says what was found; both raise Unavailable
    with the reason when the row can't be had here. *env* comes on top of the common environment.
    *streams* says that an answer may come with its length or in chunks, as the child is quick or
    slow. *unless_told*: what a server says on its stderr that does something else than the row's
    name says; then the row is unavailable. A server without a *command* knows what it serves.
    """

    name: str
    about: str
    argv: Callable[[int], Sequence[str]]
    prepare: Callable[[], object] = lambda: None
    version: Callable[[], str] = lambda: ""
    env: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = COMMAND
    expected: bytes = EXPECTED
    streams: bool = False
    ends_with: Sequence[int] = (0,)  # exit statuses of the server after SIGTERM
    unless_told: str = ""

    def launch(self) -> Server:
        """A context manager around one launch, with the row's command."""
        command = [*self.command]
        return Server(
            lambda port: [*self.argv(port), *(["--", *command] if command else [])],
            env=self.env,
            ends_with=self.ends_with,
            unless_told=self.unless_told,
        )

    def measure(self, options: Options) -> Record:
        """One launch: start, check, load, check, stop. Raises LoadError or ServerError."""
        program = tools.bombardier()
        with self.launch() as server:
            found = under_load(
                server,
                options,
                self.expected,
                lambda: load.bombard(
                    program,
                    server.port,
                    options.requests,
                    options.connections,
                    options.patience,
                ),
            )
        return {
            **asdict(found.result),
            **found.costs(options.requests),
            "bytes_checked": load.check_bytes(found.check, found.result, self.streams),
            "answers_checked": 2 * options.checked,
        }


Result = TypeVar("Result")


@dataclass(frozen=True)
class Loaded(Generic[Result]):
    """What a load measured, and what it cost."""

    result: Result
    check: load.Check
    usage: procs.Usage
    load_us: float  # CPU of the load generator, in microseconds
    before: dict[str, int]
    after: dict[str, int]

    def costs(self, answers: int) -> Record:
        """CPU and context switches per answer, and what the server held before and after."""
        return {
            "server_cpu_us": self.usage.server_us / answers,
            "helper_cpu_us": self.usage.helper_us / answers,
            "child_cpu_us": self.usage.child_us / answers,
            "load_cpu_us": self.load_us / answers,
            "switches": self.usage.switches / answers,
            "peak_rss_kib": self.usage.peak_rss_kib,
            "processes": self.usage.processes,
            "replaced": self.usage.replaced,
            "idle_before": self.before,
            "idle_after": self.after,
        }


def under_load(
    server: Server, options: Options, expected: bytes, attack: Callable[[], Result]
) -> Loaded[Result]:
    """Check the answers, *attack*, sample on both sides of that, check again."""
    check = load.check_answers(server.port, options.checked, options.connections, expected)
    before = procs.settled_tree(server.pid)
    server.remember_helpers(before)
    load_us = -_children_us()
    result = attack()
    load_us += _children_us()
    after = procs.settled_tree(server.pid)
    server.remember_helpers(after)
    if server.pid not in {identity.pid for identity in after}:
        raise ServerError("the server died under load")
    check.include(load.check_answers(server.port, options.checked, options.connections, expected))
    usage = procs.usage(before, after)
    return Loaded(result, check, usage, load_us, procs.counts(before), procs.counts(after))


def _children_us() -> float:
    """CPU of the children that this process has reaped, which between two moments of a launch is
    the load generator alone."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e6


@dataclass(frozen=True)
class FloorRow:
    """The bare C loop: no HTTP at all, the most that one machine can start and collect."""

    name: str
    about: str
    threads: int | None = None  # None: as many as there are connections

    def prepare(self) -> object:
        return tools.floor()

    def version(self) -> str:
        tools.floor()
        return tools.first_line(os.environ.get("CC", "cc"), "--version") or ""

    def measure(self, options: Options) -> Record:
        program = shutil.which(COMMAND[0], path=environment()["PATH"])
        if program is None:
            raise ServerError(f"no {COMMAND[0]} on PATH")
        threads = self.threads or options.connections
        floor = [str(tools.floor()), str(threads), str(options.requests), EXPECTED.decode()]
        done = subprocess.run(
            [*floor, program, *COMMAND],
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(f"exit status {done.returncode}: {done.stderr.strip()[:200]}")
        told = json.loads(done.stdout)
        if told["failures"]:
            raise load.LoadError(f"{told['failures']} of {told['spawns']} outputs were wrong")
        return {
            "seconds": told["seconds"],
            "requests_per_second": told["spawns"] / told["seconds"],
            "p50_us": told["p50_us"],
            "p99_us": told["p99_us"],
            "answers": told["spawns"],
            "errors": 0,
            "server_cpu_us": told["parent_cpu_us"],
            "child_cpu_us": told["child_cpu_us"],
            "answers_checked": told["spawns"],
        }


Row = ServerRow | FloorRow


def with_command(row: ServerRow, command: Sequence[str], expected: bytes) -> ServerRow:
    """The same server with another command."""
    return replace(row, command=tuple(command), expected=expected)


def module(name: str, *flags: str) -> Callable[[int], list[str]]:
    """The command line of a peer that is a Python module."""
    peer = [sys.executable, "-m", f"bench.peers.{name}"]
    return lambda port: [*peer, "--port", str(port), *flags]
