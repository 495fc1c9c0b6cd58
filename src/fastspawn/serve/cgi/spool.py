"""The body of a request, kept until all of it is there: in memory first, then in a file.

CONTENT_LENGTH must be right when a script starts (RFC 3875 section 4.1.2), and a chunked body
has none before its end.
"""

from __future__ import annotations

from typing import BinaryIO, Final

MEMORY: Final = 262144
"""Bytes that are kept in memory."""


class Spool:
    """``write`` all of it, then ``read`` it once. Raises OSError where there is no room."""

    __slots__ = ("_file", "_memory", "_pieces", "length")

    def __init__(self, memory: int = MEMORY) -> None:
        self.length = 0
        """Bytes written."""
        self._memory = memory
        self._pieces: list[bytes] = []
        self._file: BinaryIO | None = None

    @property
    def in_memory(self) -> bool:
        return self._file is None

    def write(self, data: bytes) -> None:
        self.length += len(data)
        if self._file is None and self.length <= self._memory:
            self._pieces.append(data)
            return
        if self._file is None:
            self._file = _open()
            self._pieces.append(data)
            data = b"".join(self._pieces)
            self._pieces.clear()
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def whole(self) -> bytes:
        """All of it, if it is in memory."""
        return b"".join(self._pieces)

    def rewind(self) -> None:
        """What follows are reads."""
        if self._file is not None:
            self._file.seek(0)

    def read(self, size: int) -> bytes:
        """The next bytes of a body that is in a file; none at its end."""
        assert self._file is not None
        return self._file.read(size)

    def close(self) -> None:
        """Forget it. May be called twice."""
        self._pieces.clear()
        if self._file is not None:
            self._file.close()


def check(limit: int | None) -> None:
    """That a body of at most so many bytes could be kept. Raises what ``Spool.write`` would."""
    if limit is not None and limit <= MEMORY:
        return
    with _open() as file:
        file.write(b"x")


def _open() -> BinaryIO:
    """Without a name: nobody else finds it, and it goes with its descriptor."""
    import tempfile

    return tempfile.TemporaryFile(buffering=0, prefix="fastspawn-")
