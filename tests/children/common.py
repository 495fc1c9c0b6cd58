"""What the programs share that use fastspawn themselves: the loop, and growth of memory."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(kind: str, coroutine: Coroutine[Any, Any, T]) -> T:
    """asyncio.run, on asyncio's loop or uvloop's."""
    if kind == "asyncio":
        return asyncio.run(coroutine)
    import uvloop

    return uvloop.run(coroutine)


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    if kind == "asyncio":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + 45
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def until_sync(condition: Callable[[], object]) -> None:
    """The same without a loop."""
    end = time.monotonic() + 45
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def peak() -> int:
    """Bytes of memory at the most so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
