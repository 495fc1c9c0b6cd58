"""``python -m fastspawn.snapshot explain -- CMD ARG...``: how far a program runs alike.

Starts the program as a template that stops before its first effect, and prints what it had done by
then, what stopped it, what it came from, and what a request costs by exec, from main, and from
there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from fastspawn._program import why_not_template
from fastspawn.command import Command
from fastspawn.engine import Engine
from fastspawn.result import Result
from fastspawn.template import _REASONS, Template, TemplateError, _preload

# csrc/snapshot.h
_PAGE: Final = 1 << 16
_HELLO, _REFUSED = 1, 2
_REPLY: Final = struct.Struct("=IIIi")
_INPUT: Final = struct.Struct("=QQQqqII")


# ---- what stopped it ----

# Names of system calls on x86-64 by number (syscall_64.tbl of Linux): 0 to 334, and from 424 on.
_FIRST: Final = """
    read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction
    rt_sigprocmask rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select
    sched_yield mremap msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep
    getitimer alarm setitimer getpid sendfile socket connect accept sendto recvfrom sendmsg
    recvmsg shutdown bind listen getsockname getpeername socketpair setsockopt getsockopt clone
    fork vfork execve exit wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv
    msgctl fcntl flock fsync fdatasync truncate ftruncate getdents getcwd chdir fchdir rename
    mkdir rmdir creat link unlink symlink readlink chmod fchmod chown fchown lchown umask
    gettimeofday getrlimit getrusage sysinfo times ptrace getuid syslog getgid setuid setgid
    geteuid getegid setpgid getppid getpgrp setsid setreuid setregid getgroups setgroups
    setresuid getresuid setresgid getresgid getpgid setfsuid setfsgid getsid capget capset
    rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime mknod uselib
    personality ustat statfs fstatfs sysfs getpriority setpriority sched_setparam sched_getparam
    sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min
    sched_rr_get_interval mlock munlock mlockall munlockall vhangup modify_ldt pivot_root
    _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct settimeofday mount umount2
    swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module
    delete_module get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall
    tuxcall security gettid readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr
    listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr tkill time futex
    sched_setaffinity sched_getaffinity set_thread_area io_setup io_destroy io_getevents
    io_submit io_cancel get_thread_area lookup_dcookie epoll_create epoll_ctl_old epoll_wait_old
    remap_file_pages getdents64 set_tid_address restart_syscall semtimedop fadvise64
    timer_create timer_settime timer_gettime timer_getoverrun timer_delete clock_settime
    clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes
    vserver mbind set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive
    mq_notify mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get
    inotify_init inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat
    fchownat futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat
    faccessat pselect6 ppoll unshare set_robust_list get_robust_list splice tee sync_file_range
    vmsplice move_pages utimensat epoll_pwait signalfd timerfd_create eventfd fallocate
    timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2
    inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open recvmmsg fanotify_init
    fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg
    setns getcpu process_vm_readv process_vm_writev kcmp finit_module sched_setattr
    sched_getattr renameat2 seccomp getrandom memfd_create kexec_file_load bpf execveat
    userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc
    pkey_free statx io_pgetevents rseq
""".split()
_FROM_424: Final = """
    pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount
    fsopen fsconfig fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2
    process_madvise epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset
    landlock_add_rule landlock_restrict_self memfd_secret process_mrelease futex_waitv
    set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait
    futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal
    setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr
