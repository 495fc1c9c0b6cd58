"""How long and how much a command may run."""

# Annotations are objects here, not names to be looked up: the class is said to be of a module that
# has not imported them.

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field


@dataclass(frozen=True)
class Limits:
    """How long and how much a command may run.

    A command that exceeds one is ended: SIGTERM to its process group, SIGKILL after kill_grace.
    """

    __module__ = "fastspawn"

    _: KW_ONLY
    timeout: float | None = None
    """Seconds from spawn to SIGTERM; None: no deadline."""
    kill_grace: float = 2.0
    """Seconds from SIGTERM to SIGKILL; 0: SIGKILL at once."""
    drain: float = 1.0
    """Seconds, from the exit of the command itself, for which output of others that hold its
    pipes (background children) is still waited for."""
    max_output: int | None = None
    """Bytes of stdout and stderr together; the rest is dropped and Result.truncated is true."""
    rlimits: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """resource.RLIMIT_* to (soft, hard), as for resource.setrlimit(2)."""


NO_LIMITS = Limits()
