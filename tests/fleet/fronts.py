"""nginx and Caddy with the configurations of docs/fleet.md."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fleet.haproxy import documented
from support import BOUND, poll

NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {block}
}}
"""
CADDY = "{{\n    admin off\n    auto_https off\n}}\n{block}"

SERVERS = ("127.0.0.1:8001", "127.0.0.1:8002")
"""Of the document."""


def program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _listens(host: str, port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((host, port)) == 0


@contextmanager
def _running(words: Sequence[str | Path], folder: Path, host: str, port: int) -> Iterator[None]:
    """Until it is done with."""
    log = folder / "front.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            env=os.environ | {"HOME": str(folder)},
        )  # fmt: skip
    try:
        poll(lambda: _listens(host, port) or process.poll() is not None, "a front")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(BOUND)


def _over(block: str, servers: Sequence[str]) -> str:
    for theirs, ours in zip(SERVERS, servers, strict=True):
        assert theirs in block
        block = block.replace(theirs, ours)
    return block


@contextmanager
def nginx(folder: Path, host: str, servers: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Before ``servers``, at a loopback address that nobody else has; where it listens."""
    block = _over(documented("nginx"), servers)
    assert "listen 80;" in block
    file = folder / "nginx.conf"
    block = block.replace("listen 80;", f"listen {host}:8080;")
    file.write_text(NGINX.format(folder=folder, block=block))
    words = [program("nginx") or "", "-c", file, "-e", folder / "nginx.log"]
    with _running(words, folder, host, 8080):
        yield host, 8080


@contextmanager
def caddy(folder: Path, host: str, servers: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Likewise."""
    block = _over(documented("caddy"), servers)
    assert ":8080 {\n" in block
    file = folder / "Caddyfile"
    block = block.replace(":8080 {\n", f":8080 {{\n    bind {host}\n")
    file.write_text(CADDY.format(block=block))
    words = [program("caddy") or "", "run", "--adapter", "caddyfile", "--config", file]
    with _running(words, folder, host, 8080):
        yield host, 8080
