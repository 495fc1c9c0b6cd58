"""How the process for a request comes to be.

A strategy starts a route's command with a sink and hands back a job. The two protocols are the
engine's own (``fastspawn.engine``), so that the direct strategy has nothing to add and nothing
to pay per request.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from functools import partial
from subprocess import DEVNULL, STDOUT
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from fastspawn import STREAM, Command, Engine, Limits, Template, TemplateError, WorkerError
from fastspawn._syscalls import stop_of

from . import environment, scheduling
from .filling import Filling, why_not_alike
from .news import News, about
from .sharing import Shares, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .config import RouteConfig, SnapshotAt

__all__ = [
    "STREAM",
    "AutoStrategy",
    "DirectStrategy",
    "Job",
    "Sink",
    "SnapshotStrategy",
    "Strategies",
    "Strategy",
    "command_of",
]


# No process is to outlive a server that was killed.
_DEATH: Final = signal.SIGKILL if sys.platform == "linux" else 0


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
    def cancelled(self) -> bool: ...

    @property
    def wall(self) -> float:
        """Seconds from start to exit."""

    @property
    def rusage(self) -> resource.struct_rusage | None:
        """Of the process; None where it is not known."""

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
    """One per route."""

    holds_back: bool
    """Output that is short, and comes from a process that ends soon, is all in ``on_exit``."""
    name: str
    """Once started: how processes come to be. Where it was to choose, what was chosen ..."""
    reason: str
    """... and why it was not the better way, in words for the operator; empty: it was."""

    @property
    def kind(self) -> str:
        """Where forks begin now: ``main``, ``effect`` or ``checkpoint``; ``exec``: most requests
        start by exec all the same; empty: nothing forks."""

    @property
    def alike(self) -> bool:
        """Only requests that run the command as it is can be forks."""

    @property
    def stats(self) -> Mapping[str, int]:
        """What the strategy counts, by its own names."""

    @property
    def spawn(self) -> Callable[[Sink, Any], Job]:
        """``spawn(sink, input)``: start the route's command as it is.

        ``input``: bytes, None (stdin at /dev/null) or ``STREAM`` (``Job.write`` feeds it).
        Never blocks and never raises: a failure is ``Job.error`` in ``on_exit``.
        """

    def spawn_as(
        self,
        sink: Sink,
        input: Any,
        argv: Sequence[str | bytes],
        env: Mapping[str, str] | Mapping[bytes, bytes],
        cwd: str | bytes | None = None,
    ) -> Job:
        """Likewise, with what a request makes of the command. ``cwd`` None: the route's.

        Nothing in ``argv`` and ``env`` may contain a NUL.
        """

    async def start(self) -> None:
        """Before the first spawn. OSError: there is no room for it."""

    async def close(self) -> None:
        """End the jobs that are left, and whatever else the strategy holds for itself."""


def command_of(
    route: RouteConfig,
    argv: Sequence[str | bytes] | None = None,
    env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    cwd: str | bytes | None = None,
) -> Command:
    """The prepared command; None: as it is without a request.

    ``.resolve()`` raises the OSError that a spawn would give.
    """
    limits = Limits(
        timeout=route.exec_timeout,
        kill_grace=route.kill_grace,
        max_output=route.max_output,
        drain=route.drain_timeout,
        rlimits=rlimits(route),
    )
    stderr = {"inherit": None, "discard": DEVNULL, "merge": STDOUT}[route.stderr]
    if argv is None:
        argv = Filling(route).argv
    if env is None and (route.set_env or not environment.inherits(route)):
        env = Filling(route).env
    return Command(
        argv,
        env=env,
        cwd=cwd or route.cwd,
        limits=limits,
        stderr=stderr,
        cgroup=route.cgroup,
        no_new_privs=route.no_new_privs,
        death_signal=_DEATH,
    )


def rlimits(route: RouteConfig) -> dict[int, tuple[int, int]]:
    """As ``Limits`` has them."""
    return {
        getattr(resource, f"RLIMIT_{name.upper()}"): (soft, hard)
        for name, soft, hard in route.rlimit
    }


class DirectStrategy:
    """clone and exec on the C engine's threads. Its jobs are handed through as they are."""

    holds_back = True
    name = "direct"
    reason = ""

    @property
    def kind(self) -> str:
        return ""

    @property
    def alike(self) -> bool:
        return False

    @property
    def stats(self) -> Mapping[str, int]:
        return {}

    def __init__(self, route: RouteConfig, engine: SharedEngine) -> None:
        self._route = route
        self._engine = engine
        self._submit: Callable[..., Job] = engine.submit
        self.spawn: Callable[[Sink, Any], Job] = partial(engine.submit, command_of(route))

    def spawn_as(
        self,
        sink: Sink,
        input: Any,
        argv: Sequence[str | bytes],
        env: Mapping[str, str] | Mapping[bytes, bytes],
        cwd: str | bytes | None = None,
    ) -> Job:
        return self._submit(command_of(self._route, argv, env, cwd), sink, input)

    async def start(self) -> None:
        await self._engine.start()

    async def close(self) -> None:
        pass  # the jobs are the engine's


class Common(NamedTuple):
    """What the strategies of a server have in common."""

    engine: SharedEngine
    news: News
    shares: Shares
    looks: set[Callable[[], None]]
    """To be called from time to time: there may be news."""


