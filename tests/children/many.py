"""Many processes, one after the other, leave nothing behind.

many.py run|popen COUNT
"""

from __future__ import annotations

import os
import sys

from common import peak

import fastspawn
from fastspawn import PIPE

way, count = sys.argv[1], int(sys.argv[2])
MOST = 1 << 20
"""Bytes by which memory may grow."""


def once() -> None:
    if way == "run":
        done = fastspawn.run(["echo", "x"], input=b"y", capture_output=True)
        assert done.stdout == b"x\n"
    else:
        with fastspawn.Popen(["echo", "x"], stdout=PIPE, stderr=PIPE) as process:
            assert process.communicate(timeout=60) == (b"x\n", b"")


def held() -> tuple[list[str], list[str]]:
    return os.listdir("/dev/fd"), os.listdir("/proc/self/task") if os.path.exists("/proc") else []


for _ in range(200):
    once()
before, memory = held(), peak()
for _ in range(count):
    once()
assert held() == before, (before, held())
assert peak() - memory < MOST, f"memory grew by {peak() - memory} bytes"
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    pass
else:
    raise AssertionError("a child was left")
