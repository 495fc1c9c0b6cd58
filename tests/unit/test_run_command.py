"""``fastspawn run``: one command under limits."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import needs
from support import LINUX, poll

BASH = shutil.which("bash")
RUN = (sys.executable, "-m", "fastspawn", "run")


def run(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *args], **{"capture_output": True, "text": True, "timeout": 60, **options}
    )


def test_output_and_input_are_ours() -> None:
    done = run("--", "sh", "-c", "cat; echo err >&2; exit 7", input="in\n")
    assert (done.returncode, done.stdout) == (7, "in\n")
    first, second = done.stderr.splitlines()
    assert first == "err"
    assert second.startswith("fastspawn run: exit status 7; ")


def test_input_is_left_for_others(tmp_path: Path) -> None:
    """What the command does not read is there for the next."""
    (tmp_path / "lines").write_text("one\ntwo\nthree\n")
    with open(tmp_path / "lines") as lines:
        assert run("-q", "sh", "-c", "read line; echo $line", stdin=lines).stdout == "one\n"


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["--timeout", "50ms", "--kill-grace", "60s", "--", "cat"], 124, "SIGTERM after --timeout"),
        (["--", "sh", "-c", "kill -9 $$"], 137, "SIGKILL; "),
        (["--", "no-such-program"], 127, "No such file or directory: no-such-program"),
        (["--", "/"], 126, "Permission denied: /"),
        (["--cwd", "/no/such", "--", "true"], 125, "No such file or directory: /no/such"),
        (["--cgroup", "/no/such", "--", "true"], 125, "--cgroup /no/such: "),
        (["--rlimit", f"nofile={1 << 40}", "--", "true"], 125, "--rlimit nofile: "),
        (["--rlimit", "nofile=16", "--", "sh", "-c", "ulimit -n"], 0, "exit status 0"),
        ([], 2, "a command is expected"),
        (["--"], 2, "a command is expected"),
        (["--timeot", "3", "true"], 2, "--timeot"),
        (["--timeout", "soon", "true"], 2, "'soon' is not a duration"),
        (["--memory", "0", "true"], 2, "must be more than 0"),
    ],
)
def test_exit_status(args: list[str], status: int, said: str) -> None:
    reader, writer = os.pipe()  # cat waits
    try:
        done = run(*args, stdin=reader)
    finally:
        os.close(reader)
        os.close(writer)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_memory() -> None:
    code = "import sys; x = bytearray(1 << 30)"
    done = run("--memory", "512M", "--", sys.executable, "-c", code)
    assert done.returncode == 1
    assert "MemoryError" in done.stderr


def test_too_much_output() -> None:
    done = run("--json", "--max-output", "100", "--", "yes")
    assert done.stdout == "y\n" * 50
    data = json.loads(done.stderr)
    assert data["truncated"]
    assert not data["timed_out"]
    assert done.returncode == 128 - data["returncode"]
    assert data["wall"] > 0
    assert data["max_rss"] > 4096


def test_a_reader_that_has_gone() -> None:
    line = f"{' '.join(RUN)} --max-output 1G -- yes | head -1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.stdout == "y\n"
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not LINUX, reason="death signals are Linux's")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_us(how: signal.Signals) -> None:
    """Its output is at its end: nobody has it any more."""
    with subprocess.Popen(
        [*RUN, "--", "sh", "-c", "echo up; exec cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(how)
        assert process.stdout.read() == b""
        assert b"Traceback" not in process.stderr.read()
        assert process.wait() in (128 + how, -how, 128 + signal.SIGTERM)  # of the command, or of us


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A process in a terminal of its own, that has said "up" and waits for a line; the terminal is
    the command's (before, a key would be for who runs it)."""
    with on_terminal(*RUN, "-q", "--", "sh", "-c", "echo up; read a; echo got $a") as (pid, fd):
        read_until(fd, b"up\r\n")
        poll(lambda: os.tcgetpgrp(fd) != pid, "the command's terminal")
        yield pid, fd


