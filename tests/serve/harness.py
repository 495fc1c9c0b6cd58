"""A server process to test, and a client that sees every byte."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from soak.processes import children as children_of
from support import KNOWS_CHILDREN, LINUX

BOUND = 45.0
"""Seconds after which something that has not happened never will, however busy the machine. What is
to be ended before its time takes 60."""


PATIENT = [
    word
    for limit in ("keep-alive", "header", "queue", "graceful")
    for word in (f"--{limit}-timeout", "5m")
]
"""For limits that a test does not set: of a client or a process that the machine keeps waiting, the
default ones may expire."""


def poll(condition: Callable[[], object], what: str, bound: float = BOUND) -> None:
    """Wait until ``condition`` holds."""
    end = time.monotonic() + bound
    while not condition():
        assert time.monotonic() < end, f"not within {bound} s: {what}"
        time.sleep(0.005)


def in_one_piece(ask: Callable[[], Response]) -> Response:
    """The first answer with a length. What a command says is held back for a moment, for all of
    it to come; on a busy machine that is too short, and the answer is a stream."""
    for _ in range(100):
        answer = ask()
        if "content-length" in answer.fields:
            return answer
    raise AssertionError(f"a stream each time: {answer}")


def routes_file(path: Path, **routes: str) -> str:
    """A file for --config with the routes /NAME, each the rest of its table."""
    tables = (f"[[route]]\npath = '/{name}'\n{table}\n" for name, table in routes.items())
    path.write_text("".join(tables))
    return str(path)


def longer_times(first: float = 0.3) -> Iterator[str]:
    """Durations, each longer, for a deadline that is to come after something that a process has to
    do first: start a server with each until it comes in time. The last one has to be enough."""
    seconds = first
    while seconds < BOUND:
        yield f"{seconds}s"
        seconds *= 3


def seconds_in(duration: str) -> float:
    """Of one of ``longer_times``."""
    return float(duration[:-1])


def settled(read: Callable[[], int], still: float = 0.5) -> int:
    """What ``read`` returns when it no longer changes, for ``still`` seconds."""
    end = time.monotonic() + BOUND + still
    last, since = read(), time.monotonic()
    while time.monotonic() < since + still:
        assert time.monotonic() < end, "it goes on and on"
        now = read()
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.01)
    return last


def stat(pid: int) -> tuple[int, str] | None:
    """Its parent and its state, proc(5)'s or ps(1)'s, unless it is gone."""
    if LINUX:
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, parent = text.rpartition(")")[2].split()[:2]
        return int(parent), state
    row = subprocess.run(
        ["ps", "-o", "ppid=,stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    return (int(row[0]), row[1]) if row else None


def alive(pid: int) -> bool:
    """A zombie is not."""
    now = stat(pid)
    return now is not None and now[1][0] not in "ZX"


def children(pid: int) -> dict[int, str]:
    """Process id and state of each child, zombies included."""
    if KNOWS_CHILDREN:
        found = {child: stat(child) for child in children_of(pid)}
        return {child: now[1] for child, now in found.items() if now}
    lines = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    rows = [line.split() for line in lines]
    return {int(row[0]): row[2] for row in rows if row[1] == str(pid)}


def fds(pid: int) -> int:
    """Open descriptors."""
    if LINUX:
        return len(os.listdir(f"/proc/{pid}/fd"))
    listed = subprocess.run(["lsof", "-p", str(pid)], capture_output=True, text=True, check=False)
    return len(listed.stdout.splitlines())


def threads(pid: int) -> int:
    if LINUX:
        return len(os.listdir(f"/proc/{pid}/task"))
    listed = subprocess.run(
        ["ps", "-M", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return len(listed.stdout.splitlines()) - 1


def resident(pid: int, *, peak: bool = False) -> int:
    """Bytes of resident memory; where it is known, ``peak`` since ``reset_peak``."""
    if LINUX:
        status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) * 1024
    listed = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return int(listed.stdout) * 1024


def reset_peak(pid: int) -> None:
    if LINUX:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


@dataclass
class Response:
    status: int
    version: str
    fields: dict[str, str]
    """Names in lower case."""
    body: bytes
    complete: bool
    """False: the connection ended before the body did."""


class Client:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(BOUND)
        self.buffer = b""

    def __enter__(self) -> Client:  # noqa: PYI034 - Self is not in 3.10
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def get(self, target: str = "/", *fields: str, version: str = "1.1") -> None:
        self.request("GET", target, *fields, version=version)

    def request(
        self, method: str, target: str = "/", *fields: str, body: bytes = b"", version: str = "1.1"
    ) -> None:
        lines = [f"{method} {target} HTTP/{version}", "Host: test", *fields, "", ""]
        self.send("\r\n".join(lines).encode() + body)

    def post(self, body: bytes, *fields: str, version: str = "1.1") -> None:
        self.request(
            "POST", "/", f"Content-Length: {len(body)}", *fields, body=body, version=version
        )

    def fill(self) -> bool:
        """Receive more; False at the end."""
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            assert self.fill(), f"ended before {mark!r}: {self.buffer!r}"
        found, self.buffer = self.buffer.split(mark, 1)
        return found + mark

    def read_exactly(self, length: int) -> bytes:
        while len(self.buffer) < length:
            if not self.fill():
                break
        found, self.buffer = self.buffer[:length], self.buffer[length:]
        return found

    def read_head(self) -> Response:
        """Status line and header fields; the body is still to come."""
        status_line, *lines = self.read_until(b"\r\n\r\n").decode("ascii").split("\r\n")[:-2]
        version, status, _ = status_line.split(" ", 2)
        fields = [line.split(": ", 1) for line in lines]
        assert len({name.lower() for name, _ in fields}) == len(fields), lines
        return Response(
            int(status), version, {name.lower(): value for name, value in fields}, b"", True
        )

    def read_chunk(self) -> bytes:
        """The next chunk's data: empty for the last one, and at the end of the connection."""
        while b"\r\n" not in self.buffer:
            if not self.fill():
                return b""
        size = int(self.read_until(b"\r\n"), 16)
        data = self.read_exactly(size + 2)
        self.last_seen = size == 0 and data == b"\r\n"
        return data[:-2] if len(data) == size + 2 else data

    def read_body(self, response: Response) -> Response:
        if response.fields.get("transfer-encoding") == "chunked":
            self.last_seen = False
            while chunk := self.read_chunk():
                response.body += chunk
            response.complete = self.last_seen
        elif "content-length" in response.fields:
            length = int(response.fields["content-length"])
            response.body = self.read_exactly(length)
            response.complete = len(response.body) == length
        else:
            response.body = self.read_to_end()
        return response

    def read(self, *, head: bool = False) -> Response:
        """One whole answer; ``head``: to a HEAD request."""
        response = self.read_head()
        return response if head else self.read_body(response)

    def answered(self) -> bool:
        """To a request, with 200. False: it was cut off, as those are that come too late."""
        try:
            self.get()
            return self.read().status == 200
        except (OSError, AssertionError):
            return False

    def read_to_end(self) -> bytes:
        while self.fill():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def ended(self) -> bool:
        """The server has closed, and sent nothing more. Waits for it."""
        try:
            return self.read_to_end() == b""
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        """Close as a crash would."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()


class Server:
    """``python -m fastspawn.serve`` with these options and command."""

    def __init__(
        self,
        directory: Path,
        options: Sequence[str],
        command: Sequence[str],
        *,
        where: Sequence[str] = ("--port", "0"),
        pass_fds: Sequence[int] = (),
        prefix: Sequence[str] = (),
        stdout: int | None = None,
        stderr: int | None = None,
        patient: bool = True,
    ) -> None:
        """``stdout``, ``stderr``: descriptors instead of the files that ``log`` and ``errors``
        read; with ``stderr``, who starts it finds out by itself when it serves. ``patient``: with
        long limits of time where ``options`` have none."""
        self.stdout = directory / f"stdout-{time.monotonic_ns()}"
        self.stderr = directory / f"stderr-{time.monotonic_ns()}"
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [
                    *(*prefix, sys.executable, "-m", "fastspawn.serve"),
                    *(*(PATIENT if patient else ()), *where, *options, "--", *command),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out if stdout is None else stdout,
                stderr=err if stderr is None else stderr,
                pass_fds=pass_fds,
            )
        self.pid = self.process.pid
        self.port = 0
        if stderr is not None:
            return
        try:
            poll(lambda: " on " in self.errors() or self.process.poll() is not None, "a start", 120)
            assert self.process.poll() is None, self.errors()
        except BaseException:
            self.stop()
            raise
        found = re.search(r" on https?://\S+:(\d+)", self.errors())
        self.port = int(found[1]) if found else 0

    def agent(self) -> int:
        """The port of --agent-check."""
        found = re.search(r" agent [\d.]+:(\d+)", self.errors())
        assert found is not None, self.errors()
        return int(found[1])

    def errors(self) -> str:
        return self.stderr.read_text()

    def says(self, text: str, times: int | None = None) -> None:
        """Wait until ``errors`` has it, so many times. A thread of the server's writes what it
        says while it serves: an answer may be here before the line about it."""
        poll(lambda: self.errors().count(text) >= (times or 1), f"{text!r} on stderr")
        assert times is None or self.errors().count(text) == times, self.errors()

    def log(self) -> list[str]:
        return self.stdout.read_text().splitlines()

    def logs(self, count: int) -> list[str]:
        """Wait for that many lines of the log."""
        poll(lambda: len(self.log()) >= count, f"{count} lines of the log")
        assert len(self.log()) == count, self.log()
        return self.log()

    def connect(self) -> Client:
        return Client(socket.create_connection(("127.0.0.1", self.port), BOUND))

    def get(self, target: str = "/", *fields: str) -> Response:
        with self.connect() as client:
            client.get(target, *fields)
            return client.read()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, bound: float = BOUND) -> int:
        return self.process.wait(bound)

    def stop(self) -> None:
        """End it the quick way, and wait. Two signals that come at once may be one to it."""
        try:
            for wait in (0.01, *itertools.repeat(1, int(BOUND))):
                self.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(wait)
                    break
            self.process.wait(0)
        finally:
            self.process.kill()
            self.process.wait()


def asleep(server: Server, looks: int = 10) -> bool:
    """All of the server's processes, and what they have started, wait for something."""
    for _ in range(looks):
        processes = children(server.pid)
        for pid in list(processes):
            processes |= children(pid)
        if not all(state.startswith("S") for state in processes.values()):
            return False
    return True
