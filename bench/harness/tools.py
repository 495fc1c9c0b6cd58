"""Builds what the benchmark needs into bench/.cache, and tells the versions of everything."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import ParamSpec

BENCH = Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
CACHE = BENCH / ".cache"
RUST_PEER = BENCH / "peers" / "rust"
BOMBARDIER = "1.2.6"
NATS_SERVER = "2.15.3"


class Unavailable(Exception):
    """A tool or peer that cannot be had on this machine; the message is one line."""


_may_build = [True]


def may_build() -> bool:
    """Whether what is missing may be built, which can take minutes."""
    return _may_build[0]


@contextmanager
def without_building() -> Iterator[None]:
    """Within it, what has not been built yet is unavailable."""
    _may_build[0] = False
    try:
        yield
    finally:
        _may_build[0] = True


Arguments = ParamSpec("Arguments")


def once(make: Callable[Arguments, Path]) -> Callable[Arguments, Path]:
    """Make each thing once, or fail once: what cannot be had is not tried again for every row."""
    made: dict[tuple[object, ...], Path | Unavailable] = {}

    @functools.wraps(make)
    def kept(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Path:
        key = (may_build(), *args, *kwargs.items())
        if key not in made:
            try:
                made[key] = make(*args, **kwargs)
            except Unavailable as error:
                made[key] = error
        found = made[key]
        if isinstance(found, Unavailable):
            raise Unavailable(str(found))
        return found

    return kept


def build(what: str, command: list[str], env: dict[str, str] | None = None) -> None:
    """Run *command*. Raises Unavailable with the first line that says what is wrong."""
    if not may_build():
        raise Unavailable("not built yet (`make peers` does it)")
    done = subprocess.run(
        command, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no output"]
        told = next((line for line in lines if line.lower().startswith("error")), lines[-1])
        raise Unavailable(f"{what} could not be built: {told[:200]}")


@once
def bombardier() -> Path:
    """The load generator of the HTTP rows."""
    return _go_program("bombardier", BOMBARDIER, "github.com/codesenberg/bombardier")


@once
def nats_server() -> Path:
    """What keeps the queues of the tests, and of the soak of `fastspawn work`."""
    return _go_program("nats-server", NATS_SERVER, "github.com/nats-io/nats-server/v2")


def _go_program(name: str, version: str, module: str) -> Path:
    """A program built by `go install` at a fixed version, kept from run to run."""
    program = CACHE / "bin" / f"{name}-{version}"
    if program.exists():
        return program
    if not shutil.which("go"):
        raise Unavailable(f"{name} {version} is built with Go, and there is no `go` on PATH")
    build(name, ["go", "install", f"{module}@v{version}"], {"GOBIN": str(program.parent)})
    (program.parent / name).replace(program)
    return program


@once
def rust_peer() -> Path:
    """The tokio + hyper server, from its committed Cargo.lock. Cargo skips what is up to date."""
    target = CACHE / "rust"
    program = target / "release" / "bench-rust-peer"
    if program.exists() and not may_build():
        return program
    if not shutil.which("cargo"):
        raise Unavailable("there is no `cargo` on PATH to build bench/peers/rust")
    manifest = str(RUST_PEER / "Cargo.toml")
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", manifest]
    build("the Rust peer", command, {"CARGO_TARGET_DIR": str(target)})
    return program


@once
def floor() -> Path:
    """The bare C loop."""
    return compiled("floor", ["-pthread"], [BENCH / "floor.c"])


def compiled(
    name: str, flags: Sequence[str], sources: Sequence[Path], with_: Iterable[Path] = ()
) -> Path:
    """What a C compiler makes of *sources*, again whenever one of them or *with_* is newer."""
    target, compiler = CACHE / name, os.environ.get("CC", "cc")
    newest = max(path.stat().st_mtime for path in (*sources, *with_))
    if target.exists() and target.stat().st_mtime > newest:
        return target
    told = f"bench/{sources[0].name}"
    if not shutil.which(compiler):
        raise Unavailable(f"there is no `{compiler}` on PATH to compile {told}")
    CACHE.mkdir(exist_ok=True)
    part = CACHE / f"{name}.{os.getpid()}"  # tests run beside each other
    build(told, [compiler, "-O2", *flags, *map(str, sources), "-o", str(part)])
    part.replace(target)
    return target


def first_line(*command: str) -> str | None:
    """What a command says first; None when it cannot be run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=BENCH)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip().partition("\n")[0]


def package(name: str) -> str | None:
    """The version of an installed Python package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def crates() -> dict[str, str]:
    """The versions in the Rust server's lock file."""
    lock = (RUST_PEER / "Cargo.lock").read_text()
    found = dict(re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"', lock))
    return {name: found[name] for name in ("hyper", "hyper-util", "tokio") if name in found}


def _cpu_model() -> str:
    try:
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine()


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1 << 20)


def without_paths(text: str) -> str:
    """A message fit for a results file: on one line, short, with no path of this machine."""
    text = text.replace(sys.executable, "python").replace(f"{ROOT}{os.sep}", "")
    for folder in (sys.prefix, str(Path.home())):
        text = text.replace(folder, "~")
    return " ".join(text.split())[:240]


def python_build() -> dict[str, object]:
    """How this interpreter was compiled, which is worth tens of per cent; None: it does not say."""
    told = sysconfig.get_config_var("CONFIG_ARGS")
    return {
        "compiler": platform.python_compiler(),
        "pgo": "--enable-optimizations" in told if told else None,
        "lto": bool(re.search(r"--with-lto(?!=no)", told)) if told else None,
    }


def path_steps(name: str, path: str) -> int | None:
    """How many directories of *path* a search for *name* tries in vain, None if all of them."""
    for steps, folder in enumerate(path.split(os.pathsep)):
        if os.access(os.path.join(folder, name), os.X_OK):
            return steps
    return None


def describe(options: dict[str, object], path: str) -> dict[str, object]:
    """Machine, versions and options, with nothing that names the machine or its user."""
    commit = first_line("git", "rev-parse", "HEAD")
    changed = first_line("git", "status", "--porcelain", "--", "..", ":!results")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_mib": _memory_mib(),
        "kernel": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python_build": python_build(),
        "packages": {name: package(name) for name in ("fastspawn", "httptools", "uvloop")},
        "rustc": first_line("rustc", "--version"),
        "crates": crates(),
        "go": first_line("go", "version"),
        "bombardier": BOMBARDIER,
        "cc": first_line(os.environ.get("CC", "cc"), "--version"),
        "commit": commit,
        "uncommitted_changes": bool(changed) if commit else None,
        "load_before": round(os.getloadavg()[0], 2),
        "path_steps_to_echo": path_steps("echo", path),
        "backend": os.environ.get("FASTSPAWN_BACKEND", "auto"),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "options": options,
    }
