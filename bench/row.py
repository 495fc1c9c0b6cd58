"""What a row of the HTTP table is, and how one launch of it is measured; ``rows.py`` has them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

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
    checked: int = 500  # answers compared before the measured load, and again after it


@dataclass(frozen=True)
class ServerRow:
    """A server; *argv* makes its command line from the port.

    *prepare* builds what is missing and *version* says what was found; both raise Unavailable
    with the reason when the row can't be had here. *env* comes on top of the common environment.
    """

    name: str
    about: str
    argv: Callable[[int], Sequence[str]]
    prepare: Callable[[], object] = lambda: None
    version: Callable[[], str] = lambda: ""
    env: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = COMMAND
    expected: bytes = EXPECTED

    def measure(self, options: Options) -> Record:
        """One launch: start, check, load, check, stop. Raises LoadError or ServerError."""
        command = [*self.command]
        with Server(lambda port: [*self.argv(port), "--", *command], env=self.env) as server:
            result, check, usage, before, after = under_load(server, options, self.expected)
        return {
            **asdict(result),
            "server_cpu_us": usage.server_us / options.requests,
            "child_cpu_us": usage.child_us / options.requests,
            "switches": usage.switches / options.requests,
            "peak_rss_kib": usage.peak_rss_kib,
            "processes": usage.processes,
            "replaced": usage.replaced,
            "bytes_checked": load.check_bytes(check, result),
            "answers_checked": 2 * options.checked,
            "idle_before": before,
            "idle_after": after,
        }


def under_load(
    server: Server, options: Options, expected: bytes
) -> tuple[load.LoadResult, load.Check, procs.Usage, dict[str, int], dict[str, int]]:
    """Check the answers, load, sample on both sides of the load, check again."""
    program = tools.bombardier()
    check = load.check_answers(server.port, options.checked, options.connections, expected)
    before = procs.settled_tree(server.pid)
    server.remember_helpers(before)
    result = load.bombard(program, server.port, options.requests, options.connections)
    after = procs.settled_tree(server.pid)
    server.remember_helpers(after)
    if server.pid not in {identity.pid for identity in after}:
        raise ServerError("the server died under load")
    again = load.check_answers(server.port, options.checked, options.connections, expected)
    check.sizes.update(again.sizes)
    usage = procs.usage(before, after)
    return result, check, usage, procs.counts(before), procs.counts(after)


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


def module(name: str, *flags: str) -> Callable[[int], list[str]]:
    """The command line of a peer that is a Python module."""
    peer = [sys.executable, "-m", f"bench.peers.{name}"]
    return lambda port: [*peer, "--port", str(port), *flags]
