"""Becomes a server of web applications: ``python -m bench.peers.web SERVER APP --port PORT``.

Two processes each, that is one for each of two cores, and otherwise what the server does by
default. PHP's are behind lighttpd; php-fpm, which listens to no HTTP itself, is ended with it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.harness import tools
from bench.peers import builds

WORKERS = 2
TARGETS = {
    "flask-hello": "bench.peers.web.flask_app:hello",
    "flask-page": "bench.peers.web.flask_app:page",
    "django-hello": "bench.peers.web.django_app:hello",
    "django-page": "bench.peers.web.django_app:page",
    "starlette-hello": "bench.peers.web.starlette_app:hello",
    "php-hello": "hello.php",
    "php-page": "page.php",
}

LIGHTTPD = """\
server.bind = "127.0.0.1"
server.port = {port}
server.document-root = "{root}"
server.max-keep-alive-requests = 60000
index-file.names = ("{file}")
"""

CGI = """\
server.modules = ("mod_cgi")
cgi.assign = (".php" => "{program}")
"""

FASTCGI = """\
server.modules = ("mod_fastcgi")
fastcgi.server = (".php" => (("socket" => "{folder}/fpm.sock")))
"""

FPM = """\
[global]
daemonize = no
error_log = {folder}/error.log
[www]
listen = {folder}/fpm.sock
pm = static
pm.max_children = {workers}
{user}
"""


def gunicorn(target: str, port: int, *flags: str) -> list[str]:
    where = ["--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS), "--log-level", "warning"]
    return [sys.executable, "-m", "gunicorn", *where, *flags, target]


def gunicorn_fresh(target: str, port: int) -> list[str]:
    """A process for each request, as far as it has such a thing."""
    return gunicorn(target, port, "--max-requests", "1")


def uwsgi(target: str, port: int) -> list[str]:
    flags = ["--master", "--processes", str(WORKERS), "--die-on-term", "--need-app"]
    # It closes without a word otherwise.
    flags += ["--add-header", "Connection: close", "--disable-logging"]
    flags += ["--http-socket", f"127.0.0.1:{port}", "--module", target]
    # It is compiled into a module of its interpreter's, and finds that one's packages by it.
    return [sys.executable, "-c", "import pyuwsgi; pyuwsgi.run()", *flags]


def granian(target: str, port: int) -> list[str]:
    interface = "asgi" if "starlette" in target else "wsgi"
    flags = ["--interface", interface, "--workers", str(WORKERS), "--port", str(port)]
    return [sys.executable, "-m", "granian", *flags, "--log-level", "warning", target]


def uvicorn(target: str, port: int) -> list[str]:
    flags = ["--workers", str(WORKERS), "--port", str(port), "--log-level", "warning"]
    return [sys.executable, "-m", "uvicorn", *flags, "--no-access-log", target]


def lighttpd(file: str, port: int, folder: Path, handler: str) -> list[str]:
    root = builds.PEERS / "web"
    text = LIGHTTPD.format(root=root, port=port, file=file) + handler
    (folder / "lighttpd.conf").write_text(text)
    return [str(builds.lighttpd()), "-D", "-f", str(folder / "lighttpd.conf")]


def php_cgi(file: str, port: int) -> list[str]:
    handler = CGI.format(program=builds.php_cgi())
    return lighttpd(file, port, made("php-cgi"), handler)


def made(name: str) -> Path:
    folder = tools.CACHE / "web" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def serve_fpm(file: str, port: int) -> int:
    """Both of them, until the first ends, or this process is to."""
    folder = made("php-fpm")
    # As root it insists on another user, who has to be let in.
    user = "user = root" if os.geteuid() == 0 else ""
    text = FPM.format(folder=folder, workers=WORKERS, user=user)
    (folder / "fpm.conf").write_text(text)
    flags = ["--nodaemonize", "--fpm-config", str(folder / "fpm.conf")]
    flags += ["--allow-to-run-as-root"] * (os.geteuid() == 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with subprocess.Popen([str(builds.php_fpm()), *flags]) as fpm:
        # A front that finds nobody there does not look again for a while.
        while fpm.poll() is None and not (folder / "fpm.sock").exists():
            time.sleep(0.02)
        command = lighttpd(file, port, folder, FASTCGI.format(folder=folder))
        with subprocess.Popen(command) as front:
            try:
                return front.wait()
            finally:
                for process in (front, fpm):
                    process.terminate()


SERVERS: dict[str, Callable[[str, int], list[str]]] = {
    "gunicorn": gunicorn,
    "gunicorn-fresh": gunicorn_fresh,
    "uwsgi": uwsgi,
    "granian": granian,
    "uvicorn": uvicorn,
    "php-cgi": php_cgi,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.peers.web", description=__doc__)
    parser.add_argument("server", choices=[*SERVERS, "php-fpm"])
    parser.add_argument("app", choices=TARGETS)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    target = TARGETS[options.app]
    if options.server == "php-fpm":
        return serve_fpm(target, options.port)
    command = SERVERS[options.server](target, options.port)
    os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(main())
