"""What a worker is told of a command, and what the pool sees to itself."""

from __future__ import annotations

import os
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Any, Final

from fastspawn._command import Command

INHERITED: Final = ("cgroup", "no_new_privs")
"""Options that a command has because its worker has them; as are its rlimits."""


class Settings:
    """A command, as a request frame tells it."""

    __slots__ = ("argv", "head", "limits", "plan", "tail")

    def __init__(self, command: Command, first: Command) -> None:
        """``first``: the one whose limits and rights the workers have. Raises ValueError."""
        options = command._options
        if _rights(command) != _rights(first):
            raise ValueError("the rlimits, cgroup and no_new_privs are those of the workers")
        limits = command.limits
        if (
            options["executable"] is not None
            or options["umask"] != -1
            or options["start_new_session"]
            or not options["restore_signals"]
            or options["stdout"] != PIPE
        ):
            raise ValueError("a worker knows no executable, umask, session, signals or stdout "
                             "of a command")  # fmt: skip
        how = {None: b"inherit", DEVNULL: b"discard", STDOUT: b"merge", PIPE: b"pipe"}
        self.argv = command.argv
        self.plan = command
        self.limits = limits
        self.head = how[options["stderr"]]
        cwd = options["cwd"]
        argv = [os.fsencode(arg) for arg in command.argv]
        env = [os.fsencode(k) + b"=" + os.fsencode(v) for k, v in command._env().items()]
        fields = [b"" if cwd is None else os.path.abspath(os.fsencode(cwd)), b"%d" % len(argv)]
        self.tail = b"\0".join(fields + argv + env)

    def payload(self, has_input: bool) -> bytes:
        """Of the frame that asks for it."""
        return b"\0".join((self.head, b"pipe" if has_input else b"null", self.tail))


def _rights(command: Command) -> tuple[Any, ...]:
    """What a child has from its worker."""
    options = command._options
    return (dict(command.limits.rlimits), *(options[name] for name in INHERITED))
