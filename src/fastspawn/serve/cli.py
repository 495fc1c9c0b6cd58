"""The command line: from ``argv`` to a ``Config``, to listening sockets, to a running server.

Whatever can be wrong is found before the first request: one line on standard error and exit
status 2.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from fastspawn import __version__
from fastspawn._stdout import printing

from .config import settings
from .config.messages import shown
from .config.model import Config, RouteConfig
from .config.options import COMMON, GROUPS, OPTIONS, Option
from .host import identity, inherited, listen, lockfile, server, systemd, worker, workers
from .host.checks import UsageError, check, check_commands, check_rights

_DESCRIPTION: Final = """\
Serve a command over HTTP: every request gets a process of its own. The request's body is the
command's standard input, its standard output is the answer.
"""
_EPILOG: Final = """\
Durations: 30, 30s, 500ms, 5m, 1h30m. Sizes: 4096, 64k, 1M. "none" takes a limit away.
Each option is an environment variable, too (--max-inflight: FASTSPAWN_MAX_INFLIGHT), and a key
of the file (max-inflight). A flag goes before a variable, and that before the file.
CMD answers what no route does; without routes it is "echo hi".
"""
_SHORT_EPILOG: Final = f"""\
Durations: 30, 30s, 500ms, 5m, 1h30m. Sizes: 4096, 64k, 1M. "none" takes a limit away.
CMD answers what no route does; without routes it is "echo hi".
These are {len(COMMON)} of {len(OPTIONS)} options: --help-all shows all of them.
"""
_USAGE: Final = "fastspawn serve [options] [--] [CMD ARG...]"


_ASKERS: Final = 64
"""The backlog of --agent-check."""
_PASSWORD: Final = OPTIONS["ssl-keyfile-password"].variable


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "))


class _Help(argparse.Action):
    """--help and --help-all."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **more)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> NoReturn:
        if option_string != "--help-all":
            parser = _short_parser()
        parser.print_help()
        parser.exit()


