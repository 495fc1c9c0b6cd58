"""The rows of the HTTP table: each a server that answers with the output of one command.

Every row gets the same command, the same environment, stdin from /dev/null, one pipe for the
child's stdout and the server's own stderr. Two rows named ``...-output`` show the way their
language is usually written, with a second pipe for stderr; two named ``...-minimal`` show that the
standard library is not slowed down by the server we put around it.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

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
    """A server; *argv* makes its command line from the port."""

    name: str
    about: str
    argv: Callable[[int], Sequence[str]]
    prepare: Callable[[], object] = lambda: None
    command: Sequence[str] = COMMAND
    expected: bytes = EXPECTED

    def measure(self, options: Options) -> Record:
        """One launch: start, check, load, check, stop. Raises LoadError or ServerError."""
        with Server(lambda port: [*self.argv(port), "--", *self.command]) as server:
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


def _ours(*flags: str) -> Callable[[int], list[str]]:
    serve = [sys.executable, "-m", "fastspawn.serve", "--no-access-log"]
    return lambda port: [*serve, "--port", str(port), *flags]


def _python(module: str, *flags: str) -> Callable[[int], list[str]]:
    peer = [sys.executable, "-m", f"bench.peers.python.{module}"]
    return lambda port: [*peer, "--port", str(port), *flags]


def _rust(*flags: str) -> Callable[[int], list[str]]:
    return lambda port: [str(tools.rust_peer()), "--port", str(port), *flags]


@functools.cache
def _need_fastspawn() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastspawn.serve", "--help"],
        capture_output=True,
        check=False,
        cwd=tools.ROOT,
    )
    if done.returncode != 0:
        told = done.stderr.decode(errors="replace").strip().splitlines() or ["no output"]
        raise tools.Unavailable(f"fastspawn.serve does not start: {told[-1]}")


STDLIB, RUST, FLOOR = "stdlib-asyncio", "rust-tokio-hyper", "floor-c"

ROWS: tuple[Row, ...] = (
    ServerRow(
        "fastspawn-direct",
        "`python -m fastspawn.serve --strategy direct`",
        _ours("--strategy", "direct"),
        _need_fastspawn,
    ),
    ServerRow(
        STDLIB,
        "`--strategy subprocess --loop asyncio`: our server, spawning by `create_subprocess_exec`",
        _ours("--strategy", "subprocess", "--loop", "asyncio"),
        _need_fastspawn,
    ),
    ServerRow(
        "uvloop-subprocess",
        "`--strategy subprocess --loop uvloop`: the same on uvloop",
        _ours("--strategy", "subprocess", "--loop", "uvloop"),
        _need_fastspawn,
    ),
    ServerRow(
        "asyncio-minimal",
        "httptools on asyncio, `create_subprocess_exec` and `communicate()`, nothing else",
        _python("asyncio_exec", "--loop", "asyncio"),
    ),
    ServerRow(
        "uvloop-minimal",
        "the same on uvloop",
        _python("asyncio_exec", "--loop", "uvloop"),
    ),
    ServerRow(
        "threadpool-run",
        "httptools on uvloop, `subprocess.run(stdout=PIPE)` in a ThreadPoolExecutor",
        _python("threadpool"),
    ),
    ServerRow(
        "threadpool-run-output",
        "the same with `capture_output=True` (a second pipe)",
        _python("threadpool", "--stderr", "pipe"),
    ),
    ServerRow(
        "warm-pool",
        "httptools on uvloop; 4 persistent Python workers each spawn the command as their child, "
        "which writes into a pipe that worker and server keep for all requests",
        _python("warm_pool", "--size", "4"),
    ),
    ServerRow(
        RUST,
        "tokio + hyper on all cores, `Command::spawn` with one pipe, `wait_with_output`",
        _rust(),
        tools.rust_peer,
    ),
    ServerRow(
        "rust-tokio-output",
        "the same with `Command::output()` (a second pipe)",
        _rust("--stderr", "pipe"),
        tools.rust_peer,
    ),
    FloorRow(FLOOR, "bare C loop without HTTP, one thread per connection"),
    FloorRow(
        f"{FLOOR}-cores",
        "bare C loop without HTTP, one thread per core",
        threads=tools.cores(),
    ),
)


def with_command(row: ServerRow, command: Sequence[str], expected: bytes) -> ServerRow:
    """The same server with another command."""
    return replace(row, command=tuple(command), expected=expected)
