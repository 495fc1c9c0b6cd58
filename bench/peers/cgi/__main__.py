"""Becomes one of the CGI hosts: ``python -m bench.peers.cgi HOST --port PORT -- CMD ARG...``

All of them run the same script of two lines, which prints a header and becomes the command:
one process per request, as in every other row, with a shell's start in front of the command's.
Script and configuration are written to bench/.cache/cgi/HOST; then this process is replaced by
the host, which so has the pid that the harness started. Keep-alive is without a limit wherever
the host has one, and Apache's processes are as many as they will be from the start: one that it
ends closes its idle connections, just when the next request comes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.harness import tools
from bench.peers import builds

SCRIPT = "index.cgi"
FCGIWRAPS = 8  # each runs one script at a time

APACHE = """\
ServerRoot "{folder}"
ServerName localhost
Listen 127.0.0.1:{port}
PidFile "{folder}/pid"
ErrorLog "{folder}/error.log"
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule cgid_module {modules}/mod_cgid.so
{user}
ScriptSock "{folder}/cgid.sock"
MaxKeepAliveRequests 0
StartServers 2
ServerLimit 2
ThreadsPerChild 64
MaxRequestWorkers 128
MinSpareThreads 1
MaxSpareThreads 128
ScriptAliasMatch "^/$" "{folder}/{script}"
<Directory "{folder}">
    Options +ExecCGI
    Require all granted
</Directory>
"""

LIGHTTPD = """\
server.bind = "127.0.0.1"
server.port = {port}
server.document-root = "{folder}"
server.max-keep-alive-requests = 60000
index-file.names = ("{script}")
"""

MOD_CGI = """\
server.modules = ("mod_cgi")
cgi.assign = (".cgi" => "")
"""

MOD_FASTCGI = """\
server.modules = ("mod_fastcgi")
fastcgi.server = (".cgi" => ((
    "bin-path" => "{fcgiwrap}",
    "socket" => "{folder}/fcgiwrap.sock",
    "min-procs" => {processes},
    "max-procs" => {processes},
)))
"""


def script(folder: Path, command: Sequence[str]) -> Path:
    """The script that every host runs."""
    path = folder / SCRIPT
    path.write_text(
        f"#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'; exec {shlex.join(command)}\n"
    )
    path.chmod(0o755)
    return path


def go(folder: Path, port: int) -> list[str]:
    return [str(builds.go("cgi")), "--port", str(port), str(folder / SCRIPT)]


def fastspawn(folder: Path, port: int) -> list[str]:
    serve = [sys.executable, "-m", "fastspawn.serve", "--no-access-log", "--port", str(port)]
    return [*serve, "--mode", "cgi", "--", str(folder / SCRIPT)]


def apache(folder: Path, port: int) -> list[str]:
    # Apache refuses to serve as root: its processes get a user without rights.
    user = "User #65534\nGroup #65534" if os.geteuid() == 0 else ""
    text = APACHE.format(
        folder=folder, port=port, script=SCRIPT, modules=builds.apache_modules(), user=user
    )
    (folder / "apache2.conf").write_text(text)
    return [str(builds.apache()), "-D", "FOREGROUND", "-f", str(folder / "apache2.conf")]


def _lighttpd(folder: Path, port: int, handler: str) -> list[str]:
    text = LIGHTTPD.format(folder=folder, port=port, script=SCRIPT) + handler
    (folder / "lighttpd.conf").write_text(text)
    return [str(builds.lighttpd()), "-D", "-f", str(folder / "lighttpd.conf")]


def lighttpd(folder: Path, port: int) -> list[str]:
    return _lighttpd(folder, port, MOD_CGI)


def fcgiwrap(folder: Path, port: int) -> list[str]:
    handler = MOD_FASTCGI.format(folder=folder, fcgiwrap=builds.fcgiwrap(), processes=FCGIWRAPS)
    return _lighttpd(folder, port, handler)


HOSTS: dict[str, Callable[[Path, int], list[str]]] = {
    "apache": apache,
    "fastspawn": fastspawn,
    "fcgiwrap": fcgiwrap,
    "go": go,
    "lighttpd": lighttpd,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers.cgi", description=__doc__)
    parser.add_argument("host", choices=HOSTS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("argv", nargs="+", metavar="CMD")
    options = parser.parse_args()
    folder = tools.CACHE / "cgi" / options.host
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    script(folder, options.argv)
    with tools.without_building():  # the row's prepare() did
        command = HOSTS[options.host](folder, options.port)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
