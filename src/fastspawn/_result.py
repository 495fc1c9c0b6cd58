"""How a command ended."""

# Annotations are objects here, as in _limits.py.

import resource
import subprocess
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from fastspawn._core import Job

# Only type checkers can subscript it on the class statement of Python 3.10's typeshed; at run
# time CompletedProcess has __class_getitem__, whose alias is no base for __slots__-free pickling.
if TYPE_CHECKING:
    _Base = subprocess.CompletedProcess[bytes]
else:
    _Base = subprocess.CompletedProcess


class Result(_Base):
    """A subprocess.CompletedProcess with what the engine knows beyond it.

    As there, stdout and stderr are None unless they were PIPE.
    """

    __module__ = "fastspawn"

    pid: int
    """what its process id was"""
    wall: float
    """seconds from spawn to reap"""
    rusage: resource.struct_rusage
    """the command's own use of resources, and its waited-for descendants'"""
    timed_out: bool
    """Limits.timeout passed"""
    truncated: bool
    """Limits.max_output was exceeded: stdout and stderr are what came before"""
    cancelled: bool
    """the engine was closed while it ran"""
    lost: bool
    """someone else reaped the child: returncode is 255, the real one is not known (before Linux
    6.15)"""

    @classmethod
    def of(cls, argv: Iterable[object], job: Job) -> "Result":
        """The result of a job that has run; raises why_not() of one that has not."""
        if (error := why_not(job)) is not None:
            raise error
        out, err = job.plan.pipes
        result = cls(
            list(argv),  # type: ignore[arg-type]
            cast(int, job.returncode),
            job.output if out else None,
            job.errors if err else None,
        )
        result.pid = job.pid or 0
        result.wall = job.wall
        result.rusage = job.rusage  # type: ignore[assignment]
        result.timed_out = job.timed_out
        result.truncated = job.truncated
        result.cancelled = job.cancelled
        result.lost = job.lost
        return result


def why_not(job: Job) -> Exception | None:
    """Why a job that has ended did not run; None if it did."""
    if job.error is None and job.returncode is None:
        return RuntimeError("the engine was closed before the command ran")
    return job.error