class _Flag(argparse.BooleanOptionalAction):
    """Its own takes --no-new-privs for the opposite of --new-privs."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, option_string == self.option_strings[0])


def main(argv: Sequence[str] | None = None) -> int:
    """``fastspawn serve``. Returns the exit status."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except (UsageError, listen.ListenError, server.StartError) as error:
        print(f"fastspawn: error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130


def parse(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration that ``argv`` (without the program's name) and ``environ`` ask for.

    Raises UsageError; SystemExit for --help and --version. Reads the file that they name, and
    looks at nothing else.
    """
    whole = parser()
    options, command = _split(whole, list(argv))
    with printing("fastspawn"):  # --help, --version
        values, unknown = whole.parse_known_args(options)
    if unknown:
        _refuse_unknown(whole, unknown[0])
    flags = vars(values)
    if command:
        flags["command"] = tuple(command)
    try:
        return settings.resolve(flags, environ)
    except settings.SettingsError as error:
        raise UsageError(str(error)) from error


def _listen(config: Config) -> list[socket.socket]:
    try:
        return listen.listen(config, identity.owner(config))
    except identity.IdentityError as error:
        raise UsageError(str(error)) from error


def _listen_to_askers(config: Config) -> list[socket.socket]:
    if config.agent_check is None:
        return []
    host, port = config.agent_check
    return listen.listen_tcp([host], port, _ASKERS)


def _drop_rights(config: Config) -> None:
    try:
        identity.drop(config)
        identity.check_files(config)
    except identity.IdentityError as error:
        raise UsageError(str(error)) from error
    if config.user is not None:
        try:
            check_commands(config)
        except UsageError as error:
            raise UsageError(f"--user {config.user}: {error}") from error


def _check_applications(config: Config) -> None:
    if any(route.application for route in config.routes):
        from .host import applications

        applications.check(config)


def _check_lock(config: Config, lock: lockfile.Lock) -> None:
    try:
        lock.check()
    except OSError as error:
        raise UsageError(
            f"cannot write {config.lock_file}: {error.strerror}: set TMPDIR, or suppress_lock=true"
        ) from error


def _run(argv: Sequence[str]) -> int:
    inherited.settle()
    if argv and argv[0] == worker.FLAG:
        return worker.work(argv[1:])
    environ = dict(os.environ)
    os.environ.pop(_PASSWORD, None)  # it is no command's business
    config = parse(argv, environ)
    check(config)
    with contextlib.ExitStack() as undo:
        return _serve(config, argv, environ, undo)


def _serve(
    config: Config, argv: Sequence[str], environ: Mapping[str, str], undo: contextlib.ExitStack
) -> int:
    """``undo`` is closed as soon as no new connection is to come, or the server can't start."""
    fds = systemd.listen_fds()
    lock = None if config.lock_file is None else lockfile.Lock(config.lock_file)
    notifier = lock or systemd.Notifier()
    socks = [listen.adopt(fd, config.backlog) for fd in fds] or _listen(config)
    ours = config.fd is None and not fds
    for path in listen.files(socks) if ours else ():
        undo.callback(listen.unlink, path, listen.which(path))
    agent = _listen_to_askers(config)
    scheme = "http" if config.ssl_certfile is None else "https"
    where = ", ".join(listen.name(sock, scheme) for sock in socks)
    asked = "".join(f"agent {listen.place(sock)}, " for sock in agent)
    if config.workers > 1 and ours:
        shares = [listen.multiply(sock, config.workers, config.backlog) for sock in socks]
    else:
        # Somebody else's, and perhaps still in use by others.
        shares = [[sock] * config.workers for sock in socks]
    for sock in {sock for share in shares for sock in share}:
        listen.find_the_gone(sock, config)
    _drop_rights(config)
    check_rights(config)
    _check_applications(config)
    if lock is not None:
        _check_lock(config, lock)
        undo.callback(lock.remove)

    def ready() -> None:
        what, how = _summary(config.routes)
        count = "" if config.workers == 1 else f"{config.workers} workers, "
        print(  # noqa: T201
            f"fastspawn {__version__} serving {what} on {where} "
            f"({how}, {config.loop}, {count}{asked}pid {os.getpid()})",
            file=sys.stderr,
            flush=True,
        )

    def reread() -> Config:
        found = parse(argv, environ)
        check(found)
        check_rights(found)
        return found

    # Without a file, SIGHUP is what it always is: the terminal has gone.
    hangup = None if config.config is None else reread
    if config.workers == 1:
        server.serve(
            *(config, socks),
            ready=ready,
            stopping=undo.close,
            reread=hangup,
            notifier=notifier,
            agent=agent,
        )
        return 0
    return workers.Supervisor(
        config,
        [list(share) for share in zip(*shares, strict=True)],
        ready=ready,
        stopping=undo.close,
        reread=hangup,
        notifier=notifier,
        agent=agent,
    ).run()


def _summary(routes: Sequence[RouteConfig]) -> tuple[str, str]:
    """What is served, and by which strategies."""
    how = ", ".join(sorted({route.strategy for route in routes}))
    if len(routes) == 1:
        if routes[0].cgi_dir is not None:
            return f"the scripts of {routes[0].cgi_dir}", how
        if routes[0].application is not None:
            return f"the application {routes[0].application[1]}", how
        return f"`{shlex.join(routes[0].command)}`", how
    return f"{len(routes)} routes", how


def _split(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[list[str], list[str]]:
    """Options, up to the first word that is none; and the command, with options of its own."""
    # argparse.REMAINDER would take a mistyped option for the command.
    takes_value = {
        option: action.nargs != 0 for action in parser._actions for option in action.option_strings
    }
    i = 0
    while i < len(argv) and argv[i].startswith("-") and argv[i] != "-":
        if argv[i] == "--":
            return argv[:i], argv[i + 1 :]
        i += 2 if takes_value.get(argv[i], False) else 1
    return argv[:i], argv[i:]


def _refuse_unknown(parser: argparse.ArgumentParser, word: str) -> NoReturn:
    option = word.partition("=")[0]
    known = [each for action in parser._actions for each in action.option_strings]
    import difflib

    close = difflib.get_close_matches(option, known, 1)
    hint = f"did you mean {close[0]}?" if close else "see --help"
    raise UsageError(f"unknown option {option}: {hint}")


def parser() -> argparse.ArgumentParser:
    """With all options, in groups."""
    whole = _new_parser(_EPILOG)
    sections = {title: whole.add_argument_group(title) for title in GROUPS}
    for option in OPTIONS.values():
        _add(sections[option.group], option)
    _add_last(whole)
    return whole


def _short_parser() -> argparse.ArgumentParser:
    """With those that most people need."""
    short = _new_parser(_SHORT_EPILOG)
    for name in COMMON:
        _add(short, OPTIONS[name])
    _add_last(short)
    return short


def _new_parser(epilog: str) -> _Parser:
    return _Parser(
        prog="fastspawn serve",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=epilog,
        allow_abbrev=False,
        add_help=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=32
        ),
        argument_default=argparse.SUPPRESS,
    )


def _add(section: argparse._ActionsContainer, option: Option) -> None:
    more: dict[str, Any] = {"metavar": option.metavar, "type": shown(option.convert)}
    if option.kind == "list":
        more["action"] = "append"
    elif option.kind == "flag":
        more = {"action": _Flag}
    section.add_argument(f"--{option.name}", help=option.help, **more)


def _add_last(section: argparse._ActionsContainer) -> None:
    section.add_argument("-h", "--help", action=_Help, help="show what most people need, and exit")
    section.add_argument("--help-all", action=_Help, help="show all options, and exit")
    section.add_argument(
        "--version",
        help="print the version and exit",
        action="version",
        version=f"fastspawn {__version__}",
    )
