"""What /proc says of a process's children: a template's processes, residents, jobs."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Union


@dataclass
class Child:
    pid: int
    state: str
    kind: str
    """template, resident, busy (a resident that serves), worker (of a pool) or other"""
    program: str
    rss: int
    """KB"""
    pss: int
    anon: int
    """of its PSS, what is no file's: those are shared with whoever else has them mapped"""


Pid = Union[int, Literal["self"]]  # noqa: UP007 - 3.10


def children(of: Pid = "self") -> list[int]:
    """Of any thread; those that nobody has waited for as well."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{of}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def below(of: Pid = "self") -> list[int]:
    """Children, and theirs."""
    found = children(of)
    for pid in found:
        found += children(pid)
    return found


def state_of(pid: int) -> str:
    """R, S, Z ...; "" of one that has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


OWN = 512
"""From here on are descriptors that are not the program's."""


def kind_of(pid: int) -> str:
    """Both have a socket, by which they wait; that of a resident is out of its program's way."""
    try:
        fds = [int(fd) for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return "other"
    if os.path.basename(program_of(pid)) == "_worker":
        return "worker"
    sockets = [fd for fd in fds if fd > 2 and link(pid, fd).startswith("socket:")]
    if any(fd >= OWN for fd in sockets):
        return "resident" if link(pid, 0) == "/dev/null" else "busy"
    return "template" if sockets and state_of(pid) in {"S", "T"} else "other"


def program_of(pid: int) -> str:
    """ "" of one that has gone."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def link(pid: int, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""


def look_at(pid: int) -> Child | None:
    """None: it has gone."""
    state, memory = state_of(pid), ""
    if not state:
        return None
    with contextlib.suppress(OSError):  # of a zombie
        memory = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = [re.search(rf"^{name}: +(\d+)", memory, re.M) for name in ("Rss", "Pss", "Pss_Anon")]
    rss, pss, anon = [int(size[1]) if size else 0 for size in sizes]
    return Child(pid, state, kind_of(pid), program_of(pid), rss, pss, anon)


def descriptors(of: Pid = "self") -> int:
    """Of all threads: spawners have tables of their own."""
    found = 0
    for task in Path(f"/proc/{of}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += len(os.listdir(task / "fd"))
    return found


def threads(of: Pid = "self") -> int:
    return len(os.listdir(f"/proc/{of}/task"))


def command_of(pid: Pid) -> bytes:
    """b"" of one that has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def find(kind: str, first: Iterable[int], choose: random.Random, of: Pid = "self") -> int | None:
    """The pidfd of such a child, of one of `first` if those are there."""
    pids, own = below(of), command_of(of)
    choose.shuffle(pids)
    for pid in [pid for pid in first if pid in pids] + pids:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        if kind_of(pid) == kind and command_of(pid) != own:  # it is executed already
            return pidfd
        os.close(pidfd)
    return None


def strike(pidfd: int, number: int) -> bool:
    """False: it had gone."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True
