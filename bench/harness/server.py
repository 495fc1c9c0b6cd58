"""The life of one server process: started on a free loopback port, awaited, ended by its pid."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import final

from bench.harness import procs
from bench.harness.tools import ROOT, Unavailable

STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ServerError(Exception):
    """A server that did not start, serve or stop as it should; the message says which."""


def environment() -> dict[str, str]:
    """The one environment that every row and every child gets.

    PATH is the usual one of a Linux system wherever it holds `echo` and `sleep`, so that each
    peer's PATH search takes the same number of steps on every developer's machine.
    """
    usual = all(shutil.which(name, path=STANDARD_PATH) for name in ("echo", "sleep"))
    path = STANDARD_PATH if usual else os.environ.get("PATH", os.defpath)
    env = {"PATH": path, "LANG": "C.UTF-8"}
    env.update({k: v for k, v in os.environ.items() if k.startswith("FASTSPAWN_")})
    return env


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@final
class Server:
    """A context manager around one launch.

    Leaving it raises ServerError, or Unavailable with what was said where *unless_told* is in it.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        ready_timeout: float = 20.0,
        env: Mapping[str, str] | None = None,  # beside the common one
        ends_with: Sequence[int] = (0,),  # its exit statuses after SIGTERM
        unless_told: str = "",  # on its stderr: it does not do what it was started for
    ) -> None:
        self.port = free_port()
        self._command = list(command(self.port))
        self._ready_timeout = ready_timeout
        self._env = env or {}
        self._ends_with = (*ends_with, -signal.SIGTERM)
        self._unless_told = unless_told
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process: subprocess.Popen[bytes] | None = None
        self._helpers: set[procs.Identity] = set()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            env={**environment(), **self._env},
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            self._await_ready()
        except BaseException:
            self._end()
            raise
        return self

    def _await_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self._ready_timeout
        while True:
            if self._process.poll() is not None:
                raise ServerError(
                    f"exited with status {self._process.returncode} before it served"
                    f"{self.last_words()}"
                )
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if time.monotonic() > deadline:
                raise ServerError(
                    f"did not listen within {self._ready_timeout:.0f} s{self.last_words()}"
                )
            time.sleep(0.02)

    def last_words(self) -> str:
        """The last line of the server's stderr, as a suffix for a message."""
        self._stderr.seek(0)
        lines = self._stderr.read()[-4000:].decode(errors="replace").strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""

    @property
    def _told(self) -> str:
        """The line in which the server said that it does something else; empty: it has not."""
        if not self._unless_told:
            return ""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()
        return next((line[:200] for line in lines if self._unless_told in line), "")

    def remember_helpers(self, samples: procs.Tree) -> None:
        """Processes that must be gone when the server is."""
        self._helpers.update(identity for identity in samples if identity.pid != self.pid)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        told = self._told
        problem = self._end()
        if kind is None and problem:
            raise ServerError(problem)
        if kind is None and told:
            raise Unavailable(told)

    def _end(self) -> str:
        """SIGTERM, then SIGKILL; reap; the same for helpers left behind. Returns what was odd."""
        assert self._process is not None
        problem = ""
        if self._process.poll() is not None:
            problem = f"exited with status {self._process.returncode} under load"
            problem += self.last_words()
        else:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                problem = "did not stop within 15 s of SIGTERM"
                self._process.kill()
                self._process.wait()
            else:
                if self._process.returncode not in self._ends_with:
                    problem = f"exit status {self._process.returncode} after SIGTERM"
                    problem += self.last_words()
        left = [identity for identity in self._helpers if procs.alive(identity)]
        deadline = time.monotonic() + 2
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = [identity for identity in left if procs.alive(identity)]
        for identity in left:
            os.kill(identity.pid, signal.SIGKILL)
        if left:
            problem = problem or f"left {len(left)} of its processes behind"
        self._stderr.close()
        return problem
