"""What is asked of the kernel, each made once with the arguments that the package uses.

Each function returns if the kernel does it, and raises OSError if it does not. To be called in a
child (``_trial.py``): a filter may end who asks, and what is set stays so.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import struct
from collections.abc import Callable
from typing import Any, Final

from fastspawn._trial import attempt

X86_64: Final = platform.machine() == "x86_64"

_libc: Final = ctypes.CDLL(None, use_errno=True)
_USERFAULTFD: Final = 323 if X86_64 else 282
_PIDFD_SEND_SIGNAL, _PIDFD_OPEN, _CLOSE_RANGE, _OPENAT2 = 424, 434, 436, 437
"""The same numbers on every architecture."""
_PAGE: Final = mmap.PAGESIZE


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _call(number: int, *args: Any) -> int:
    """syscall(2): -1 and errno."""
    words = [each if isinstance(each, ctypes._Pointer) else ctypes.c_long(each) for each in args]
    return _checked(_libc.syscall(ctypes.c_long(number), *words))


def _prctl(option: int, *args: int) -> None:
    words = [ctypes.c_ulong(each) for each in (*args, 0, 0, 0, 0)[:4]]
    _checked(_libc.prctl(ctypes.c_int(option), *words))


def pidfd_open() -> int:
    return _call(_PIDFD_OPEN, os.getpid(), 0)


def pidfd() -> None:
    _call(_PIDFD_SEND_SIGNAL, pidfd_open(), 0, 0, 0)


def close_range() -> None:
    """As a spawner does it, and a resident."""
    _call(_CLOSE_RANGE, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    _call(_CLOSE_RANGE, 1 << 20, 0xFFFFFFFF, 2)  # CLOSE_RANGE_UNSHARE


def memfd() -> None:
    os.ftruncate(os.memfd_create("fastspawn"), _PAGE)


def proc() -> None:
    for name in ("maps", "pagemap"):
        with open(f"/proc/self/{name}", "rb", buffering=0) as file:
            file.read(8)


def tid_address() -> None:
    address = ctypes.c_void_p()
    _prctl(40, ctypes.addressof(address))  # PR_GET_TID_ADDRESS


def dispatch() -> None:
    """With a selector that allows all."""
    selector = ctypes.c_char(0)
    _prctl(59, 1, 0, 0, ctypes.addressof(selector))  # PR_SET_SYSCALL_USER_DISPATCH
    _prctl(59, 0)


def tsc() -> None:
    _prctl(26, 1)  # PR_SET_TSC, PR_TSC_ENABLE: trapped, this process could not read its clock


def openat2() -> None:
    path, how = ctypes.create_string_buffer(b"/"), (ctypes.c_uint64 * 3)(os.O_RDONLY)
    _call(_OPENAT2, -100, ctypes.addressof(path), ctypes.addressof(how), ctypes.sizeof(how))


def read_own_memory() -> None:
    source, target = ctypes.create_string_buffer(b"x"), ctypes.create_string_buffer(1)
    ours, theirs = ((ctypes.c_size_t * 2)(ctypes.addressof(b), 1) for b in (target, source))
    call = _libc.process_vm_readv
    pair = (ctypes.c_void_p, ctypes.c_ulong)
    call.argtypes = [ctypes.c_int, *pair, *pair, ctypes.c_ulong]
    _checked(call(os.getpid(), ours, 1, theirs, 1, 0))


def _watched_page() -> tuple[mmap.mmap, int]:
    """A page that is write-protected, and where; csrc/guest/pages.c does that to a program's."""
    fd = _call(_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK | 1)  # UFFD_USER_MODE_ONLY
    # UFFD_API, UFFD_FEATURE_WP_ASYNC and _WP_UNPOPULATED
    fcntl.ioctl(fd, 0xC018AA3F, struct.pack("QQQ", 0xAA, 1 << 15 | 1 << 13, 0))
    page = mmap.mmap(-1, _PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    at = ctypes.addressof(ctypes.c_char.from_buffer(page))
    fcntl.ioctl(fd, 0xC020AA00, struct.pack("QQQQ", at, _PAGE, 2, 0))  # UFFDIO_REGISTER
    fcntl.ioctl(fd, 0xC018AA06, struct.pack("QQQ", at, _PAGE, 1))  # UFFDIO_WRITEPROTECT
    return page, at


def userfaultfd() -> None:
    page, _ = _watched_page()
    page[0] = 1  # and goes on at once, since it is asynchronous


def pagemap_scan() -> None:
    at, size = 0, _PAGE
    try:
        page, at = _watched_page()
    except OSError:
        page = mmap.mmap(-1, _PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        at = ctypes.addressof(ctypes.c_char.from_buffer(page))
    page[0] = 1
    found = (ctypes.c_uint64 * 3)()
    present = 1 << 3
    what = (96, 0, at, at + size, 0, ctypes.addressof(found), 1, 0, 0, present, 0, present)
    with open("/proc/self/pagemap", "rb") as pagemap:
        if fcntl.ioctl(pagemap, 0xC0606610, bytearray(struct.pack("12Q", *what))) != 1:
            raise OSError(0, "a page that was written is not found")


def populate() -> None:
    page = mmap.mmap(-1, _PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page.madvise(22)  # MADV_POPULATE_READ


# ---- what a resident needs (docs/reset.md) ----

_NEEDED: Final[tuple[tuple[Callable[[], object], str], ...]] = (
    (pidfd_open, "the kernel has no pidfd_open(2) (Linux 5.3), or does not allow it"),
    (dispatch, "the kernel has no Syscall User Dispatch (Linux 5.11), or does not allow it"),
    (close_range, "the kernel has no close_range(2) (Linux 5.9), or does not allow it"),
    (read_own_memory, "it may not read its own memory (process_vm_readv(2))"),
    (memfd, "the kernel has no memfd_create(2), or does not allow it"),
    (proc, "/proc/self/maps and pagemap cannot be read"),
)
_WRITTEN: Final = (
    "it has more than 16 MB of memory, and the kernel does not tell which pages were written "
    "(userfaultfd(2), PAGEMAP_SCAN: Linux 6.7); or a shadow stack is in use"
)


def why_no_resident(error: int) -> str:
    """What is missing here, where a resident said that it could not be one: by its errno, and by
    what may be done here. To be called in a process of one thread."""
    if error == errno.EOPNOTSUPP:
        return _WRITTEN
    return next((why for act, why in _NEEDED if not attempt(act).works), os.strerror(error))
