"""subprocess.Popen, started by the core.

Only the start, the wait with a timeout and the signals are ours; everything else is the standard
library's. What the core does not do, or does not understand, is handed to the standard library as
well, which then does it or says what is wrong with it.
"""

from __future__ import annotations

import contextlib
import operator
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from time import monotonic, sleep

from fastspawn._core import Child, Plan, ReturnCode, adopt, backends, spawn, tells_stages

TYPE_CHECKING = False  # not typing's, whose import nothing else here needs
if TYPE_CHECKING:
    from typing import Any, AnyStr  # noqa: F401  (the base's, below)

# What the standard library passes to Popen._execute_child. A version that passes something else
# starts its children itself.
_ARGUMENTS = (
    "args executable preexec_fn close_fds pass_fds cwd env startupinfo creationflags shell "
    "p2cread p2cwrite c2pread c2pwrite errread errwrite restore_signals gid gids uid umask "
    "start_new_session"
).split()


def _understood() -> bool:
    code = getattr(subprocess.Popen._execute_child, "__code__", None)  # type: ignore[attr-defined]
    if code is None or code.co_flags & (0x04 | 0x08):  # CO_VARARGS, CO_VARKEYWORDS
        return False
    taken = list(code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])
    return taken in (_ARGUMENTS, [*_ARGUMENTS, "process_group"])  # the last one since Python 3.11


_HAS_FORK = "fork" in backends()
"""Whether the core can start a child as another user."""

SHELL = "/system/bin/sh" if hasattr(sys, "getandroidapilevel") else "/bin/sh"

MAX_NAP = 3600.0
TRACED_NAP = 0.01
"""Seconds between looks at a process whose end is somebody else's to hear first."""
"""Seconds for which a lock is asked to wait at a time; it has a limit."""


def argument_vector(args: Any, shell: Any, executable: Any) -> list[Any]:
    """What subprocess makes of its args."""
    if isinstance(args, os.PathLike) and shell:
        raise TypeError("path-like args is not allowed when shell is true")
    argv = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
    return [executable or SHELL, "-c", *argv] if shell else argv


def _are_ints(values: Iterable[object]) -> bool:
    return all(isinstance(value, int) for value in values)


