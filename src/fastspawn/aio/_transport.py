"""asyncio's subprocess transport, told by a pidfd that its process has ended.

A pidfd becomes readable when its process ends (pidfd_open(2)), on any event loop and in any
thread: there is no child watcher, no SIGCHLD and no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.base_subprocess import (
    BaseSubprocessTransport,
    ReadSubprocessPipeProto,
    WriteSubprocessPipeProto,
)
from asyncio.log import logger
from asyncio.subprocess import SubprocessStreamProtocol
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastspawn.aio._pipes import ReadPipe, WritePipe
from fastspawn.aio._starting import Begun, await_end, begin, start

if TYPE_CHECKING:
    _Base: Any = object
else:
    _Base = BaseSubprocessTransport

NAP = (0.001, 0.02)
"""Seconds between looks at a process, at first and later, where no pidfd tells of its end."""

BURIAL = 1.0
"""Seconds that a killed process may take to end when no loop is left to hear of it."""

_OWN_PIPES = (ReadPipe, WritePipe)


def _is_plain(loop: asyncio.AbstractEventLoop) -> bool:
    """Does the loop make pipe transports as asyncio or uvloop do?  Another's are its own."""
    own = getattr(loop, "__dict__", {})
    uvloops = getattr(sys.modules.get("uvloop"), "Loop", None)
    return (
        type(loop) in (asyncio.SelectorEventLoop, uvloops)
        and "connect_read_pipe" not in own
        and "connect_write_pipe" not in own
    )


class _Constructor:
    """The loop that the base class's constructor sees. It makes no task to connect the pipes:
    that would cost two turns of the loop."""

    def __init__(self, debug: bool) -> None:
        self._debug = debug

    def get_debug(self) -> bool:
        return self._debug

    def create_task(self, nothing: None) -> None:
        pass


_CONSTRUCTORS = (_Constructor(False), _Constructor(True))


