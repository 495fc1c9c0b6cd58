"""One measured process of the library and growth rows.

    python -m bench.cases.worker WAY [--fds N] [--memory-mib N] [--environment BYTES]

Reads lines ``COUNT SECONDS`` from stdin and answers each with one line of JSON: what a batch of
that size cost per spawn, in microseconds. The harness keeps several of these processes and lets
them take turns, so that all rows see the same moments of the machine. The first line out says
``{"ready": true}``, or ``{"unavailable": why}``.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import sys
import time
from collections.abc import Callable

from bench.cases.ways import WAYS, Way

MADV_POPULATE_WRITE = 23  # madvise(2): what touching every page does, at once


def cpu_us(who: int) -> float:
    used = resource.getrusage(who)
    return (used.ru_utime + used.ru_stime) * 1e6


def hold_descriptors(count: int) -> list[int]:
    source = os.open(os.devnull, os.O_RDONLY)
    return [source, *(os.dup(source) for _ in range(count - 1))] if count else []


def hold_memory(mib: int) -> mmap.mmap | None:
    """Touched pages of the small size: huge ones would flatter whoever copies page tables."""
    if not mib:
        return None
    memory = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    try:
        memory.madvise(MADV_POPULATE_WRITE)
    except OSError:  # Linux before 5.14, or another system
        for offset in range(0, mib << 20, mmap.PAGESIZE):
            memory[offset] = 1
    return memory


def grow_environment(size: int) -> None:
    """Variables of 64 bytes each, NAME= and the final NUL included, *size* bytes of them."""
    for number in range(size // 64):
        os.environ[f"BENCH_{number:06}"] = "x" * 50


def raise_descriptor_limit(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise OSError(f"RLIMIT_NOFILE allows {hard} descriptors, {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def measure(way: Way, count: int, seconds: float) -> dict[str, float]:
    parent, child = cpu_us(resource.RUSAGE_SELF), cpu_us(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    started, wrong = way.batch(count, seconds)
    wall = (time.perf_counter() - start) * 1e6
    return {
        "spawns": started,
        "wrong": wrong,
        "wall_us": wall / started,
        "parent_cpu_us": (cpu_us(resource.RUSAGE_SELF) - parent) / started,
        "child_cpu_us": (cpu_us(resource.RUSAGE_CHILDREN) - child) / started,
    }


def prepare(name: str, fds: int, memory_mib: int, environment: int) -> tuple[Way, object]:
    """The way, and what has to be kept alive for it.

    Half of the descriptors are there before the way is made and half come after: an engine may
    take its own view of the descriptor table when it starts.
    """
    make: Callable[[], Way] = WAYS[name][1]
    raise_descriptor_limit(fds + 500)
    grow_environment(environment)
    held = [hold_descriptors(fds // 2), hold_memory(memory_mib)]
    way = make()
    way.batch(1, 1.0)
    return way, [*held, hold_descriptors(fds - fds // 2)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--fds", type=int, default=0)
    parser.add_argument("--memory-mib", type=int, default=0)
    parser.add_argument("--environment", type=int, default=0)
    options = parser.parse_args()

    # The harness talks over stdin and stdout; the children get /dev/null for both.
    orders, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)

    try:
        way, _held = prepare(options.way, options.fds, options.memory_mib, options.environment)
    except (ImportError, NotImplementedError, MemoryError, OSError) as error:
        print(json.dumps({"unavailable": f"{error}"}), file=answers, flush=True)
        sys.exit(0)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in orders:
        count, seconds = line.split()
        print(json.dumps(measure(way, int(count), float(seconds))), file=answers, flush=True)


if __name__ == "__main__":
    main()
