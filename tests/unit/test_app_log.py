"""What an application's process says on standard error, where others write as well."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

import needs

SAYS = """
import sys
from fastspawn._app import log

try:
    1 / 0
except ZeroDivisionError as error:
    if sys.argv[1] == "exception":
        log.tell_exception("error in 'GET /'")
    else:
        log.tell_failure(error)
"""


@needs.linux
@pytest.mark.parametrize("options", [(), ("-u",)], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("exception", "fastspawn: error in 'GET /'"),
        ("failure", "Traceback (most recent call last):"),
    ],
)
def test_an_exception_is_one_write(kind: str, first: str, options: tuple[str, ...]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        subprocess.run([sys.executable, *options, "-c", SAYS, kind], stderr=theirs, check=True)
        theirs.close()
        text = ours.recv(65536).decode()
        assert text.startswith(f"{first}\n")
        assert text.endswith("\nZeroDivisionError: division by zero\n")
        assert ours.recv(65536) == b""
