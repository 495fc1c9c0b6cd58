"""All ways to a process (tests/children/smoke.py), where something of the system is missing.

Real ones: filters of system calls, namespaces, a cgroup. Where they cannot be made, it is skipped.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import needs
from support import poll, script

pytestmark = needs.linux

PARTS = ("spawn", "run", "crash", "engine", "template", "reset")

CALLS = {
    "clone3": "435",
    "close_range": "436",
    "pidfd_open": "434",
    "pidfd_getfd": "438",
    "userfaultfd": "323",
    "dispatch": "157/0/59",
}
"""Their numbers on x86-64; prctl's PR_SET_SYSCALL_USER_DISPATCH."""

SHELLS = {
    "stdio is closed": 'exec "$@" <&- >&- 2>&-',
    "core dumps are on": 'ulimit -c unlimited; exec "$@"',
}

MOUNTS = {
    "no /proc": "mount -t tmpfs none /proc",
    "a read-only /tmp": "mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp",
    "no /dev/shm": "mount -t tmpfs -o ro,size=4k none /dev/shm",
}


def smoke(prefix: Sequence[str], cwd: Path, *words: str) -> dict[str, str]:
    """What came of each part."""
    read, write = os.pipe()
    child = [sys.executable, script("smoke.py")[1], str(write), *words]
    with subprocess.Popen([*prefix, *child], pass_fds=[write], cwd=cwd) as process:
        os.close(write)
        with open(read) as told:
            text = told.read()
    assert process.returncode == 0
    return dict(json.loads(text))


def right(parts: dict[str, str]) -> bool:
    return parts == dict.fromkeys(PARTS, "right")


@needs.filters
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("errno", [38, 1], ids=["ENOSYS", "EPERM"])
def test_a_call_is_refused(name: str, errno: int, tmp_path: Path) -> None:
    parts = smoke(script("refuse_call.py", f"{CALLS[name]}={errno}"), tmp_path)
    if name == "clone3" and errno == 1 and not right(parts):
        # glibc starts no thread then, for nobody: only after ENOSYS does it ask clone(2).
        for threaded in ("engine", "template", "reset"):
            assert "PermissionError" in parts[threaded] or "new thread" in parts[threaded]
            parts[threaded] = "right"
    assert right(parts), parts


@pytest.mark.parametrize("name", SHELLS)
def test_in_a_shell_where(name: str, tmp_path: Path) -> None:
    parts = smoke(["sh", "-c", SHELLS[name], "sh"], tmp_path)
    assert right(parts), parts


def need_mounts() -> None:
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"])
    if done.returncode:
        pytest.skip("no mount namespace can be made here")


@pytest.mark.parametrize("name", MOUNTS)
def test_with_other_mounts(name: str, tmp_path: Path) -> None:
    need_mounts()
    inside = f'{MOUNTS[name]} && exec "$@"'
    parts = smoke(["unshare", "-m", "sh", "-c", inside, "sh"], tmp_path)
    if name == "no /proc":  # a template looks there at itself
        for forked in ("template", "reset"):
            assert "TemplateError" in parts[forked]
            assert "/proc is not mounted" in parts[forked]
            parts[forked] = "right"
    assert right(parts), parts


def test_clocks_past_32_bits(tmp_path: Path) -> None:
    """Deadlines and all are by the monotonic clock: of a machine that is up for 127 years."""
    later = ["unshare", "--time", "--monotonic", "4000000000", "--boottime", "4000000000"]
    if subprocess.run([*later, "true"], capture_output=True).returncode:
        pytest.skip("no time namespace can be made here")
    parts = smoke(later, tmp_path)
    assert right(parts), parts


def is_removed(group: Path) -> bool:
    """Not while there is a process in it that has just been ended."""
    try:
        group.rmdir()
    except OSError:
        return False
    return True


V1 = {"memory.max": "memory.limit_in_bytes"}
"""What a limit was in version 1, where that has another name."""


@contextmanager
def cgroup(limit: str) -> Iterator[tuple[Path, list[str]]]:
    """A fresh one of version 2 where that has the controller, else of version 1: where its limit is
    set, and what runs a command in it."""
    controller = limit.partition(".")[0]
    root = Path("/sys/fs/cgroup")
    above = root if (root / "cgroup.controllers").exists() else root / controller
    made = above / f"fastspawn-{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        file = made / limit
        if not file.exists():
            file = made / V1.get(limit, limit)
        if not file.exists():
            pytest.skip(f"no {limit} there")
        enter = f'echo $$ > {shlex.quote(str(made / "cgroup.procs"))} && exec "$@"'
        yield file, ["sh", "-c", enter, "sh"]
    finally:
        poll(lambda: is_removed(made), "an empty cgroup")


def test_no_more_processes_in_the_cgroup(tmp_path: Path) -> None:
    """So few that there is none for a child: an error, and all is well where there are more."""
    with cgroup("pids.max") as (limit, within):
        limit.write_text("1")
        for part in smoke(within, tmp_path).values():
            assert "BlockingIOError" in part or "new thread" in part
        limit.write_text("max")
        parts = smoke(within, tmp_path)
        assert right(parts), parts


def test_no_more_memory_in_the_cgroup(tmp_path: Path) -> None:
    """Who takes it is killed, and that is its end as any other."""
    with cgroup("memory.max") as (limit, within):
        limit.write_text(str(256 << 20))
        parts = smoke(within, tmp_path, "hungry")
        assert right(parts), parts
        parts = smoke(within, tmp_path)
        assert right(parts), parts
