"""What counts for every child of this process: the way to spawn, and the signals ignored."""

import os

from libc.errno cimport EINVAL
from libc.stdint cimport uint32_t

from fastspawn._cfastspawn cimport *


def backends():
    """The names of the ways to spawn that were built in, in order of preference."""
    cdef size_t i = 0
    names = []
    while fsp_backend_list(i) != NULL:
        names.append(fsp_backend_list(i).decode())
        i += 1
    return names


cdef bint _refused = False
cdef dict _refusals = {}
"""What is wrong with the backend that was asked for, under True."""


cdef int check_way() except -1:
    """Before whatever spawns: a ValueError, if the backend that was asked for is not available."""
    if _refused and (told := _refusals.get(True)) is not None:
        raise ValueError(told)
    return 0


def backend():
    """The name of the backend that the next spawn tries first.

    Raises ValueError if the one that was asked for is not available.
    """
    check_way()
    return fsp_backend_name().decode()


def select_backend(name=None):
    """Pin a backend for this process; None or "" chooses by what works.

    Raises ValueError for a name that is unknown, or not available on this system; so does every
    spawn until another one is selected.
    """
    global _refused
    cdef bytes data = (name or "").encode()
    cdef int r = fsp_backend_select(data)
    _refused = r < 0
    if r < 0:
        what = "unknown" if r == -EINVAL else "not available here"
        told = f"FASTSPAWN_BACKEND={name}: {what} (choose from: {', '.join(backends())})"
        _refusals[True] = told
        raise ValueError(told)
    _refusals.clear()


# A wrong name is told by whatever wants to spawn, not by the import.
try:
    select_backend(os.environ.get("FASTSPAWN_BACKEND"))
except ValueError:
    pass


cpdef tells_stages():
    """Whether a failed spawn says what failed; if not, subprocess's own code has to find out."""
    return backend() != "posix_spawn"


def ignore_signals(signals):
    """Have every child ignore these (1 to 31) from now on, whatever this process does with them."""
    cdef uint32_t bits = 0
    for number in signals:
        if not 1 <= number <= 31:
            raise ValueError(f"no standard signal: {number!r}")
        bits |= <uint32_t>1 << <int>(number - 1)
    fsp_ignore_signals(bits)
