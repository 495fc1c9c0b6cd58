"""What is looked at before the first request: whether the commands, the rights and the room that a
configuration asks for are there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastspawn import _core
from fastspawn._executable import why_not_executed
from fastspawn._imports import why_no_point
from fastspawn._program import why_no_checkpoint
from fastspawn.serve.cgi import spool
from fastspawn.serve.config import settings
from fastspawn.serve.strategies.command import argv_of, command_of, env_of

from . import rights, tls

if TYPE_CHECKING:
    from fastspawn.serve.config.model import Config, RouteConfig


class UsageError(ValueError):
    """What is wrong with the command line, in one line."""


def check(config: Config) -> None:
    """That the commands could be started. Raises UsageError."""
    try:
        _core.backend()
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        tls.context(config)
    except tls.TlsError as error:
        raise UsageError(str(error)) from error
    check_commands(config)


def check_commands(config: Config) -> None:
    """Likewise, with the rights that this process has now."""
    for route in config.routes:
        where = "" if len(config.routes) == 1 else f"{settings.title(route)}: "
        try:
            _check_command(route)
        except UsageError as error:
            raise UsageError(f"{where}{error}") from error


def _check_scripts(route: RouteConfig) -> None:
    try:
        from fastspawn.serve.cgi.gateway import directory_of

        directory_of(route)
    except ValueError as error:
        raise UsageError(f"--cgi-dir {route.cgi_dir}: {error}") from error
    except OSError as error:
        raise UsageError(f"--cgi-dir {route.cgi_dir}: {error.strerror}") from error
    try:
        for link in route.cgi_link_dir:
            os.stat(os.path.join(link, ""))
    except OSError as error:
        raise UsageError(f"--cgi-link-dir {error.filename[:-1]}: {error.strerror}") from error


def _check_command(route: RouteConfig) -> None:
    if route.cgi_dir is not None:
        _check_scripts(route)
        if route.sandbox is None:
            return
    name = argv_of(route)[0]
    try:
        path = command_of(route).resolve()
    except NotImplementedError as error:
        raise UsageError("--cgroup, --no-new-privs: not on this system") from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"command: {error}") from error
    except OSError as error:
        if route.cwd is not None and error.filename == route.cwd:
            raise UsageError(f"--cwd {route.cwd}: {error.strerror}") from error
        raise UsageError(f"cannot run {name}: {error.strerror}") from error
    search = env_of(route).get("PATH")
    why = why_not_executed(path, route.cwd, search)
    if why is not None:
        raise UsageError(f"cannot run {name}: {why}")
    if route.snapshot_at == "checkpoint":
        why = why_no_checkpoint(os.path.join(route.cwd or "", path), search)
        if why is not None:
            raise UsageError(
                f"--snapshot-at checkpoint is where a program calls checkpoint(): {why}"
            )
    if route.snapshot_at == "imports" and route.strategy in ("snapshot", "auto", "reset"):
        why = why_no_point(argv_of(route), route.cwd, env_of(route))
        if why is not None:
            raise UsageError(f"--snapshot-at imports: {why}")


def check_rights(config: Config) -> None:
    """That processes can have the limits and rights that are asked for, with those that this
    process has now. Raises UsageError."""
    title = ""
    try:
        for route in config.routes:
            title = "" if len(config.routes) == 1 else f"{settings.title(route)}: "
            rights.check(route)
            _check_spool(route)
    except rights.RightsError as error:
        raise UsageError(f"{title}{error}") from error


def _check_spool(route: RouteConfig) -> None:
    """That a chunked body can be kept until its end."""
    if route.mode != "cgi" or route.stream_chunked:
        return
    try:
        spool.check(route.buffer_body)
    except OSError as error:
        raise rights.RightsError(
            f"--mode cgi keeps chunked bodies in a temporary file: {error.strerror}: "
            f"set TMPDIR, or --stream-chunked, or a --buffer-body of at most {spool.MEMORY >> 10}k"
        ) from error
