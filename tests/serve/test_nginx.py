"""The nginx block of docs/operation.md, in a real nginx."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import unix_connect

from serve.conftest import Serve
from serve.harness import BOUND, Client, poll

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx")

DOCUMENT = Path(__file__).parents[2] / "docs" / "operation.md"
CONFIG = """
daemon off;
master_process off;
pid {folder}/pid;
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
SHOW = r"""printf 'Content-Type: text/plain\n\n'
echo "$HTTP_HOST $REQUEST_SCHEME ${HTTP_UPGRADE-none} ${HTTP_CONNECTION-none}"
"""


@contextmanager
def nginx(folder: Path, behind: Path) -> Iterator[Path]:
    """Its socket."""
    assert NGINX is not None
    documented = re.search(r"```nginx\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert documented is not None
    listening = folder / "nginx"
    block = documented[1].replace("/run/fastspawn.sock", str(behind))
    block = block.replace("listen 80;", f"listen unix:{listening};")
    assert str(behind) in block
    assert str(listening) in block
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, block=block))
    errors = folder / "nginx.log"
    process = subprocess.Popen([NGINX, "-c", str(config), "-e", str(errors)])
    try:
        poll(lambda: listening.exists() or process.poll() is not None, "nginx")
        assert process.poll() is None, errors.read_text()
        yield listening
    finally:
        process.terminate()
        process.wait(BOUND)


def test_websocket(start: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    start("--mode", "ws", where=("--uds", str(path)), command=("cat",))
    with nginx(tmp_path, path) as listening:
        connected = unix_connect(str(listening), "ws://test/", open_timeout=BOUND)
        with connected as client:
            client.send("hello")
            assert client.recv(BOUND) == "hello"


def test_request(start: Serve, tmp_path: Path) -> None:
    """One that is no WebSocket: nothing of that gets to the command, and no "Connection: close"."""
    path = tmp_path / "socket"
    options = ("--mode", "cgi", "--proxy-headers")
    start(*options, where=("--uds", str(path)), command=("sh", "-c", SHOW))
    with nginx(tmp_path, path) as listening, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(BOUND)
        sock.connect(str(listening))
        client = Client(sock)
        client.get()
        assert client.read().body == b"test http none none\n"
