"""What there is to say of routes: what is the same for several is said in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from fastspawn.serve.paths import ANY_PATH

_NAMED: Final = 4
"""Routes that a line names at most."""


def about(titles: Sequence[str]) -> str:
    """What a line about these routes begins with."""
    if list(titles) == [ANY_PATH]:
        return ""
    if len(titles) == 1:
        return f"route {titles[0]}: "
    named = ", ".join(titles[:_NAMED])
    more = f" and {len(titles) - _NAMED} more" if len(titles) > _NAMED else ""
    return f"routes {named}{more}: "


class News:
    """``say``: tell the operator something, in one line."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._gathered: dict[str, list[str]] | None = None
        """Of each line, the routes that it is about; None: each is said at once."""

    def tell(self, text: str, titles: Sequence[str]) -> None:
        """``titles``: of the routes that it is about."""
        if self._gathered is None:
            self._say(about(titles) + text)
        else:
            self._gathered.setdefault(text, []).extend(titles)

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Keep what is told meanwhile until the end. Nothing is said if that is an exception."""
        gathered: dict[str, list[str]] = {}
        self._gathered = gathered
        try:
            yield
        finally:
            self._gathered = None
        for text, titles in gathered.items():
            self.tell(text, titles)


class Chorus:
    """Of workers that all say the same, one is heard: the first, until one says it once more."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._times: dict[str, int] = {}
        """How often each line was said."""
        self._each: dict[tuple[str, int], int] = {}
        """Likewise, by each place among the workers."""

    def heard(self, worker: int, text: str) -> None:
        times = self._each[text, worker] = self._each.get((text, worker), 0) + 1
        if times > self._times.get(text, 0):
            self._times[text] = times
            self._say(text)
