"""The rows of the HTTP table: each a server that answers with the output of one command.

Every row gets the same command, the same environment, stdin from /dev/null, one pipe for the
child's stdout and the server's own stderr. Rows named ``...-output`` or ``...-pipes`` show the way
their language is usually written, with more pipes; those named ``...-minimal`` show that the
standard library is not slowed down by the server we put around it.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from bench import alone, handlers, waiting, web
from bench.harness import tools
from bench.harness.server import environment
from bench.ours import BY_BACKEND, OURS, POOL, STANDARD_SPAWN, STDLIB, fastspawn
from bench.peers import builds
from bench.row import FloorRow, Row, ServerRow, module, with_command

RUST, FLOOR = "rust-tokio-hyper", "floor-c"


# ---- Python -------------------------------------------------------------------------------------


def _python(name: str, about: str, program: str, *flags: str, uses: Sequence[str]) -> ServerRow:
    version = functools.partial(builds.python_version, *uses)
    return ServerRow(name, about, module(f"python.{program}", *flags), version, version)


PYTHON: tuple[Row, ...] = (
    *STANDARD_SPAWN,
    _python(
        "asyncio-minimal",
        "httptools on asyncio, `create_subprocess_exec` and `communicate()`, nothing else",
        *("asyncio_exec", "--loop", "asyncio"),
        uses=("httptools",),
    ),
    _python(
        "uvloop-minimal",
        "the same on uvloop",
        *("asyncio_exec", "--loop", "uvloop"),
        uses=("uvloop", "httptools"),
    ),
    _python(
        "threadpool-run",
        "httptools on uvloop, `subprocess.run(stdout=PIPE)` in a ThreadPoolExecutor",
        "threadpool",
        uses=("uvloop", "httptools"),
    ),
    _python(
        "threadpool-run-output",
        "the same with `capture_output=True` (a second pipe)",
        *("threadpool", "--stderr", "pipe"),
        uses=("uvloop", "httptools"),
    ),
    _python(
        "warm-pool",
        "httptools on uvloop; 4 persistent Python workers each spawn the command as their child, "
        "which writes into a pipe that worker and server keep for all requests",
        *("warm_pool", "--size", "4"),
        uses=("uvloop", "httptools"),
    ),
    _python(
        "gunicorn-sync",
        "a WSGI application under gunicorn, `subprocess.run(stdout=PIPE)`; 2 x cores + 1 workers "
        "of its default kind, which close the connection after each answer",
        "wsgi",
        uses=("gunicorn",),
    ),
    _python(
        "gunicorn-gthread",
        "the same with 8 threads in each worker, which keep connections",
        *("wsgi", "--threads", "8"),
        uses=("gunicorn",),
    ),
    _python(
        "uvicorn-asgi",
        "an ASGI application under uvicorn, one process, `create_subprocess_exec` on uvloop",
        "asgi",
        uses=("uvicorn", "uvloop", "httptools"),
    ),
)


# ---- JavaScript ---------------------------------------------------------------------------------


def _script(
    name: str,
    about: str,
    runtime: Callable[[], Iterable[object]],
    version: Callable[[], str],
    program: str,
    flags: Callable[[], Iterable[object]] = tuple,
) -> ServerRow:
    path = f"bench/peers/{program}"

    def argv(port: int) -> list[str]:
        return [*map(str, runtime()), path, "--port", str(port), *map(str, flags())]

    # Deno and Bun choose between length and chunks in Node's API for themselves.
    return ServerRow(name, about, argv, version, version, streams=name in ("deno-node", "bun-node"))


def _node(
    name: str, about: str, program: str, flags: Callable[[], Iterable[object]] = tuple
) -> ServerRow:
    return _script(
        name, about, lambda: [builds.node()], builds.node_version, f"node/{program}", flags
    )


def _node_over_bun(
    name: str, about: str, program: str, flags: Callable[[], Iterable[object]]
) -> ServerRow:
    def version() -> str:
        return f"{builds.node_version()}, {builds.bun_version()}"

    row = _node(name, about, program, lambda: ["--exec", builds.bun(), *flags()])
    return replace(row, prepare=version, version=version)


def _deno(name: str, about: str, program: str, *flags: str) -> ServerRow:
    runtime = lambda: [builds.deno(), "run", "--allow-all"]  # noqa: E731
    return _script(name, about, runtime, builds.deno_version, program, lambda: flags)


def _deno_parallel() -> ServerRow:
    def argv(port: int) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(port)]
        serve = [str(builds.deno()), "serve", "--parallel", "--allow-all", *where]
        return [*serve, "bench/peers/deno/parallel.ts"]

    about = "the same under `deno serve --parallel`, one thread per core"
    version = builds.deno_version
    return ServerRow("deno-parallel", about, argv, version, version)


def _bun(name: str, about: str, program: str) -> ServerRow:
    return _script(name, about, lambda: [builds.bun()], builds.bun_version, program)


JAVASCRIPT: tuple[Row, ...] = (
    _node("node-single", "`http.createServer`, `spawn`, `stdout.pipe(response)`", "single.mjs"),
    _node(
        "node-single-pipes",
        "the same with spawn's default of three pipes, as the article has it",
        "single.mjs",
        lambda: ["--pipes"],
    ),
    _node("node-cluster", "`node-single` in one process per core, by `cluster`", "cluster.mjs"),
    _node("node-threads", "one server; a worker thread per core spawns", "threads.mjs"),
    _node("node-children", "one server; a forked process per core spawns", "children.mjs"),
    _node(
        "node-pool",
        f"one server; {POOL} resettable processes, each of which runs one command at a time into "
        "the pipe that worker and server keep for all requests",
        "pool.mjs",
        lambda: ["--size", POOL],
    ),
    _node_over_bun(
        "node-children-bun",
        "one Node server; a Bun process per core spawns, by `Bun.spawn`",
        "children.mjs",
        lambda: ["--worker", "bench/peers/bun/worker.ts"],
    ),
    _node_over_bun(
        "node-pool-bun",
        "`node-pool` with workers that run on Bun",
        "pool.mjs",
        lambda: ["--size", POOL],
    ),
    _deno("deno-single", "`Deno.serve`, `new Deno.Command(...).output()`", "deno/single.ts"),
    _deno(
        "deno-single-output",
        "the same with output()'s defaults (a second pipe)",
        *("deno/single.ts", "--pipes"),
    ),
    _deno("deno-node", "the program of `node-single` on Deno", "node/single.mjs"),
    _deno_parallel(),
    _bun("bun-single", "`Bun.serve`, `Bun.spawn`", "bun/single.ts"),
    _bun("bun-node", "the program of `node-single` on Bun", "node/single.mjs"),
    _bun("bun-cluster", "`bun-single` in one process per core, by SO_REUSEPORT", "bun/cluster.ts"),
    _bun("bun-pool", "one `Bun.serve`; a Bun process per core spawns", "bun/pool.ts"),
)


# ---- Go, Rust, C --------------------------------------------------------------------------------


def _go(name: str, about: str, *flags: str) -> ServerRow:
    def argv(port: int) -> list[str]:
        return [str(builds.go("nethttp")), "--port", str(port), *flags]

    version = functools.partial(builds.go_version, "nethttp")
    return ServerRow(name, about, argv, version, version)


def _rust(name: str, about: str, *flags: str) -> ServerRow:
    def argv(port: int) -> list[str]:
        return [str(tools.rust_peer()), "--port", str(port), *flags]

    return ServerRow(name, about, argv, builds.rust_version, builds.rust_version)


COMPILED: tuple[Row, ...] = (
    _go("go-nethttp", "net/http, `exec.Cmd.Run` with one pipe"),
    _go("go-nethttp-output", "the same with `Cmd.Output` (a second pipe)", "--stderr", "pipe"),
    _rust(RUST, "tokio + hyper on all cores, `Command::spawn` with one pipe, `wait_with_output`"),
    _rust(
        "rust-tokio-output",
        "the same with `Command::output()` (a second pipe)",
        *("--stderr", "pipe"),
    ),
    FloorRow(FLOOR, "bare C loop without HTTP, one thread per connection"),
    FloorRow(
        f"{FLOOR}-cores",
        "bare C loop without HTTP, one thread per core",
        threads=tools.cores(),
    ),
)


# ---- CGI hosts ----------------------------------------------------------------------------------


def _cgi(name: str, about: str, host: str, version: Callable[[], str]) -> ServerRow:
    about = f"{about}; a CGI script of two lines: `sh` prints the header and becomes the command"
    # lighttpd ends with 1 when connections are open.
    ends_with = (0, 1) if host in ("lighttpd", "fcgiwrap") else (0,)
    return ServerRow(
        name, about, module("cgi", host), version, version, streams=True, ends_with=ends_with
    )


CGI: tuple[Row, ...] = (
    _cgi(
        "fastspawn-cgi",
        "`python -m fastspawn.serve --mode cgi`",
        "fastspawn",
        functools.partial(builds.python_version, "fastspawn", "uvloop"),
    ),
    _cgi("go-cgi", "net/http/cgi", "go", functools.partial(builds.go_version, "cgi")),
    _cgi("fcgiwrap", "8 fcgiwrap behind lighttpd", "fcgiwrap", builds.fcgiwrap_version),
    _cgi("lighttpd-cgi", "lighttpd's mod_cgi", "lighttpd", builds.lighttpd_version),
    _cgi("apache-cgid", "Apache's mod_cgid, event MPM", "apache", builds.apache_version),
)


# ---- other programs than echo -------------------------------------------------------------------

PROGRAMS: dict[str, tuple[tuple[str, ...], bytes | None]] = {
    "sh": (("sh", "-c", "echo hi"), b"hi\n"),
    "git": (("git", "--version"), None),
    "awk": (("awk", "BEGIN{print 1}"), b"1\n"),
    "perl": (("perl", "-e", "print 1"), b"1"),
    "jq": (("jq", "-n", "1"), b"1\n"),
}
"""A command, and its output; None: what it prints when it is run by itself."""
PROGRAM_SHARES = {"jq": 0.01}
PROGRAM_SHARE = 0.1
"""The part of the requests that a program is measured with: the slow ones, and the others."""


def _with_program(row: ServerRow, program: str, way: str) -> ServerRow:
    argv, expected = PROGRAMS[program]

    def path() -> str:
        found = shutil.which(argv[0], path=environment()["PATH"])
        if found is None:
            raise tools.Unavailable(f"no {argv[0]} here")
        return found

    def prepare() -> None:
        path()
        row.prepare()

    def version() -> str:
        path()
        return row.version()

    if expected is None:  # nothing where there is no such program
        expected = f"{tools.first_line(*argv)}\n".encode()
    named = replace(row, name=f"{program}-{way}", prepare=prepare, version=version)
    return with_command(named, argv, expected)


PROGRAM_ROWS: dict[str, ServerRow] = {
    row.name: row
    for program in PROGRAMS
    for row in (
        *(
            _with_program(fastspawn("", f"`{' '.join(flags)}`", *flags), program, way)
            for way, flags in (
                ("direct", ("--strategy", "direct")),
                ("snapshot", ("--strategy", "snapshot", "--snapshot-at", "main")),
                ("effect", ("--strategy", "snapshot", "--snapshot-at", "effect")),
                ("reset-main", ("--strategy", "reset", "--snapshot-at", "main")),
                ("reset", ("--strategy", "reset", "--snapshot-at", "effect")),
            )
        ),
        _with_program(_rust("", f"`{RUST}`"), program, "rust"),
    )
}


# ---- all of them --------------------------------------------------------------------------------

ROWS: tuple[Row, ...] = (*OURS, *BY_BACKEND, *PYTHON, *JAVASCRIPT, *COMPILED, *CGI)


def _names(rows: Iterable[Row]) -> tuple[str, ...]:
    return tuple(row.name for row in rows)


GROUPS: dict[str, tuple[str, ...]] = {
    "article": (
        *("fastspawn-direct", "fastspawn-snapshot", "fastspawn-effect", "fastspawn-reset"),
        *_names(JAVASCRIPT),
        *_names(COMPILED),
    ),
    "ours": _names(OURS),
    "reset": (
        *("fastspawn-direct", "fastspawn-snapshot", "fastspawn-effect"),
        *("fastspawn-reset-main", "fastspawn-reset", RUST),
        *("template-1", "template-reset-1", *alone.WAYS),
        *(f"freeze-{name}" for name in ("echo", *PROGRAMS)),
        *(*PROGRAM_ROWS, *handlers.HANDLERS, *waiting.WAYS),
    ),
    "wanted": (
        *("fastspawn-effect", "fastspawn-reset", RUST, "template-1", "template-reset-1"),
        *alone.WAYS,
        *("python-handler-direct", "fastspawn-checkpoint", "fastspawn-reset-checkpoint"),
        *("gunicorn-handler", "fastspawn-checkpoint-numpy", "fastspawn-reset-checkpoint-numpy"),
        *waiting.WAYS,
    ),
    "backends": _names(BY_BACKEND),
    "python": ("fastspawn-direct", *_names(PYTHON)),
    "javascript": ("fastspawn-direct", *_names(JAVASCRIPT)),
    "compiled": ("fastspawn-direct", *_names(COMPILED)),
    "cgi": _names(CGI),
    "web": tuple(web.WEB),
    "quick": (
        *("fastspawn-direct", "fastspawn-snapshot", "fastspawn-effect", STDLIB),
        *("threadpool-run", "node-single", "node-pool-bun", "deno-single", "bun-single"),
        *("go-nethttp", RUST, FLOOR),
    ),
}
"""What ``--rows`` takes beside the names of rows. ``quick`` is what ``--quick`` measures, and
``wanted`` what resets are judged by (resets.py)."""

MINOR = {
    *(name for name in GROUPS["article"] if name.endswith(("-output", "-cores"))),
    *("node-single-pipes", "node-children", "deno-node", "bun-node"),
}
MAIN = {*GROUPS["article"], *GROUPS["ours"], *GROUPS["quick"]} - MINOR
MINOR_SHARE = 0.15
"""The part of the requests with which all but the main rows are measured, to fit into one run."""
