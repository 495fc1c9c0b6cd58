"""Lines of a process's output, as far as they have come. Pure."""

from __future__ import annotations


class TooLong(Exception):
    """A line is longer than any may be. Nothing more can be made of the output."""


class Lines:
    """``most``: bytes of a line without its end; None: any."""

    __slots__ = ("_begun", "_most")

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._begun = bytearray()
        """The beginning of a line. It may come byte by byte, and is to cost no more then."""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without their ends and without empty ones. Raises
        TooLong."""
        first, *rest = data.split(b"\n")
        self._add(first)
        found = []
        for each in rest:
            found.append(bytes(self._begun))
            self._begun.clear()
            self._add(each)
        return [line for line in found if line.strip()]

    def end(self) -> bytes:
        """What has no end, at the output's."""
        line = bytes(self._begun)
        self._begun.clear()
        return line.strip()

    def _add(self, part: bytes) -> None:
        if self._most is not None and len(self._begun) + len(part) > self._most:
            raise TooLong
        self._begun += part
