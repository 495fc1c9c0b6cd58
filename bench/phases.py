"""Where the time goes: system calls, wake-ups and CPU per request, by phase.

``python -m bench --phases``. perf(1) records every system call and every context switch of a
server, its helpers and its children while requests are answered, one at a time and several at
once; each is put into one of the phases below by its name and by what its descriptor is. That
counts the same on a busy machine as on an idle one, but for the switches.

Which phase:

* receive: accept, and reads from a socket;
* plan: pipes are made, files looked for (all else that the server asks of the kernel, too);
* clone: clone, clone3, vfork, fork, and the signal masks around them;
* exec: what the child does until its execve has returned;
* run: what it does from there to its end (a fork of a snapshot has no exec: all is run);
* collect: reads from pipes, and polling's additions and removals for them;
* reap: waiting for the child, and what pidfds are asked for;
* respond: writes to a socket;
* wake: waiting for events, futexes, eventfds and the other ways by which threads wake each other;
* user: what the server's threads compute between system calls: parsing, the plan, the answer.

CPU is time on a processor: from the entry of a call to its exit, without the time in which the
thread was switched away. Recording makes every call dearer by some tenths of a microsecond, so the
proportions are good to compare and the sums are not what `bench --http` measures.
"""

from __future__ import annotations

import functools
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench import growth
from bench.harness import load, procs, tools
from bench.harness.server import Server, ServerError
from bench.openloop import server_row
from bench.row import Record, ServerRow

PHASES = (
    *("receive", "plan", "clone", "exec", "run"),
    *("collect", "reap", "respond", "wake", "user"),
)
NAMES = growth.SERVERS
P_PIDFD = 3
WIDTHS = (1, 30)  # connections
EVENTS = "raw_syscalls:sys_enter,raw_syscalls:sys_exit,sched:sched_process_exec"


# ---- which phase a call belongs to ---------------------------------------------------------------

BY_NAME = {
    **dict.fromkeys(("accept", "accept4", "recvfrom", "recvmsg"), "receive"),
    **dict.fromkeys(("sendto", "sendmsg", "sendfile", "shutdown"), "respond"),
    **dict.fromkeys(("clone", "clone3", "vfork", "fork", "rt_sigprocmask"), "clone"),
    **dict.fromkeys(("wait4", "waitid", "pidfd_open", "pidfd_send_signal", "kill"), "reap"),
    **dict.fromkeys(
        ("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6"), "wake"
    ),
    **dict.fromkeys(
        ("futex", "sched_yield", "nanosleep", "clock_nanosleep", "tgkill", "rt_sigreturn"), "wake"
    ),
}
BY_DESCRIPTOR = {
    ("read", "socket"): "receive",
    ("write", "socket"): "respond",
    ("read", "pipe"): "collect",
    ("write", "pipe"): "collect",  # what is fed to the child
    ("read", "eventfd"): "wake",
    ("write", "eventfd"): "wake",
    ("close", "socket"): "respond",
    ("close", "pidfd"): "reap",
    ("poll", "socket"): "receive",
    ("poll", "pidfd"): "reap",
    ("poll", "pipe"): "collect",
    ("poll", "eventfd"): "wake",
}
"""By what is done to which kind of descriptor."""

VERBS = {
    **dict.fromkeys(("read", "readv", "pread64"), "read"),
    **dict.fromkeys(("write", "writev"), "write"),
    **dict.fromkeys(("ioctl", "fcntl", "setsockopt", "getsockopt", "epoll_ctl"), "poll"),
    "close": "close",
}


def kind_of(link: str) -> str:
    """What /proc/PID/fd says a descriptor is, in one word."""
    for kind in ("socket", "pipe", "eventfd", "pidfd", "eventpoll", "timerfd", "io_uring"):
        if kind in link:
            return kind
    return "file"


@dataclass
class Table:
    """The descriptors of one thread, or of those that share a table: first as they are found,
    then as calls return them. What appears unseen (pipe2 writes into memory) is a pipe; so is a
    pidfd of clone3, until it is waited for.
    """

    kinds: dict[int, str] = field(default_factory=dict)

    MAKERS = {  # noqa: RUF012 - a constant
        **dict.fromkeys(("accept", "accept4", "socket"), "socket"),
        **dict.fromkeys(("eventfd2", "eventfd"), "eventfd"),
        **dict.fromkeys(("open", "openat", "openat2"), "file"),
        "pidfd_open": "pidfd",
        "epoll_create1": "eventpoll",
    }

    @classmethod
    def of_thread(cls, pid: int, tid: str) -> Table:
        folder = Path(f"/proc/{pid}/task/{tid}/fd")
        found = {}
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):  # closed since
                found[int(name)] = kind_of(os.readlink(folder / name))
        return cls(found)

    def kind(self, descriptor: int) -> str:
        return self.kinds.get(descriptor, "pipe")

    def learn(self, call: Call, result: int) -> None:
        if call.name in self.MAKERS and result >= 0:
            self.kinds[result] = self.MAKERS[call.name]
        elif call.name == "close":
            self.kinds.pop(call.arguments[0], None)
        elif call.name == "waitid" and call.arguments[0] == P_PIDFD:
            self.kinds[call.arguments[1]] = "pidfd"


