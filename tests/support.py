"""What the tests ask the system about: descriptors, children, threads."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import inspect
import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from fastspawn import Result, Template, _core
from soak.processes import children as children_of

BOUND = 45.0
"""Seconds after which something that has not happened never will, however busy the machine. What is
to be ended before its time takes 60."""

CHILDREN = Path(__file__).parent / "children"
"""Small programs to run."""

LINUX = sys.platform == "linux"


def often(times: int, long: int) -> int:
    """How often, or how many: the second with LONG=1, as `make reliability ROW=17 LONG=1` has it.
    Such a run may take an hour."""
    return long if os.environ.get("LONG") else times


@functools.cache
def remembers() -> bool:
    """Does a pidfd tell the status of a process that was reaped (PIDFD_GET_INFO, Linux 6.15)?

    Then statuses that someone else took are known all the same.
    """
    if not hasattr(os, "pidfd_open"):
        return False
    process = subprocess.Popen(sh("read go; exit 7"), stdin=subprocess.PIPE)
    info = bytearray(64)
    struct.pack_into("Q", info, 0, 8)
    pidfd = os.pidfd_open(process.pid)
    try:
        process.communicate()
        fcntl.ioctl(pidfd, 0xC040FF0B, info)
    except OSError:
        return False
    finally:
        os.close(pidfd)
    return bool(info[0] & 8) and struct.unpack_from("i", info, 60)[0] == 7 << 8


def remembers_at_once() -> bool:
    """Also those of children that may have gone before a backend asked for their pidfds."""
    return remembers() and _core.backend() in ("clone3", "clone", "fork")


@contextlib.contextmanager
def sigchld_ignored() -> Iterator[None]:
    """The kernel reaps every child; conftest finds those that are left."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def poll(condition: Callable[[], object], what: str, bound: float = BOUND) -> None:
    """Wait, without an event loop, until ``condition`` holds."""
    end = time.monotonic() + bound
    while not condition():
        assert time.monotonic() < end, f"not within {bound} s: {what}"
        time.sleep(0.005)


def listens(path: Path) -> bool:
    """A socket is there before it listens: bind(2) makes it, and until listen(2) it refuses."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


async def async_poll(condition: Callable[[], object], what: str, bound: float = BOUND) -> None:
    """Wait, on the event loop, until ``condition`` holds; it may be a coroutine function."""
    end = time.monotonic() + bound
    while True:
        held = condition()
        if inspect.isawaitable(held):
            held = await held
        if held:
            return
        assert time.monotonic() < end, f"not within {bound} s: {what}"
        await asyncio.sleep(0.005)


def longer_times(first: float = 0.1) -> Iterator[float]:
    """Seconds, more each time, for a deadline that is to come after something that another process
    has to do first, and that only its end shows: try until it shows. What does not show even with
    the last one is missing."""
    seconds = first
    while seconds < BOUND:
        yield seconds
        seconds *= 2


def past_files() -> None:
    """Wait until nothing that has been written so far can look newer than what starts now: the
    time of a file's change moves in ticks."""
    if LINUX:
        before = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
        poll(lambda: time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) > before, "a tick")


_CLOCK_REALTIME_COARSE = 5


async def at_checkpoint(template: Template, run: Callable[[], Awaitable[Result]]) -> Result:
    """The answer of the first run of ``template`` that becomes a template at its checkpoint.

    One that is there before its spawner has heard of it, as on a busy machine, goes on as a plain
    process.
    """
    for _ in range(100):
        result = await run()
        if template.stats["checkpoints"]:
            return result
        assert template.no_checkpoint is None
    raise AssertionError(f"none came to its checkpoint: {result}")


def failure(call: Callable[[], object]) -> Exception:
    """What it raises."""
    try:
        call()
    except Exception as exc:
        return exc
    raise AssertionError("it succeeded")


async def async_failure(awaitable: Awaitable[object]) -> Exception:
    """What it raises."""
    try:
        await awaitable
    except Exception as exc:
        return exc
    raise AssertionError("it succeeded")


def script(name: str, *args: object) -> list[str]:
    """The command line of a program in tests/children."""
    return [sys.executable, str(CHILDREN / name), *map(str, args)]


def sh(text: str, *args: object) -> list[str]:
    """A shell command line."""
    return ["sh", "-c", text, "sh", *map(str, args)]


_old_times = itertools.count(1_000_000_000)


def age(*directories: Path) -> None:
    """Let them look long unchanged, so that what is found in them is remembered."""
    for directory in directories:
        os.utime(directory, (0, next(_old_times)))


