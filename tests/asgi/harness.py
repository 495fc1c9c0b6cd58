"""An ASGI server's process with one of the applications of ``apps.py``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from serve.harness import BOUND, Client, Response, poll
from support import LINUX

TESTS = Path(__file__).parent.parent


class AsgiServer:
    """``kind``: uvicorn or granian. ``options``: of the ProcessApp."""

    def __init__(
        self,
        directory: Path,
        kind: str,
        options: dict[str, object],
        app: str = "app",
        flags: Sequence[str] = (),
    ) -> None:
        self.log = directory / f"server-{time.monotonic_ns()}"
        # Neither server tells which port it got. One that is bound, and does not listen, is given
        # to nobody who asks for any; whoever asks for it by its number may have it, too.
        self.held = socket.socket()
        self.held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.held.bind(("127.0.0.1", 0))
        self.port = self.held.getsockname()[1]
        if not LINUX:  # there one bind is enough for it to be taken
            self.held.close()
        self._start(kind, options, app, flags)
        try:
            poll(lambda: self.process.poll() is not None or self._answers(), "a start", 120)
            assert self.process.poll() is None, self.errors()
        except BaseException:
            self.stop()
            raise

    def _start(self, kind: str, options: dict[str, object], app: str, flags: Sequence[str]) -> None:
        command = {
            "uvicorn": [
                *("uvicorn", f"asgi.apps:{app}", "--port", str(self.port)),
                *("--timeout-keep-alive", "300"),  # for a test that the machine keeps waiting
            ],
            "granian": [
                *("granian", "--interface", "asgi", f"asgi.apps:{app}"),
                *("--port", str(self.port)),
            ],
        }[kind]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "PYTHONPATH": str(TESTS),
                    "APP_OPTIONS": json.dumps(options),
                },
            )

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), BOUND).close()
        except OSError:
            return False
        return True

    def errors(self) -> str:
        return self.log.read_text()

    def says(self, text: str) -> None:
        """Wait until ``errors`` has it."""
        poll(lambda: text in self.errors(), f"{text!r} in what it wrote")

    def connect(self) -> Client:
        return Client(socket.create_connection(("127.0.0.1", self.port), BOUND))

    def get(self, target: str = "/", *fields: str) -> Response:
        with self.connect() as client:
            client.get(target, *fields)
            return client.read()

    def stop(self) -> int:
        """As an operator would. Returns the exit status."""
        self.held.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(BOUND)
        finally:
            self.process.kill()
            self.process.wait()
