"""Lines of a process's output, as far as they have come. Pure."""

from __future__ import annotations


class TooLong(Exception):
    """A line is longer than any may be. Nothing more can be made of the output."""


class Lines:
    """``most``: bytes of a line without its end; None: any."""

    __slots__ = ("_most", "_parts", "_size")

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._parts: list[bytes] = []
        """The beginning of a line."""
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without their ends and without empty ones. Raises
        TooLong."""
        first, *rest = data.split(b"\n")
        self._add(first)
        found = []
        for each in rest:
            found.append(b"".join(self._parts))
            self._parts.clear()
            self._size = 0
            self._add(each)
        return [line for line in found if line.strip()]

    def end(self) -> bytes:
        """What has no end, at the output's."""
        line = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return line.strip()

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._most is not None and self._size > self._most:
            raise TooLong
        if part:
            self._parts.append(part)
