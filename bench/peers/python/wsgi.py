"""Peer: a WSGI application under gunicorn, one ``subprocess.run`` per request.

gunicorn's own settings are left alone, but for the number of workers (its documentation's
2 x cores + 1) and their kind: ``--threads 1`` makes them sync, which close every connection
after one answer, more make them gthread, which keep it. ``--in-process`` starts nothing: the worker
calls the function of ``bench/cases/handler.py`` itself, whose command line is only looked at.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from gunicorn.app.base import BaseApplication

from bench.harness.tools import cores
from bench.peers.python.http_side import option_parser

Environ = MutableMapping[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


def application(argv: list[str]) -> Application:
    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        output = subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(output)))]
        start_response("200 OK", headers)
        return [output]

    return answer


def in_process() -> Application:
    """What the handler's process would print, from the worker's own: nothing is isolated."""
    from bench.cases import handler

    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        output = f"{handler.answer()}\n".encode()
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(output)))]
        start_response("200 OK", headers)
        return [output]

    return answer


class Program(BaseApplication):
    """gunicorn inside a program of its own, as its documentation shows it."""

    def __init__(self, app: Application, **settings: object) -> None:
        self._app = app
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        for key, value in self._settings.items():
            self.cfg.set(key, value)

    def load(self) -> Application:
        return self._app


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--in-process", action="store_true")
    options = parser.parse_args()
    Program(
        in_process() if options.in_process else application(options.argv),
        bind=f"127.0.0.1:{options.port}",
        workers=options.size or 2 * cores() + 1,
        threads=options.threads,
        loglevel="warning",
    ).run()


if __name__ == "__main__":
    main()
