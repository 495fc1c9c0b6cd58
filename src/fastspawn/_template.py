"""Templates: processes of a program that are forked where others would be executed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

from fastspawn._command import Command, StrOrBytesPath
from fastspawn._core import TemplateCore
from fastspawn._engine import Engine
from fastspawn._imports import launched, why_no_point
from fastspawn._program import interpreter_by_env, why_not_template
from fastspawn._refusals import NOT, TemplateError, reason, reason_later
from fastspawn._result import Result
from fastspawn._sinks import Run
from fastspawn._syscalls import leave_of, name_of

if TYPE_CHECKING:
    from typing_extensions import Self

_AT: Final = {
    "auto": 0,
    "checkpoint": 1,
    "imports": 1,
    "main": 8,
    "effect": 2,
    "fixed": 6,
}  # FSP_TEMPLATE_* of csrc/fastspawn.h
_EFFECT, _FALLBACK, _PYTHON = 0x2, 0x4, 0x10

Kind = Literal["main", "effect", "checkpoint", "exec"]


def preload() -> bytes:
    """The path of what each template loads (csrc/guest/preload.c). Raises TemplateError."""
    folder = os.path.dirname(__file__)
    for suffix in EXTENSION_SUFFIXES:
        path = os.path.join(folder, "_preload" + suffix)
        if os.access(path, os.R_OK):
            return os.fsencode(path)
        if os.path.exists(path) or not os.access(folder, os.X_OK):
            raise TemplateError(f"{path} cannot be read, which each template loads")
    raise TemplateError("templates are for Linux only")


def _with_absolute_cwd(command: Command) -> Command:
    """A template process is there already when its fork goes there."""
    cwd = command._options["cwd"]
    if cwd is None or os.path.isabs(cwd):
        return command
    options = {**command._options, "env": command._env(), "cwd": os.path.abspath(cwd)}
    return Command(command.argv, **options)


class Template(TemplateCore):
    """A program that is started once and forked for each request: an async context manager.

        async with Template(["sort", "-u"]) as template:
            result = await template.run(input=b"b\\na\\nb\\n")

    The dynamic linker, libc and constructors run once, in template processes that stop before the
    program's main; each run is a fork of one, a new process with its own pid, memory, group,
    limits and descriptors. The program need not know.

    ``command`` is a ``Command`` or an argv. ``size`` is the number of template processes (by
    default one for each processor, at most 4), and of the threads of the template's own engine;
    with ``engine`` the template belongs to that one and has as many processes as it has threads.
    ``at`` is where forks begin: at "main"; at a "checkpoint", which any program may ask for when it
    has come so far (``fastspawn.checkpoint``, or fastspawn.h's function for other languages); where
    the "imports" of a Python script have run, which need not know (``python [OPTIONS] SCRIPT`` or
    ``-m MODULE``: at the first statement that is no import, definition or constant); just
    before the program's first "effect" (Linux 5.11, x86-64), where argv, environment and directory
    are the template's and runs with others start by exec. "auto" is main, and lets Python programs
    ask for a checkpoint (no others, since one that may keeps a descriptor more); "fixed", for runs
    that all are alike, is effect where that is possible, else auto (Python programs are auto).
    ``fallback``: an "effect" that cannot be had is "auto" as well, instead of a TemplateError.
    ``kind`` tells what it has come to ("exec": most runs are no forks, of late), ``by_exec`` why
    so, and ``not_at_effect`` why it is not effect.
    ``start_timeout``: seconds that a template process may take to reach main.
    ``reset``: forks serve more than one run (Linux 5.11, x86-64). Where such a resident would exit
    it puts itself back to what it was when it was forked: memory, descriptors, directory, signals.
    A run that does what cannot be put back (it forks, executes, sets a timer ...) is a process of
    its own from there on, and another resident is made; so are all runs of a program that does so
    as a rule (``not_reset`` says why). Pid, start time and peak memory are the resident's, all else
    in a result is the run's. Not for programs that one request may take over: it could keep
    something for the next. Runs with an identity, a cgroup or a limit of CPU time, and those that
    differ from the template in more than ``args`` and ``env``, are forks.

    What the forks of one process share, unlike executed ones: the address-space layout and stack
    canary, what constructors made, and the first command line in /proc/PID/cmdline.

    A template process that dies is replaced, and so is one whose program changed on disk (noticed
    within 0.1 s, and 1 ms more for each file); meanwhile runs start by
    exec. ``stats`` counts them.
    """

    def __init__(
        self,
        command: Command | Sequence[StrOrBytesPath],
        *,
        size: int | None = None,
        engine: Engine | None = None,
        at: Literal["auto", "fixed", "main", "effect", "checkpoint", "imports"] = "auto",
        fallback: bool = False,
        start_timeout: float = 5.0,
        reset: bool = False,
    ) -> None:
        if engine is not None and size is not None:
            raise ValueError("a template has as many processes as its engine has threads")
        if at not in _AT:
            raise ValueError(f"at: {at!r} is none of {', '.join(_AT)}")
        if not isinstance(command, Command):
            command = Command(command)
        self._is_launched = at == "imports"
        if self._is_launched:
            command = command.replace(launched(command.argv))
        self.command = _with_absolute_cwd(command)
        self._flags = _AT[at]
        if fallback and at == "effect":
            self._flags |= _FALLBACK | _PYTHON
        self._kind: Kind = "effect" if at == "effect" and not fallback else "main"
        self._timeout = start_timeout
        self._reset = reset
        self._start_command: Command | None = None
        self._engine = Engine(size) if engine is None else engine
        self._owned = engine is None

    async def start(self) -> None:
        """Start the template processes, and wait until all are ready.

        Raises TemplateError for a program that cannot be a template, and OSError for one that
        cannot be started at all. Nothing is left then.
        """
        reason = await asyncio.to_thread(self._check)
        if reason is not None:
            raise TemplateError(reason)
        if self._owned:
            await self._engine.start()
        if self.stats:
            raise RuntimeError("the template is running already")
        try:
            await self._start_processes()
        except BaseException:
            await self.close()
            raise

    def _check(self) -> str | None:
        path = self.command.resolve()
        cwd = os.fsdecode(self.command._options["cwd"] or "")
        name = interpreter_by_env(os.path.join(cwd, path))
        if name is not None:
            self._start_command = self._through(name, path)
            path = self._start_command.resolve()
        why = why_not_template(os.path.join(cwd, path))
        if why is None and self._is_launched:
            why = why_no_point(self.command.argv, cwd or None, self.command._env(), path)
        return why

    def _through(self, interpreter: str, script: str) -> Command:
        """The command as env(1) would execute it."""
        argv = (interpreter, script, *self.command.argv[1:])
        return Command(
            argv, **{**self.command._options, "env": self.command._env(), "executable": None}
        )

    async def _start_processes(self) -> None:
        news = asyncio.Event()
        self._engine._here()
        self._engine.watching.add(news.set)
        try:
            start = self._start_command or self.command
            library = preload()
            self._open(
                *(self._engine, self.command, start, library, self._timeout),
                *(self._flags, self._reset),
            )
            while not self._is_ready():
                await news.wait()
                news.clear()
                self._engine._here()
        finally:
            self._engine.watching.discard(news.set)

    def _is_ready(self) -> bool:
        ready, failures, why, error, status = self._state()
        if not failures:
            return ready == self.stats["processes"]
        if error is not None:
            raise OSError(error.errno, error.strerror, self.command.executable)
        told = reason(why, status, self._makers())
        raise TemplateError(f"{self.command.executable}: {told}")

    @property
    def kind(self) -> Kind:
        """Where forks begin, as ``place``; "exec": more than half of the runs start by exec, of
        late, and ``by_exec`` says why."""
        stats = self.stats
        return "exec" if 2 * stats.get("useless", 0) > stats.get("processes", 0) else self.place

    @property
    def by_exec(self) -> str | None:
        """Why more than half of the runs start by exec, of late; None: they do not."""
        if self.kind != "exec":
            return None
        stats, changed = self.stats, os.fsdecode(self._changed())
        if changed:
            return f"{changed} changed, the last of {stats['stale']} times that a file did"
        if self.place == "effect" and stats["ready"]:
            return "they differ from the template in arguments, environment or directory"
        return "there is no process of it to fork, or it cannot be asked for such runs"

    @property
    def place(self) -> Kind:
        """Where forks begin; while no process is ready, where the last ones did."""
        stats = self.stats
        if stats.get("ready"):
            self._kind = (
                "effect"
                if stats["at_effect"] == stats["ready"]
                else "checkpoint"
                if stats["checkpoints"]
                else "main"
            )
        return self._kind

    @property
    def not_at_effect(self) -> str | None:
        """Why forks do not begin at the first effect, though they were to; None: they do."""
        if not self._flags & _EFFECT or self.place == "effect":
            return None
        _, _, why, _, status = self._state()
        if why != NOT:
            return reason(why, status, self._makers())
        return "it is a Python program, which may come to a checkpoint"

    @property
    def not_reset(self) -> str | None:
        """Why runs are forks though they were to be of residents; None: they are not."""
        stats = self.stats
        if not stats.get("without"):
            return None
        if stats["reset_error"]:
            why = os.strerror(stats["reset_error"])
            return f"it cannot be reset here: {why} (`fastspawn doctor` tells what is missing)"
        if stats["leaves"]:
            return f"it does what cannot be undone: {leave_of(stats['left_by'])}"
        return "it has an identity, a cgroup, a limit of CPU time or descriptors to keep"

    @property
    def leaves(self) -> dict[str, int]:
        """How many runs did what cannot be undone, so that their resident became a process of
        their own, by the system call's name; "signal": at a signal, or none that is known."""
        return {
            "signal" if number < 0 else name_of(number): count
            for number, count in self._left_by().items()
        }

    @property
    def no_checkpoint(self) -> str | None:
        """Why a run that called ``checkpoint`` went on as a plain process; None: none had to."""
        why = self._no_checkpoint()
        return None if why == NOT else reason_later(why, self._makers())

    async def close(self) -> None:
        """End the template processes; with an engine of its own, also what still runs."""
        self._close()
        if self._owned:
            await self._engine.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def run(
        self,
        args: Sequence[StrOrBytesPath] | None = None,
        input: bytes | bytearray | memoryview | None = None,
        *,
        env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
        check: bool = False,
    ) -> Result:
        """Run the program to its end in a fork, and collect its output.

        ``args`` are the arguments after the program's name, ``env`` is the whole environment; by
        default the template's own. All else is as for ``Engine.run``.
        """
        command = self.command if args is None and env is None else self._variant(args, env)
        future = self._engine._here().create_future()
        job: Any = self._engine.submit(command, Run(future), input, False, False, self)
        try:
            job = await future
        except asyncio.CancelledError:
            job.cancel()
            raise
        result = Result.of(command.argv, job)
        if check:
            result.check_returncode()
        return result

    def _variant(
        self,
        args: Sequence[StrOrBytesPath] | None,
        env: Mapping[str, str] | Mapping[bytes, bytes] | None,
    ) -> Command:
        command = self.command
        argv = command.argv if args is None else (command.argv[0], *args)
        if args is not None and self._is_launched:
            argv = launched(argv)
        return command.replace(argv=argv, env=env)
