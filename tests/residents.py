"""The spawner's part of csrc/template/resident.h, played by a test: a template process, its
residents, and their jobs, without an engine."""

from __future__ import annotations

import array
import contextlib
import ctypes
import mmap
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING

import fastspawn
from support import BOUND

if TYPE_CHECKING:
    from typing_extensions import Self

PRELOAD = next(
    os.path.join(fastspawn.__path__[0], name)
    for name in os.listdir(fastspawn.__path__[0])
    if name.startswith("_preload")
)

HELLO, REFUSED, FORKED, CHECKPOINT, GO = range(1, 6)
READY, R_REFUSED, DONE, LEFT = range(1, 5)
MAY_CHECKPOINT, RESIDENT, CHECKED, PLAIN = 1, 2, 4, 8
OWN, NULL = -1, -2
SLOTS, RECORDS = 1024, 256
MAIN, EFFECT, FALLBACK = 0, 1, 2
PARTS = ("same", "memory", "maps", "fds", "state", "settings")
SETPGROUP = 2


class Plan(ctypes.Structure):
    """struct fsp_plan, as csrc/spawn/internal.h has it."""

    _fields_ = [
        ("refs", ctypes.c_uint),
        ("size", ctypes.c_size_t),
        ("file", ctypes.c_uint64),
        ("search", ctypes.c_uint64),
        ("argv", ctypes.c_uint64),
        ("envp", ctypes.c_uint64),
        ("cwd", ctypes.c_uint64),
        ("cgroup", ctypes.c_uint64),
        ("keep", ctypes.c_uint64),
        ("nkeep", ctypes.c_size_t),
        ("rlimits", ctypes.c_uint64),
        ("nrlimits", ctypes.c_size_t),
        ("groups", ctypes.c_uint64),
        ("ngroups", ctypes.c_size_t),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("umask", ctypes.c_int),
        ("pgroup", ctypes.c_int),
        ("death_signal", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("set_groups", ctypes.c_bool),
    ]


PLAN_AT = 0x10000
PLAN_FROM = Plan.size.offset
NO_ID = 0xFFFFFFFF


def plan(argv: Sequence[str], env: Mapping[str, str]) -> bytes:
    """What follows a request: the plan from its size on, its pointers as if it lay at PLAN_AT."""
    strings = bytearray()
    lists: list[list[int]] = []
    words = len(argv) + len(env) + 2
    at = PLAN_AT + ctypes.sizeof(Plan) + 8 * words
    for row in (list(argv), [f"{name}={value}" for name, value in env.items()]):
        lists.append([])
        for word in row:
            lists[-1].append(at + len(strings))
            strings += os.fsencode(word) + b"\0"
        lists[-1].append(0)
    head = Plan(
        file=lists[0][0],
        argv=PLAN_AT + ctypes.sizeof(Plan),
        envp=PLAN_AT + ctypes.sizeof(Plan) + 8 * len(lists[0]),
        uid=NO_ID,
        gid=NO_ID,
        umask=-1,
    )
    head.size = ctypes.sizeof(Plan) + 8 * words + len(strings)
    tables = array.array("Q", lists[0] + lists[1]).tobytes()
    return (bytes(head) + tables + bytes(strings))[PLAN_FROM:]


def send(to: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    to.sendmsg([data], rights)


def receive(by: socket.socket, timeout: float = BOUND) -> tuple[bytes, list[int]]:
    """b"": there is nobody any more."""
    by.settimeout(timeout)
    try:
        data, rights, _, _ = by.recvmsg(1 << 17, socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", []
    fds = array.array("i")
    for _, _, content in rights:
        fds.frombytes(content)
    return data, list(fds)


@dataclass
class Reply:
    kind: int
    version: int
    number: int
    value: int
    calls: int
    pages: int
    restore_ns: int
    scans: int
    differs: int
    where: int


@dataclass
class Record:
    begun: int
    done: int
    left: int
    status: int
    user: int
    system: int


@dataclass
class Outcome:
    code: int
    """Exit status, or -signal."""
    stdout: bytes
    stderr: bytes
    left: int | None
    """The call before which it left."""
    died: bool
    reply: Reply | None


RECORD_SIZE = 24 + 8 + 2 * 72
RECORD_AT = SLOTS * 16 + 8 + 6 * 8
"""Of struct fsp_snap_page: behind its slots, in_main and stop_arg."""
PAGE_SIZE = RECORD_AT + RECORDS * RECORD_SIZE


class Page:
    def __init__(self) -> None:
        self.fd = os.memfd_create("page")
        os.ftruncate(self.fd, PAGE_SIZE)
        self.memory = mmap.mmap(self.fd, PAGE_SIZE)
        self.slots = self.records = 0

    def pid(self, slot: int) -> int:
        return int(struct.unpack_from("i", self.memory, slot * 16)[0])

    def record(self, i: int) -> Record:
        at = RECORD_AT + i * RECORD_SIZE
        begun, done, left, status, _, user, system = struct.unpack_from("QQQiiqq", self.memory, at)
        return Record(begun, done, left, status, user, system)

    def close(self) -> None:
        self.memory.close()
        os.close(self.fd)


class Template:
    """A process of a template, as csrc/template/launch.c starts one."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        effect: int = EFFECT,
        checkpoint: bool = False,
    ) -> None:
        self.argv, self.env = list(argv), dict(os.environ if env is None else env)
        self.page, self.told = Page(), b""
        self.pids: list[int] = []
        self.residents: list[Resident] = []
        self.early: list[tuple[bytes, list[int]]] = []
        """What came before the answer to a request: its fork may be quicker than the process."""
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        library = os.open(PRELOAD, os.O_RDONLY)
        variables = f"{theirs.fileno()},{self.page.fd},{library},{len(argv)},{effect}"
        env = self.env | {
            "LD_PRELOAD": f"/proc/self/fd/{library}",
            "FASTSPAWN_SNAPSHOT": variables,
        }
        self.process = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), self.page.fd, library],
            start_new_session=True,
        )
        theirs.close()
        os.close(library)
        try:
            data, _ = receive(self.socket)
            self.kind, self.version, self.calls, self.value = struct.unpack_from("IIIi", data)
            if self.kind == HELLO and checkpoint:
                self._reach_checkpoint()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.__exit__(None, None, None)
            raise

    def request(self, flags: int, fds: Sequence[int], where: Sequence[int]) -> int:
        """The pid of the fork."""
        slot = self.page.slots
        self.page.slots += 1
        content = plan(self.argv, self.env)
        more = b"" if content == self.told else content
        size = len(more) + PLAN_FROM if more else 0
        head = struct.pack("II3iiiIQQ", slot, flags, *where, os.getpgrp(), 0, size, PLAN_AT, 0)
        self.told = content
        send(self.socket, head + more, fds)
        while True:
            data, got = receive(self.socket)
            if not data:
                raise RuntimeError("the template has ended")
            kind, _, _, _value = struct.unpack_from("IIIi", data)
            if kind == FORKED:
                pid = self.page.pid(slot)
                self.pids.append(pid)
                return pid
            self.early.append((data, got))

    def _reach_checkpoint(self) -> None:
        """One fork runs up to it, and is the template then."""
        (out, theirs), (err, errors) = os.pipe(), os.pipe()
        first = self.request(MAY_CHECKPOINT, [theirs, errors], [OWN, 0, 1])
        os.close(theirs)
        os.close(errors)
        data, got = self.early.pop() if self.early else receive(self.socket)
        kind, _, _, value = struct.unpack_from("IIIi", data)
        if kind != CHECKPOINT or value:
            raise RuntimeError(f"no checkpoint: {kind} {value}")
        new, page = socket.socket(fileno=got[0]), Page()
        send(new, struct.pack("IIIi", GO, self.version, 0, 1), [page.fd, 2])
        data, _ = receive(new)  # its own request goes on in a fork
        assert struct.unpack_from("I", data)[0] == FORKED
        os.waitpid(page.pid(0), 0)
        page.slots = 1
        drain([out, err])
        self.socket.close()
        self.page.close()
        self.socket, self.page, self.told = new, page, b""
        self.process.wait()
        self.pids = [first]

    def resident(self, flags: int = 0, *, told: bool = False) -> Resident:
        self.residents.append(Resident(self, flags, told=told))
        return self.residents[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for resident in self.residents:
            resident.close()
        self.socket.close()
        self.process.wait()
        self.page.close()
        for _, got in self.early:
            for fd in got:
                os.close(fd)
        with contextlib.suppress(ChildProcessError):
            while self.pids:
                os.waitpid(self.pids.pop(), 0)


def drain(fds: Sequence[int]) -> list[bytes]:
    content = {fd: bytearray() for fd in fds}
    open_fds = set(fds)
    while open_fds:
        ready = select.select(list(open_fds), [], [], BOUND)[0]
        if not ready:
            raise TimeoutError("somebody still has the other end")
        for fd in ready:
            data = os.read(fd, 1 << 16)
            content[fd] += data
            if not data:
                open_fds.discard(fd)
                os.close(fd)
    return [bytes(content[fd]) for fd in fds]


class Resident:
    """`told`: with each job its own arguments and environment."""

    def __init__(self, template: Template, flags: int, *, told: bool) -> None:
        self.template, self.told = template, told
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.index = template.page.records
        template.page.records += 1
        self.number = 0
        self.pid = template.request(RESIDENT | flags, [theirs.fileno()], [0, self.index, OWN])
        theirs.close()
        self.ready = self.hear()
        self.ended = self.ready is None or self.ready.kind != READY

    @property
    def record(self) -> Record:
        return self.template.page.record(self.index)

    def hear(self) -> Reply | None:
        data, _ = receive(self.socket)
        return Reply(*struct.unpack("IIQiIIIIIQ", data)) if data else None

    def send(self, fds: Sequence[int], where: Sequence[int], plan: bytes = b"") -> None:
        """A job: `where` is what 0 to 2 are."""
        self.number += 1
        size = len(plan) + PLAN_FROM if plan else 0
        head = struct.pack("Q3iIQ", self.number, *where, size, PLAN_AT)
        with contextlib.suppress(BrokenPipeError):  # it has gone: what follows tells
            send(self.socket, head + plan, fds)

    def begin(
        self,
        stdin: int = NULL,
        argv: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> list[int]:
        """What its output comes from: stdout and stderr."""
        out, err = os.pipe(), os.pipe()
        fds = [out[1], err[1]] + ([stdin] if stdin >= 0 else [])
        more = b""
        if self.told:
            more = plan(argv or self.template.argv, self.template.env if env is None else env)
        self.send(fds, [2 if stdin >= 0 else stdin, 0, 1], more)
        os.close(out[1])
        os.close(err[1])
        return [out[0], err[0]]

    def run(
        self,
        stdin: bytes | None = None,
        argv: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Outcome:
        source = NULL
        if stdin is not None:
            source, to = os.pipe()
            os.write(to, stdin)  # what a pipe holds
            os.close(to)
        outputs = self.begin(source, argv, env)
        if source >= 0:
            os.close(source)
        return self.end(outputs)

    def end(self, outputs: Sequence[int]) -> Outcome:
        stdout, stderr = drain(outputs)
        reply = self.hear()
        if reply and reply.kind == DONE:
            return Outcome(reply.value, stdout, stderr, None, False, reply)
        self.ended = True
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.template.pids.remove(self.pid)
        left = reply.value if reply and reply.kind == LEFT else None
        return Outcome(status, stdout, stderr, left, left is None, reply)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# ---- what tests ask ------------------------------------------------------------------------------


@cache
def can_reset() -> bool:
    """Linux 5.11 on x86-64; there is no telling but by trying, as seccomp may forbid it."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    if platform.machine() != "x86_64":
        return False
    with Template(["true"]) as template, template.resident() as resident:
        return not resident.ended


def same(outcome: Outcome) -> None:
    """All was put back, says a checked resident."""
    reply = outcome.reply
    assert reply is not None, outcome
    assert reply.differs == 0, (PARTS[reply.differs], hex(reply.where))


def by_exec(command: Sequence[str], stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    """With the environment in the order that a template gives it."""
    done = subprocess.run(command, input=stdin, capture_output=True, env=dict(os.environ))
    return done.returncode, done.stdout, done.stderr


def answer(outcome: Outcome) -> tuple[int, bytes, bytes]:
    return outcome.code, outcome.stdout, outcome.stderr
