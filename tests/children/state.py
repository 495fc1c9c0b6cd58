"""Tells, as JSON, what a program was started with."""

import fcntl
import json
import os
import resource
import signal
import sys


def is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


os.umask(umask := os.umask(0))
signals = set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}
json.dump(
    {
        "argv": sys.argv[1:],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "cwd": os.getcwd(),
        "env": dict(os.environ),
        "fds": [fd for fd in range(2048) if is_open(fd)],
        "group": os.getpgrp(),
        # Of those that Python itself ignores at its start nothing is known here.
        "ignored": sorted(s for s in signals if signal.getsignal(s) is signal.SIG_IGN),
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
        "pid": os.getpid(),
        "session": os.getsid(0),
        "umask": umask,
    },
    sys.stdout,
)
