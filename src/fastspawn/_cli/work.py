"""``fastspawn work``: a process for each message of a queue."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from fastspawn._stdout import printing
from fastspawn._work import address, verdict
from fastspawn._work.source import Options
from fastspawn._work.start import Work, missing, run
from fastspawn._work.worker import Terms
from fastspawn.serve.config import settings, values
from fastspawn.serve.config.messages import shown
from fastspawn.serve.config.model import Config, RouteConfig
from fastspawn.serve.config.options import OPTIONS
from fastspawn.serve.config.units import duration
from fastspawn.serve.host import inherited
from fastspawn.serve.host.checks import UsageError, check, check_rights

_PROG: Final = "fastspawn work"
_USAGE: Final = f"{_PROG} [options] URL [--] CMD [ARG...]"
_PASSWORD: Final = "FASTSPAWN_WORK_PASSWORD"
_DESCRIPTION: Final = """\
Take messages from a queue and run a command for each: the message is its standard input, its exit
status says what becomes of it.
"""
_EPILOG: Final = f"""\
URL: nats://HOST[:PORT][,HOST...]/STREAM/CONSUMER, a durable pull consumer of NATS JetStream
(fastspawn[nats]; tls://: with TLS); redis://HOST[:PORT]/DATABASE/STREAM/GROUP, a consumer group of
a Redis stream (fastspawn[redis]; rediss://: with TLS). A password in it is seen by all who list
processes; one in {_PASSWORD} is not.
Exit status of CMD: 0: done; 65 (EX_DATAERR of sysexits.h): it will never do, a dead letter; any
other, a signal, or --timeout: tried again, --max-deliver times in all, and then a dead letter.
Variables of CMD: MESSAGE_ID, MESSAGE_STREAM, MESSAGE_GROUP, MESSAGE_SUBJECT (NATS),
MESSAGE_DELIVERY (1 the first time), and MESSAGE_HEADER_NAME for each header or field.
TERM and INT: take nothing more and let what runs end; once more: give back what runs. USR1: say
what was done.
Durations: 30, 30s, 500ms, 5m, 1h30m. Sizes: 4096, 64k, 1M. "none" takes a limit away.
"""
_SHARED: Final = (
    *("snapshot-at", "allow-reset", "shell", "cwd", "set-env", "pass-env", "clear-env"),
    *("kill-grace", "max-output", "rlimit", "cgroup", "no-new-privs", "sandbox"),
)
"""Options that are those of serve."""
_OTHER_HELP: Final = {"set-env": "a variable; may be repeated"}
"""Where serve says what is not so here: no message fills a placeholder."""
_STRATEGIES: Final = ("direct", "snapshot", "reset", "auto")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{_PROG}: error: {message.removeprefix('argument ')}\n")


def parser() -> argparse.ArgumentParser:
    """Of ``fastspawn work``."""
    made = _Parser(
        prog=_PROG,
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    _add_queue(made.add_argument_group("queue"))
    _add_fate(made.add_argument_group("what becomes of a message"))
    command = made.add_argument_group("command")
    _add(command, "strategy", values.choice(*_STRATEGIES), "NAME",
         "direct: exec; snapshot: forks of a process of the command; reset: forks that are put "
         "back and used again; auto: the best that can be (default: direct)")  # fmt: skip
    for name in _SHARED:
        option = OPTIONS[name]
        text = _OTHER_HELP.get(name, option.help)
        if option.kind == "flag":
            command.add_argument(f"--{name}", action="store_true", help=text)
        else:
            more = {"action": "append"} if option.kind == "list" else {}
            _add(command, name, option.convert, option.metavar or "", text, **more)
    made.add_argument("words", nargs=argparse.REMAINDER, metavar="URL", help=argparse.SUPPRESS)
    return made


def _add(
    section: argparse._ActionsContainer,
    name: str,
    convert: Callable[[str], Any],
    metavar: str,
    text: str,
    **more: Any,
) -> None:
    section.add_argument(f"--{name}", type=shown(convert), metavar=metavar, help=text, **more)


def _add_queue(group: argparse._ActionsContainer) -> None:
    time = values.positive(duration)
    group.add_argument("--create", action="store_true",
                       help="make the stream and its consumer or group if they are not there, and "
                       "for NATS a stream for dead letters")  # fmt: skip
    _add(group, "subject", _word, "SUBJECT", "of a stream that --create makes, of which an "
         "acknowledged message is removed; NATS only (default: STREAM.>)")  # fmt: skip
    _add(group, "ack-wait", time, "TIME", "how long after the last sign of its worker a message is "
         "given to another; NATS: of a consumer that --create makes (default: 30s)")  # fmt: skip
    _add(group, "body", _word, "FIELD", "of an entry with more than one field, the one that is "
         "standard input; Redis only (default: body)")  # fmt: skip
    group.add_argument("--delete", action="store_true",
                       help="remove a message from the stream once it is done or dead; Redis "
                       "only")  # fmt: skip
    _add(group, "creds", values.path, "FILE", "credentials of a user, NATS only")
    _add(group, "ca", values.path, "FILE", "certificates to trust (default: the system's)")


def _add_fate(group: argparse._ActionsContainer) -> None:
    time = values.positive(duration)
    _add(group, "concurrency", values.number(1), "N", "processes at once (default: the number of "
         "processors)")  # fmt: skip
    _add(group, "timeout", values.limit(time), "TIME", "how long one may run (default: 5m)")
    _add(group, "max-deliver", values.limit(values.number(1)), "N", "how often a message is tried "
         "(default: 5)")  # fmt: skip
    _add(group, "backoff", _backoff, "TIME[,TIME...]", "until the second attempt, the third ...; "
         "the last one counts for all that follow (default: 1s,5s,30s,2m)")  # fmt: skip
    _add(group, "reject", _statuses, "STATUS[,STATUS...]", "exit statuses by which the command "
         "says that it will never do (default: 65)")  # fmt: skip
    _add(group, "dead-letter", _word, "NAME", "the subject or stream that these go to; none: "
         "nowhere (default: dead.STREAM.CONSUMER; of Redis STREAM:dead)")  # fmt: skip
    _add(group, "reply-to", _word, "NAME", "the subject or stream that standard output goes to "
         "when the message is done (default: ours)")  # fmt: skip
    _add(group, "reply-header", _word, "NAME", "likewise, the header or field of a message that "
         "names it")  # fmt: skip
    group.add_argument("--no-variables", action="store_true",
                       help="no MESSAGE_ variables: all processes are alike, as --snapshot-at "
                       "effect needs it")  # fmt: skip
    _add(group, "graceful-timeout", values.limit(duration), "TIME", "how long, after a signal, "
         "processes may take to end (default: 30s)")  # fmt: skip


def _word(text: str) -> str:
    if not text or any(char.isspace() or char == "\0" for char in text):
        raise ValueError(f"{text!r} is not a name")
    return text


def _backoff(text: str) -> tuple[float, ...]:
    return tuple(duration(each) for each in text.split(","))


def _statuses(text: str) -> frozenset[int]:
    return frozenset(values.number(1, 255)(each) for each in text.split(","))


# ---- from words to what is to be done ----


def main(args: Sequence[str] | None = None) -> int:
    """The exit status: 0 after a signal, 1 when nothing can be had of the queue, 2 for wrong
    arguments."""
    inherited.settle()
    with printing(_PROG):
        made = parser()
        given = vars(made.parse_args(args))
    try:
        work = _work(given, os.environ)
    except (ValueError, UsageError, settings.SettingsError) as error:
        return _complain(str(error), 2)
    if why := missing(work.address):
        return _complain(why, 1)
    return run(work)


def _complain(text: str, status: int) -> int:
    print(f"{_PROG}: error: {text}", file=sys.stderr)
    return status


def _work(given: dict[str, Any], environ: Mapping[str, str]) -> Work:
    """Raises ValueError, with all that can be known before the queue is asked."""
    where, command = _split(given.pop("words"))
    password = environ.get(_PASSWORD)
    os.environ.pop(_PASSWORD, None)  # it is no command's business
    found = address.parse(where)
    _refuse_others(given, found.kind)
    route = _route(given, command)
    check(Config(routes=(route,)))
    check_rights(Config(routes=(route,)))
    options = _options(given, password)
    return Work(found, options, route, _terms(given, options))


def _split(words: list[str]) -> tuple[str, list[str]]:
    if not words:
        raise ValueError("a URL is expected: see --help")
    where, command = words[0], words[1:]
    if where.startswith("-"):
        raise ValueError(f"unknown option {where}: see --help")
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        raise ValueError("a command is expected behind the URL")
    return where, command


_OF: Final = {"NATS": ("subject", "creds"), "Redis": ("body", "delete")}


def _refuse_others(given: Mapping[str, Any], kind: str) -> None:
    for other, names in _OF.items():
        for name in names:
            if other != kind and name in given:
                raise ValueError(f"--{name} is for {other}, not {kind}")


def _route(given: Mapping[str, Any], command: list[str]) -> RouteConfig:
    shared = {name.replace("-", "_") for name in ("strategy", *_SHARED)}
    own = {name: value for name, value in given.items() if name in shared}
    own["exec_timeout"] = given.get("timeout", 300.0)
    own["own_env"] = "no_variables" not in given
    own["stderr"] = "pipe"
    return settings.make_route({}, {**own, "command": tuple(command)})


def _options(given: Mapping[str, Any], password: str | None) -> Options:
    names = ("ack_wait", "create", "subject", "reply_to", "reply_header", "body", "delete")
    more = {name: given[name] for name in names if name in given}
    dead = given.get("dead_letter")
    return Options(
        dead_letter="" if dead == "none" else dead,
        password=password,
        credentials=_readable(given.get("creds"), "creds"),
        authorities=_readable(given.get("ca"), "ca"),
        **more,
    )


def _readable(name: str | None, option: str) -> str | None:
    if name is not None:
        try:
            with open(name, "rb"):
                pass
        except OSError as error:
            raise ValueError(f"--{option} {name}: {error.strerror}") from None
    return name


def _terms(given: Mapping[str, Any], options: Options) -> Terms:
    policy = verdict.Policy(
        max_deliver=given.get("max_deliver", 5),
        backoff=given.get("backoff", verdict.BACKOFF),
        rejects=given.get("reject", frozenset({verdict.REJECTED})),
    )
    return Terms(
        concurrency=given.get("concurrency") or _processors(),
        policy=policy,
        graceful=given.get("graceful_timeout", 30.0),
        variables="no_variables" not in given,
        replies=options.reply_to is not None or options.reply_header is not None,
    )


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
