"""``--user`` and ``--group``: the server gives up its own rights, once it has bound its sockets."""

from __future__ import annotations

import grp
import os
import pwd
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .config import Config


class IdentityError(ValueError):
    """Which option can't be, and why."""


def drop(config: Config) -> None:
    """Become whom ``config`` names, for good: this process and all that it starts.

    Supplementary groups are those of the user; with ``group`` alone, none. Without ``group`` it is
    the user's own. HOME, USER and LOGNAME of the environment become the user's. Raises
    IdentityError.
    """
    if config.user is None and config.group is None:
        return
    _load_modules()
    entry, uid, gid = _wanted(config)
    try:
        if (uid, gid) != (os.getuid(), os.getgid()) or os.geteuid() == 0:
            # The user last: after that there is no right left to do the others.
            if entry is None:
                os.setgroups([gid])
            else:
                os.initgroups(entry.pw_name, gid)
            os.setgid(gid)
            if uid is not None:
                os.setuid(uid)
    except OSError as error:
        option = f"--group {config.group}" if config.user is None else f"--user {config.user}"
        raise IdentityError(f"{option}: {error.strerror}") from error
    if entry is not None:
        os.environ.update(HOME=entry.pw_dir, USER=entry.pw_name, LOGNAME=entry.pw_name)


_LATER: Final = (
    *("fastspawn.serve.warming", "fastspawn.serve.resetting", "fastspawn.serve.subproc"),
    *("fastspawn.serve.websocket", "fastspawn.serve.metrics", "fastspawn.serve.cgi.exchange"),
    *("fastspawn.serve.cgi.gateway", "fastspawn.serve.cgi.scripts"),
    *("ctypes", "difflib", "ipaddress", "json", "pickle", "tempfile", "tomllib", "tomli", "uvloop"),
    *("concurrent.futures.thread", "encodings.idna"),
)
"""Modules that are loaded when they are needed, by us and by asyncio."""


def _load_modules() -> None:
    """What the user may not be able to read, if the interpreter is below somebody's home."""
    for name in _LATER:
        with suppress(ImportError):  # of a package that is not installed
            import_module(name)


def check_files(config: Config) -> None:
    """That workers can be started, with the rights that this process has now. Raises
    IdentityError."""
    if config.workers == 1 or (config.user is None and config.group is None):
        return
    who = f"--group {config.group}" if config.user is None else f"--user {config.user}"
    if not os.access(sys.executable, os.X_OK):
        raise IdentityError(f"--workers: {who} cannot execute {sys.executable}")
    for path in (os.__file__, __file__):
        if not os.access(path, os.R_OK):
            raise IdentityError(f"--workers: {who} cannot read {path}")


def owner(config: Config) -> tuple[int, int] | None:
    """The user (-1: this one) and the group of a file that is made for the server to come; None: it
    stays who it is. Raises IdentityError."""
    if config.user is None and config.group is None:
        return None
    _, uid, gid = _wanted(config)
    return -1 if uid is None else uid, gid


def _wanted(config: Config) -> tuple[pwd.struct_passwd | None, int | None, int]:
    entry = None if config.user is None else _entry(config.user)
    uid = None if config.user is None else (int(config.user) if entry is None else entry.pw_uid)
    return entry, uid, _gid(config, entry)


def _entry(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        if user.isdecimal():
            return None
        raise IdentityError(f"--user {user}: there is no such user") from None


def _gid(config: Config, entry: pwd.struct_passwd | None) -> int:
    if config.group is None:
        if entry is None:
            raise IdentityError(f"--user {config.user}: unknown, and so needs --group")
        return entry.pw_gid
    if config.group.isdecimal():
        return int(config.group)
    try:
        return grp.getgrnam(config.group).gr_gid
    except KeyError:
        raise IdentityError(f"--group {config.group}: there is no such group") from None
