"""What a template stopped before, and what a resident left at (``Template.stats``), in words."""

from __future__ import annotations

import signal
from typing import Final

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

_LOOKS: Final = "it looks at its standard streams, a file of the kernel's, or where everyone writes"

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
    "poll": "it waits, or asks what can be read",
    "sysinfo": "it asks how busy the machine is",
    "fstat": _LOOKS,
    "stat": _LOOKS,
    "lstat": _LOOKS,
    "newfstatat": _LOOKS,
    "statx": _LOOKS,
    "access": _LOOKS,
    "readlink": _LOOKS,
    "readlinkat": _LOOKS,
    "madvise": "it keeps memory from its forks, or does the unknown to it",
    "read": "it reads its standard input, or what is no plain file",
    "lseek": "it moves in its standard streams",
    "fcntl": "it asks about its standard streams",
    "openat": "it opens what is no plain file, or opens one to write",
    "open": "it opens what is no plain file, or opens one to write",
    "getdents64": "it lists a directory",
}


_NO_ROOM: Final = "it has no room for more descriptors"
_MEMORY: Final = "it does to memory what is not put back"
_CHILD: Final = "it starts a thread or a process"
_SIGNAL: Final = "it sends a signal, perhaps to itself"
_TIMER: Final = "its timer would go off in another request"
_SETTING: Final = "it changes what cannot be taken back, or not for sure"
_IDENTITY: Final = "it changes who it is"
_GROUP: Final = "it changes its group, session or namespaces"
_LATER: Final = "it may go on after the request"
_UNSEEN: Final = "descriptors may come with it unseen"
_THREAD: Final = "it is about threads"

# By reason, as docs/reset.md has them; what is in none of these is not known.
_LEAVES: Final = {
    name: why
    for why, names in (
        (_CHILD, "clone clone3 fork vfork"),
        ("it becomes another program", "execve execveat"),
        (_SIGNAL, "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal"),
        (_MEMORY, "munmap mremap mprotect madvise mmap brk mlock mlock2 mlockall remap_file_pages"),
        (_TIMER, "alarm setitimer timer_create"),
        (_SETTING, "prctl setrlimit prlimit64 setpriority ioprio_set sched_setaffinity"),
        (_SETTING, "sched_setscheduler sched_setparam sched_setattr personality seccomp"),
        (_IDENTITY, "setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid"),
        (_IDENTITY, "setgroups capset"),
        (_GROUP, "setsid setpgid unshare setns chroot mount umount2 pivot_root"),
        ("it may change a device", "ioctl"),
        ("it changes what others have open, too, or a lock that would stay", "fcntl flock"),
        ("it may open a setting of the process, or a terminal; or has no room", "open openat"),
        ("it may open a setting of the process, or a terminal; or has no room", "openat2 creat"),
        (_NO_ROOM, "dup dup2 dup3 pipe pipe2 socket socketpair accept accept4 memfd_create"),
        (_NO_ROOM, "eventfd eventfd2 timerfd_create epoll_create epoll_create1"),
        (_NO_ROOM, "inotify_init inotify_init1"),
        (_LATER, "io_setup io_submit io_uring_setup io_uring_enter vmsplice sync_file_range"),
        ("it may be sending memory after the request", "sendto sendmsg sendmmsg"),
        (_UNSEEN, "recvmsg recvmmsg signalfd signalfd4 pidfd_open pidfd_getfd"),
        (_THREAD, "futex set_robust_list set_tid_address rseq membarrier arch_prctl"),
    )
    for name in names.split()
}


def name_of(number: int) -> str:
    """A system call's name."""
    if 0 <= number < len(_FIRST):
        return _FIRST[number]
    if 424 <= number < 424 + len(_FROM_424):
        return _FROM_424[number - 424]
    return f"system call {number}"


# csrc/template/snapshot.h
_KINDS: Final = 64
_FAULTS: Final = {
    1: "a clock (vDSO, rdtsc): it reads the time",
    2: "random bytes (AT_RANDOM, RDRAND): it draws a random number",
}

# Which argument is a descriptor, and which a path.
_OF_DESCRIPTOR: Final = {
    *("read write readv writev pread64 pwrite64 preadv pwritev fstat lseek ioctl fcntl").split(),
    *("getdents64 dup dup2 dup3 fsync fdatasync ftruncate flock close sendfile fadvise64").split(),
    *("sendto recvfrom sendmsg recvmsg connect bind listen accept4 epoll_ctl fchdir").split(),
    *("fchmod fchown fstatfs getsockname getsockopt setsockopt").split(),
}
_OF_PATH: Final = {
    **dict.fromkeys("open stat lstat access readlink execve mkdir rmdir unlink chdir".split(), 0),
    **dict.fromkeys("creat chmod chown statfs truncate rename symlink link mknod".split(), 0),
    **dict.fromkeys("openat newfstatat statx faccessat faccessat2 readlinkat".split(), 1),
    **dict.fromkeys("mkdirat unlinkat renameat renameat2 openat2 utimensat execveat".split(), 1),
}


def place_of(value: int) -> tuple[bool, int] | None:
    """Of the call that a template stopped before: whether it is told what by a path, else by a
    descriptor, and by which argument; None: neither, or it is no call."""
    name = "" if value < 0 else name_of(value)
    if name in _OF_PATH:
        return True, _OF_PATH[name]
    return (False, 0) if name in _OF_DESCRIPTOR else None


def stop_of(value: int) -> str:
    """What a template stopped before, in words, from ``stopped_by`` of ``Template.stats``."""
    if value < 0:
        kind, number = divmod(-value, _KINDS)
        return _FAULTS.get(kind) or f"{signal.Signals(number).name}: a fault of its own"
    name = name_of(value)
    return f"{name}(): {_WHY.get(name, 'it is not known to have no effect')}"


def leave_of(value: int) -> str:
    """What a resident left at, in words, from ``left_by`` of ``Template.stats``."""
    if value < 0:
        return "a signal that residents need (SIGSYS), or a system call of a 32-bit program"
    name = name_of(value)
    return f"{name}(): {_LEAVES.get(name, 'it is not known how to undo it')}"
