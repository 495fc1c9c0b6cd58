"""A network of one's own, for programs whose ports and addresses cannot be chosen."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from support import LINUX

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def apart(work: Callable[[], T]) -> T:
    """What ``work`` returns, on a thread with a network that has nothing but a loopback device.

    The sockets that it makes are in there, and so are the processes that it starts. Skips the test
    where that is not allowed.
    """
    if not LINUX:
        pytest.skip("no network namespaces")

    def run() -> T:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET):
            pytest.skip(f"no network of its own: {os.strerror(ctypes.get_errno())}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()