class SnapshotStrategy(DirectStrategy):
    """Forks of template processes (``fastspawn.Template``), on the same engine."""

    name = "snapshot"
    _open = False

    def __init__(self, route: RouteConfig, common: Common) -> None:
        engine = common.engine
        super().__init__(route, engine)
        self._common = common
        self._not_alike = why_not_alike(route, Filling(route))
        at: SnapshotAt | Literal["fixed"] = route.snapshot_at
        if at == "auto" and not self._not_alike:
            at = "fixed"
        command = command_of(route)
        # Nothing is forked where the scripts of a directory are the commands.
        key = ("template", at, route.cgi_dir, key_of(command))
        self._lease = common.shares.join(
            key, lambda: Template(command, engine=engine, at=at, fallback=True), route.title
        )
        self._template = self._lease.source
        self._submit = partial(engine.submit, template=self._template)
        self.spawn = partial(self._submit, self._template.command)

    async def start(self) -> None:
        await super().start()
        await self._lease.start()
        self._open = True
        self._common.looks.add(self._look)
        if self._route.snapshot_at in ("auto", "effect"):
            self._tell(self._begin(), [self._route.title])

    @property
    def kind(self) -> str:
        return self._template.kind if self._open else ""

    @property
    def alike(self) -> bool:
        return self._open and self._template.place == "effect"

    @property
    def stats(self) -> Mapping[str, int]:
        """As ``Template.stats``; of those that share a template one tells of it."""
        return self._lease.stats if self._open else {}

    def _begin(self) -> str:
        """Where forks begin, and why there."""
        if self.kind == "effect":
            stop = stop_of(self._template.stats["stopped_by"])
            return f"effect: forks begin before {stop}"
        why = self._not_alike or self._template.not_at_effect
        return f"{self.kind}: {why}"

    def _tell(self, what: str, titles: Sequence[str]) -> None:
        self._common.news.tell(f"--snapshot-at {self._route.snapshot_at} is {what}", titles)

    def _look(self) -> None:
        """Whether a request has come to a checkpoint meanwhile, or was not let."""
        lease, template = self._lease, self._template
        if not lease.speaks:
            return
        if template.kind == "checkpoint" and lease.once("checkpoint"):
            self._tell("checkpoint: forks begin there now", lease.titles)
        by_exec = template.by_exec
        if by_exec is not None and lease.once("exec"):
            self._tell(f"exec: more than half of the requests start so: {by_exec}", lease.titles)
        why = template.no_checkpoint
        if why is not None and lease.once("refusal"):
            self._common.news.tell(f"no template at checkpoint(): {why}", lease.titles)

    async def close(self) -> None:
        self._common.looks.discard(self._look)
        await self._lease.close()


class AutoStrategy(SnapshotStrategy):
    """Forks where the program allows it. Where it does not, its template is never open, and what
    names it is executed."""

    async def start(self) -> None:
        try:
            if self._route.cgi_dir is not None:
                raise TemplateError("each script of a directory is a program of its own")
            await super().start()
        except (TemplateError, OSError) as error:
            await DirectStrategy.start(self)
            self.name, self.reason = "direct", str(error)
        why = f": {self.reason}" if self.reason else ""
        self._common.news.tell(f"--strategy auto is {self.name}{why}", [self._route.title])


class NotStarted(Exception):
    """A route's strategy cannot be started; why, in one line."""

    def __init__(self, route: RouteConfig, error: OSError | TemplateError) -> None:
        if isinstance(error, WorkerError):
            why = f"--strategy pool: {error}"
        elif isinstance(error, TemplateError):
            why = f"--strategy snapshot: {error}"
        else:
            name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            why = f"cannot start the engine: {name}{error.strerror}"
        super().__init__(about([route.title]) + why)


class SharedEngine(Engine):
    """The engine of all routes: started by the first that needs it."""

    _started = False
    alone = False
    """Does nothing else run on the event loop's thread, or start children from there?"""

    async def start(self) -> None:
        if not self._started:
            await super().start()
            self._started = True
            if self.alone:
                scheduling.batch()


class Strategies:
    """Makes the strategy of each route of a server."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        spawners: int | None,
        say: Callable[[str], object],
        *,
        alone: bool = False,
    ) -> None:
        """``say``: tell the operator something, in one line.

        ``alone``: the event loop's thread is the server's, which may schedule it as it likes.
        """
        self._loop = loop
        self._engine = SharedEngine(spawners=spawners)
        self._engine.alone = alone
        self.news = News(say)
        self._common = Common(self._engine, self.news, Shares(), set())

    def make(self, route: RouteConfig) -> Strategy:
        """The strategy that ``route`` names, not yet started."""
        if route.strategy == "direct":
            return DirectStrategy(route, self._engine)
        if route.strategy == "snapshot":
            return SnapshotStrategy(route, self._common)
        if route.strategy == "auto":
            return AutoStrategy(route, self._common)
        if route.strategy == "warm":
            from .warming import WarmStrategy

            return WarmStrategy(route, self._common)
        if route.strategy == "pool":
            from .resetting import PoolStrategy

            return PoolStrategy(route, self._common)
        from .subproc import SubprocessStrategy

        if self._engine.alone:
            self._engine.alone = False
            scheduling.normal()
        return SubprocessStrategy(route, self._loop)

    def look(self) -> None:
        """Tell what is new. To be called every second or so."""
        for look in list(self._common.looks):
            look()

    def look_always(self) -> None:
        """For those without a timer, once all is started: look whenever the engine has news."""
        if self._common.looks:
            self._engine.watching.add(self.look)

    async def close(self) -> None:
        """What the strategies share. To be called after they are closed."""
        await self._engine.close()
