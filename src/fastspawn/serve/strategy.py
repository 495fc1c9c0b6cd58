"""How the process for a request comes to be.

A strategy starts the server's command with a sink and hands back a job. The two protocols are
the engine's own (``fastspawn.engine``), so that the direct strategy has nothing to add and
nothing to pay per request.
"""

from __future__ import annotations

import asyncio
from functools import partial
from subprocess import DEVNULL, STDOUT
from typing import TYPE_CHECKING, Any, Protocol

from fastspawn import STREAM, Command, Engine, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import Config

__all__ = ["STREAM", "DirectStrategy", "Job", "Sink", "Strategy", "command_of", "make_strategy"]


class Job(Protocol):
    """One process, from the moment it was asked for. All calls are on the loop's thread."""

    @property
    def output(self) -> bytes:
        """In ``on_exit``: what ``on_output`` has not yet delivered."""

    @property
    def returncode(self) -> int | None:
        """Negative: the signal, as in subprocess. None: never started, or the status was lost."""

    @property
    def error(self) -> OSError | MemoryError | None:
        """Why no process could be started."""

    @property
    def timed_out(self) -> bool: ...

    @property
    def truncated(self) -> bool:
        """There was more output than the limit allows."""

    @property
    def wall(self) -> float:
        """Seconds from start to exit."""

    def write(self, data: bytes) -> bool:
        """Queue bytes for stdin (``STREAM`` only). False: wait for ``Sink.on_drain``."""

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def cancel(self) -> None:
        """TERM to the process group, grace, KILL. ``on_exit`` still follows."""


class Sink(Protocol):
    """What hears of a process. Called on the loop's thread, never from within ``spawn``."""

    def on_output(self, data: bytes) -> None: ...

    def on_drain(self) -> None: ...

    def on_exit(self, job: Any) -> None:
        """``job`` is a ``Job``. Exactly once, and last."""


class Strategy(Protocol):
    holds_back: bool
    """Output that is short, and comes from a process that ends soon, is all in ``on_exit``."""

    def spawn(self, sink: Sink, input: Any, /) -> Job:
        """``input``: bytes, None (stdin at /dev/null) or ``STREAM`` (``Job.write`` feeds it).

        Never blocks and never raises: a failure is ``Job.error`` in ``on_exit``.
        """

    async def start(self) -> None: ...

    async def close(self) -> None:
        """End the jobs that are left, and whatever else the strategy holds."""


def command_of(config: Config) -> Command:
    """The prepared command. ``.resolve()`` raises the OSError that a spawn would give."""
    limits = Limits(
        timeout=config.exec_timeout,
        kill_grace=config.kill_grace,
        max_output=config.max_output,
        drain=config.drain_timeout,
    )
    stderr = {"inherit": None, "discard": DEVNULL, "merge": STDOUT}[config.stderr]
    return Command(config.command, cwd=config.cwd, limits=limits, stderr=stderr)


class DirectStrategy:
    """clone and exec on the C engine's threads. Its jobs are handed through as they are."""

    holds_back = True

    def __init__(self, command: Command, spawners: int | None) -> None:
        self._engine = Engine(spawners=spawners)
        self.spawn: Callable[[Sink, Any], Job] = partial(self._engine.submit, command)

    async def start(self) -> None:
        await self._engine.start()

    async def close(self) -> None:
        await self._engine.close()


def make_strategy(config: Config, loop: asyncio.AbstractEventLoop) -> Strategy:
    """The strategy that ``config`` names, not yet started."""
    if config.strategy == "direct":
        return DirectStrategy(command_of(config), config.spawners)
    from .subproc import SubprocessStrategy

    return SubprocessStrategy(config, loop)
