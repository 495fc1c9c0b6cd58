"""The access log: one line per request on standard output, in the common log format, then the
exit status (negative: the signal) and the process's run time.

Lines are collected and written together, at most ``_DELAY`` seconds later, so that a request
costs a share of a write and not a whole one.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .exchange import Exchange
    from .strategy import Job

_DELAY: Final = 0.02
_FULL: Final = 256  # lines


class AccessLog:
    """Writes to ``fd``, which stays the caller's."""

    __slots__ = ("_fd", "_lines", "_loop", "_scheduled", "_stamp")

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        self._loop = loop
        self._fd = fd
        self._lines: list[bytes] = []
        self._scheduled = False
        self._stamp = b""
        self.refresh()

    def refresh(self) -> None:
        """Take the current time into the lines to come. To be called every second."""
        self._stamp = time.strftime(" - - [%d/%b/%Y:%H:%M:%S %z] ").encode("ascii", "replace")

    def record(self, exchange: Exchange, job: Job | None) -> None:
        """``job``: its process, which has ended; None: there was none."""
        target = exchange.target
        if b'"' in target or b"\\" in target:
            # The parser has refused all that is not printable ASCII; these end the field.
            target = target.replace(b"\\", b"\\x5c").replace(b'"', b"\\x22")
        if job is None or job.returncode is None:
            end = b"exit=- wall=-\n"
        else:
            end = b"exit=%d wall=%.3fms\n" % (job.returncode, job.wall * 1000)
        self._lines.append(
            b'%b%b"%b %b HTTP/1.%d" %d %d %b'
            % (
                *(exchange.peer, self._stamp, exchange.method, target, not exchange.http10),
                *(exchange.status, exchange.sent, end),
            )
        )
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(_DELAY, self._due)
        elif len(self._lines) >= _FULL:
            self.flush()

    def flush(self) -> None:
        """Write what was collected. A log that can't be written must not stop the server."""
        data = memoryview(b"".join(self._lines))
        self._lines.clear()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            pass

    def _due(self) -> None:
        self._scheduled = False
        self.flush()