class SubprocessTransport(_Base):  # type: ignore[misc]
    """A process on an event loop, as loop.subprocess_exec() returns it."""

    _loop: Any
    _proc: Any
    _pipes: dict[int, Any]
    _pending_calls: Any
    _exit_waiters: Any
    _child: Any = None  # Child
    _had_turn = False
    _watched = -1
    _nap = NAP[0]
    _direct = False
    """The protocol is asyncio's own, which may be called at once rather than soon."""
    _pipes_connected = True  # newer versions of the base class ask; here it is true when it matters

    def __init__(self, loop: asyncio.AbstractEventLoop, *args: Any, **kwargs: Any) -> None:
        self._real_loop = loop
        super().__init__(_CONSTRUCTORS[loop.get_debug()], *args, **kwargs)
        self._loop = loop

    def _start(
        self,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        begun: Begun | None,
        **kwargs: Any,
    ) -> None:
        if begun is None:
            self._proc, self._child = start(args, shell, (stdin, stdout, stderr), bufsize, kwargs)
        else:
            self._proc, self._child = begun.popen(), begun.child
            self._had_turn = begun.had_turn
        self._direct = type(self._protocol) is SubprocessStreamProtocol
        try:
            self._watch()
        except BaseException:
            for file in self._files():
                if file is not None:
                    file.close()
            self._bury()
            raise

    def _files(self) -> tuple[Any, Any, Any]:
        return self._proc.stdin, self._proc.stdout, self._proc.stderr

    # ---- the end --------------------------------------------------------------------------

    def _watch(self, *, told: bool = False) -> None:
        """``told``: it has ended, but who traces it has its status first (ptrace(2))."""
        fd = -1 if self._child is None or told else self._child.watch()
        if fd < 0:
            self._nap = min(self._nap * 1.5, NAP[1])
            self._real_loop.call_later(self._nap, self._look)
        else:
            self._real_loop.add_reader(fd, self._look)
            self._watched = fd

    def _look(self) -> None:
        """It has ended, or seems to have."""
        told = self._watched >= 0
        if told:
            self._real_loop.remove_reader(self._watched)
            self._watched = -1
            self._child.unwatch()
        code = self._reap()
        if code is None:
            self._watch(told=told)
        else:
            self._child = None  # and its descriptor, if someone else reaped it
            self._look_at_pipes()
            self._process_exited(code)

    def _look_at_pipes(self) -> None:
        """All that the process itself wrote is there by now, and mostly the end, too: so that who
        wakes up finds nothing left, though others may hold the pipes for as long as they like."""
        for proto in tuple(self._pipes.values()):
            if proto is not None and not proto.disconnected and type(proto.pipe) in _OWN_PIPES:
                proto.pipe.look()

    def _process_exited(self, returncode: int) -> None:
        """Wakes those who wait, now and not with the end of the pipes.

        So do uvloop and Python 3.10; later versions wait for the pipes, or wake by their own list.
        """
        waiters, self._exit_waiters = self._exit_waiters, []
        super()._process_exited(returncode)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(returncode)

    def _reap(self) -> int | None:
        """The return code; None while it runs, or while another thread is about to reap it."""
        proc = self._proc
        if not proc._waitpid_lock.acquire(False):
            return None
        try:
            code: int | None = proc.returncode
            if code is None:
                code = self._wait_once()
                proc.returncode = code
            return code
        finally:
            proc._waitpid_lock.release()

    def _wait_once(self) -> int | None:
        code: int | None
        lost = False
        if self._child is not None:
            code = self._child.wait(False)
            lost = self._child.lost
        else:
            try:
                pid, status = os.waitpid(self._proc.pid, os.WNOHANG)
            except ChildProcessError:
                code, lost = 0, True
            else:
                code = os.waitstatus_to_exitcode(status) if pid else None
        if lost:
            logger.warning(
                "Unknown child process pid %d, will report returncode 255", self._proc.pid
            )
            return 255
        return code

    def _bury(self) -> None:
        """Kill and reap a process whose end no loop will hear of."""
        end = time.monotonic() + BURIAL
        if self._reap() is None:
            self._proc.kill()
        while self._reap() is None and (left := end - time.monotonic()) > 0:
            if await_end(self._child, left):
                time.sleep(min(left, NAP[0]))

    def __del__(self) -> None:
        super().__del__()
        if self._proc is not None and self._returncode is None:
            self._bury()

    def send_signal(self, sig: int) -> None:
        """Send a signal; ProcessLookupError once its end was told."""
        self._check_proc()
        if self._returncode is not None:
            return
        if self._child is None:
            self._proc.send_signal(sig)
            return
        with contextlib.suppress(ProcessLookupError):
            self._child.kill(sig)

    def terminate(self) -> None:
        """send_signal(SIGTERM)"""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """send_signal(SIGKILL)"""
        self.send_signal(signal.SIGKILL)

    # ---- pipes ----------------------------------------------------------------------------

    def _connect_pipes(self, waiter: None) -> None:
        """What the base class's constructor calls for; connect() does it."""

    async def connect(self) -> None:
        """Connect the pipes, tell the protocol, and let the loop have a turn."""
        if not _is_plain(self._loop):
            waiter = self._loop.create_future()
            await BaseSubprocessTransport._connect_pipes(self, waiter)
            await waiter
            await asyncio.sleep(0)  # connection_made() comes first
            return
        stdin, stdout, stderr = self._files()
        for fd, file in ((1, stdout), (2, stderr)):
            if file is not None:
                self._pipes[fd] = ReadSubprocessPipeProto(self, fd)
                ReadPipe(self._loop, file, self._pipes[fd])
        if stdin is not None:
            self._pipes[0] = WriteSubprocessPipeProto(self, 0)
            WritePipe(self._loop, stdin, self._pipes[0])
        self._connected()
        # connection_made() comes before the return, and someone who starts many in a row does not
        # keep the loop from everything else.
        if not (self._had_turn and self._direct):
            await asyncio.sleep(0)

    def _connected(self) -> None:
        pending, self._pending_calls = self._pending_calls, None
        self._call(self._protocol.connection_made, self)
        for callback, data in pending or ():
            self._call(callback, *data)

    def abandon(self) -> None:
        """Kill it and let go of its pipes, connected or not."""
        self.close()
        for fd, file in enumerate(self._files() if self._proc else ()):
            if file is not None and self._pipes[fd] is None:
                del self._pipes[fd]
                file.close()
        if self._pending_calls is not None:
            self._connected()

    def take_all(self) -> bool:
        """Read both outputs to their end, however long; False if the pipes are not ours."""
        pipes = [self._pipes[fd].pipe for fd in (1, 2) if fd in self._pipes]
        if not all(type(pipe) is ReadPipe for pipe in pipes):
            return False
        for pipe in pipes:
            pipe.take_all()
        return True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Who hears of it from now on."""
        super().set_protocol(protocol)
        self._direct = False

    def _call(self, cb: Callable[..., None], *data: Any) -> None:
        if self._direct and self._pending_calls is None:
            cb(*data)
        else:
            super()._call(cb, *data)


async def make_transport(
    loop: asyncio.AbstractEventLoop,
    protocol: asyncio.BaseProtocol,
    args: Any,
    shell: bool,
    stdin: Any,
    stdout: Any,
    stderr: Any,
    bufsize: int,
    extra: Any = None,
    **kwargs: Any,
) -> asyncio.SubprocessTransport:
    """What loop._make_subprocess_transport does on asyncio's own loops."""
    begun = await begin(loop, args, shell, (stdin, stdout, stderr), kwargs)
    transport: Any = SubprocessTransport(
        loop,
        protocol,
        args,
        shell,
        stdin,
        stdout,
        stderr,
        bufsize,
        extra=extra,
        begun=begun,
        **kwargs,
    )
    try:
        await transport.connect()
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:
        transport.abandon()
        await transport._wait()
        raise
    return transport  # type: ignore[no-any-return]
