"""Run a command on another glibc than the machine's: ``python tests/libcs.py WHICH COMMAND ...``.

WHICH is a folder with an unpacked glibc (Debian's libc6 and libc-bin), or a suite of Debian, from
which that is fetched into build/libcs with the machine's own apt.  In a mount namespace of its own
each of its libraries and locales covers the system's by that name: every program that the command
starts is the system's, on that glibc, which must be no older than what the programs were built for.

Needs root.  Outside of the namespace nothing changes.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

MS_BIND, MS_REC, MS_PRIVATE, CLONE_NEWNS = 0x1000, 0x4000, 0x40000, 0x20000
FOLDERS = ("usr/lib/*-linux-gnu", "usr/lib/locale/C.utf8", "usr/lib/locale/C.utf8/LC_MESSAGES")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def fetched(suite: str) -> Path:
    """The folder with that suite's glibc, fetched unless it is there."""
    base = Path("build/libcs").absolute() / suite
    root = base / "root"
    if root.exists():
        return root
    for folder in ("lists/partial", "cache/archives/partial"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    (base / "status").touch()
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    of_debian = ("Created-By: Packages", "Origin: Debian")
    asked = subprocess.run([*targets, *of_debian], capture_output=True, text=True, check=True)
    said = asked.stdout.split()
    if not said:
        sys.exit("apt knows no mirror of Debian: apt-get update")
    (base / "sources").write_text(f"deb [signed-by={KEYRING}] {said[0]} {suite} main\n")
    options = {
        "Dir::Etc::sourcelist": base / "sources",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": base / "lists",
        "Dir::State::status": base / "status",
        "Dir::Cache": base / "cache",
        "APT::Sandbox::User": "root",
        # A mirror may stand still: a suite that changes says for how long it holds, of unstable a
        # week. What is signed is checked all the same.
        "Acquire::Check-Valid-Until": "false",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", "libc6", "libc-bin"], cwd=base, check=True)
    for package in base.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, base / "new"], check=True)
    (base / "new").rename(root)
    return root


def covered(root: Path) -> list[tuple[Path, Path]]:
    """Its files, and the system's that they cover."""
    found = []
    for folder in FOLDERS:
        for path in sorted(root.glob(f"{folder}/*")):
            there = Path("/") / path.relative_to(root)
            if path.is_file() and there.exists():
                found.append((path, there.resolve()))
    return found


def main(which: str, *command: str) -> None:
    root = Path(which) if os.path.isdir(which) else fetched(which)
    files = covered(root)
    if not files:
        sys.exit(f"{root}: no libraries of this machine's kind")
    # From the first on no program may start that needs both the old and the new ones.
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int) -> None:
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    check(libc.unshare(CLONE_NEWNS))
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    for path, there in files:
        check(libc.mount(os.fsencode(path), os.fsencode(there), None, MS_BIND, None))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
