"""Why a program is no template, in words."""

from __future__ import annotations

from typing import Final

from fastspawn._makers import cures, told

# enum fsp_refusal of csrc/fastspawn.h
NOT, EXIT, EARLY = 0, 2, 22
_REASONS: Final = {
    3: "it did not get there in time",
    4: "what it loads is of another build of fastspawn, perhaps installed meanwhile",
    5: "it has several threads before main",
    6: "/proc is not mounted, so its threads and mappings cannot be seen",
    7: "the kernel has no PR_GET_TID_ADDRESS (CONFIG_CHECKPOINT_RESTORE)",
    8: "a first effect cannot be watched for on this architecture, but on x86-64",
    9: "it came from more files than can be watched for change",
    10: "it has more memory than can be searched for held locks",
    11: "it has registered more handlers of forks (pthread_atfork) than can be run",
    12: "its libc keeps the thread's id where it cannot be found",
    13: "its libc is not glibc, and so cannot be watched for a first effect",
    14: "the kernel has no Syscall User Dispatch or no openat2 (Linux 5.11), or does not allow it",
    15: "its vDSO is sealed, so its clocks cannot be watched",
    16: "the kernel does not let rdtsc be trapped (PR_SET_TSC)",
    17: "it holds more locks than can be given to a fork",
    18: "it has memory that a fork does not get (madvise: MADV_DONTFORK, MADV_WIPEONFORK)",
    19: "it has an event loop at its checkpoint",
    20: "it seeds its random numbers by where its memory is (Lua)",
    21: "it has code that may use RDRAND where that cannot be watched",
    23: "the kernel has no pidfd_open(2) (Linux 5.3), or does not allow it",
}


_REASONS_LATER: Final = {5: "it has several threads at its checkpoint"}
_THREADS: Final = 5


class TemplateError(Exception):
    """The program cannot be a template; the message says why."""

    __module__ = "fastspawn"


def reason(why: int, status: int, makers: bytes = b"") -> str:
    """Why it came to no template process; ``status`` is how it ended, if it did, and ``makers``
    says whose its threads are."""
    if why in (EXIT, EARLY):
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"it ended before {'main' if why == EXIT else 'its first effect'}, with {how}"
    return _with(_REASONS[why], why, told(makers))


def reason_later(why: int, makers: bytes = b"") -> str:
    """Why a checkpoint came to none."""
    return _with(_REASONS_LATER.get(why) or _REASONS[why], why, cures(makers))


def _with(text: str, why: int, makers: str) -> str:
    return f"{text}, {makers}" if why == _THREADS and makers else text
