"""One process for a request, as all the rooms know it that have to do with one: whoever started it,
and however. ``strategies`` makes them, ``http`` and the modes are their sinks, ``figures`` tells
of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from fastspawn import STREAM
from fastspawn._core import Terminal

if TYPE_CHECKING:
    import resource

__all__ = ["STREAM", "Job", "Sink", "Terminal"]


class Job(Protocol):
    """One process, from the moment it was asked for. All calls are on the loop's thread."""

    @property
    def pid(self) -> int | None:
        """Known as soon as something of it has come to the sink."""

    @property
    def output(self) -> bytes:
        """In ``on_exit``: what ``on_output`` has not yet delivered."""

    @property
    def errors(self) -> bytes:
        """Likewise, of standard error where that is collected, and ``on_errors``."""

    @property
    def returncode(self) -> int | None:
        """Negative: the signal, as in subprocess. None: never started, or the status was lost."""

    @property
    def error(self) -> OSError | MemoryError | None:
        """Why no process could be started."""

    @property
    def timed_out(self) -> bool: ...

    @property
    def truncated(self) -> bool:
        """There was more output than the limit allows."""

    @property
    def cancelled(self) -> bool: ...

    @property
    def wall(self) -> float:
        """Seconds from start to exit."""

    @property
    def rusage(self) -> resource.struct_rusage | None:
        """Of the process; None where it is not known."""

    def write(self, data: bytes) -> bool:
        """Queue bytes for stdin (``STREAM`` only). False: wait for ``Sink.on_drain``."""

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def cancel(self) -> None:
        """TERM to the process group, grace, KILL. ``on_exit`` still follows."""


class Sink(Protocol):
    """What hears of a process. Called on the loop's thread, never from within ``spawn``."""

    def on_output(self, data: bytes) -> None: ...

    def on_drain(self) -> None: ...

    def on_exit(self, job: Any) -> None:
        """``job`` is a ``Job``. Exactly once, and last."""
