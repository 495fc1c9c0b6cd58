"""What the kernel is asked for: a trial each, and what follows for which strategy."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastspawn import _core, _features
from fastspawn._features import X86_64
from fastspawn._trial import Outcome, attempt

ALL: Final = ("direct", "warm", "pool", "snapshot", "effect", "checkpoint", "reset")
FORKS: Final = ("snapshot", "effect", "checkpoint", "reset")
"""Strategies with a template; effect and checkpoint are snapshot with another --snapshot-at."""


@dataclass(frozen=True)
class Feature:
    """``since``: the first Linux that has it, for advice. ``needed``: strategies that cannot do
    without; ``without``: what is so for those that can, ``wanted``."""

    name: str
    act: Callable[[], object]
    since: tuple[int, int]
    needed: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    without: str = ""
    only_x86_64: bool = False


# ---- ways to spawn ----


def _way(name: str) -> Callable[[], object]:
    def act() -> None:
        _core.select_backend(name)
        _run_nothing()

    return act


def _run_nothing() -> None:
    from fastspawn._shortcuts import run

    argv = [shutil.which("true") or sys.executable]
    if argv[0] == sys.executable:
        argv += ["-I", "-S", "-c", ""]
    run(argv, check=True)


def _spawn() -> None:
    """By whichever way works here."""
    _run_nothing()


# ---- the list ----


def _ways() -> list[Feature]:
    notes = {
        "clone3": ((5, 5), "signal handlers are reset one by one (the way clone)"),
        "clone": ((2, 6), "slower: the way vfork"),
    }
    return [
        Feature(name, _way(name), since, (), ALL, without)
        for name, (since, without) in notes.items()
        if name in _core.backends()
    ]


def _kernel() -> list[Feature]:
    in_memory = "all writable pages are copied back each time; above 16 MB of them, forks"
    return [
        Feature("pidfd", _features.pidfd, (5, 3), ("checkpoint", "reset"), ALL,
                "ends of processes are looked for by the clock"),
        Feature("close_range", _features.close_range, (5, 9), ("reset",), ALL,
                "a spawn costs more, the more files are open"),
        Feature("memfd_create", _features.memfd, (3, 17), FORKS),
        Feature("/proc", _features.proc, (2, 6), FORKS),
        Feature("PR_GET_TID_ADDRESS", _features.tid_address, (3, 5), FORKS),
        Feature("Syscall User Dispatch", _features.dispatch, (5, 11), ("effect", "reset"),
                only_x86_64=True),
        Feature("openat2", _features.openat2, (5, 6), ("effect",)),
        Feature("PR_SET_TSC", _features.tsc, (2, 6), ("effect",), only_x86_64=True),
        Feature("process_vm_readv", _features.read_own_memory, (3, 2), ("effect", "reset")),
        Feature("userfaultfd", _features.userfaultfd, (6, 7), (), ("reset",), in_memory),
        Feature("PAGEMAP_SCAN", _features.pagemap_scan, (6, 7), (), ("reset",), in_memory),
        Feature("MADV_POPULATE_READ", _features.populate, (5, 14), (), ("reset",),
                "a resident begins more slowly"),
    ]  # fmt: skip


def features() -> list[Feature]:
    """Those that this system could have."""
    spawn = Feature("a way to spawn", _spawn, (2, 6), ALL)
    return [spawn, *_ways(), *(_kernel() if sys.platform == "linux" else [])]


def try_all() -> dict[str, tuple[Feature, Outcome]]:
    """By name. To be called in a process of one thread."""
    return {each.name: (each, _try(each)) for each in features()}


def _try(feature: Feature) -> Outcome:
    if feature.only_x86_64 and not X86_64:
        return Outcome(0, "not on this architecture")
    return attempt(feature.act)


def advice(feature: Feature, outcome: Outcome) -> str:
    """How to come by what does not work, in a line."""
    if feature.only_x86_64 and not X86_64:
        return "nothing helps: it is of x86-64"
    release = tuple(map(int, platform.release().split("-")[0].split(".")[:2]))
    if release < feature.since:
        return f"Linux {feature.since[0]}.{feature.since[1]} has it; this is {platform.release()}"
    if feature.name == "/proc":
        return "mount /proc"
    if feature.name == "PR_GET_TID_ADDRESS" and not _is_filtered():
        return "a kernel with CONFIG_CHECKPOINT_RESTORE"
    if _is_filtered():
        return (
            "a seccomp filter refuses it, as the kernel is new enough: allow it in the profile "
            "(Docker: --security-opt seccomp=FILE; Kubernetes: seccompProfile; systemd: "
            "SystemCallFilter=)"
        )
    return "this kernel was built without it, or a security module refuses it"


def _is_filtered() -> bool:
    try:
        with open("/proc/self/status") as file:
            return any(line.split() == ["Seccomp:", "2"] for line in file)
    except OSError:
        return True
