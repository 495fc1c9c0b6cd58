"""fastspawn: one process per request, fast.

A C engine starts, feeds, collects, limits and reaps child processes on threads of its own, so that
an event loop (or a program without one) never waits for a spawn. ``python -m fastspawn.serve`` is
an HTTP server on top of it.

The environment variable FASTSPAWN_BACKEND pins the way to spawn (clone3, clone, vfork,
posix_spawn or fork); without it the first one that works here is used.
"""

import contextlib
import os
from importlib.metadata import version
from subprocess import (
    DEVNULL,
    PIPE,
    STDOUT,
    CalledProcessError,
    CompletedProcess,
    SubprocessError,
    TimeoutExpired,
    list2cmdline,
)
from typing import TYPE_CHECKING

from fastspawn import _core, aio
from fastspawn._checkpoint import checkpoint
from fastspawn._core import STREAM, Job
from fastspawn._install import install, installed, uninstall
from fastspawn.command import Command, Limits
from fastspawn.engine import Engine, Sink
from fastspawn.pool import PoolJob, ResettablePool, WorkerError
from fastspawn.process import Process
from fastspawn.result import Result
from fastspawn.shortcuts import (
    call,
    check_call,
    check_output,
    getoutput,
    getstatusoutput,
    run,
)
from fastspawn.template import Template, TemplateError
from fastspawn.warm import WarmJob, WarmPool

if TYPE_CHECKING:
    # Its overloads say which arguments make it one of text; a subclass does not inherit that.
    from subprocess import Popen
else:
    from fastspawn.popen import Popen

__version__ = version("fastspawn")


def get_include() -> str:
    """The directory of ``fastspawn/checkpoint.h``, for C and C++ programs (``cc -I``)."""
    return os.path.join(os.path.dirname(__file__), "include")


__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "STREAM",
    "CalledProcessError",
    "Command",
    "CompletedProcess",
    "Engine",
    "Job",
    "Limits",
    "PoolJob",
    "Popen",
    "Process",
    "ResettablePool",
    "Result",
    "Sink",
    "SubprocessError",
    "Template",
    "TemplateError",
    "TimeoutExpired",
    "WarmJob",
    "WarmPool",
    "WorkerError",
    "__version__",
    "aio",
    "call",
    "check_call",
    "check_output",
    "checkpoint",
    "get_include",
    "getoutput",
    "getstatusoutput",
    "install",
    "installed",
    "list2cmdline",
    "run",
    "uninstall",
]

# A wrong name is told by whatever wants to spawn, not by the import.
with contextlib.suppress(ValueError):
    _core.select_backend(os.environ.get("FASTSPAWN_BACKEND"))
