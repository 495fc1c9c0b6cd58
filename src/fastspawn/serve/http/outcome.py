"""What a process that did not do its work is in HTTP."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from fastspawn import WorkerError

from .response import BODYLESS

if TYPE_CHECKING:
    from fastspawn.serve.job import Job

# What passes when others have ended: worth another try.
_SCARCE: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC})


RETRY_AFTER: Final = b"\r\nRetry-After: 1"
"""Seconds (RFC 9110 section 10.2.3)."""

SHOWN: Final = 500
"""Bytes of an output that the operator gets to see."""


class Failure(NamedTuple):
    status: int
    text: bytes
    """A line for the client."""
    passing: bool = False
    """Another try may do better: the answer has a Retry-After."""

    @property
    def fields(self) -> bytes:
        """More header fields, each after a CRLF."""
        return RETRY_AFTER if self.passing else b""


OVERLOADED: Final = Failure(503, b"too many requests are running\n", passing=True)


def failed(job: Job) -> bool:
    """In ``on_exit``: the process did not do its work."""
    return job.returncode != 0 or job.timed_out or job.truncated


def stopped(job: Job) -> bool:
    """Likewise: it was not the process that chose where its output ends.

    It was killed, by the server or by somebody else, or it never ran. One that exits has said
    what it had to say, whatever its status.
    """
    status = job.returncode
    return status is None or status < 0 or job.timed_out or job.truncated


def failure(job: Job) -> Failure:
    """The error that answers a request whose process has ``failed`` before its first byte."""
    error = job.error
    if error is not None:
        why = str(error.strerror) if isinstance(error, OSError) else "no memory"
        text = b"the command could not be started: %b\n" % why.encode()
        if isinstance(error, WorkerError):
            return Failure(502, text)
        if isinstance(error, MemoryError) or error.errno in _SCARCE:
            return Failure(503, text, passing=True)
        return Failure(500, text)
    if job.timed_out:
        return Failure(504, b"the command did not finish in time\n")
    if job.truncated:
        return Failure(500, b"the command wrote too much\n")
    if job.returncode is None:
        # Somebody else reaped it.
        return Failure(500, b"the command's exit status was lost\n")
    if job.returncode < 0:
        return Failure(500, b"the command was killed by signal %d\n" % -job.returncode)
    return Failure(500, b"the command exited with status %d\n" % job.returncode)


def how(job: Job) -> str:
    """How it ended, for the operator."""
    status = job.returncode
    if job.timed_out:
        return "it did not finish in time"
    if job.truncated:
        return "it wrote too much"
    if status is None:
        return "its exit status was lost"
    if status < 0:
        return f"it was killed by signal {-status}"
    return f"it exited with status {status}"


class Verdict(NamedTuple):
    """What a process has come to, of a route that says what exit statuses are in HTTP."""

    status: int
    text: bytes | None
    """A line for the client; None: what the process wrote."""
    passing: bool = False
    """As of a Failure."""

    @property
    def fields(self) -> bytes:
        """More header fields, each after a CRLF."""
        return RETRY_AFTER if self.passing else b""

    @property
    def good(self) -> bool:
        """What was written is an answer, whole."""
        return 200 <= self.status < 300


class Judge:
    """Of one route."""

    __slots__ = ("_output", "_statuses", "start")

    def __init__(self, statuses: Mapping[int, int], *, output: bool) -> None:
        """``statuses``: HTTP's, by exit status. ``output``: what a process wrote is answered
        whatever its status, if it chose that itself."""
        self._statuses = {0: 200, **statuses}
        self._output = output
        usual = self._statuses[0]
        self.start = usual if 200 <= usual < 300 and usual not in BODYLESS else 200
        """The status of an answer that begins before its process ends."""

    def judge(self, job: Job) -> Verdict:
        """In ``on_exit``."""
        if stopped(job):
            return Verdict(*failure(job))
        assert job.returncode is not None
        status = self._statuses.get(job.returncode, 500)
        if self._output or 200 <= status < 300 or status in BODYLESS:
            return Verdict(status, None)
        return Verdict(status, b"the command exited with status %d\n" % job.returncode)
