"""Files of other programs, and ours, as those who read them see them."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from documents.markdown import ROOT
from fastspawn.serve.config import settings

NGINX = """
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {block};
}}
"""


def _run(*words: str | Path) -> None:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    if shutil.which(words[0], path=path) is None:
        pytest.skip(f"no {words[0]}")
    done = subprocess.run(
        words, capture_output=True, text=True, env=os.environ | {"PATH": path}, check=False
    )
    assert done.returncode == 0, f"{words[0]}:\n{done.stdout}{done.stderr}"


def ours(file: Path, folder: Path) -> None:
    """A file for --config."""
    settings.resolve({"config": str(file)}, {})


def nginx(file: Path, folder: Path) -> None:
    """Something for the http block."""
    whole = folder / "nginx.conf"
    whole.write_text(NGINX.format(folder=folder, block=file))
    _run("nginx", "-t", "-q", "-e", folder / "nginx.log", "-c", whole)


def haproxy(file: Path, folder: Path) -> None:
    site = folder / "etc/haproxy/site.pem"
    site.parent.mkdir(parents=True)
    what = f"-subj /CN=localhost -keyout {site} -out {site}.crt".split()
    _run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *what)
    with site.open("a") as whole:
        whole.write(Path(f"{site}.crt").read_text())
    _run("haproxy", "-c", "-q", "-f", file)


def caddy(file: Path, folder: Path) -> None:
    """A Caddyfile."""
    _run("caddy", "validate", "--adapter", "caddyfile", "--config", file)


def systemd(file: Path, folder: Path) -> None:
    """A unit.  That of the service comes last, and has the others beside it."""
    if file.suffix == ".service":
        (folder / "srv/venv").mkdir(parents=True)
        (folder / "srv/venv/bin").symlink_to(Path(sys.executable).parent)
        _run("systemd-analyze", "verify", "--man=no", *folder.glob(f"{file.stem}.*"))


BY_KIND: dict[str, Callable[[Path, Path], None]] = {
    "toml": ours,
    "nginx": nginx,
    "haproxy": haproxy,
    "caddy": caddy,
    "ini": systemd,
}
"""Called with the file that the block is and the section's directory."""


def requirement(command: str) -> None:
    """Is what ``pip install`` gets this project, with extras that it has, or there already?"""
    for word in shlex.split(command)[2:]:
        if word == "mcp":
            pytest.importorskip(word)
            continue
        found = re.fullmatch(r"fastspawn(?:\[([\w,]+)\])?", word)
        assert found, f"{word} is not ours"
        extras = importlib.metadata.metadata("fastspawn").get_all("Provides-Extra") or []
        assert set((found[1] or "").split(",")) <= {"", *extras}, f"{word}: there are {extras}"


@functools.cache
def sandboxes(bwrap: str) -> bool:
    """May it make namespaces?  Some systems let nobody but root."""
    words = [bwrap, "--unshare-all", "--ro-bind", "/", "/", "true"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@functools.cache
def made() -> bool:
    """Would ``make serve`` serve at once: is its environment the one that runs this?"""
    asked = ["make", "--question", "build"]
    try:
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0