""".split()

_WHY: Final = {
    "write": "it writes",
    "writev": "it writes",
    "pwrite64": "it writes",
    "sendfile": "it writes",
    "copy_file_range": "it writes",
    "getrandom": "it asks for random numbers",
    "clock_gettime": "it reads a clock",
    "gettimeofday": "it reads a clock",
    "time": "it reads a clock",
    "getpid": "it asks who it is",
    "getppid": "it asks who it is",
    "gettid": "it asks who it is",
    "getpgrp": "it asks who it is",
    "getpgid": "it asks who it is",
    "getsid": "it asks who it is",
    "getcwd": "it asks where it is",
    "chdir": "it goes elsewhere",
    "clone": "it starts a thread or a process",
    "clone3": "it starts a thread or a process",
    "fork": "it starts a process",
    "vfork": "it starts a process",
    "execve": "it becomes another program",
    "exit_group": "it ends",
    "socket": "it opens a socket",
    "ioctl": "it asks a device",
    "fstat": "it looks at its standard streams, or at a file of the kernel's",
    "newfstatat": "it looks at its standard streams, or at a file of the kernel's",
    "read": "it reads its standard input, or what is no plain file",
    "lseek": "it moves in its standard streams",
    "fcntl": "it asks about its standard streams",
    "openat": "it opens what is no plain file, or opens one to write",
    "open": "it opens what is no plain file, or opens one to write",
    "getdents64": "it lists a directory",
}


def _name(number: int) -> str:
    if 0 <= number < len(_FIRST):
        return _FIRST[number]
    if 424 <= number < 424 + len(_FROM_424):
        return _FROM_424[number - 424]
    return f"system call {number}"


def stop_of(value: int) -> str:
    """What a template stopped before, in words, from ``stopped_by`` of ``Template.stats``."""
    if value < 0:
        return "a clock (vDSO, rdtsc) or a fault of its own"
    name = _name(value)
    return f"{name}(): {_WHY.get(name, 'it is not known to have no effect')}"


# ---- a template process of our own ----


def _files(data: bytes) -> list[tuple[str, bool]]:
    """The inputs that a template process tells of: path, and whether it was there."""
    files, at = [], 0
    while at + _INPUT.size <= len(data):
        _, inode, _, _, _, size, _ = _INPUT.unpack_from(data, at)
        start = at + _INPUT.size
        files.append((os.fsdecode(data[start : start + size - 1]), inode != 0))
        at += (_INPUT.size + size + 7) & ~7
    return files


def _greeting(argv: Sequence[str], timeout: float) -> bytes:
    """Let the program run to its first effect, and end it there."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    page, library = os.memfd_create("fastspawn"), os.open(_preload(), os.O_RDONLY)
    os.ftruncate(page, _PAGE)
    fds = (theirs.fileno(), page, library)
    env = {
        **os.environ,
        "LD_PRELOAD": f"/proc/self/fd/{library}",
        "FASTSPAWN_SNAPSHOT": ",".join(map(str, (*fds, len(argv), 1))),
    }
    with (
        ours,
        subprocess.Popen(
            argv, env=env, pass_fds=fds, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as process,
    ):
        theirs.close()
        os.close(page)
        os.close(library)
        ours.settimeout(timeout)
        try:
            return ours.recv(1 << 17)
        except TimeoutError:
            return b""
        finally:
            process.kill()


# ---- what a request costs ----


async def _cost(run: Callable[[], Awaitable[Result]], rounds: int) -> tuple[float, float]:
    start, cpu = time.perf_counter(), 0.0
    for _ in range(rounds):
        usage = (await run()).rusage
        cpu += usage.ru_utime + usage.ru_stime
    return (time.perf_counter() - start) / rounds, cpu / rounds


async def _costs(command: Command, rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds for a run, one after the other, and of the processor in it; the best of three rounds
    of each, in turn."""
    costs: dict[str, tuple[float, float]] = {}
    async with (
        Engine(1) as engine,
        Template(command, size=1, at="main") as main,
        Template(command, size=1, at="effect") as effect,
    ):
        ways = {
            "exec": lambda: engine.run(command),
            "fork at main": main.run,
            "fork at the first effect": effect.run,
        }
        for _ in range(3):
            for name, run in ways.items():
                cost = await _cost(run, rounds)
                costs[name] = min(cost, costs.get(name, cost))
    return costs


# ---- the command ----


def _say(text: str = "") -> None:
    print(text)  # noqa: T201


def _say_files(title: str, paths: list[str]) -> None:
    _say(f"{title} ({len(paths)}):")
    for path in paths:
        _say(f"  {path}")


def _explain(argv: list[str], rounds: int, timeout: float) -> int:
    path = shutil.which(argv[0])
    if path is None:
        _say(f"fastspawn.snapshot: {argv[0]}: no such program")
        return 2
    reason = why_not_template(path)
    if reason is not None:
        _say(f"no template: {reason}")
        return 1
    data = _greeting(argv, timeout)
    if len(data) < _REPLY.size:
        _say(f"no stop before an effect: it ended, or ran for more than {timeout:g} s")
        return 1
    kind, _, calls, value = _REPLY.unpack_from(data)
    if kind != _HELLO:
        _say(f"no stop before an effect: {_REASONS.get(value, 'refused')}")
        return 1
    files = _files(data[_REPLY.size :])
    _say(f"runs alike for {calls - 1} system calls, and stops before")
    _say(f"  {stop_of(value)}")
    _say_files("came from", [name for name, there in files if there])
    _say_files("looked for, and did not find", [name for name, there in files if not there])
    if rounds:
        _say(
            "a request, one after the other, in microseconds (its process's CPU time in brackets):"
        )
        command = Command(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name, (wall, cpu) in asyncio.run(_costs(command, rounds)).items():
            _say(f"  {wall * 1e6:8.0f} ({cpu * 1e6:.0f})  {name}")
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 if the program cannot be stopped there, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m fastspawn.snapshot", description=__doc__.partition("\n\n")[2]
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    explain = commands.add_parser("explain", help="how far a program runs alike, and what for")
    explain.add_argument(
        "--rounds", type=int, default=200, metavar="N", help="runs to time (default: 200; 0: none)"
    )
    explain.add_argument(
        "--timeout", type=float, default=5.0, metavar="SECONDS", help="to its stop (default: 5)"
    )
    explain.add_argument("argv", nargs="+", metavar="CMD", help="the program and its arguments")
    options = parser.parse_args(args)
    try:
        return _explain(options.argv, options.rounds, options.timeout)
    except (OSError, TemplateError) as error:
        _say(f"fastspawn.snapshot: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
