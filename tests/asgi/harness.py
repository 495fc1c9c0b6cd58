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
        for _ in range(5):
            self.log = directory / f"server-{time.monotonic_ns()}"
            self._start(kind, options, app, flags)
            try:
                poll(lambda: self.process.poll() is not None or self._answers(), "a start")
            except BaseException:
                self.stop()
                raise
            if self.process.poll() is None:
                return
            # Neither server tells which port it got, and another program may take this one.
            assert "in use" in self.errors(), self.errors()

    def _start(self, kind: str, options: dict[str, object], app: str, flags: Sequence[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        command = {
            "uvicorn": ["uvicorn", f"asgi.apps:{app}", "--port", str(self.port)],
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

    def connect(self) -> Client:
        return Client(socket.create_connection(("127.0.0.1", self.port), BOUND))

    def get(self, target: str = "/", *fields: str) -> Response:
        with self.connect() as client:
            client.get(target, *fields)
            return client.read()

    def stop(self) -> int:
        """As an operator would. Returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(BOUND)
        finally:
            self.process.kill()
            self.process.wait()
