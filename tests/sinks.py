"""Who hears of a job, in tests of pools."""

from __future__ import annotations

import asyncio
from typing import Any


class Sink:
    """Gathers what a job tells."""

    def __init__(self) -> None:
        self.output = b""
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.drained = asyncio.Event()

    def on_output(self, data: bytes) -> None:
        self.output += data

    def on_errors(self, data: bytes) -> None:
        pass

    def on_drain(self) -> None:
        self.drained.set()

    def on_exit(self, job: Any) -> None:
        self.output += job.output
        self.ended.set_result(job)