class Call(NamedTuple):
    name: str
    arguments: tuple[int, ...]


def phase_of(call: Call, table: Table) -> str:
    """The phase of a server's call, by its name and by what its descriptor is."""
    if phase := BY_NAME.get(call.name):
        return phase
    if verb := VERBS.get(call.name):
        place = 2 if call.name == "epoll_ctl" else 0
        kind = table.kind(call.arguments[place] & 0xFFFFFFFF)
        if verb == "close" and kind == "pipe":
            return "collect"
        return BY_DESCRIPTOR.get((verb, kind), "plan")
    return "plan"


# ---- recording -----------------------------------------------------------------------------------


class Event(NamedTuple):
    pid: int
    tid: int
    time_us: float
    name: str
    rest: str


LINE = re.compile(r"\s*(\d+)/(\d+)\s+(\d+)\.(\d{9}):\s+(?:\w+:)?(\w+):?\s+(.*)")
CALL = re.compile(r"NR (\d+) \((.*)\)")
RESULT = re.compile(r"NR (\d+) = (-?\d+)")


def parsed(lines: Iterable[str]) -> Iterator[Event]:
    """Lines of `perf script`: `pid/tid seconds.ns: group:event: rest`, or, without a colon,
    `PERF_RECORD_SWITCH IN` and `OUT`.
    """
    for line in lines:
        if found := LINE.match(line):
            pid, tid, seconds, part, name, rest = found.groups()
            moment = int(seconds) * 1e6 + int(part) / 1e3
            yield Event(int(pid), int(tid), moment, name, rest.strip())


