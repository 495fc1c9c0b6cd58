"""Runs a Python server unchanged, with a ticker on its event loop that records how late it fires.

    python -m bench.cases.lag_host OUT [-m MODULE ARG...]

Without a module it only ticks until SIGTERM: how late a timer is on this machine when the process
has nothing else to do. At exit OUT gets ``[[monotonic seconds, lag seconds], ...]``.
The ticker is put on whatever loop the program runs first, asyncio's or uvloop's, so the server
needs no hook for it.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

INTERVAL = 0.002
ticks: list[tuple[float, float]] = []
watched: list[asyncio.AbstractEventLoop] = []


def watch(loop: asyncio.AbstractEventLoop) -> None:
    if watched:
        return
    watched.append(loop)
    due = time.monotonic() + INTERVAL

    def tick() -> None:
        nonlocal due
        now = time.monotonic()
        ticks.append((now, max(0.0, now - due)))
        due = now + INTERVAL
        loop.call_later(INTERVAL, tick)

    loop.call_later(INTERVAL, tick)


def watch_first_run(loop_class: type, method: str) -> None:
    original: Callable[..., Any] = getattr(loop_class, method)

    def run(self: asyncio.AbstractEventLoop, *args: Any) -> Any:
        watch(self)
        return original(self, *args)

    setattr(loop_class, method, run)


def tick_only() -> None:
    loop = uvloop.new_event_loop()
    loop.add_signal_handler(signal.SIGTERM, loop.stop)
    loop.run_forever()


def main() -> None:
    out, program = Path(sys.argv[1]), sys.argv[2:]
    atexit.register(lambda: out.write_text(json.dumps(ticks)))
    for loop_class in (asyncio.BaseEventLoop, uvloop.Loop):
        for method in ("run_forever", "run_until_complete"):
            watch_first_run(loop_class, method)
    if program[:1] == ["-m"]:
        sys.argv = program[1:]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        tick_only()


if __name__ == "__main__":
    main()
