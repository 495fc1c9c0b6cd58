"""The web rows: applications of Flask, Django, Starlette and PHP, with a process for each request
and without.

``hello`` answers with three bytes, so a row is what the server costs; ``page`` works for some
20 ms (peers/web/page.py), so a row is what is left of that. Compared are the rows of one
application, in a run that takes turns with all of them:

    fork, reset       `--wsgi` or `--asgi` of ours, by --strategy snapshot and reset
    gunicorn          its sync workers, which keep what a request leaves behind
    gunicorn-fresh    the same with --max-requests 1: what it has instead of a process per request
    uwsgi, granian, uvicorn    likewise long-lived
    fpm, cgi          PHP, which forgets everything: in processes that stay, and in new ones
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.handlers import CONNECTIONS, PATIENCE
from bench.ours import fastspawn
from bench.peers import builds
from bench.peers.web import page
from bench.peers.web.__main__ import TARGETS, WORKERS
from bench.row import Options, Record, ServerRow

APPLICATIONS = {
    "flask-hello": "Flask, three bytes",
    "flask-page": "Flask, a page that works for some 20 ms",
    "django-hello": "Django, three bytes",
    "django-page": "Django, a page that works for some 20 ms",
    "starlette-hello": "Starlette, three bytes",
    "php-hello": "PHP, three bytes",
    "php-page": "PHP, that page (which costs it less)",
}
PACKAGES = {"flask": ("flask", "jinja2"), "django": ("django",), "starlette": ("starlette",)}


@dataclass(frozen=True)
class WebRow:
    """A row with the part of the requests that it is measured with, since some take so long."""

    row: ServerRow
    application: str
    requests: float

    def measure(self, options: Options) -> Record:
        requests = max(40, round(options.requests * self.requests))
        checked = max(CONNECTIONS, min(options.checked, requests // 4))
        connections = min(CONNECTIONS, options.connections)
        return self.row.measure(Options(requests, connections, checked, PATIENCE))


def _version(framework: str, packages: tuple[str, ...]) -> Callable[[], str]:
    return functools.partial(builds.python_version, *packages, *PACKAGES[framework])


def _ours(application: str, kind: str, strategy: str) -> ServerRow:
    flags = [f"--{kind}", TARGETS[application], "--strategy", strategy]
    about = "forked for each request" if strategy == "snapshot" else "put back after each request"
    # Ours is found in the directory that it is started in, as with the others.
    row = fastspawn("", f"`--{kind} --strategy {strategy}`: {about}", *flags, command=())

    def version() -> str:
        return f"{row.version()}, {_version(application.partition('-')[0], ())()}"

    return replace(row, prepare=version, version=version)


def _peer(application: str, server: str, about: str, version: Callable[[], str]) -> ServerRow:
    command = [sys.executable, "-m", "bench.peers.web", server, application]
    # lighttpd ends with 1 when connections are open.
    ends_with = (0, 1) if server.startswith("php") else (0,)
    return ServerRow(
        "",
        about,
        lambda port: [*command, "--port", str(port)],
        version,
        version,
        command=(),
        streams=True,
        ends_with=ends_with,
    )


SYNC = f"{WORKERS} sync workers, which nothing is isolated in"
WSGI_SERVERS = {
    "gunicorn": ("gunicorn", f"gunicorn, {SYNC}", 1.0),
    "gunicorn-fresh": ("gunicorn", "the same with `--max-requests 1`", 0.01),
    "uwsgi": ("pyuwsgi", f"uWSGI, {WORKERS} processes behind a master", 1.0),
    "granian": ("granian", f"granian, {WORKERS} workers", 1.0),
}
ASGI_SERVERS = {
    "uvicorn": ("uvicorn", f"uvicorn, {WORKERS} workers", 1.0),
    "granian": ("granian", f"granian, {WORKERS} workers", 1.0),
}
OURS = {"fork": ("snapshot", 0.2), "reset": ("reset", 0.5)}
PAGE_SHARE = 0.05
"""Of the requests: a page takes 20 ms, wherever it is served."""
SLOW = 60.0
"""Requests per second of the rows with so few, to guess with."""


def _rows_of(application: str) -> list[tuple[str, ServerRow, float]]:
    framework = application.partition("-")[0]
    if framework == "php":
        return [
            (
                "fpm",
                _peer(application, "php-fpm", f"php-fpm, {WORKERS} processes behind lighttpd",
                      lambda: builds.php_version(builds.php_fpm())),
                1.0,
            ),
            (
                "cgi",
                _peer(application, "php-cgi", "lighttpd's mod_cgi, a php-cgi for each request",
                      lambda: builds.php_version(builds.php_cgi())),
                0.05,
            ),
        ]  # fmt: skip
    kind = "asgi" if framework == "starlette" else "wsgi"
    ours = [(name, _ours(application, kind, way), share) for name, (way, share) in OURS.items()]
    servers = ASGI_SERVERS if kind == "asgi" else WSGI_SERVERS
    return ours + [
        (name, _peer(application, name, about, _version(framework, (package,))), share)
        for name, (package, about, share) in servers.items()
    ]


def _made() -> list[WebRow]:
    rows = []
    for application in APPLICATIONS:
        expected = page.expected() if application.endswith("-page") else page.HELLO
        for server, row, share in _rows_of(application):
            part = min(share, PAGE_SHARE) if application.endswith("-page") else share
            named = replace(row, name=f"{application}-{server}", expected=expected.encode())
            rows.append(WebRow(named, application, part))
    return rows


WEB = {web.row.name: web for web in _made()}