def perf() -> str:
    """The program. Raises Unavailable where it is not there or may not record."""
    program = shutil.which("perf")
    if not program:
        raise tools.Unavailable("there is no `perf` on PATH")
    done = subprocess.run(
        [program, "stat", "-e", "raw_syscalls:sys_enter", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise tools.Unavailable("`perf` may not count system calls here")
    return program


@contextmanager
def recording(program: str, pids: Iterable[int], data: Path) -> Iterator[None]:
    """perf records those processes, and the children that they start, into *data*."""
    with ExitStack() as stack:
        orders_out, orders_in = pipe(stack)
        answers_out, answers_in = pipe(stack)
        log = stack.enter_context(tempfile.TemporaryFile())
        command = [program, "record", "--quiet", "-e", EVENTS, "--switch-events", "-m", "8M"]
        command += ["-o", str(data), "-p", ",".join(map(str, pids))]
        # Begins disabled, so that it is known when it records, and when it has stopped.
        command += ["-D", "-1", "--control", f"fd:{orders_out},{answers_in}"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=(orders_out, answers_in),
        )
        try:
            for order in (b"enable\n", b"disable\n"):
                os.write(orders_in, order)
                answered, _, _ = select.select([answers_out], [], [], 20)
                if not answered or not os.read(answers_out, 16):
                    raise ServerError("perf does not record")
                if order == b"enable\n":
                    yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def pipe(stack: ExitStack) -> tuple[int, int]:
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    stack.callback(os.close, writer)
    return reader, writer


@functools.cache
def call_names() -> dict[int, str]:
    """The numbers of this machine's system calls, as its C compiler knows them."""
    done = subprocess.run(
        [os.environ.get("CC", "cc"), "-E", "-dM", "-include", "asm/unistd.h", "-"],
        input="",
        capture_output=True,
        text=True,
        check=True,
    )
    return {int(n): name for name, n in re.findall(r"#define __NR_(\w+) (\d+)", done.stdout)}


# ---- counting ------------------------------------------------------------------------------------


@dataclass
class Thread:
    """One thread as its events tell it."""

    since: float | None = None  # on a processor since then; None: not on one, or not known
    call: Call | None = None
    phase: str = "user"


@dataclass
class Counts:
    """Sums over all requests."""

    calls: Counter[str] = field(default_factory=Counter)  # by phase
    cpu_us: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # by phase
    switches: Counter[str] = field(default_factory=Counter)  # server and child
    by_name: Counter[str] = field(default_factory=Counter)  # "server read"

    def per_request(self, requests: int) -> Record:
        def each(sums: Mapping[str, float]) -> dict[str, float]:
            return {name: round(sums[name] / requests, 3) for name in sums}

        def phases(sums: Mapping[str, float]) -> dict[str, float]:
            return {name: round(sums.get(name, 0) / requests, 3) for name in PHASES}

        often = Counter({k: n for k, n in self.by_name.items() if n >= requests / 20})
        return {
            "calls": phases(self.calls),
            "cpu_us": phases(self.cpu_us),
            "switches": each(self.switches),
            "by_name": dict(sorted(each(often).items())),
        }


class Counting:
    """Goes through the events of a recording in the order of time."""

    def __init__(self, tables: dict[int, dict[int, Table]], names: Mapping[int, str]) -> None:
        self.counts = Counts()
        self._tables = tables  # of the server's processes; whoever is not there is a child
        self._threads: defaultdict[int, Thread] = defaultdict(Thread)
        self._executed: set[int] = set()
        self._will_execute: set[int] = set()
        self._names = names

    def count(self, events: Sequence[Event]) -> Counts:
        self._will_execute = {e.pid for e in events if e.name == "sched_process_exec"}
        for event in events:
            self._one(event)
        return self.counts

    def _one(self, event: Event) -> None:
        thread = self._threads[event.tid]
        if event.name == "PERF_RECORD_SWITCH" and event.rest.startswith("IN"):
            thread.since = event.time_us
            return
        if thread.since is not None:
            self.counts.cpu_us[thread.phase] += event.time_us - thread.since
        thread.since = event.time_us
        if event.name == "PERF_RECORD_SWITCH":
            thread.since = None
            self.counts.switches["server" if event.pid in self._tables else "child"] += 1
        elif event.name == "sched_process_exec":
            self._executed.add(event.pid)
        elif event.name == "sys_enter" and (found := CALL.match(event.rest)):
            self._enter(event, thread, found)
        elif event.name == "sys_exit" and (found := RESULT.match(event.rest)):
            if thread.call and event.pid in self._tables:
                self._table(event).learn(thread.call, int(found[2]))
            thread.call, thread.phase = None, self._between(event)

    def _enter(self, event: Event, thread: Thread, found: re.Match[str]) -> None:
        name = self._names.get(int(found[1]), found[1])
        thread.call = Call(name, tuple(int(part, 16) for part in found[2].split(", ")))
        if event.pid in self._tables:
            thread.phase = phase_of(thread.call, self._table(event))
        else:
            thread.phase = self._between(event)
        self.counts.calls[thread.phase] += 1
        where = "server" if event.pid in self._tables else thread.phase
        self.counts.by_name[f"{where} {name}"] += 1

    def _table(self, event: Event) -> Table:
        """The thread's; one that came later shares that of the process's first."""
        tables = self._tables[event.pid]
        return tables.get(event.tid) or tables[event.pid]

    def _between(self, event: Event) -> str:
        """The phase of what is computed outside of system calls."""
        if event.pid in self._tables:
            return "user"
        waits = event.pid in self._will_execute and event.pid not in self._executed
        return "exec" if waits else "run"


def tables_of(tree: procs.Tree) -> dict[int, dict[int, Table]]:
    """A table for each thread; threads that have the same descriptors share one."""
    found: dict[int, dict[int, Table]] = {}
    for identity in tree:
        shared: dict[tuple[tuple[int, str], ...], Table] = {}
        tids = found[identity.pid] = {}
        for tid in os.listdir(f"/proc/{identity.pid}/task"):
            table = Table.of_thread(identity.pid, tid)
            key = tuple(sorted(table.kinds.items()))
            tids[int(tid)] = shared.setdefault(key, table)
    return found


# ---- a row ---------------------------------------------------------------------------------------


def measure(name: str, requests: int) -> Record:
    """One launch of one row: *requests* requests at each width."""
    program, row, levels = perf(), server_row(name), {}
    with row.launch() as server:
        load.check_answers(server.port, 300, max(WIDTHS), row.expected)
        for width in WIDTHS:
            levels[str(width)] = _at_width(program, server, row, requests, width)
    return {"requests": requests, "levels": levels}


def _at_width(program: str, server: Server, row: ServerRow, requests: int, width: int) -> Record:
    tree = procs.settled_tree(server.pid)
    server.remember_helpers(tree)
    tables = tables_of(tree)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        with recording(program, tables, data):
            load.check_answers(server.port, requests, width, row.expected)
        fields = ["-F", "pid,tid,time,event,trace", "--ns"]
        fields += ["--show-switch-events", "--show-lost-events"]
        told = subprocess.run(
            [program, "script", "-i", str(data), *fields],
            capture_output=True,
            text=True,
            check=True,
        )
    if "LOST" in told.stdout:
        raise load.LoadError("perf could not write all events")
    events = sorted(parsed(told.stdout.splitlines()), key=lambda event: event.time_us)
    return Counting(tables, call_names()).count(events).per_request(requests)
