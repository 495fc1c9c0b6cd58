"""The caller's path: _core.spawn and Child, with descriptors that belong to the caller."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastspawn import _core
from fastspawn._core import Child, Plan
from support import (
    BOUND,
    LINUX,
    failure,
    is_alive,
    often,
    own_children,
    poll,
    remembers,
    remembers_at_once,
    same_error,
    script,
    sh,
    sigchld_ignored,
)


def plan(argv: list[Any], **options: Any) -> Plan:
    return Plan(argv, **options)


@pytest.fixture
def pipe() -> Iterator[Callable[[], tuple[int, int]]]:
    """Makes pipes, and closes what the test leaves open."""
    made: dict[int, os.stat_result] = {}

    def make() -> tuple[int, int]:
        ends = os.pipe()
        made.update((fd, os.fstat(fd)) for fd in ends)
        return ends

    yield make
    for fd, status in made.items():
        try:
            same = os.path.samestat(os.fstat(fd), status)
        except OSError:
            continue
        if same:
            os.close(fd)


def read_all(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


Pipe = Callable[[], tuple[int, int]]

# ---- descriptors ---------------------------------------------------------------------------------


def test_pipes(pipe: Pipe) -> None:
    (in_read, in_write), (out_read, out_write), (err_read, err_write) = pipe(), pipe(), pipe()
    child = _core.spawn(plan(sh("cat; echo err >&2; exit 3")), in_read, out_write, err_write)
    for fd in (in_read, out_write, err_write):
        os.close(fd)
    os.write(in_write, b"text")
    os.close(in_write)
    assert read_all(out_read) == b"text"
    assert read_all(err_read) == b"err\n"
    assert child.wait() == 3


def test_one_for_both(pipe: Pipe) -> None:
    read, write = pipe()
    child = _core.spawn(plan(sh("echo out; echo err >&2")), stdout=write, stderr=write)
    os.close(write)
    assert read_all(read) == b"out\nerr\n"
    assert child.wait() == 0


def test_inherited(capfd: pytest.CaptureFixture[str]) -> None:
    assert _core.spawn(plan(sh("echo out; echo err >&2"))).wait() == 0
    assert capfd.readouterr() == ("out\n", "err\n")


def found(pipe: Pipe, **options: Any) -> dict[str, Any]:
    """What a child finds."""
    read, write = pipe()
    child = _core.spawn(plan(script("state.py"), **options), stdout=write)
    os.close(write)
    state: dict[str, Any] = json.loads(read_all(read))
    assert child.wait() == 0
    return state


def test_nothing_is_inherited(pipe: Pipe) -> None:
    opened = []
    try:
        for _ in range(200):
            opened.append(os.dup(1))
            os.set_inheritable(opened[-1], True)
        assert found(pipe)["fds"] == [0, 1, 2]
    finally:
        for fd in opened:
            os.close(fd)


def test_everything_is_inherited(pipe: Pipe) -> None:
    """Without close_fds, but for what is close-on-exec."""
    opened = [os.dup(1) for _ in range(6)]
    try:
        for fd in opened[::2]:
            os.set_inheritable(fd, True)
        fds = found(pipe, close_fds=False)["fds"]
        assert set(opened[::2]) <= set(fds)
        assert not set(opened[1::2]) & set(fds)
    finally:
        for fd in opened:
            os.close(fd)


@pytest.mark.parametrize("floor", [10, 100, 900])
def test_kept_descriptors(pipe: Pipe, floor: int) -> None:
    """Under their numbers, inheritable or not; unsorted, with gaps, more than once."""
    opened = [fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, floor + 5 * i) for i in range(12)]
    try:
        keep = opened[8:2:-2] + opened[4:5]
        assert found(pipe, pass_fds=keep)["fds"] == [0, 1, 2, *sorted(set(keep))]
    finally:
        for fd in opened:
            os.close(fd)


def test_kept_descriptor_that_is_not_open() -> None:
    expected = failure(lambda: subprocess.run(["true"], pass_fds=[900]))
    error = failure(lambda: _core.spawn(plan(["true"], pass_fds=[900])))
    assert same_error(error, expected)
    with pytest.raises(ValueError, match="bad value"):
        plan(["true"], pass_fds=[-1])


def test_high_sources(pipe: Pipe) -> None:
    """Descriptors far up are found, whatever way the child comes by them."""
    read, write = pipe()
    high = fcntl.fcntl(write, fcntl.F_DUPFD_CLOEXEC, 1000)
    os.close(write)
    child = _core.spawn(plan(sh("echo hi")), stdout=high, stderr=high)
    os.close(high)
    assert read_all(read) == b"hi\n"
    assert child.wait() == 0


@pytest.mark.parametrize("mode", ["swapped", "rotated", "all stderr"])
def test_standard_descriptors_as_sources(capfd: pytest.CaptureFixture[str], mode: str) -> None:
    """As if all were placed at once."""
    ends = {"swapped": (0, 2, 1), "rotated": (1, 2, 0), "all stderr": (0, 2, 2)}[mode]
    argv = sh("echo out; echo err >&2; test -t 0 || true")
    child = _core.spawn(plan(argv), *ends)
    assert child.wait() == 0
    out, err = capfd.readouterr()
    if mode == "swapped":
        assert (out, err) == ("err\n", "out\n")
    elif mode == "rotated":
        assert (out, err) == ("", "out\n")
    else:
        assert (out, err) == ("", "out\nerr\n")


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"args": ["/nowhere/program"]},
        {"args": ["/"]},
        {"args": ["/etc/hosts"]},
        {"args": ["no-such-program-anywhere"]},
        {"args": ["true"], "cwd": "/nowhere"},
        {"args": ["true"], "cwd": "/etc/hosts"},
        {"args": ["true", "x" * 10_000_000]},
    ],
    ids=lambda options: " ".join(map(str, options.values()))[:40],
)
def test_same_error(options: dict[str, Any]) -> None:
    expected = failure(lambda: subprocess.run(**options))
    prepared = plan(options.pop("args"), **options)
    for _ in range(20):
        assert same_error(failure(lambda: _core.spawn(prepared)), expected)
    assert own_children() == {}


def test_bad_arguments() -> None:
    for call in (
        lambda: _core.spawn(None),  # type: ignore[arg-type]
        lambda: _core.spawn(["true"]),  # type: ignore[arg-type]
        lambda: _core.spawn(plan(["true"]), "0"),  # type: ignore[arg-type]
        lambda: _core.spawn(plan(["true"]), 2**40),
    ):
        assert type(failure(call)) in (TypeError, OverflowError)
    with pytest.raises(ValueError, match="not initialized"):
        _core.spawn(Plan.__new__(Plan))


def test_source_that_is_not_open() -> None:
    error = failure(lambda: _core.spawn(plan(["true"]), stdout=900))
    assert isinstance(error, OSError)
    assert error.strerror == os.strerror(9)


# ---- identity ------------------------------------------------------------------------------------


def test_identity_as_subprocess_sets_it(pipe: Pipe) -> None:
    """Who may not change it hears that; it is never run as someone else."""
    who: dict[str, Any] = {"user": 65534, "group": 65533, "extra_groups": [65532, 65531]}
    argv = sh("id -u; id -g; id -G")

    def expected() -> bytes:
        return bytes(subprocess.check_output(argv, **who))

    read, write = pipe()
    if os.getuid() == 0:
        child = _core.spawn(plan(argv, **who), stdout=write)
        os.close(write)
        assert read_all(read) == expected()
        assert child.wait() == 0
    else:
        error = failure(lambda: _core.spawn(plan(argv, **who), stdout=write))
        assert same_error(error, failure(expected))


def test_process_group() -> None:
    leader = _core.spawn(plan(["sleep", "60"], process_group=0))
    assert os.getpgid(leader.pid) == leader.pid
    member = _core.spawn(plan(["sleep", "60"], process_group=leader.pid))
    assert os.getpgid(member.pid) == leader.pid
    session = _core.spawn(plan(["sleep", "60"], start_new_session=True))
    assert os.getsid(session.pid) == session.pid
    ours = _core.spawn(plan(["sleep", "60"]))
    assert os.getpgid(ours.pid) == os.getpgrp()
    leader.kill(signal.SIGTERM, group=True)
    assert (leader.wait(), member.wait()) == (-signal.SIGTERM, -signal.SIGTERM)
    session.kill(signal.SIGTERM, True)
    ours.kill(signal.SIGKILL)
    assert (session.wait(), ours.wait()) == (-signal.SIGTERM, -signal.SIGKILL)


# ---- the child -----------------------------------------------------------------------------------


def test_wait(pipe: Pipe) -> None:
    read, write = pipe()
    child = _core.spawn(plan(sh("read x; exit 7")), stdin=read)
    os.close(read)
    assert child.wait(block=False) is None
    assert child.wait(False) is None
    assert child.rusage is None
    assert not child.lost
    assert is_alive(child.pid)
    os.close(write)
    assert child.wait() == 7
    assert (child.wait(), child.wait(block=False)) == (7, 7)
    assert not child.lost
    assert child.pidfd == -1


def test_wait_without_blocking() -> None:
    child = _core.spawn(plan(["true"]))
    poll(lambda: child.wait(block=False) is not None, "it has ended")
    assert child.wait() == 0


@pytest.mark.parametrize("code", [0, 1, 127, 255])
def test_exit_status(code: int) -> None:
    assert _core.spawn(plan(sh("exit $1", code))).wait() == code


def test_stop_is_no_end() -> None:
    child = _core.spawn(plan(["sleep", "60"]))
    child.kill(signal.SIGSTOP)
    time.sleep(0.05)
    assert child.wait(block=False) is None
    child.kill(signal.SIGCONT)
    assert child.wait(block=False) is None
    child.kill(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def test_pidfd() -> None:
    """Close-on-exec, the caller's, and readable when it has ended; closed by the wait."""
    child = _core.spawn(plan(["sleep", "60"]))
    if LINUX:
        assert child.pidfd > 2
        assert not os.get_inheritable(child.pidfd)
    child.kill(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert child.pidfd == -1


def test_nonblocking_pidfd() -> None:
    """libuv makes it so: the wait still waits."""
    child = _core.spawn(plan(["sleep", "60"]))
    if child.pidfd >= 0:
        os.set_blocking(child.pidfd, False)
        assert child.wait(block=False) is None
    # Not before the wait has begun, as a rule.
    thread = threading.Timer(0.1, lambda: child.kill(signal.SIGKILL))
    thread.start()
    assert child.wait() == -signal.SIGKILL
    thread.join()


def test_kill_after_the_end() -> None:
    child = _core.spawn(plan(["true"]))
    child.wait()
    for group in (False, True):
        with pytest.raises(ProcessLookupError):
            child.kill(signal.SIGKILL, group)


def test_bad_signal() -> None:
    child = _core.spawn(plan(["sleep", "60"]))
    child.kill(0)
    for number in (-1, 1000):
        with pytest.raises(OSError, match="Invalid argument"):
            child.kill(number)
    child.kill(signal.SIGKILL)
    child.wait()


def test_rusage() -> None:
    child = _core.spawn(plan(sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")))
    assert child.wait() == 0
    assert child.rusage is not None
    assert child.rusage.ru_maxrss > 0
    assert 0 < child.rusage.ru_utime + child.rusage.ru_stime < 60
    assert type(child.rusage).__name__ == "struct_rusage"


@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize(("end", "code"), [("exit 7", 7), ("kill -9 $$", -9)])
def test_reaped_by_someone_else(block: bool, end: str, code: int) -> None:
    child = _core.spawn(plan(sh(end)))
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == code
    with pytest.raises(ProcessLookupError):
        child.kill(signal.SIGKILL)
    assert (child.wait(block), child.lost) == ((code, False) if remembers() else (0, True))
    assert child.pidfd == -1
    assert child.rusage is not None
    assert child.rusage.ru_maxrss == 0


def test_sigchld_is_ignored() -> None:
    with sigchld_ignored():
        children = [_core.spawn(plan(sh(f"exit {i}"))) for i in range(20)]
        codes = [child.wait() for child in children]
    if remembers_at_once():
        assert codes == list(range(20))
    else:
        assert all(child.lost for child in children) or remembers()


def test_descriptors_of_those_that_are_gone() -> None:
    """Nobody asked for them: they go when others come."""
    children = []
    for _ in range(300):
        children.append(_core.spawn(plan(["true"])))
        os.waitpid(children[-1].pid, 0)
    assert sum(child.pidfd >= 0 for child in children) <= 16
    assert [child.wait(False) for child in children] == [0] * 300
    assert all(child.pidfd == -1 for child in children)


def test_descriptors_of_those_that_are_not() -> None:
    """A child that runs, or was not waited for, keeps its own."""
    read, write = os.pipe()
    children = [_core.spawn(plan(["cat"]), stdin=read) for _ in range(50)]
    os.close(read)
    fds = [child.pidfd for child in children]
    os.close(write)
    children += [_core.spawn(plan(["true"])) for _ in range(50)]
    assert fds == [child.pidfd for child in children[:50]]
    assert [child.wait() for child in children] == [0] * 100


@pytest.mark.skipif(not LINUX, reason="there are no pidfds")
def test_a_descriptor_that_is_watched_stays() -> None:
    child = _core.spawn(plan(["true"]))
    fd = child.watch()
    os.waitpid(child.pid, 0)
    others = [_core.spawn(plan(["true"])) for _ in range(40)]
    assert [other.wait() for other in others] == [0] * 40
    assert child.wait() == 0
    assert (child.pidfd, child.watch()) == (-1, -1)
    os.fstat(fd)
    child.unwatch()
    assert isinstance(failure(lambda: os.fstat(fd)), OSError)


def test_await_end() -> None:
    child = _core.spawn(plan(["sleep", "60"]))
    child.await_end(0)
    child.await_end(0.01)
    assert child.wait(False) is None
    thread = threading.Thread(target=child.await_end, args=[60])
    thread.start()
    child.kill(signal.SIGKILL)
    child.await_end(60)
    assert child.wait() == -signal.SIGKILL
    child.await_end(60)
    thread.join()


def test_child_that_was_never_spawned() -> None:
    child = Child()
    with pytest.raises(ProcessLookupError):
        child.kill(signal.SIGKILL)
    assert isinstance(failure(child.wait), OSError)
    assert child.rusage is None


def test_child_that_is_dropped() -> None:
    """Its descriptor goes with it; the zombie is whoever's who waits."""
    child = _core.spawn(plan(["true"]))
    pid = child.pid
    del child
    os.waitpid(pid, 0)


def test_other_threads_go_on(tmp_path: Path) -> None:
    """Neither a slow exec nor a wait holds the interpreter."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    child = _core.spawn(plan(sh('read go < "$1"', fifo)))
    codes: list[int | None] = []
    thread = threading.Thread(target=lambda: codes.append(child.wait()))
    thread.start()
    time.sleep(0.05)  # it waits, or soon will; either way this thread goes on
    assert codes == []
    fifo.write_text("go\n")
    thread.join(BOUND)
    assert codes == [0]


def test_spawning_from_many_threads() -> None:
    codes: list[int | None] = []
    many = often(8, 64)

    def work(code: int) -> None:
        prepared = plan(sh(f"exit {code}"))
        for _ in range(40):
            got = _core.spawn(prepared).wait()
            assert got == code
            codes.append(got)

    threads = [threading.Thread(target=work, args=[i]) for i in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert sorted(codes, key=str) == sorted([i for i in range(many) for _ in range(40)], key=str)


def test_many_failures() -> None:
    """None leaves a zombie or a descriptor."""
    missing = plan(["/nowhere/program"])
    for _ in range(1000):
        with pytest.raises(FileNotFoundError):
            _core.spawn(missing)
    assert own_children() == {}
