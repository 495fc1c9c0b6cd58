"""A WSGI application, each path of which does something that servers get wrong; wsgiref's validator
is around it."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

served = 0
Start = Callable[..., Callable[[bytes], object]]
TEXT = [("Content-Type", "text/plain; charset=utf-8")]


def hello(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(1 << 24)
    start("200 OK", TEXT)
    return [f"{environ['REQUEST_METHOD']} {served} {len(body)}\n".encode()]


def cookies(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    return [b"x"]


def variables(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return [f"{name}={value!r}\n".encode() for name, value in environ.items()]


def own(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return [f"{name}={value!r}\n".encode() for name, value in os.environ.items()]


def stream(environ: dict[str, Any], start: Start) -> Iterator[bytes]:
    """The second item comes once the client has the first, and said so."""
    start("200 OK", TEXT)
    yield b"first"
    sign = Path(environ["QUERY_STRING"])
    while not sign.exists():
        time.sleep(0.01)
    yield b"second"


def writes(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    write = start("200 OK", TEXT)
    write(b"written ")
    return [b"and ", b"returned"]


def file(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"x" * 300_000))
    return wrapped


def nothing(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("204 No Content", [])
    return []


def unchanged(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("304 Not Modified", [("ETag", '"a"')])
    return []


def elsewhere(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("302 Found", [*TEXT, ("Location", "/hello")])
    return [b""]


def raises(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    raise LookupError("before the head")


def raises_empty(environ: dict[str, Any], start: Start) -> Iterator[bytes]:
    start("200 OK", TEXT)
    yield b""
    raise LookupError("before the first byte")


def raises_late(environ: dict[str, Any], start: Start) -> Iterator[bytes]:
    start("200 OK", TEXT)
    yield b"some"
    raise LookupError("after the first byte")


def leaves(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    sys.exit(3)


def replaces(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    try:
        raise LookupError("replaced")
    except LookupError:
        start("503 Service Unavailable", TEXT, sys.exc_info())
    return [b"replaced"]


def replaces_late(environ: dict[str, Any], start: Start) -> Iterator[bytes]:
    start("200 OK", TEXT)
    yield b"some"
    try:
        raise LookupError("replaced too late")
    except LookupError:
        start("503 Service Unavailable", TEXT, sys.exc_info())
    yield b"never"


def forgets(environ: dict[str, Any], start: Start) -> Iterator[bytes]:
    yield b"no head"


def injects(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", [("X-A", "b\r\nX-C: d")])
    return [b"x"]


def hops(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    ours = [("Connection", "close"), ("Transfer-Encoding", "chunked"), ("Status", "500")]
    start("200 OK", [*TEXT, *ours])
    return [b"hops"]


def prints(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    print("printed by the application", flush=True)
    os.system("echo printed by its child")
    environ["wsgi.errors"].write("for the log\n")
    return [b"not printed"]


def spins(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    while True:
        pass


def grows(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return [b"x" * (8 << 30)]


def dies(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    os.abort()


class Closed:
    def __iter__(self) -> Iterator[bytes]:
        yield b"closed"

    def close(self) -> None:
        print("close() was called")


def closes(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return Closed()


VALID = (hello, variables, stream, writes, file, nothing, unchanged, elsewhere, closes)


def application(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    global served
    served += 1
    name = environ["PATH_INFO"].strip("/") or "hello"
    chosen: Any = globals()[name]
    if chosen in VALID:
        chosen = validator(chosen)
    answer: Iterable[bytes] = chosen(environ, start)
    return answer
