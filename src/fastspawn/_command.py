"""What to run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from subprocess import PIPE
from typing import Any, TypeAlias

from fastspawn._core import Plan
from fastspawn._limits import NO_LIMITS, Limits

StrOrBytesPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def as_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """An input, which may change meanwhile. TypeError for what bytes() would make zeros of."""
    return data if type(data) is bytes else bytes(memoryview(data))


class Command(Plan):
    """A prepared command: immutable, and reusable any number of times from any thread.

    Everything is checked and flattened here, once: argv, environment (os.environ as it is now, if
    env is None) and working directory. Each run is a new process in a process group of its own.
    A program that is named without a slash is looked up on the PATH of its environment when it
    is spawned; one that is installed earlier on PATH later is noticed within 0.1 s.

    stdout and stderr are PIPE (collected, or streamed), DEVNULL, None (the server's own), and for
    stderr STDOUT. stdin is chosen with each run.

    On Linux (elsewhere NotImplementedError): ``cgroup`` is the directory of a cgroup (version 2)
    that each process is put into before it runs. With ``no_new_privs`` nothing that it executes
    gives it more rights, as set-user-ID programs would (PR_SET_NO_NEW_PRIVS(2const)).
    ``death_signal`` is sent to it when this process ends in whatever way, with Engine, Template and
    WarmPool; with what spawns on the calling thread, when that thread ends. It is not sent
    to the children of the process, and is forgotten when that executes a program with
    set-user-ID or changes its user (PR_SET_PDEATHSIG(2const)).

    Raises ValueError for an empty argv, an embedded null byte or a "=" in a variable's name, and
    TypeError for arguments that are not str, bytes or paths. Whether the program exists is known
    when it is spawned; resolve() asks now.
    """

    __slots__ = ("_options", "argv", "limits")

    _options: dict[str, Any]
    argv: tuple[StrOrBytesPath, ...]
    """Its words, as they were given."""
    limits: Limits
    """What each run may take."""

    def __init__(
        self,
        argv: Sequence[StrOrBytesPath],
        *,
        executable: StrOrBytesPath | None = None,
        env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
        cwd: StrOrBytesPath | None = None,
        stdout: int | None = PIPE,
        stderr: int | None = PIPE,
        start_new_session: bool = False,
        restore_signals: bool = True,
        umask: int = -1,
        limits: Limits = NO_LIMITS,
        cgroup: StrOrBytesPath | None = None,
        no_new_privs: bool = False,
        death_signal: int = 0,
    ) -> None:
        if not isinstance(argv, (str, bytes, os.PathLike)):
            argv = tuple(argv)  # it may be readable only once
        super().__init__(
            argv,
            executable=executable,
            env=env,
            cwd=cwd,
            restore_signals=restore_signals,
            start_new_session=start_new_session,
            # setsid(2) makes a group as well, and setpgid(2) would then be refused.
            process_group=None if start_new_session else 0,
            umask=umask,
            rlimits=tuple(limits.rlimits.items()),
            stdout=stdout,
            stderr=stderr,
            timeout=limits.timeout,
            kill_grace=limits.kill_grace,
            drain=limits.drain,
            max_output=limits.max_output,
            cgroup=cgroup,
            no_new_privs=no_new_privs,
            death_signal=death_signal,
        )
        options = {
            "executable": executable,
            "env": None if env is None else dict(env),
            "cwd": cwd,
            "stdout": stdout,
            "stderr": stderr,
            "start_new_session": start_new_session,
            "restore_signals": restore_signals,
            "umask": umask,
            "limits": limits,
            "cgroup": cgroup,
            "no_new_privs": no_new_privs,
            "death_signal": death_signal,
        }
        object.__setattr__(self, "_options", options)
        object.__setattr__(self, "argv", tuple(argv))
        object.__setattr__(self, "limits", limits)

    def replace(
        self,
        argv: Sequence[StrOrBytesPath] | None = None,
        *,
        env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    ) -> Command:
        """The same command with another argv or (whole) environment; None: its own."""
        options = {**self._options, "env": self._env() if env is None else env}
        return Command(self.argv if argv is None else argv, **options)

    def _env(self) -> Mapping[Any, Any]:
        """Its environment: what was given, or what os.environ was at that time."""
        env: Mapping[Any, Any] | None = self._options["env"]
        return self.environment() if env is None else env

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Command cannot be changed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Command cannot be changed: {name}")

    def __repr__(self) -> str:
        return f"Command({list(self.argv)!r})"
