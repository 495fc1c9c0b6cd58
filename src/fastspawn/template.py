"""Templates: processes of a program that are forked where others would be executed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

from fastspawn import _core
from fastspawn._core import TemplateCore
from fastspawn._program import interpreter_by_env, why_not_template
from fastspawn.command import Command, StrOrBytesPath
from fastspawn.engine import Engine, _Run
from fastspawn.result import Result

if TYPE_CHECKING:
    from typing_extensions import Self

# enum fsp_refusal of csrc/fastspawn.h
_NOT, _EXIT, _TIME, _BUILD, _EARLY = 0, 2, 3, 4, 22
_AT: Final = {
    "auto": 0,
    "checkpoint": 1,
    "main": 8,
    "effect": 2,
    "fixed": 6,
}  # FSP_TEMPLATE_* of csrc/fastspawn.h
_EFFECT, _FALLBACK, _PYTHON = 0x2, 0x4, 0x10
_REASONS: Final = {
    _TIME: "it did not get there in time",
    _BUILD: "what it loads is of another build of fastspawn, perhaps installed meanwhile",
    5: "it has several threads before main",
    6: "/proc is not mounted, so its threads and mappings cannot be seen",
    7: "the kernel has no PR_GET_TID_ADDRESS (CONFIG_CHECKPOINT_RESTORE)",
    8: "a first effect cannot be watched for on this architecture, but on x86-64",
    9: "it came from more files than can be watched for change",
    10: "it has more memory than can be searched for held locks",
    11: "it has registered more handlers of forks (pthread_atfork) than can be run",
    12: "its libc keeps the thread's id where it cannot be found",
    13: "its libc is not glibc, and so cannot be watched for a first effect",
    14: "the kernel has no Syscall User Dispatch or no openat2 (Linux 5.11), or does not allow it",
    15: "its vDSO is sealed, so its clocks cannot be watched",
    16: "the kernel does not let rdtsc be trapped (PR_SET_TSC)",
    17: "it holds more locks than can be given to a fork",
    18: "it has memory that a fork does not get (madvise: MADV_DONTFORK, MADV_WIPEONFORK)",
    19: "it has an event loop at its checkpoint",
    20: "it seeds its random numbers by where its memory is (Lua)",
    21: "it has code that may use RDRAND where that cannot be watched",
}


_REASONS_LATER: Final = {5: "it has several threads at its checkpoint"}


Kind = Literal["main", "effect", "checkpoint", "exec"]


def _reason(why: int, status: int) -> str:
    if why in (_EXIT, _EARLY):
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"it ended before {'main' if why == _EXIT else 'its first effect'}, with {how}"
    return _REASONS[why]


class TemplateError(Exception):
    """The program cannot be a template; the message says why."""


def _preload() -> bytes:
    folder = os.path.dirname(_core.__file__)
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
    has come so far (``fastspawn.checkpoint``, or fastspawn.h's function for other languages); just
    before the program's first "effect" (Linux 5.11, x86-64), where argv, environment and directory
    are the template's and runs with others start by exec. "auto" is main, and lets Python programs
    ask for a checkpoint (no others, since one that may keeps a descriptor more); "fixed", for runs
    that all are alike, is effect where that is possible, else auto (Python programs are auto).
    ``fallback``: an "effect" that cannot be had is "auto" as well, instead of a TemplateError.
    ``kind`` tells what it has come to ("exec": most runs are no forks, of late), ``by_exec`` why
    so, and ``not_at_effect`` why it is not effect.
    ``start_timeout``: seconds that a template process may take to reach main.

    What the forks of one process share, unlike executed ones: the address-space layout and stack
    canary, what constructors made, and the first command line in /proc/PID/cmdline.

    A template process that dies is replaced, and so is one whose program changed on disk (noticed
    within 0.1 s, and 1 ms more for each file that a checkpoint came from); meanwhile runs start by
    exec. ``stats`` counts them.
    """

    def __init__(
        self,
        command: Command | Sequence[StrOrBytesPath],
        *,
        size: int | None = None,
        engine: Engine | None = None,
        at: Literal["auto", "fixed", "main", "effect", "checkpoint"] = "auto",
        fallback: bool = False,
        start_timeout: float = 5.0,
    ) -> None:
        if engine is not None and size is not None:
            raise ValueError("a template has as many processes as its engine has threads")
        if at not in _AT:
            raise ValueError(f"at: {at!r} is none of {', '.join(_AT)}")
        if not isinstance(command, Command):
            command = Command(command)
        self.command = _with_absolute_cwd(command)
        self._flags = _AT[at]
        if fallback and at == "effect":
            self._flags |= _FALLBACK | _PYTHON
        self._kind: Kind = "effect" if at == "effect" and not fallback else "main"
        self._timeout = start_timeout
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
        return why_not_template(os.path.join(cwd, path))

    def _through(self, interpreter: str, script: str) -> Command:
        """The command as env(1) would execute it."""
        argv = (interpreter, script, *self.command.argv[1:])
        return Command(
            argv, **{**self.command._options, "env": self.command._env(), "executable": None}
        )

    async def _start_processes(self) -> None:
        news = asyncio.Event()
        self._engine.watching.add(news.set)
        try:
            start = self._start_command or self.command
            library = _preload()
            self._open(self._engine, self.command, start, library, self._timeout, self._flags)
            while not self._is_ready():
                await news.wait()
                news.clear()
        finally:
            self._engine.watching.discard(news.set)

    def _is_ready(self) -> bool:
        ready, failures, why, error, status = self._state()
        if not failures:
            return ready == self.stats["processes"]
        if error is not None:
            raise OSError(error.errno, error.strerror, self.command.executable)
        raise TemplateError(f"{self.command.executable}: {_reason(why, status)}")

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
        if why != _NOT:
            return _reason(why, status)
        return "it is a Python program, which may come to a checkpoint"

    @property
    def no_checkpoint(self) -> str | None:
        """Why a run that called ``checkpoint`` went on as a plain process; None: none had to."""
        why = self._no_checkpoint()
        return None if why == 0 else _REASONS_LATER.get(why) or _REASONS[why]

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
        job: Any = self._engine.submit(command, _Run(future), input, False, False, self)
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
        return command.replace(argv=argv, env=env)
