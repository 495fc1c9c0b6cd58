"""What one server is asked to do: plain values, checked by ``cli.py``, read by all the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LoopName = Literal["uvloop", "asyncio"]
StrategyName = Literal["direct", "subprocess"]
StderrName = Literal["inherit", "discard", "merge"]


@dataclass(frozen=True, slots=True)
class Config:
    """Durations are seconds, sizes are bytes; ``None`` means "no limit" wherever it is allowed.

    The defaults here are the command line's defaults.
    """

    command: tuple[str, ...] = ("echo", "hi")
    cwd: str | None = None

    host: str = "127.0.0.1"
    port: int = 8001
    uds: str | None = None
    fd: int | None = None
    backlog: int = 2048
    workers: int = 1
    loop: LoopName = "asyncio"

    mode: Literal["raw"] = "raw"
    strategy: StrategyName = "direct"
    spawners: int | None = None
    stderr: StderrName = "inherit"
    content_type: str = "text/plain; charset=utf-8"

    # Enough for a few hundred sleepers, few enough that processes do not only fight for the
    # cores; the rest waits its turn, so a burst of clients is served late rather than refused.
    max_inflight: int = 256
    queue: int = 4096
    queue_timeout: float | None = 30.0

    exec_timeout: float | None = 60.0
    kill_grace: float = 2.0
    drain_timeout: float = 0.05
    max_output: int | None = None
    max_body: int | None = None

    keep_alive_timeout: float = 5.0
    header_timeout: float = 10.0
    graceful_timeout: float | None = 30.0
    access_log: bool = True
