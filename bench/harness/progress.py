"""One line on stderr that says what runs now, how far along it is, and how long is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence


class Progress:
    """Time left is estimated per kind of unit: the median so far, else its first guess."""

    def __init__(self, units: Sequence[tuple[str, float]]) -> None:
        """*units*: (kind, first guess in seconds) of every unit, in any order."""
        self._left = [kind for kind, _ in units]
        self._guess = dict(units)
        self._total = len(units)
        self._seen: dict[str, list[float]] = {}
        self._tty = sys.stderr.isatty()
        self._started = 0.0

    def left(self) -> float:
        """Seconds that the units not begun yet will take."""
        return sum(self._expect(kind) for kind in self._left)

    def start(self, kind: str, label: str) -> None:
        number = self._total - len(self._left) + 1
        left = int(self.left())
        line = f"[{number}/{self._total}] {label}, about {left // 60}m{left % 60:02}s left"
        if self._tty:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
        self._started = time.monotonic()
        self._left.remove(kind)

    def finish(self, kind: str) -> None:
        self._seen.setdefault(kind, []).append(time.monotonic() - self._started)

    def note(self, text: str) -> None:
        """A line that stays."""
        print(f"{chr(13) + chr(27) + '[K' if self._tty else ''}{text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._tty:
            print(file=sys.stderr)

    def _expect(self, kind: str) -> float:
        seen = sorted(self._seen.get(kind, ()))
        return seen[len(seen) // 2] if seen else self._guess[kind]
