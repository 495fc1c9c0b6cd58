"""A thread of this program waits for any child; each status is told all the same.

taken.py MODULE
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from typing import Any

import fastspawn

ROUNDS = 60
stop = threading.Event()
module: Any = fastspawn
if sys.argv[1] == "installed":
    fastspawn.install()
    module = subprocess


def reap_for_ever() -> None:
    while not stop.is_set():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)


def polled(process: Any) -> int:
    while process.poll() is None:
        pass
    return process.returncode  # type: ignore[no-any-return]


ARGV = ["sh", "-c", "exit 42"]
WAYS = {
    "run": lambda: module.run(ARGV).returncode,
    "run, pipes": lambda: module.run(ARGV, capture_output=True).returncode,
    "call": lambda: module.call(ARGV, timeout=60),
    "wait": lambda: module.Popen(ARGV).wait(),
    "wait in time": lambda: module.Popen(ARGV).wait(60),
    "poll": lambda: polled(module.Popen(ARGV)),
    "killed": lambda: module.run(["sh", "-c", "kill -9 $$"]).returncode + 51,
}
thread = threading.Thread(target=reap_for_ever)
thread.start()
for _ in range(ROUNDS):
    for name, way in WAYS.items():
        code = way()
        if code != 42:
            print(name, code)
stop.set()
thread.join()
print("ok")
