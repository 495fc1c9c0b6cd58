"""From what is asked for to a worker that works, and to its end."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from fastspawn import __version__
from fastspawn.serve.host import inherited, outlets
from fastspawn.serve.host.outlets import say
from fastspawn.serve.strategies.base import NotStarted
from fastspawn.serve.strategies.maker import Strategies

from .source import Options, QueueError
from .worker import Terms, Worker

if TYPE_CHECKING:
    from fastspawn.serve.config.model import RouteConfig

    from .address import Address
    from .source import Source

_CLIENTS: Final = {"NATS": ("nats", "nats-py", "nats"), "Redis": ("redis", "redis", "redis")}
"""Module, package and extra."""


@dataclass(frozen=True)
class Work:
    """All of it."""

    address: Address
    options: Options
    route: RouteConfig
    """The command, how it is started, and its limits."""
    terms: Terms
    spawners: int | None = None


def missing(address: Address) -> str:
    """Of the client for such a queue, in words; empty: it is there."""
    module, package, extra = _CLIENTS[address.kind]
    if find_spec(module) is not None:
        return ""
    return f"{address.kind} needs {package}: pip install 'fastspawn[{extra}]'"


def _source(work: Work) -> Source:
    """What is not asked for is not imported."""
    if work.address.kind == "NATS":
        from .jetstream import JetStream

        return JetStream(work.address, work.options, say)
    from .redisstream import RedisStream

    return RedisStream(work.address, work.options, say)


def run(work: Work) -> int:
    """The exit status: 0 after a signal, 1 when nothing can be had of the queue."""
    with outlets.opened() as lines:
        loop = _new_loop()
        try:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(_work(work, lines))
        except (QueueError, NotStarted, OSError) as error:
            say(f"error: {error}")
            return 1
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            loop.close()
    return 0


def _new_loop() -> asyncio.AbstractEventLoop:
    if find_spec("uvloop") is None:
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


async def _work(work: Work, lines: outlets.Outlets) -> None:
    source = _source(work)
    try:
        await source.open()
        await _with_strategy(work, source, lines)
    finally:
        await source.close()


async def _with_strategy(work: Work, source: Source, lines: outlets.Outlets) -> None:
    loop = asyncio.get_running_loop()
    strategies = Strategies(loop, work.spawners, say, alone=True, ignores=bool(inherited.ignored))
    route = _capped(work, source)
    strategy = strategies.make(route)
    try:
        await strategy.start()
        strategies.look_always()
        worker = Worker(source, route, strategy, work.terms, say, (lines.access(), lines.errors()))
        _listen(loop, worker)
        _greet(work, source, strategy.name)
        try:
            await worker.run()
        finally:
            say(worker.line)
    finally:
        await strategy.close()
        await strategies.close()


def _capped(work: Work, source: Source) -> RouteConfig:
    """A reply that the server would refuse is too much output."""
    route, most = work.route, source.max_output
    if not work.terms.replies or most is None:
        return route
    return replace(route, max_output=min(route.max_output or most, most))


def _listen(loop: asyncio.AbstractEventLoop, worker: Worker) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop.ask)
    loop.add_signal_handler(signal.SIGUSR1, lambda: say(worker.line))


def _greet(work: Work, source: Source, strategy: str) -> None:
    terms = work.terms
    say(
        f"{__version__} working on {source.name} as {work.address.group} with "
        f"`{shlex.join(work.route.command)}` ({strategy}, {terms.concurrency} at a time, "
        f"pid {os.getpid()})"
    )
