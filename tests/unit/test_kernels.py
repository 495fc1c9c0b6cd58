"""All ways to a process (tests/children/smoke.py), where something of the system is missing.

Real ones: filters of system calls, namespaces, a cgroup. Where they cannot be made, it is skipped.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import LINUX, poll, script

pytestmark = pytest.mark.skipif(not LINUX, reason="of Linux")

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


def smoke(prefix: Sequence[str], cwd: Path) -> dict[str, str]:
    """What came of each part."""
    read, write = os.pipe()
    child = [sys.executable, script("smoke.py")[1], str(write)]
    with subprocess.Popen([*prefix, *child], pass_fds=[write], cwd=cwd) as process:
        os.close(write)
        with open(read) as told:
            text = told.read()
    assert process.returncode == 0
    return dict(json.loads(text))


def right(parts: dict[str, str]) -> bool:
    return parts == dict.fromkeys(PARTS, "right")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filters are for x86-64")
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


def is_removed(group: Path) -> bool:
    """Not while there is a process in it that has just been ended."""
    try:
        group.rmdir()
    except OSError:
        return False
    return True


@contextmanager
def cgroup(controller: str) -> Iterator[Path]:
    """Of version 2 where that has the controller, else of version 1; a fresh one."""
    root = Path("/sys/fs/cgroup")
    above = root if (root / "cgroup.controllers").exists() else root / controller
    made = above / f"fastspawn-{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        if not (made / f"{controller}.max").exists():
            pytest.skip(f"no {controller}.max there")
        yield made
    finally:
        poll(lambda: is_removed(made), "an empty cgroup")


def test_no_more_processes_in_the_cgroup(tmp_path: Path) -> None:
    """So few that there is none for a child: an error, and all is well where there are more."""
    with cgroup("pids") as group:
        enter = f'echo $$ > {shlex.quote(str(group / "cgroup.procs"))} && exec "$@"'
        (group / "pids.max").write_text("1")
        for part in smoke(["sh", "-c", enter, "sh"], tmp_path).values():
            assert "BlockingIOError" in part or "new thread" in part
        (group / "pids.max").write_text("max")
        parts = smoke(["sh", "-c", enter, "sh"], tmp_path)
        assert right(parts), parts
