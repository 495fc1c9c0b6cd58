"""The ends of a child's pipes, on any event loop.

``loop.connect_read_pipe`` costs a future, a task, several turns of the loop and, if it is
cancelled on uvloop, a descriptor. These need add_reader() and add_writer() alone, are connected
at once, and see data and end of file in one turn where they come together, as they do from a
short program. What they promise is what asyncio's own pipe transports promise.
"""

from __future__ import annotations

import asyncio
import os
import select
import warnings
from asyncio import constants, transports
from asyncio.log import logger
from typing import IO, TYPE_CHECKING, Any

_CHUNK = 64 * 1024
"""Bytes asked for in one read: what a pipe holds."""

_ROUNDS = 8
"""Reads in one turn of the loop: others want their turn, too."""

if TYPE_CHECKING:
    _FlowControl: Any = asyncio.WriteTransport
else:
    _FlowControl = transports._FlowControlMixin


class _Pipe(_FlowControl):  # type: ignore[misc]
    """One end, and the file that it is."""

    _closing = True

    def __init__(
        self, loop: asyncio.AbstractEventLoop, file: IO[bytes], protocol: asyncio.BaseProtocol
    ) -> None:
        super().__init__({"pipe": file}, loop)
        self._loop = loop
        self._file = file
        self._fd = file.fileno()
        self._protocol: Any = protocol
        self._paused = False
        os.set_blocking(self._fd, False)
        loop.add_reader(self._fd, self._ready)
        self._closing = False
        protocol.connection_made(self)

    def _ready(self) -> None:
        raise NotImplementedError

    def look(self) -> None:
        """See now what the loop would see next: the process has ended."""
        raise NotImplementedError

    def __repr__(self) -> str:
        state = "closed" if self._closing else "paused" if self._paused else "open"
        return f"<{type(self).__name__} fd={self._fd} {state}>"

    def _release(self) -> None:
        """Close the file. The loop may be closed already."""
        self._closing = True
        if not self._loop.is_closed():
            self._unwatch()
        self._file.close()

    def _unwatch(self) -> None:
        self._loop.remove_reader(self._fd)

    def _end(self, exc: BaseException | None) -> None:
        """Close it and tell the protocol, here and now."""
        self._release()
        protocol, self._protocol = self._protocol, None
        protocol.connection_lost(exc)

    def _close(self, exc: BaseException | None, *, late: bool = False) -> None:
        """Close it and tell the protocol soon (``late``: a turn later than that): the caller is in
        the middle of something."""
        if self._file.closed:
            return
        self._release()
        protocol, self._protocol = self._protocol, None
        if not self._loop.is_closed():
            soon: Any = self._loop.call_soon
            soon(*((soon,) if late else ()), protocol.connection_lost, exc)

    def _failed(self, exc: OSError) -> None:
        if self._loop.get_debug():
            logger.debug("%r: %s", self, exc, exc_info=True)
        self._close(exc)

    def is_closing(self) -> bool:
        """Is it closed, at its end, or to be closed?"""
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Who hears of what comes."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The one that was set last."""
        return self._protocol  # type: ignore[no-any-return]

    def __del__(self) -> None:
        if not self._closing:
            warnings.warn(
                f"unclosed transport {self!r}", ResourceWarning, stacklevel=2, source=self
            )
        if not self._closing or not self._file.closed:
            self._release()


class ReadPipe(_Pipe, asyncio.ReadTransport):
    """The end that is read."""

    _greedy = False

    def _ready(self) -> None:
        for _ in range(_ROUNDS):
            try:
                data = os.read(self._fd, _CHUNK)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                self._failed(exc)
                return
            if not data:
                self._end(None)
                return
            self._protocol.data_received(data)
            if self._paused or self._closing:
                return

    def look(self) -> None:
        """Read what is there."""
        if self.is_reading():
            self._ready()

    def close(self) -> None:
        """Read no more."""
        self._close(None)

    def is_reading(self) -> bool:
        """Does data come?"""
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        """Leave what comes in the pipe; then the child waits."""
        if self.is_reading() and not self._greedy:
            self._paused = True
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        """Go on after pause_reading()."""
        if self._paused and not self._closing:
            self._paused = False
            self._loop.add_reader(self._fd, self._ready)

    def take_all(self) -> None:
        """From now on read to the end whatever the protocol says: all of it is wanted."""
        self._greedy = True
        self.resume_reading()


class WritePipe(_Pipe, asyncio.WriteTransport):
    """The end that is written. It becomes readable when nobody is left to read the other one."""

    _lost = 0
    """Writes since it was closed."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, file: IO[bytes], protocol: asyncio.BaseProtocol
    ) -> None:
        self._buffer = bytearray()
        super().__init__(loop, file, protocol)

    def _ready(self) -> None:
        self._close(BrokenPipeError() if self._buffer else None)

    def look(self) -> None:
        """Close it if nobody is left to read."""
        if not self._file.closed:
            poll = select.poll()
            poll.register(self._fd, 0)
            if poll.poll(0):
                self._ready()

    def _unwatch(self) -> None:
        self._loop.remove_reader(self._fd)
        if self._buffer:
            self._loop.remove_writer(self._fd)
            self._buffer.clear()

    def get_write_buffer_size(self) -> int:
        """Bytes that the pipe had no room for yet."""
        return len(self._buffer)

    def can_write_eof(self) -> bool:
        """Always: it is a pipe's end."""
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write now what the pipe takes, and the rest when it can."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data: expecting a bytes-like instance, got {type(data).__name__}")
        if self._closing:
            self._count_lost(data)
            return
        if not self._buffer:
            data = memoryview(data).cast("B")[self._write(data) :]
            if self._file.closed or not data:
                return
            self._loop.add_writer(self._fd, self._flush)
        self._buffer += data
        self._maybe_pause_protocol()

    def _count_lost(self, data: bytes | bytearray | memoryview) -> None:
        """Complain of who goes on for long."""
        if data:
            if self._lost >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
                logger.warning("pipe closed by peer or os.write(pipe, data) raised exception.")
            self._lost += 1

    def _write(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return os.write(self._fd, data) if data else 0
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as exc:
            self._failed(exc)
            return 0

    def _flush(self) -> None:
        written = self._write(self._buffer)
        if self._file.closed:
            return
        if written < len(self._buffer):
            del self._buffer[:written]
            self._maybe_resume_protocol()
            return
        self._loop.remove_writer(self._fd)
        self._buffer.clear()
        self._maybe_resume_protocol()
        if self._closing:
            self._end(None)

    def write_eof(self) -> None:
        """Close it when all is written."""
        if not self._closing:
            self._closing = True
            if not self._buffer or self._loop.is_closed():
                # A turn later, as asyncio's: StreamWriter.drain() waits for one, and fails from
                # when it was told.
                self._close(None, late=True)

    close = write_eof

    def abort(self) -> None:
        """Close it now, whatever is left to write."""
        self._close(None)