def run_script(name: str, *args: object, **options: Any) -> str:
    """Run a program of tests/children that must succeed, in time; returns what it prints."""
    done = subprocess.run(
        script(name, *args),
        capture_output=True,
        timeout=often(240, 7200),
        text=True,
        **options,
    )
    assert done.returncode == 0, f"{name} ended with {done.returncode}:\n{done.stderr}"
    assert done.stderr == "", done.stderr
    return str(done.stdout)


def is_alive(pid: int) -> bool:
    """A zombie is not."""
    if LINUX:
        try:
            return _name_and_state(pid)[1] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return False
    state = _ps("-o", "stat=", "-p", str(pid)).strip()
    return bool(state) and not state.startswith("Z")


async def gone(*pids: int) -> None:
    """Wait until none of them lives."""
    await async_poll(lambda: not any(map(is_alive, pids)), f"of {pids}, all have ended")


def _ps(*options: str) -> str:
    return subprocess.check_output(["ps", *options], text=True)


def _target(fd: int) -> str:
    if LINUX:
        return os.readlink(f"/proc/self/fd/{fd}")
    status = os.fstat(fd)
    return f"mode {status.st_mode:o}, device {status.st_dev}, inode {status.st_ino}"


def open_fds() -> dict[int, str]:
    """Each open descriptor and what it is."""
    fds = {}
    for name in os.listdir("/proc/self/fd" if LINUX else "/dev/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            fds[int(name)] = _target(int(name))
    return fds


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


KNOWS_CHILDREN = Path(f"/proc/self/task/{os.getpid()}/children").exists()
"""proc(5): since Linux 3.5, where it was built with CONFIG_PROC_CHILDREN."""


def own_children() -> dict[int, str]:
    """Name and state of each child of this process, zombies included."""
    if hasattr(os, "waitid") and not _has_children():
        return {}
    return _children_by_proc() if KNOWS_CHILDREN else _children_by_ps()


def _children_by_proc() -> dict[int, str]:
    found = {}
    for pid in children_of():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it was just reaped
            name, state = _name_and_state(pid)
            found[pid] = f"{name} (state {state})"
    return found


def _name_and_state(pid: int) -> tuple[str, str]:
    stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return name, rest.split()[0]


def _children_by_ps() -> dict[int, str]:
    me = str(os.getpid())
    rows = [line.split(None, 3) for line in _ps("-A", "-o", "pid=,ppid=,stat=,comm=").splitlines()]
    return {
        int(pid): f"{name} (state {state})"
        for pid, parent, state, name in rows
        if parent == me and name.rpartition("/")[2] != "ps"
    }


def own_threads() -> dict[int, str]:
    """Each thread of this process, Python's or not."""
    if not LINUX:
        return {thread.native_id or 0: thread.name for thread in threading.enumerate()}
    threads = {}
    for tid in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            threads[int(tid)] = Path(f"/proc/self/task/{tid}/comm").read_text().strip()
    return threads


def own_policy() -> int | None:
    """How the calling thread is scheduled (sched(7)), where that can be asked for."""
    try:
        return os.sched_getscheduler(0)
    except (AttributeError, OSError):
        return None


def policies(pid: int) -> dict[int, int]:
    """How each thread of a process is scheduled: the number of sched(7), by proc(5)."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            stat = (task / "stat").read_text()
            found[int(task.name)] = int(stat.rpartition(")")[2].split()[38])
    return found


def seen_of_os_error(error: OSError) -> tuple[object, ...]:
    """What a program sees of it.

    Where 3.13's standard library uses posix_spawn it names a path-like program as a string, and
    elsewhere as it was given.
    """
    name = os.fspath(error.filename) if isinstance(error.filename, os.PathLike) else error.filename
    return type(error), error.errno, error.strerror, name, error.filename2


def same_error(error: Exception, expected: Exception) -> bool:
    """The same to whoever handles it, or an AssertionError that tells the difference."""

    def seen(exc: Exception) -> tuple[object, ...]:
        return seen_of_os_error(exc) if isinstance(exc, OSError) else (type(exc), exc.args)

    assert seen(error) == seen(expected)
    return True


def foreign_link(link: Path, target: Path) -> None:
    """A link to a program whose owner is another than the link's: ``target``, or, where no file
    can be given away, one of the system's."""
    link.symlink_to(target if os.geteuid() == 0 else "/bin/sh")
    if os.geteuid() == 0:
        os.lchown(link, 12345, 12345)
