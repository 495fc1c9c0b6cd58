"""The built-in worker, spoken to by hand."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from fastspawn._resettable.pool import builtin_worker
from support import BOUND, LINUX, is_alive, poll

SIZE = 4 << 20


class Worker:
    """One that runs, and a half of the protocol."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            builtin_worker(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def send(self, kind: bytes, *fields: bytes) -> None:
        payload = b"\0".join(fields)
        assert self.process.stdin is not None
        self.process.stdin.write(kind + len(payload).to_bytes(4, "big") + payload)

    def run(self, script: str, *, stdin: bytes = b"null", stderr: bytes = b"inherit") -> None:
        fields = (
            stderr,
            stdin,
            b"",
            b"3",
            b"/bin/sh",
            b"-c",
            script.encode(),
            b"PATH=/bin:/usr/bin",
        )
        self.send(b"R", *fields)

    def exactly(self, size: int) -> bytes:
        data = b""
        assert self.process.stdout is not None
        while len(data) < size:
            piece = self.process.stdout.read(size - len(data))
            assert piece, "the worker has ended"
            data += piece
        return data

    def read(self) -> tuple[bytes, bytes]:
        kind, size = self.exactly(1), self.exactly(4)
        return kind, self.exactly(int.from_bytes(size, "big"))

    def expect(self, kind: bytes) -> bytes:
        found, payload = self.read()
        assert found == kind
        return payload

    def to_end(self) -> tuple[bytes, int]:
        """All output of what runs, and its status."""
        output = b""
        while True:
            kind, payload = self.read()
            if kind == b"X":
                return output, int(payload)
            assert kind in b"OC"
            output += payload if kind == b"O" else b""

    def close(self) -> int:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        return self.process.wait(BOUND)


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    assert worker.expect(b"H") == b"1"
    yield worker
    worker.close()


def test_one_after_the_other(worker: Worker) -> None:
    pids = set()
    for i in range(5):
        worker.run(f"echo {i}; exit {i}")
        pids.add(int(worker.expect(b"S")))
        assert worker.to_end() == (b"%d\n" % i, i)
    assert len(pids) == 5
    assert not any(map(is_alive, pids))


def test_input_is_told_when_it_is_taken(worker: Worker) -> None:
    worker.run("read x; echo $x; cat", stdin=b"pipe")
    worker.expect(b"S")
    worker.send(b"I", b"one\n")
    assert worker.expect(b"C") == b"4"
    assert worker.expect(b"O") == b"one\n"
    worker.send(b"I", b"two")
    assert worker.expect(b"C") == b"3"
    assert worker.expect(b"O") == b"two"
    worker.send(b"I")
    assert worker.to_end() == (b"", 0)


def test_what_is_for_a_request_that_is_over(worker: Worker) -> None:
    worker.run("exit 0", stdin=b"pipe")
    worker.expect(b"S")
    assert worker.expect(b"X") == b"0"
    worker.send(b"I", b"late")
    worker.send(b"I")
    worker.send(b"K", b"15")
    worker.run("cat", stdin=b"pipe")
    worker.expect(b"S")
    worker.send(b"I")
    assert worker.to_end() == (b"", 0)


def test_signals_go_to_the_group(worker: Worker, tmp_path: Path) -> None:
    worker.run(f"sleep 60 & echo $! > {tmp_path}/pid; wait")
    worker.expect(b"S")
    path = tmp_path / "pid"
    poll(lambda: path.exists() and path.read_text().endswith("\n"), "it runs")
    worker.send(b"K", b"15")
    assert worker.expect(b"X") == b"%d" % -signal.SIGTERM
    poll(lambda: not is_alive(int(path.read_text())), "its child has ended")


WRITER = """
import fcntl, os, sys
os.setsid()
fcntl.fcntl(1, 1031, 1 << 20)  # F_SETPIPE_SZ
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
while True:
    os.write(1, bytes(1 << 16))
"""


