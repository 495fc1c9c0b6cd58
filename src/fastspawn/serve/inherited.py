"""What a server has of its parent, made what it counts on. Comes before all else."""

from __future__ import annotations

import os


def settle() -> None:
    """Descriptors 0 to 2 are open. A socket that took the number of one that is not would get what
    is meant for the log, and libuv aborts where it closes such a number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