@contextlib.contextmanager
def on_terminal(*argv: str) -> Iterator[tuple[int, int]]:
    """A process that has one, and our end of it."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(argv[0], argv)
    try:
        yield pid, fd
    finally:
        os.close(fd)
        with contextlib.suppress(ChildProcessError):  # it has ended, as it should
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def read_until(fd: int, *words: bytes) -> bytes:
    """One after another."""
    said, seen = b"", 0
    for word in words:
        while (at := said.find(word, seen)) < 0:
            said += os.read(fd, 1000)
        seen = at + len(word)
    return said


def test_on_a_terminal(terminal: tuple[int, int]) -> None:
    """Which is the command's while it runs, as under a shell: it may read it."""
    pid, fd = terminal
    os.write(fd, b"hi\n")
    read_until(fd, b"got hi")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_stopped_on_a_terminal(terminal: tuple[int, int]) -> None:
    """Ctrl-Z stops both, for the shell that waits for us."""
    pid, fd = terminal
    os.write(fd, b"\x1a")
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    os.kill(pid, signal.SIGCONT)
    os.write(fd, b"hi\n")
    read_until(fd, b"got hi")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.skipif(not LINUX, reason="nobody tells what is pending")
def test_stopped_while_it_wants_the_terminal() -> None:
    """A Ctrl-Z that comes to a command that is stopped already, and will be woken, is not lost."""
    code = "echo up; read a; echo I am $$.; kill -TTIN $$; echo on; read a; echo got $a"
    with on_terminal(*RUN, "-q", "--", "sh", "-c", code) as (pid, fd):
        read_until(fd, b"up\r\n")
        poll(lambda: os.tcgetpgrp(fd) != pid, "the command's terminal")
        os.kill(pid, signal.SIGSTOP)  # or it would have been woken before the key
        assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
        os.write(fd, b"go\n")
        command = int(read_until(fd, b"I am ", b".").split(b"I am ")[1].split(b".")[0])
        poll(lambda: is_stopped(command), "it wants the terminal")
        os.write(fd, b"\x1a")
        os.kill(pid, signal.SIGCONT)
        assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
        assert is_stopped(command)
        os.kill(pid, signal.SIGCONT)
        read_until(fd, b"on\r\n")
        os.write(fd, b"hi\n")
        read_until(fd, b"got hi")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_who_is_not_stopped_is_not_woken() -> None:
    """Or Ctrl-Z at that moment would be undone. Its SIGCONT would be waiting still."""
    code = "print('up', flush=True); input(); print(open('/proc/self/status').read())"
    had = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
    try:
        with on_terminal(*RUN, "-q", "--", sys.executable, "-c", code) as (pid, fd):
            read_until(fd, b"up\r\n")
            poll(lambda: os.tcgetpgrp(fd) != pid, "the command's terminal")
            os.write(fd, b"hi\n")
            said = read_until(fd, b"ShdPnd:\t", b"\n")
            assert int(said.split(b"ShdPnd:")[1].split()[0], 16) == 0
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, had)


def test_its_signals_are_as_they_were() -> None:
    """What we do with the terminal, a command does not inherit."""
    with on_terminal(*RUN, "-q", "--", "grep", "SigIgn", "/proc/self/status") as (pid, fd):
        said = read_until(fd, b"SigIgn:\t", b"\n")
        assert not int(said.split()[-1], 16) & 1 << (signal.SIGTTOU - 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@needs.program("bash")
def test_in_the_background() -> None:
    """A shell that says bg keeps its terminal, until it says fg."""
    assert BASH is not None
    command = shlex.join([*RUN, "-q", "--", "sh", "-c", "echo u''p; read a; echo got $a"])
    with on_terminal(BASH, "--norc", "--noprofile", "--noediting", "-i") as (pid, fd):
        os.write(fd, f"PS1=; {command}\n".encode())
        read_until(fd, b"up\r\n")
        os.write(fd, b"\x1a")
        read_until(fd, b"Stopped")
        os.write(fd, b"bg\n")
        # It reads, and is stopped.
        os.write(fd, b"until [ \"$(jobs -s)\" ]; do sleep 0.01; done; echo th''is shell\n")
        read_until(fd, b"this shell")
        os.write(fd, b"fg\n")
        read_until(fd, b"fastspawn run", b"\n")
        os.write(fd, b"hi\n")
        read_until(fd, b"got hi")
        os.write(fd, b"exit $?\n")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_interrupted_on_a_terminal(terminal: tuple[int, int]) -> None:
    pid, fd = terminal
    os.write(fd, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGINT
