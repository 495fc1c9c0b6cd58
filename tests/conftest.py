"""Every test leaves the process as it found it, and async tests run on each event loop."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import os
import signal
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import settings

from fastspawn import Engine, Template

pytest.register_assert_rewrite("support")

from support import (  # noqa: E402
    BOUND,
    LINUX,
    open_fds,
    own_children,
    own_policy,
    own_threads,
    past_files,
)

T = TypeVar("T")

# Timings are no business of tests.
settings.register_profile("fastspawn", deadline=None)
settings.load_profile("fastspawn")

MOST_WORKERS = 8
"""Processes that run tests at a time; each has its own leaks, directories and ports."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What ``-n auto`` is: half of a test's time is spent waiting for others."""
    processors = len(os.sched_getaffinity(0)) if LINUX else os.cpu_count() or 1
    return min(2 * processors, MOST_WORKERS)


# ---- which tests ----------------------------------------------------------------------------

FULL = bool(os.environ.get("FULL"))
"""All there are. Else a server's tests are asked of each strategy and on each loop, but not of each
strategy on each loop; and what a fork does is asked on one loop, which only hears of its end."""

CROSSED = (("direct", "asyncio"), ("subprocess", "uvloop"))
OF_FORKS = frozenset(
    f"test_{name}"
    for name in (
        *("checkpoint", "checkpoint_c", "checkpoint_ends", "effect", "effect_calls"),
        *("effect_world", "fork_handlers", "fresh", "makers", "reset", "reset_guest"),
        *("reset_programs", "resettable", "snapshot_semantics", "template_cost"),
    )
)


def is_one_too_many(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return False
    params = item.callspec.params
    if (params.get("strategy"), params.get("loop")) in CROSSED:
        return True
    return (
        item.path.parent.name == "unit"
        and item.path.stem in OF_FORKS
        and (params.get("run") == "asyncio")
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if FULL or any("[" in name for name in config.args):
        return
    asked: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        asked[not is_one_too_many(item)].append(item)
    config.hook.pytest_deselected(items=asked[False])
    items[:] = asked[True]


# ---- leaks ----------------------------------------------------------------------------------


class Snapshot:
    """What a process may leak."""

    def __init__(self) -> None:
        self.fds = open_fds()
        self.children = own_children()
        self.threads = own_threads()
        self.policy = own_policy()

    def leaks(self, before: Snapshot) -> list[str]:
        """A line for each difference."""
        lines = []
        for fd in sorted(self.fds.keys() | before.fds.keys()):
            was, now = before.fds.get(fd), self.fds.get(fd)
            if was is None:
                lines.append(f"descriptor {fd} was left open: {now}")
            elif now is None:
                lines.append(f"descriptor {fd} was closed: {was}")
            elif was != now:
                lines.append(f"descriptor {fd} was {was} and is {now}")
        if self.policy != before.policy:
            lines.append(f"the thread's scheduling policy was {before.policy} and is {self.policy}")
        for what in ("children", "threads"):
            mine, theirs = getattr(self, what), getattr(before, what)
            lines += [f"of the {what}, {n} is left: {mine[n]}" for n in mine.keys() - theirs]
        return lines


def find_leaks(before: Snapshot) -> list[str]:
    """What is left of a test when it has had time to go."""
    started = time.monotonic()
    collected = False
    while leaks := Snapshot().leaks(before):
        waited = time.monotonic() - started
        if waited > BOUND:
            break
        if waited > 0.05 and not collected:
            gc.collect()  # an object in a cycle is not lost yet
            collected = True
        time.sleep(0.001)
    return leaks


@pytest.fixture(scope="session", autouse=True)
def _signals() -> None:
    """A shell ignores the first two in what it runs in the background, and nohup the third;
    children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _warm_up() -> None:
    """libuv keeps descriptors for the whole process from its first loop on."""
    loop = uvloop.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    gc.collect()


@pytest.fixture(autouse=True)
def _no_leaks(_warm_up: None) -> Iterator[None]:
    before = Snapshot()
    yield
    if leaks := find_leaks(before):
        pytest.fail("\n".join(["the test leaked:", *leaks]), pytrace=False)


# ---- templates ------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def _templates() -> Iterator[None]:
    """They start after the files that their test has just written, which would otherwise count
    as newer than them; and as slowly as a busy machine has it."""
    start = Template.start

    @functools.wraps(start)
    async def later(template: Template) -> None:
        past_files()
        await start(template)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Template, "start", later)
        patch.setitem(Template.__init__.__kwdefaults__, "start_timeout", BOUND)
        yield


# ---- event loops ----------------------------------------------------------------------------


class Run:
    """Runs coroutines on a loop of its own, one after the other."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        make = uvloop.new_event_loop if kind == "uvloop" else asyncio.new_event_loop
        self.loop: asyncio.AbstractEventLoop = make()
        self.unhandled: list[dict[str, Any]] = []
        """What the loop's exception handler was called with; a test takes what it expects."""
        self.loop.set_exception_handler(lambda loop, context: self.unhandled.append(context))

    def __call__(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def close(self) -> list[asyncio.Task[Any]]:
        """Returns the tasks that were left."""
        tasks = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        for task in tasks:
            task.cancel()
        self(_gather(tasks))
        self(self.loop.shutdown_asyncgens())
        self(self.loop.shutdown_default_executor())
        self.loop.close()
        return tasks


async def _gather(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """An event loop, driven by ``run(coroutine)``: asyncio's, then uvloop's."""
    run = Run(request.param)
    yield run
    assert run.close() == []
    assert run.unhandled == []


@pytest.fixture
def engine(run: Run) -> Iterator[Engine]:
    """A running engine on the loop of ``run``."""
    engine = Engine(spawners=2)
    run(engine.start())
    yield engine
    run(engine.close())
    assert engine.live == 0


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module, name: str, obj: object) -> None:
    """An async test is run on each loop, whether it names the fixture or not."""
    if inspect.iscoroutinefunction(obj) and collector.istestfunction(obj, name):
        pytest.mark.usefixtures("run")(obj)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    run: Any = pyfuncitem.funcargs["run"]
    names = inspect.signature(pyfuncitem.obj).parameters
    run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
