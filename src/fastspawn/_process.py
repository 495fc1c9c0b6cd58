"""A running command with streams."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from types import TracebackType
from typing import TYPE_CHECKING, cast

from fastspawn._command import Command
from fastspawn._result import Result, why_not

if TYPE_CHECKING:
    from typing_extensions import Self

    from fastspawn._core import Job

# asyncio.StreamReader pauses its transport at twice this: the engine's window is the real bound.
_READER_LIMIT = 64 * 1024


class _Flow:
    """The part of a transport that asyncio.StreamReader uses: backpressure for one stream."""

    __slots__ = ("_process", "_stream")

    def __init__(self, process: Process, stream: int) -> None:
        self._process = process
        self._stream = stream

    def pause_reading(self) -> None:
        self._process._job.pause_reading(self._stream)

    def resume_reading(self) -> None:
        self._process._job.resume_reading(self._stream)


class StdinWriter:
    """stdin of a running command, as asyncio.StreamWriter writes it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._drained: asyncio.Future[None] | None = None
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes. Follow it with drain(). Bytes that the command never reads are dropped.

        Raises BrokenPipeError after close(), whether the command has ended meanwhile or not.
        """
        if self._closing:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        if not self._process._job.write(data) and self._drained is None:
            self._drained = self._process._loop.create_future()

    async def drain(self) -> None:
        """Wait while more than the high-water mark (256 KiB) is queued."""
        if self._drained is not None:
            await asyncio.shield(self._drained)

    def close(self) -> None:
        """Let the command see the end of file after what was written."""
        self._closing = True
        self._process._job.write_eof()

    write_eof = close

    def is_closing(self) -> bool:
        """Has close() been called?"""
        return self._closing

    def _go_on(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)


async def _rest(reader: asyncio.StreamReader | None) -> bytes:
    # None is no bytes, but typeshed knows CompletedProcess only with both captured.
    return cast(bytes, None if reader is None else await reader.read())


class _ProcessSink:
    """Apart from Process, so that its callbacks are no part of what users see."""

    __slots__ = ("_process", "discard")

    def __init__(self, process: Process) -> None:
        self._process = process
        self.discard = False
        """No one reads any more: what still comes is dropped, so that the end is not held up."""

    def on_start(self, job: Job) -> None:
        started = self._process._started
        if not started.done():
            started.set_result(None)

    def on_output(self, data: bytes) -> None:
        if not self.discard:
            cast(asyncio.StreamReader, self._process.stdout).feed_data(data)

    def on_errors(self, data: bytes) -> None:
        if not self.discard:
            cast(asyncio.StreamReader, self._process.stderr).feed_data(data)

    def on_drain(self) -> None:
        self._process.stdin._go_on()

    def on_exit(self, job: Job) -> None:
        process = self._process
        for reader, rest in ((process.stdout, job.output), (process.stderr, job.errors)):
            if reader is not None:
                if rest and not self.discard:
                    reader.feed_data(rest)
                reader.feed_eof()
        process.stdin._go_on()
        if not process._started.done():
            if (error := why_not(job)) is not None:
                process._started.set_exception(error)
            else:
                process._started.set_result(None)
        if not process._ended.done():
            process._ended.set_result(None)


class Process:
    """A command started by Engine.open().

    stdin is written with write() and drain(), stdout and stderr are asyncio.StreamReader (None
    unless they are PIPE). As an async context manager it ends what still runs on leaving.
    """

    stdin: StdinWriter
    stdout: asyncio.StreamReader | None
    stderr: asyncio.StreamReader | None

    def __init__(self, loop: asyncio.AbstractEventLoop, command: Command) -> None:
        self._loop = loop
        self._command = command
        self._job: Job
        self._sink = _ProcessSink(self)
        self._started: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        self.stdin = StdinWriter(self)
        """As an asyncio.StreamWriter: write, drain, close, is_closing."""
        self.stdout = self._reader(0)
        """An asyncio.StreamReader; None unless it was PIPE."""
        self.stderr = self._reader(1)
        """Likewise."""

    def _reader(self, stream: int) -> asyncio.StreamReader | None:
        if not self._command.pipes[stream]:
            return None
        reader = asyncio.StreamReader(limit=_READER_LIMIT, loop=self._loop)
        reader.set_transport(cast(asyncio.Transport, _Flow(self, stream)))
        return reader

    @property
    def pid(self) -> int:
        """The process id, which the system may give to another process after the end."""
        return self._job.pid or 0

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._job.returncode

    async def wait(self) -> int:
        """Wait for the end and return the return code. All output must be read, too: a command
        whose output no one reads waits."""
        await asyncio.shield(self._ended)
        return cast(int, self._job.returncode)

    async def result(self) -> Result:
        """Wait for the end; what was not read from stdout and stderr before is in the result."""
        # Read first: a command whose output no one reads does not end.
        out, err = await asyncio.gather(_rest(self.stdout), _rest(self.stderr))
        await asyncio.shield(self._ended)
        result = Result.of(self._command.argv, self._job)
        result.stdout, result.stderr = out, err
        return result

    def send_signal(self, sig: int) -> None:
        """Signal the command; does nothing once it has ended."""
        self._job.send_signal(sig)

    def terminate(self) -> None:
        """send_signal(SIGTERM)"""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """send_signal(SIGKILL)"""
        self.send_signal(signal.SIGKILL)

    def cancel(self) -> None:
        """End the whole process group: SIGTERM, Limits.kill_grace, SIGKILL."""
        self._job.cancel()

    def _abandon(self) -> None:
        """End it, and want nothing more from it."""
        self._sink.discard = True
        self._job.cancel()
        for stream in range(2):
            self._job.resume_reading(stream)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._abandon()
        await asyncio.shield(self._ended)

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"returncode={self.returncode}"
        return f"<Process {self._command.argv!r} pid={self.pid} {state}>"
