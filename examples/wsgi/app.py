"""A WSGI application that counts what its process has served."""

from collections.abc import Callable, Iterable
from itertools import count

requests = count(1)


def app(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    path = environ["PATH_INFO"]
    yield f"{path}, request {next(requests)} of this process\n".encode()
