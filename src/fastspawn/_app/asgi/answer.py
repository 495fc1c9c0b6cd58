"""What an application sends: a head and a body, written as CGI has them (RFC 3875, section 6)."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .loop import Loop

_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_BODYLESS: Final = frozenset((204, 304))
_LEFT_OUT: Final = (b"status", b"transfer-encoding")
"""The first would be taken for the status itself. The framing is the server's: uvicorn takes the
second for a wish, and many an application says it of each stream."""
_NAME: Final = re.compile(rb"[0-9A-Za-z!#$%&'*+.^_`|~-]+")
"""RFC 9110, section 5.6.2."""
_NO_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_AT_ONCE: Final = 4096
"""Bytes that an empty pipe takes, however small it was made (pipe(7))."""


class Answer:
    """``fd``: where it is written to, closed when it is complete and the application is not."""

    def __init__(self, loop: Loop, fd: int, method: str) -> None:
        self.started = False
        self.sent = False
        """At least in part."""
        self.complete = False
        self.gone = False
        """The client is: nobody reads."""
        self._loop = loop
        self._fd = fd
        self._head = b""
        """Not sent yet: it waits for the first of the body (ASGI, "Response Start")."""
        self._no_body = method == "HEAD"
        self._left: int | None = None
        """Of what Content-Length has announced."""
        self._blocks = True
        self._end: asyncio.Future[None] | None = None
        """Somebody waits for it."""
        self._sending = asyncio.Lock()
        self._closing: asyncio.Handle | None = None

    @property
    def over(self) -> bool:
        return self.complete or self.gone

    # ---- what the application sends

    async def send(self, message: Any) -> None:
        """Raises OSError when the client is gone; RuntimeError, TypeError, ValueError or KeyError
        for what is no message, or not its turn."""
        kind = message["type"]
        if self.complete:
            raise RuntimeError(
                f"Unexpected ASGI message '{kind}' sent, after response already completed."
            )
        if self.gone:
            raise BrokenPipeError(errno.EPIPE, "The client is gone.")
        wanted = "http.response.body" if self.started else "http.response.start"
        if kind != wanted:
            raise RuntimeError(f"Expected ASGI message '{wanted}', but got '{kind}'.")
        if self.started:
            async with self._sending:
                await self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            self._start(message["status"], message.get("headers", ()))

    def _start(self, status: Any, fields: Iterable[Any]) -> None:
        if type(status) is not int and not isinstance(status, HTTPStatus):
            raise TypeError(f"A status is an int, not {status!r}.")
        if not 200 <= status <= 599:
            raise ValueError(f"No status of an answer: {status}.")
        lines = [b"Status: %d %b\r\n" % (status, _PHRASES.get(status, "").encode())]
        length = None
        for name, value in fields:
            lower = _checked(name, value).lower()
            if lower == b"content-length":
                length = int(value)
            if lower not in _LEFT_OUT:
                lines.append(b"%b: %b\r\n" % (name, value))
        self._no_body = self._no_body or status in _BODYLESS
        self._left = None if self._no_body else length
        lines.append(b"\r\n")
        self._head = b"".join(lines)
        self.started = True

    async def fail(self) -> None:
        """In the place of an answer of which nothing was sent."""
        self.started, self._left = False, None
        fields = [(b"content-type", b"text/plain; charset=utf-8")]
        await self.send({"type": "http.response.start", "status": 500, "headers": fields})
        await self.send({"type": "http.response.body", "body": b"Internal Server Error"})

    async def _send_body(self, data: Any, more: bool) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"A body is bytes, not {type(data).__name__}.")
        if self._left is not None:
            if len(data) > self._left:
                raise RuntimeError("Response content longer than Content-Length")
            self._left -= len(data)
            if not more and self._left:
                raise RuntimeError("Response content shorter than Content-Length")
        if self._no_body:
            data = b""
        if self._head or data:
            data, self._head = self._head + data, b""
            await self._write(data)
        if not more:
            self.complete = True
            self._wake()
            # If the application goes on: most have ended before that.
            self._closing = self._loop.call_soon(os.close, self._fd)

    # ---- how it is written

    async def _write(self, data: bytes) -> None:
        """The first few bytes as they are: the pipe is empty."""
        if self._blocks and (self.sent or len(data) > _AT_ONCE):
            os.set_blocking(self._fd, False)
            self._blocks = False
        self.sent = True
        view = memoryview(data)
        while view:
            if written := self._write_some(view):
                view = view[written:]
            else:
                await self._until_writable()

    def _write_some(self, data: memoryview) -> int:
        """0: there is no room."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            self.lose_client()
            raise

    async def _until_writable(self) -> None:
        future = self._loop.create_future()
        self._loop.add_writer(self._fd, settle, future)
        try:
            await future
        finally:
            self._loop.remove_writer(self._fd)

    # ---- its end

    async def wait(self) -> None:
        """Until it is over: complete, or nobody's."""
        if self.over:
            return
        if self._end is None:
            self._end = self._loop.create_future()
            # A pipe that nobody reads any more says so (pipe(7), poll(2): POLLERR).
            self._loop.add_reader(self._fd, self.lose_client)
        await asyncio.wait({self._end})

    def close(self) -> None:
        """It has ended, and soon this process does."""
        if self._closing is not None:
            self._closing.cancel()

    def lose_client(self) -> None:
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        if self._end is not None:
            self._loop.remove_reader(self._fd)
            settle(self._end)


def settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _checked(name: Any, value: Any) -> bytes:
    """The name of a field that can be sent."""
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        raise TypeError(f"Names and values of fields are bytes, not {name!r}: {value!r}.")
    if not _NAME.fullmatch(name):
        raise ValueError(f"Invalid HTTP header name: {name!r}")
    if _NO_VALUE.search(value):
        raise ValueError(f"Invalid HTTP header value: {value!r}")
    return name