@pytest.mark.skipif(not LINUX, reason="/proc tells who waits for a pipe")
def test_what_goes_on_writing_is_not_waited_for(worker: Worker, tmp_path: Path) -> None:
    """By somebody who has left the group, to a pipe that is never empty: the reader is slower."""
    path, script = tmp_path / "pid", tmp_path / "writer.py"
    script.write_text(WRITER)
    writer = f"{sys.executable} -IS {script} {path}"
    worker.run(f"{writer} & until [ -s {path} ]; do sleep 0.01; done; exit 4")
    pid, after = int(worker.expect(b"S")), 0
    while (frame := worker.read())[0] == b"O":
        if is_alive(pid):
            continue
        after += len(frame[1])
        assert after < 8 << 20
        poll(lambda: waits_for_pipe(path), "the pipe is full")
    assert frame == (b"X", b"4")
    poll(lambda: not is_alive(int(path.read_text())), "nobody reads what it writes")


def large_pipes() -> bool:
    """Takes CAP_SYS_RESOURCE, or a larger pipe-max-size."""
    ends = os.pipe()
    try:
        return LINUX and fcntl.fcntl(ends[0], 1031, SIZE) >= SIZE  # F_SETPIPE_SZ
    except OSError:
        return False
    finally:
        for fd in ends:
            os.close(fd)


@needs.have(large_pipes(), "no larger pipe may be had")
def test_all_of_a_large_pipe(worker: Worker, tmp_path: Path) -> None:
    """Which a command that may has made larger than others can (pipe-max-size)."""
    text = f"fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, {SIZE}); os.write(1, bytes({SIZE}))"
    script, go = tmp_path / "large.py", tmp_path / "go"
    script.write_text(f"import fcntl, os; {text}")
    wait = f"until [ -e {go} ]; do sleep 0.01; done"
    worker.run(f"{wait}; exec {sys.executable} -IS {script}")
    pid = int(worker.expect(b"S"))
    worker.process.send_signal(signal.SIGSTOP)
    os.waitpid(worker.process.pid, os.WUNTRACED)
    go.touch()
    poll(lambda: not is_alive(pid), "it has ended")
    worker.process.send_signal(signal.SIGCONT)
    came = 0
    while (frame := worker.read())[0] == b"O":
        came += len(frame[1])
    assert (frame, came) == ((b"X", b"0"), SIZE)


def waits_for_pipe(path: Path) -> bool:
    """Or has ended."""
    pid = int(path.read_text())
    return not is_alive(pid) or "pipe" in Path(f"/proc/{pid}/wchan").read_text()


def test_its_end_is_the_commands(worker: Worker, tmp_path: Path) -> None:
    worker.run(f"sleep 60 & echo $! > {tmp_path}/pid; wait")
    leader = int(worker.expect(b"S"))
    path = tmp_path / "pid"
    poll(lambda: path.exists() and path.read_text().endswith("\n"), "it runs")
    assert worker.close() == 0
    for pid in (leader, int(path.read_text())):
        poll(lambda pid=pid: not is_alive(pid), "it has ended")


@pytest.mark.skipif(not LINUX, reason="elsewhere a process cannot ask for it")
def test_its_death_is_the_commands(worker: Worker) -> None:
    worker.run("exec sleep 60")
    pid = int(worker.expect(b"S"))
    worker.process.kill()
    worker.process.wait()
    poll(lambda: not is_alive(pid), "it has ended")


@pytest.mark.parametrize(
    "frame",
    [
        b"Z\0\0\0\0",
        b"R\0\0\0\0",
        b"R\0\0\0\x0dinherit\0null\0",
        b"R\0\0\0\x16inherit\0null\0\x000\0true\0\0\0",
        b"R\0\0\0\x16inherit\0null\0\x009\0true\0\0\0",
        b"I\xff\xff\xff\xff",
    ],
)
def test_what_it_does_not_understand_ends_it(frame: bytes) -> None:
    worker = Worker()
    worker.expect(b"H")
    assert worker.process.stdin is not None
    worker.process.stdin.write(frame)
    assert worker.process.wait(BOUND) == 2
    worker.close()


def test_a_program_that_is_missing(worker: Worker) -> None:
    worker.send(b"R", b"pipe", b"null", b"", b"1", b"./missing")
    assert worker.expect(b"F") == b"2"
    worker.send(b"R", b"pipe", b"null", b"/missing", b"1", b"/bin/true")
    assert worker.expect(b"F") == b"2"
    worker.run("echo on")
    worker.expect(b"S")
    assert worker.to_end() == (b"on\n", 0)
