"""An application of PEP 3333, and one request to it.

Why not wsgiref.handlers: its write() sends the head with the first item that is yielded, be it
empty, so an application that fails before its first byte has answered 200 already; it checks with
assertions; and what fails after the head ends like an answer that is complete.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final
from wsgiref.util import FileWrapper

from .log import tell_exception
from .output import Output

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_STATUS: Final = re.compile(r"[2-5]\d\d(?: [\t -~\x80-\xff]*)?")
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t -~\x80-\xff]*")
_HOP_BY_HOP: Final = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization te trailer trailers "
    "transfer-encoding upgrade".split()
)
"""The server's, not the application's (PEP 3333, "Other HTTP Features"): left out."""
_BODYLESS: Final = ("204", "205", "304")
_BLOCK: Final = 65536
"""Bytes of a file that are handed on at once, at least."""

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def prepare(application: Application) -> Callable[[dict[str, str], Output], bool]:
    """Above the checkpoint; what it returns is called below."""
    stdin = sys.stdin.buffer

    def answer(request: dict[str, str], output: Output) -> bool:
        return _Exchange(request, output, stdin).run(application)

    return answer


class _Exchange:
    def __init__(self, request: dict[str, str], output: Output, stdin: Any) -> None:
        self._request = request
        self._output = output
        self._environ = _environ(request, stdin)
        self._head_only = request["REQUEST_METHOD"] == "HEAD"
        self._head: tuple[str, list[tuple[str, str]]] | None = None
        """What the application wants it to be; it is sent with the body's first byte."""
        self._sent = False

    def run(self, application: Application) -> bool:
        """False: the answer has ended too early."""
        try:
            self._answer(application)
        except BrokenPipeError:
            return False  # the client has gone
        except BaseException:
            self._tell()
            return self._fail()
        return True

    def _answer(self, application: Application) -> None:
        result = application(self._environ, self.start_response)
        try:
            if type(result) in (list, tuple) and len(result) == 1:  # type: ignore[arg-type]
                self._send_whole(result[0])  # type: ignore[index]
            else:
                if isinstance(result, FileWrapper):
                    result.blksize = max(result.blksize, _BLOCK)
                for data in result:
                    self.write(data)
            if not self._sent:
                self._send_head(b"")
        except BaseException:
            _close(result)
            raise
        try:
            _close(result)
        except Exception:
            self._tell()

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: _ExcInfo | None = None,
    ) -> Callable[[bytes], None]:
        """PEP 3333, "The start_response() Callable"."""
        if exc_info is not None:
            try:
                if self._sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._head is not None:
            raise RuntimeError("start_response() was called before, and there is no exc_info")
        self._head = _checked(status, headers)
        return self.write

    def write(self, data: Any) -> None:
        """Send some of the body; before its first byte, the head."""
        if not isinstance(data, bytes):
            raise TypeError(f"the body is to be bytes, not {type(data).__name__}")
        if self._head is None:
            raise RuntimeError("some of the body comes before start_response() was called")
        if not data:
            return
        if self._sent:
            if not self._head_only:
                self._output.write(data)
        else:
            self._send_head(data)

    def _send_whole(self, data: Any) -> None:
        """There will be no more of it, so its length is known."""
        if self._head is not None and isinstance(data, bytes) and not self._sent:
            status, fields = self._head
            if status[:3] not in _BODYLESS and not _has_length(fields):
                fields.append(("Content-Length", str(len(data))))
        self.write(data)

    def _send_head(self, data: bytes) -> None:
        if self._head is None:
            raise RuntimeError("the application has not called start_response()")
        self._sent = True
        self._output.write_head(*self._head, b"" if self._head_only else data)

    def _tell(self) -> None:
        """As any Python program would, for the server's log."""
        request = self._request
        what = f"{request['REQUEST_METHOD']} {request.get('REQUEST_URI', '')}"
        tell_exception(f"error in {what!a}")

    def _fail(self) -> bool:
        if self._sent:
            return False
        text = b"Internal Server Error\n"
        fields = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(text))),
        ]
        self._output.write_head(
            "500 Internal Server Error", fields, b"" if self._head_only else text
        )
        return True


def _environ(request: dict[str, str], stdin: Any) -> dict[str, Any]:
    """PEP 3333, "environ Variables"."""
    environ: dict[str, Any] = request.copy()
    environ.setdefault("PATH_INFO", "")
    environ["wsgi.version"] = (1, 0)
    environ["wsgi.url_scheme"] = request["REQUEST_SCHEME"]
    environ["wsgi.input"] = stdin
    environ["wsgi.input_terminated"] = True
    """It ends where the body does, with a CONTENT_LENGTH or without."""
    environ["wsgi.errors"] = sys.stderr
    environ["wsgi.multithread"] = False
    environ["wsgi.multiprocess"] = True
    environ["wsgi.run_once"] = True
    environ["wsgi.file_wrapper"] = FileWrapper
    return environ


def _checked(status: Any, headers: Any) -> tuple[str, list[tuple[str, str]]]:
    """Nothing that would end a line, and make a field or an answer of its own."""
    if not isinstance(status, str) or _STATUS.fullmatch(status) is None:
        raise ValueError(f"{status!r} is not a status such as '200 OK'")
    kept = []
    for name, value in headers:
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"a header field is to be of two str, not {(name, value)!r}")
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise ValueError(f"{name!r}: {value!r} is not a header field")
        # A field named Status would be taken for the status itself.
        if name.lower() not in _HOP_BY_HOP and name.lower() != "status":
            kept.append((name, value))
    return status, kept


def _has_length(fields: list[tuple[str, str]]) -> bool:
    return any(name.lower() == "content-length" for name, _ in fields)


def _close(result: Any) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close()
