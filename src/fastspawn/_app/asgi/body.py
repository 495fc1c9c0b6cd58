"""What an application receives: its body, as standard input has it, and the end of the request."""

from __future__ import annotations

import asyncio
import os
import select
from typing import TYPE_CHECKING, Any, Final

from .answer import Answer, settle

if TYPE_CHECKING:
    from .loop import Loop

_PIECE: Final = 65536
"""Bytes at once: a pipe holds no more."""


class Body:
    """``length``: bytes that the client has announced; None: it ends with the input, ``fd``."""

    def __init__(self, loop: Loop, answer: Answer, length: int | None, fd: int = 0) -> None:
        self._loop = loop
        self._fd = fd
        self._answer = answer
        self._left = length
        self._ended = False
        self._reading = asyncio.Lock()

    async def receive(self) -> dict[str, Any]:
        """The next message (ASGI, "Request" and "Disconnect")."""
        async with self._reading:
            if not (self._ended or self._answer.over):
                return await self._more()
        await self._answer.wait()
        return {"type": "http.disconnect"}

    async def _more(self) -> dict[str, Any]:
        data = b""
        if self._left != 0:
            if not _is_readable(self._fd):
                await self._until_readable()
            if self._answer.over:
                return {"type": "http.disconnect"}
            data = os.read(self._fd, _PIECE if self._left is None else min(_PIECE, self._left))
            if self._left is not None:
                if not data:
                    self._answer.lose_client()  # in the midst of what it was sending
                    return {"type": "http.disconnect"}
                self._left -= len(data)
        self._ended = self._left == 0 or not data
        return {"type": "http.request", "body": data, "more_body": not self._ended}

    async def _until_readable(self) -> None:
        """Or until there is nobody to read for."""
        future = self._loop.create_future()
        self._loop.add_reader(self._fd, settle, future)
        over = asyncio.ensure_future(self._answer.wait())
        try:
            await asyncio.wait({future, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._loop.remove_reader(self._fd)
            over.cancel()


def _is_readable(fd: int) -> bool:
    """A file always is."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
