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
    from fastspawn.serve.config.model import Config


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
    *(
        "fastspawn.serve.host.applications",
        "fastspawn.serve.strategies.arriving",
        "fastspawn.serve.strategies.snapshot",
        "fastspawn.serve.strategies.reset",
        "fastspawn.serve.strategies.warm",
        "fastspawn.serve.strategies.pool",
        "fastspawn.serve.strategies.subprocess",
    ),
    *(
        "fastspawn.serve.ws.exchange",
        "fastspawn.serve.routes.logged",
        "fastspawn.serve.figures.errors",
        "fastspawn.serve.ws.terminal",
        "fastspawn.serve.figures.metrics",
        "fastspawn.serve.figures.live",
        "fastspawn.serve.cgi.application",
        "fastspawn.serve.cgi.exchange",
        "fastspawn.serve.cgi.gateway",
        "fastspawn.serve.cgi.scripts",
        "fastspawn.serve.cgi.told",
        "fastspawn.serve.openfaas.environment",
        "fastspawn.serve.openfaas.exchange",
        "fastspawn.serve.jsonrpc.exchange",
        "fastspawn.serve.jsonrpc.sessions",
    ),
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
    """The user and the group of a Unix socket's file, each -1 for this process's; None: both are.
    What no option of its own says, the server to come does. Raises IdentityError."""
    uid, gid = None, None
    if config.user is not None or config.group is not None:
        _, uid, gid = _wanted(config)
    if config.uds_owner is not None:
        entry = _entry("--uds-owner", config.uds_owner)
        uid = _number("--uds-owner", config.uds_owner, entry)
    if config.uds_group is not None:
        gid = _number_of_group("--uds-group", config.uds_group)
    if uid is None and gid is None:
        return None
    return -1 if uid is None else uid, -1 if gid is None else gid


def _wanted(config: Config) -> tuple[pwd.struct_passwd | None, int | None, int]:
    entry = None if config.user is None else _entry("--user", config.user)
    uid = None if config.user is None else _number("--user", config.user, entry)
    return entry, uid, _gid(config, entry)


def _entry(option: str, user: str) -> pwd.struct_passwd | None:
    """None: a number that nobody has."""
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        if user.isdecimal():
            return None
        raise IdentityError(f"{option} {user}: there is no such user") from None


def _number(option: str, user: str, entry: pwd.struct_passwd | None) -> int:
    return _checked(option, user) if entry is None else entry.pw_uid


def _checked(option: str, number: str) -> int:
    """The last one stands for none at all (chown(2))."""
    if int(number) >= (1 << 32) - 1:
        raise IdentityError(f"{option} {number}: no account has such a number")
    return int(number)


def _gid(config: Config, entry: pwd.struct_passwd | None) -> int:
    if config.group is None:
        if entry is None:
            raise IdentityError(f"--user {config.user}: unknown, and so needs --group")
        return entry.pw_gid
    return _number_of_group("--group", config.group)


def _number_of_group(option: str, group: str) -> int:
    if group.isdecimal():
        return _checked(option, group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise IdentityError(f"{option} {group}: there is no such group") from None
