"""Finds or builds the programs of the peers, each pinned, by a lock file where one is usual.

The JavaScript runtimes come from npm (npm/package-lock.json), the Go programs from go/, the tokio
server from rust/Cargo.lock, the Python servers from the dependency group `peers`, and the CGI
hosts from the system's packages. Each function returns the path of a program, or raises
Unavailable with the reason in one line; each ``..._version`` says what was found.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from pathlib import Path

from bench.harness import tools
from bench.harness.tools import BENCH, CACHE, Unavailable, build, once

PEERS = BENCH / "peers"
NPM = PEERS / "npm"
GO = PEERS / "go"
SYSTEM_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
APACHE_MODULES = (
    "/usr/lib/apache2/modules",  # Debian
    "/usr/lib64/httpd/modules",  # Fedora
    "/usr/lib/httpd/modules",  # Arch
)


# ---- JavaScript ---------------------------------------------------------------------------------


@once
def node_modules() -> Path:
    """npm's folder with all three runtimes in it, made again when the lock file changes.

    Their install scripts are not run: the packages of each platform hold the program itself.
    """
    folder = CACHE / "npm"
    lock = (NPM / "package-lock.json").read_bytes()
    done = folder / "done"
    if not done.exists() or done.read_bytes() != lock:
        if not shutil.which("npm"):
            raise Unavailable("there is no `npm` on PATH to fetch it")
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(NPM / name, folder)
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        build("the JavaScript runtimes", ["npm", "ci", *quiet, "--prefix", str(folder)])
        done.write_bytes(lock)
    return folder / "node_modules"


def _runtime(name: str, pattern: str) -> Path:
    found = sorted(node_modules().glob(pattern))
    if not found:
        here = f"{platform.system()} {platform.machine()}"
        raise Unavailable(f"npm has no package of {name} for {here}")
    return found[0]


def node() -> Path:
    return _runtime("Node", "node-*/bin/node")


def deno() -> Path:
    return _runtime("Deno", "@deno/*/deno")


def bun() -> Path:
    return _runtime("Bun", "@oven/bun-*/bin/bun")


def node_version() -> str:
    return f"Node {_told(str(node()), '--version')}"


def deno_version() -> str:
    return f"Deno {_told(str(deno()), '--version')}"


def bun_version() -> str:
    return f"Bun {_told(str(bun()), '--version')}"


# ---- Go, Rust -----------------------------------------------------------------------------------


@once
def go(name: str) -> Path:
    """One of the programs in go/; Go skips what is up to date."""
    program = CACHE / "go" / name
    if program.exists() and not tools.may_build():
        return program
    if not shutil.which("go"):
        raise Unavailable("there is no `go` on PATH to build bench/peers/go")
    command = ["go", "build", "-C", str(GO), "-trimpath", "-o", str(program), f"./{name}"]
    build(f"the Go peer {name}", command)
    return program


def go_version(name: str) -> str:
    """Of the Go that built it, which go.mod may have fetched."""
    told = tools.first_line("go", "version", str(go(name))) or ""
    return f"Go {_number(told.rpartition(':')[2])}"


def rust_version() -> str:
    tools.rust_peer()
    crates = ", ".join(f"{name} {version}" for name, version in tools.crates().items())
    return f"{crates}, rustc {_told('rustc', '--version')}"


# ---- Python -------------------------------------------------------------------------------------


def package(name: str) -> str:
    """The version of a package of the dependency group `peers`, or of fastspawn's own."""
    version = tools.package(name)
    if version is None:
        raise Unavailable(f"{name} is not installed (`make peers` does it)")
    return f"{name} {version}"


def python_version(*packages: str) -> str:
    return ", ".join([f"Python {platform.python_version()}", *map(package, packages)])


# ---- the system's packages ----------------------------------------------------------------------


def _system(package: str, *names: str) -> Path:
    for name in names:
        if found := shutil.which(name, path=SYSTEM_PATH):
            return Path(found)
    raise Unavailable(f"{names[0]} is not installed (Debian: apt-get install {package})")


def apache() -> Path:
    program = _system("apache2-bin", "apache2", "httpd")
    apache_modules()
    return program


def apache_modules() -> Path:
    for folder in map(Path, APACHE_MODULES):
        if (folder / "mod_cgid.so").exists():
            return folder
    raise Unavailable("Apache has no mod_cgid (Debian: apt-get install apache2-bin)")


def lighttpd() -> Path:
    return _system("lighttpd", "lighttpd")


def fcgiwrap() -> Path:
    return _system("fcgiwrap", "fcgiwrap")


def php_cgi() -> Path:
    return _system("php-cgi", "php-cgi")


def php_fpm() -> Path:
    """Its name has the version of PHP on Debian."""
    folders = map(Path, SYSTEM_PATH.split(os.pathsep))
    found = sorted(file for folder in folders for file in folder.glob("php-fpm*"))
    if not found:
        raise Unavailable("php-fpm is not installed (Debian: apt-get install php-fpm)")
    return found[-1]


def php_version(program: Path) -> str:
    """Behind which there is lighttpd."""
    return f"PHP {_told(str(program), '-v')}, {lighttpd_version()}"


def apache_version() -> str:
    return f"Apache {_told(str(apache()), '-v')}"


def lighttpd_version() -> str:
    return f"lighttpd {_told(str(lighttpd()), '-v')}"


def fcgiwrap_version() -> str:
    """fcgiwrap does not tell its version; dpkg may."""
    fcgiwrap()
    told = tools.first_line("dpkg-query", "-W", "-f", "${Version}", "fcgiwrap") or ""
    return f"fcgiwrap {_number(told)}, {lighttpd_version()}"


def _told(*command: str) -> str:
    return _number(tools.first_line(*command) or "")


def _number(text: str) -> str:
    match = re.search(r"\d+(\.\d+)+", text)
    return match[0] if match else "of unknown version"
