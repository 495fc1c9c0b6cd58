"""What a worker has done, counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class Figures:
    """Messages, by what became of them."""

    done: int = 0
    again: int = 0
    """Failed, and to be tried again."""
    dead: int = 0
    back: int = 0
    """Given back because the worker ends."""
    redelivered: int = 0
    """That somebody had before, this worker or another."""
    not_started: int = 0
    """Attempts to start a process that the machine refused."""

    def line(self, running: int, more: Mapping[str, int]) -> str:
        """For people."""
        told = [
            f"{self.done} done",
            f"{self.again} to be tried again",
            f"{self.dead} dead",
            f"{self.back} given back",
            f"{self.redelivered} came once more",
        ]
        if self.not_started:
            told.append(f"{self.not_started} times no process")
        told += [f"{count} {name}" for name, count in more.items() if count]
        return f"{running} running, {', '.join(told)}"
