"""What a process that did not do its work is in HTTP."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, NamedTuple

from fastspawn import WorkerError

if TYPE_CHECKING:
    from .strategy import Job

# What passes when others have ended: worth another try.
_SCARCE: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC})


class Failure(NamedTuple):
    status: int
    text: bytes
    """A line for the client."""
    passing: bool = False
    """Another try may do better: the answer has a Retry-After."""


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
