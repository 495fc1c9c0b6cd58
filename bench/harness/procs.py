"""CPU, descriptors and threads of a server and its long-lived helpers, read from /proc.

A server's own CPU is that of its root process and of every descendant that is there after the
load: pool workers, cluster members, templates, processes that put themselves back. What it spends
on the processes it starts per request is their CPU, which the kernel adds to the parent's
cutime/cstime at the reap.

A server's own CPU is read from the process's CPU-time clock (clock_getcpuclockid(3)): user +
system, in nanoseconds, threads that have ended included. utime + stime of /proc/PID/stat is the
same sum in ticks of 10 ms; the run times of /proc/PID/task/*/schedstat miss ended threads, and
asyncio before Python 3.12 starts a thread per child.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


class Identity(NamedTuple):
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    started: int


@dataclass(frozen=True)
class Sample:
    """One process at one moment. CPU in microseconds since it started; 0 for a zombie."""

    parent: int
    state: str
    cpu_us: float
    child_us: float
    threads: frozenset[str]
    fds: int
    switches: int  # context switches of the live threads, voluntary and not
    peak_rss_kib: int


@dataclass(frozen=True)
class Usage:
    """What a load cost. CPU in microseconds."""

    server_us: float
    helper_us: float  # the part of it that the root process did not spend itself
    child_us: float
    switches: int
    processes: int
    replaced: int  # helpers that were there before the load and not after it
    peak_rss_kib: int


Tree = dict[Identity, Sample]


def _stat(pid: int) -> tuple[Identity, list[str]] | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # starts at field 3, the state
    return Identity(pid, int(fields[19])), fields


def _cpu_us(pid: int) -> float:
    """The reading of another process's CPU-time clock; the id is glibc's MAKE_PROCESS_CPUCLOCK."""
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e3


def _status(path: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {key: value.strip() for key, _, value in lines}


def _sample(pid: int, fields: list[str]) -> Sample | None:
    folder = PROC / str(pid)
    try:
        cpu_us = 0.0 if fields[0] == "Z" else _cpu_us(pid)
        switches = 0
        threads = frozenset(os.listdir(folder / "task"))
        for tid in threads:
            task = _status(folder / "task" / tid / "status")
            switches += int(task["voluntary_ctxt_switches"])
            switches += int(task["nonvoluntary_ctxt_switches"])
        peak = _status(folder / "status").get("VmHWM", "0 kB").split()[0]
        fds = len(os.listdir(folder / "fd"))
    except OSError:
        return None  # ended while being read
    return Sample(
        parent=int(fields[1]),
        state=fields[0],
        cpu_us=cpu_us,
        child_us=(int(fields[13]) + int(fields[14])) * TICK_US,
        threads=threads,
        fds=fds,
        switches=switches,
        peak_rss_kib=int(peak),
    )


def tree(root: int) -> Tree:
    """Sample *root* and all its present descendants."""
    known: dict[int, tuple[Identity, list[str]]] = {}
    children: dict[int, list[int]] = {}
    for name in os.listdir(PROC):
        if name.isdigit() and (found := _stat(int(name))):
            known[int(name)] = found
            children.setdefault(int(found[1][1]), []).append(int(name))
    samples: Tree = {}
    todo = [root]
    while todo:
        pid = todo.pop()
        todo.extend(children.get(pid, ()))
        if pid in known and (sample := _sample(pid, known[pid][1])):
            samples[known[pid][0]] = sample
    return samples


def settled_tree(root: int, timeout: float = 1.0) -> Tree:
    """Sample *root*'s tree once it has kept the same processes, threads and fds for a moment.

    Returns the last sample when *timeout* (seconds) passes first.
    """
    deadline = time.monotonic() + timeout
    before = tree(root)
    while True:
        time.sleep(0.03)
        now = tree(root)
        same = {k: (v.fds, v.state == "Z", v.threads) for k, v in now.items()} == {
            k: (v.fds, v.state == "Z", v.threads) for k, v in before.items()
        }
        if (same and not zombies(now)) or time.monotonic() > deadline:
            return now
        before = now


def zombies(samples: Tree) -> int:
    return sum(sample.state == "Z" for sample in samples.values())


def counts(samples: Tree) -> dict[str, int]:
    """Descriptors, threads, processes and zombies, to see that a load leaves nothing behind."""
    return {
        "fds": sum(sample.fds for sample in samples.values()),
        "threads": sum(len(sample.threads) for sample in samples.values()),
        "processes": len(samples),
        "zombies": zombies(samples),
    }


NOTHING = Sample(0, "", 0.0, 0.0, frozenset(), 0, 0, 0)


def usage(before: Tree, after: Tree) -> Usage:
    """What happened between two samples of the same tree.

    Helpers that came meanwhile count with all that they used. Those that went are among the
    children that their parent reaped, without what they had used before.
    """
    server_us = helper_us = child_us = 0.0
    switches = peak = 0
    pids = {identity.pid for identity in after}
    for identity, new in after.items():
        old = before.get(identity, NOTHING)
        server_us += new.cpu_us - old.cpu_us
        if new.parent in pids:
            helper_us += new.cpu_us - old.cpu_us
        child_us += new.child_us - old.child_us
        switches += max(0, new.switches - old.switches)
        peak += new.peak_rss_kib
    gone = before.keys() - after.keys()
    child_us -= sum(
        before[identity].cpu_us + before[identity].child_us
        for identity in gone
        if before[identity].parent in pids
    )
    return Usage(server_us, helper_us, max(0.0, child_us), switches, len(after), len(gone), peak)


def alive(identity: Identity) -> bool:
    """Whether that very process still runs (a zombie does not)."""
    found = _stat(identity.pid)
    return found is not None and found[0] == identity and found[1][0] != "Z"
