"""What is read of the machine: versions, limits, cgroup, container."""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import fastspawn
from fastspawn._trial import Outcome, attempt

EXTRAS: Final = {
    "uvloop": ("uvloop", "the server's event loop; else asyncio's", ""),
    "metrics": ("prometheus-client", "serve --metrics-path, and top of it", "prometheus_client"),
    "ws": ("websockets", "serve --mode ws", "websockets"),
    "nats": ("nats-py", "work, of NATS", "nats"),
    "redis": ("redis", "work, of Redis", "redis"),
    "completion": ("shtab", "completion", "shtab"),
}
"""Distribution, what for, and the module if it is an extra's."""


def read(path: str) -> str | None:
    """What is in a file of the kernel's; None: it is not there for us."""
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return None


def _status(name: str) -> str:
    """A field of /proc/self/status."""
    for line in (read("/proc/self/status") or "").splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    return "?"


def libc() -> str:
    """Of this Python."""
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError, AttributeError):
        name = None
    if name:
        return name
    maps = read("/proc/self/maps") or ""
    return "musl" if "ld-musl" in maps else "".join(platform.libc_ver()) or "?"


def versions() -> dict[str, str]:
    """Of the machine and of what runs here."""
    return {
        "fastspawn": fastspawn.__version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": libc(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "processors": f"{_processors()} of {os.cpu_count()}",
    }


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ---- limits ----


def _rlimit(number: int) -> str:
    words = [
        "none" if n == resource.RLIM_INFINITY else f"{n:,}" for n in resource.getrlimit(number)
    ]
    return words[0] if words[0] == words[1] else f"{words[0]} (may be raised to {words[1]})"


def limits() -> dict[str, str]:
    """How much there may be of what requests use."""
    found = {
        "open files (RLIMIT_NOFILE)": _rlimit(resource.RLIMIT_NOFILE),
        "processes (RLIMIT_NPROC)": _rlimit(resource.RLIMIT_NPROC),
    }
    if sys.platform != "linux":
        return found
    kernel = {"pid_max": "/proc/sys/kernel/pid_max", "threads-max": "/proc/sys/kernel/threads-max"}
    found |= {name: value for name, path in kernel.items() if (value := read(path))}
    group = cgroup()
    if group is not None:
        for name in ("pids.max", "memory.max", "cpu.max"):
            value = read(f"{group}/{name}")
            if value:
                found[f"{name} of the cgroup"] = "none" if value.startswith("max") else value
    return found


# ---- cgroup version 2 ----


def cgroup() -> str | None:
    """The directory of this process's own; None: there is none that can be seen."""
    lines = (read("/proc/self/cgroup") or "").splitlines()
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    for line in (read("/proc/self/mountinfo") or "").splitlines():
        fields, _, more = line.partition(" - ")
        root, where = fields.split()[3:5]
        if own is None or more.split()[:1] != ["cgroup2"] or not own.startswith(root.rstrip("/")):
            continue
        path = os.path.normpath(f"{where}/{own[len(root.rstrip('/')) :]}")
        if os.path.isdir(path):
            return path
    return None


def try_cgroup() -> tuple[str, Outcome]:
    """Where a process could be put with --cgroup, found by putting one there."""
    path = cgroup()
    if path is None:
        return "cgroup version 2", Outcome(0, "it is not mounted, or this process is in none")
    group = f"{path}/fastspawn-doctor-{os.getpid()}"

    def act() -> None:
        with open(f"{group}/cgroup.procs", "w") as procs:
            procs.write("0")

    try:
        os.mkdir(group)
    except OSError as error:
        return path, Outcome(error.errno or 0, f"no cgroup can be made in it: {error.strerror}")
    try:
        return path, attempt(act)
    finally:
        os.rmdir(group)


# ---- around ----


def _container() -> str:
    if os.path.exists("/run/.containerenv"):
        return "podman's (/run/.containerenv)"
    if os.path.exists("/.dockerenv"):
        return "docker's (/.dockerenv)"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "a pod of Kubernetes"
    name = os.environ.get("container")  # noqa: SIM112  (systemd's container interface)
    name = name or read("/run/systemd/container")
    return name or "none that can be seen"


_SECCOMP: Final = {"0": "none", "1": "strict", "2": "filter"}


def surroundings() -> dict[str, str]:
    """What may keep the kernel from giving what it has."""
    found = {"user": f"{os.geteuid()}"}
    if sys.platform != "linux":
        return found
    filters = _status("Seccomp_filters")
    seccomp = _SECCOMP.get(_status("Seccomp"), "?")
    found |= {
        "process id": f"{os.getpid()}" + (" (it has to reap: --subreaper)" * (os.getpid() == 1)),
        "container": _container(),
        "seccomp": f"{seccomp} ({filters})" if filters not in ("0", "?") else seccomp,
        "no_new_privs": {"0": "off", "1": "on"}.get(_status("NoNewPrivs"), "?"),
        "transparent huge pages": _chosen(read("/sys/kernel/mm/transparent_hugepage/enabled")),
    }
    return found


def _chosen(text: str | None) -> str:
    """The one in brackets."""
    return (text or "").partition("[")[2].partition("]")[0] or "?"


def extras() -> dict[str, tuple[str | None, str, str]]:
    """Version (None: it is missing), what for, and how to get it."""
    found = {}
    for name, (distribution, purpose, module) in EXTRAS.items():
        try:
            there: str | None = version(distribution)
            if module and importlib.util.find_spec(module) is None:
                there = None
        except PackageNotFoundError:
            there = None
        what = f"fastspawn[{name}]" if module else name
        found[distribution] = (there, purpose, f"pip install '{what}'")
    return found