class Popen(subprocess.Popen["AnyStr"]):
    """subprocess.Popen with the start, the timed wait and the signals of fastspawn.

    Arguments, attributes, methods and errors are those of the running Python's subprocess.Popen.
    The child is started without copying this process, whatever its size and number of open files,
    and without holding the GIL. wait() and communicate() with a timeout wait for the exit instead
    of looking for it, and a signal is never sent to another process that got the number of a
    child that is gone. Where someone else has reaped the child (SIGCHLD is ignored, a thread is in
    waitpid(-1)), returncode is the true one since Linux 6.15, and before that subprocess's 0.

    With user, group or extra_groups this process is copied, as there is no other way to change who
    the child is. preexec_fn is left to the standard library's own code, as is everything when
    subprocess._USE_VFORK is false.
    """

    __module__ = "fastspawn"
    _core_child: Child | None = None
    """The child until it has been reaped, where there are pidfds."""
    _reaped = False

    if _understood():

        def _execute_child(
            self,
            args: Any,
            executable: Any,
            preexec_fn: Any,
            close_fds: Any,
            pass_fds: Any,
            cwd: Any,
            env: Any,
            startupinfo: Any,
            creationflags: Any,
            shell: Any,
            p2cread: int,
            p2cwrite: int,
            c2pread: int,
            c2pwrite: int,
            errread: int,
            errwrite: int,
            restore_signals: Any,
            gid: Any,
            gids: Any,
            uid: Any,
            umask: Any,
            start_new_session: Any,
            *process_group: Any,
        ) -> None:
            # They may be readable only once, and are read twice when the plan fails.
            if not isinstance(args, (str, bytes, os.PathLike)):
                args = list(args)
            if not isinstance(pass_fds, Sequence):
                pass_fds = list(pass_fds)
            plan, argv = None, None
            ints = (restore_signals, umask, start_new_session, *process_group)
            if (
                preexec_fn is None
                and (_HAS_FORK or gid is gids is uid is None)
                and min(p2cread, c2pwrite, errwrite) >= -1
                and _are_ints(ints)
                and getattr(subprocess, "_USE_VFORK", True)
            ):
                group = process_group[0] if process_group and process_group[0] >= 0 else None
                # Whatever is wrong with the arguments: the standard library says it.
                with contextlib.suppress(Exception):
                    argv = argument_vector(args, shell, executable)
                    plan = Plan(
                        argv,
                        executable=executable,
                        env=env,
                        cwd=cwd,
                        pass_fds=pass_fds,
                        close_fds=bool(close_fds),
                        restore_signals=bool(restore_signals),
                        start_new_session=bool(start_new_session),
                        process_group=group,
                        umask=umask,
                        user=uid,
                        group=gid,
                        extra_groups=gids,
                    )
            child = None
            if plan is not None:
                sys.audit("subprocess.Popen", plan.executable, argv, cwd, env)
                try:
                    child = spawn(plan, p2cread, c2pwrite, errwrite)
                except OSError:
                    if tells_stages():
                        raise
            if child is None:
                super()._execute_child(  # type: ignore[misc]
                    args,
                    executable,
                    preexec_fn,
                    close_fds,
                    pass_fds,
                    cwd,
                    env,
                    startupinfo,
                    creationflags,
                    shell,
                    p2cread,
                    p2cwrite,
                    c2pread,
                    c2pwrite,
                    errread,
                    errwrite,
                    restore_signals,
                    gid,
                    gids,
                    uid,
                    umask,
                    start_new_session,
                    *process_group,
                )
                self._core_child = adopt(self.pid)
                return
            self.pid = child.pid
            self._core_child = child if child.pidfd >= 0 else None
            self._child_created = True
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]

    # Whoever learns the code sets it, asyncio's own transports and psutil from outside: from then
    # on _core_child is None.
    returncode: Any = ReturnCode()

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """waitpid(); under the lock. A status that someone else took is the kernel's to tell."""
        child = self._core_child
        if child is None:
            found: tuple[int, int] = super()._try_wait(wait_flags)  # type: ignore[misc]
            return found
        if not child.gone:
            with contextlib.suppress(ChildProcessError):
                return os.waitpid(self.pid, wait_flags)
        code = child.wait(not wait_flags & os.WNOHANG)
        if code is None:
            return 0, 0
        return self.pid, -code if code < 0 else code << 8

    def _internal_poll(self, _deadstate: int | None = None, **_: Any) -> int | None:
        """poll(), also for who drops it, when this module may have no globals any more."""
        child = self._core_child
        if child is None:
            code: int | None = super()._internal_poll(_deadstate)  # type: ignore[misc]
            return code
        lock = self._waitpid_lock  # type: ignore[attr-defined]
        if lock.acquire(False):
            try:
                if self.returncode is None:
                    self.returncode = child.wait(False)
            finally:
                lock.release()
        return self.returncode  # type: ignore[no-any-return]

    def _wait(self, timeout: float | None) -> int:
        child = self._core_child
        if timeout is None or child is None or self.returncode is not None:
            code: int = super()._wait(timeout)  # type: ignore[misc]
            return code
        lock = self._waitpid_lock  # type: ignore[attr-defined]
        end = monotonic() + timeout
        left = timeout
        told = False
        while True:
            # Held by another thread that waits, or that is about to tell the return code.
            if lock.acquire(timeout=min(max(left, 0), MAX_NAP)):
                try:
                    if self.returncode is None:
                        self.returncode = child.wait(False)
                finally:
                    lock.release()
                if self.returncode is not None:
                    return self.returncode  # type: ignore[no-any-return]
            left = end - monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(self.args, timeout)
            if told:  # and who traces it is asked first (ptrace(2)): it may take him a while
                sleep(min(left, TRACED_NAP))
            told = child.await_end(left)

    def send_signal(self, sig: int) -> None:
        """Send a signal to the child, if it is still there."""
        child = self._core_child
        if child is None and not self._reaped:
            super().send_signal(sig)
            return
        self.poll()
        if child is not None and self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill(sig)


# Tests and tools replace subprocess.Popen, or methods of it, to see or forbid processes: then
# every process has to come from there.
_STDLIB = (subprocess.Popen, Popen)
_methods = operator.attrgetter("__init__", "_execute_child", "communicate", "wait", "kill")
_untouched = _methods(Popen)


def is_replaced() -> bool:
    """Has someone replaced it?"""
    return subprocess.Popen not in _STDLIB or _methods(Popen) != _untouched


def popen_class() -> type[subprocess.Popen[Any]]:
    """Ours, unless someone has put a class of his own in its place."""
    return Popen if subprocess.Popen in _STDLIB else subprocess.Popen


def take_over(child: Child, args: Any, text_mode: bool | None = None) -> Popen[Any]:
    """A Popen without pipes for a child that runs."""
    process: Popen[Any] = Popen.__new__(Popen)
    process.__dict__.update(
        args=args,
        pid=child.pid,
        returncode=None,
        stdin=None,
        stdout=None,
        stderr=None,
        encoding=None,
        errors=None,
        text_mode=text_mode,
        pipesize=-1,
        _waitpid_lock=threading.Lock(),
        _input=None,
        _communication_started=False,
        _sigint_wait_secs=0.25,
        _closed_child_pipe_fds=True,
        _child_created=True,
        _core_child=child if child.pidfd >= 0 else None,
    )
    return process
