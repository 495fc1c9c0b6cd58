"""systemd as process 1 of namespaces of its own, with no units but those of docs/operation.md."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import BOUND, poll

ROOT = Path(__file__).parents[2]
PROGRAM = Path("/lib/systemd/systemd")
INIT = """
mount -t tmpfs tmpfs /run && mkdir /run/systemd && exec env -i container=docker PATH="$PATH" \
    SYSTEMD_UNIT_PATH="$1" "$2" --system --unit=test.target --log-target=console --show-status=0
"""
TARGET = "[Unit]\nAllowIsolate=yes\n"
# What a test's Python and package are made of may be below somebody's home, or /tmp.
VISIBLE = """
[Unit]
DefaultDependencies=no
[Service]
Environment=PYTHONDONTWRITEBYTECODE=1
StandardOutput=file:{folder}/{name}.out
StandardError=file:{folder}/{name}.err
ProtectHome=tmpfs
BindReadOnlyPaths={paths}
"""
SOCKET = "[Unit]\nDefaultDependencies=no\n"


def documented() -> dict[str, str]:
    """The units, by their names."""
    text = (ROOT / "docs" / "operation.md").read_text()
    return dict(re.findall(r"```ini\n# (\S+)\n(.*?)```", text, re.DOTALL))


def _cgroups() -> set[Path]:
    base = Path("/sys/fs/cgroup")
    return {path for pattern in ("*", "*/*", "*/*/*", "*/*/*/*") for path in base.glob(pattern)
            if path.suffix in (".slice", ".scope", ".service", ".socket")}  # fmt: skip


def _removed(before: set[Path]) -> set[Path]:
    """Those that are new are removed as far as their processes have gone. What is left."""
    for path in sorted(_cgroups() - before, reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir()
    return _cgroups() - before


class Systemd:
    """A running one, process ``pid`` here."""

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid = pid
        self.folder = folder

    def control(self, *words: str) -> subprocess.CompletedProcess[str]:
        """systemctl."""
        return subprocess.run(
            ["nsenter", "-t", str(self.pid), "-m", "-p", "systemctl", *words],
            capture_output=True, text=True, timeout=BOUND * 2, check=False,
        )  # fmt: skip

    def did(self, *words: str) -> str:
        done = self.control(*words)
        assert done.returncode == 0, (words, done.stderr, self.said())
        return done.stdout

    def said(self) -> str:
        """By it, and by its services."""
        return "\n".join(path.read_text() for path in self.folder.glob("*.err"))


def units(folder: Path, address: str, config: Path) -> None:
    """Those of the document, for this machine: listening at ``address``, with ``config``."""
    paths = {sys.prefix, sys.base_prefix, str(ROOT), str(config.parent)}
    for name, text in documented().items():
        here = text.replace("/srv/venv/bin", str(Path(sys.executable).parent))
        here = here.replace("/etc/fastspawn.toml", str(config))
        here = here.replace("127.0.0.1:8001", address)
        (folder / name).write_text(here)
        extra = folder / f"{name}.d"
        extra.mkdir()
        plain = name.partition(".")[0]
        more = VISIBLE.format(folder=folder, name=plain, paths=" ".join(sorted(paths)))
        (extra / "here.conf").write_text(SOCKET if name.endswith(".socket") else more)
    (folder / "test.target").write_text(TARGET)


@contextmanager
def systemd(folder: Path) -> Iterator[Systemd | None]:
    """With the units in ``folder``; None: it does not run here (no rights, no cgroups)."""
    if not (PROGRAM.exists() and os.geteuid() == 0 and shutil.which("nsenter")):
        yield None
        return
    before = _cgroups()
    namespaces = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--ipc")
    with (folder / "systemd.err").open("wb") as out:
        process = subprocess.Popen(
            ["unshare", *namespaces, "--cgroup", "sh", "-c", INIT, "sh", folder, PROGRAM],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        yield _up(process, folder)
    finally:
        process.kill()
        process.wait()
        poll(lambda: not _removed(before), "an end of its groups")


def _up(process: subprocess.Popen[bytes], folder: Path) -> Systemd | None:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def first() -> str:
        with contextlib.suppress(OSError):
            return children.read_text().strip()
        return ""

    poll(lambda: first() or process.poll() is not None, "a first process")
    if process.poll() is not None:
        return None
    found = Systemd(int(first()), folder)

    def answers() -> bool:
        words = ("show", "-p", "Version")
        return process.poll() is not None or found.control(*words).returncode == 0

    try:
        poll(answers, "systemd's answer", 20)
    except AssertionError:
        return None
    return None if process.poll() is not None else found
