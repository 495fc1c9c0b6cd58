"""fastspawn: one process per request, fast.

A C engine starts, feeds, collects, limits and reaps child processes on threads of its own, so that
an event loop (or a program without one) never waits for a spawn. ``python -m fastspawn.serve`` is
an HTTP server on top of it.

The environment variable FASTSPAWN_BACKEND pins the way to spawn (clone3, clone, vfork,
posix_spawn or fork); without it the first one that works here is used.

A name is imported when it is first asked for (PEP 562): who only runs programs pays neither for
the event loop nor for the engine.
"""

import os
import sys
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

TYPE_CHECKING = False  # not typing's, whose import nothing else here needs
if TYPE_CHECKING:
    # Its overloads say which arguments make it one of text; a subclass does not inherit that.
    from subprocess import Popen

    from fastspawn import aio
    from fastspawn._checkpoint import checkpoint
    from fastspawn._command import Command
    from fastspawn._core import STREAM, Job
    from fastspawn._engine import Engine
    from fastspawn._install import install, installed, uninstall
    from fastspawn._limits import Limits
    from fastspawn._process import Process
    from fastspawn._refusals import TemplateError
    from fastspawn._resettable.job import PoolJob, WorkerError
    from fastspawn._resettable.pool import ResettablePool
    from fastspawn._result import Result
    from fastspawn._shortcuts import (
        call,
        check_call,
        check_output,
        getoutput,
        getstatusoutput,
        run,
    )
    from fastspawn._sinks import Sink
    from fastspawn._template import Template
    from fastspawn._warm.job import WarmJob
    from fastspawn._warm.pool import WarmPool

__version__ = "0.1.0"

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

_HOMES = {
    "_checkpoint": ("checkpoint",),
    "_core": ("STREAM", "Job"),
    "_install": ("install", "installed", "uninstall"),
    "_command": ("Command",),
    "_engine": ("Engine",),
    "_limits": ("Limits",),
    "_popen": ("Popen",),
    "_process": ("Process",),
    "_refusals": ("TemplateError",),
    "_resettable.job": ("PoolJob", "WorkerError"),
    "_resettable.pool": ("ResettablePool",),
    "_result": ("Result",),
    "_shortcuts": (
        "call",
        "check_call",
        "check_output",
        "getoutput",
        "getstatusoutput",
        "run",
    ),
    "_sinks": ("Sink",),
    "_template": ("Template",),
    "_warm.job": ("WarmJob",),
    "_warm.pool": ("WarmPool",),
}
"""Where the public names are that are not here yet."""

_HOME = {"aio": "aio", "_core": "_core"} | {
    name: home for home, names in _HOMES.items() for name in names
}

_OTHER_INTERPRETER = (
    "fastspawn is for one interpreter of a process, and for none with a GIL of its own (PEP 684):"
    " in another, use subprocess"
)


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    path = f"{__name__}.{home}"
    try:
        __import__(path)
    except ImportError as error:
        if "interpreter" in str(error):
            raise ImportError(_OTHER_INTERPRETER, name=__name__) from None
        raise
    module = sys.modules[path]
    value = module if name == home else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def get_include() -> str:
    """The directory of ``fastspawn/checkpoint.h``, for C and C++ programs (``cc -I``)."""
    return os.path.join(os.path.dirname(__file__), "include")
