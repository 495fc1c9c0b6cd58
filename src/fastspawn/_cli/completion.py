"""``fastspawn completion SHELL``: what a shell reads to complete commands, options and values."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from fastspawn._cli import COMMANDS
from fastspawn._stdout import printing
from fastspawn.serve.config import values
from fastspawn.serve.config.options import OPTIONS

_PROG: Final = "fastspawn completion"
_SHELLS: Final = ("bash", "zsh", "fish", "tcsh")
_DESCRIPTION: Final = """\
One process per request, fast: commands around fastspawn, which starts processes, and its HTTP
server, which starts one for each request.
"""
_EPILOG: Final = """\
  bash:  eval "$(fastspawn completion bash)"                      in ~/.bashrc
  zsh:   fastspawn completion zsh > "${fpath[1]}/_fastspawn"      once
  fish:  fastspawn completion fish | source                       in config.fish
"""


def parser() -> argparse.ArgumentParser:
    """Of ``fastspawn completion``."""
    made = argparse.ArgumentParser(
        prog=_PROG,
        description="Print what a shell reads to complete commands and options.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS))
    return made


def main(args: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 1 without shtab, 2 for wrong arguments."""
    with printing(_PROG):
        shell = parser().parse_args(args).shell
        try:
            print(_script(shell))
        except ImportError:
            print(f"{_PROG}: needs shtab: pip install 'fastspawn[completion]'", file=sys.stderr)
            return 1
    return 0


# ---- values ----


def _script(shell: str) -> str:
    import shtab

    ways = {"FILE": shtab.FILE, "PATH": shtab.FILE, "DIR": shtab.DIRECTORY, **_WAYS}
    made = everything()
    for action in list(_actions(made)):
        metavar = str(action.metavar)
        if metavar in ways:
            action.complete = ways[metavar]  # type: ignore[attr-defined]
        elif metavar.startswith("NAME=[SOFT"):
            action.choices = _limits()
        elif action.choices is None:
            action.choices = _words(action)
        if metavar == "CMD":
            action.help = "command"  # help's usage line has it; what has no help is not completed
        if shell == "zsh":  # where it is a part of what a colon ends
            action.metavar = metavar.replace(":", r"\:")
    return str(shtab.complete(made, shell))


def _by(name: str, bash: str, zsh: str, fish: str, tcsh: str) -> Any:
    """A way to complete, in the words of each shell. ``name`` is a function's, for bash."""
    function = f'{name}() {{ compgen {bash} -- "$1"; }}'
    return {"bash": name, "zsh": zsh, "fish": fish, "tcsh": tcsh, "preamble": {"bash": function}}


_WAYS: Final = {
    "CMD": _by("_fastspawn_command_or_file", "-A command -A file", "_normal",
               "(__fish_complete_command)", "c"),
    "USER": _by("_fastspawn_user", "-A user", "_users", "(__fish_complete_users)", "u"),
    "GROUP": _by("_fastspawn_group", "-A group", "_groups", "(__fish_complete_groups)", "g"),
}  # fmt: skip
"""By what stands for the value in the help."""


def _words(action: argparse.Action) -> Sequence[str] | None:
    """What an option of the server's may be, if that is one of some words."""
    option = OPTIONS.get(action.option_strings[0][2:]) if action.option_strings else None
    return option.convert.words if option and isinstance(option.convert, values.choice) else None


def _limits() -> list[str]:
    """What a --rlimit begins with: two of each, as one alone would get a blank after it."""
    return [f"{name}={value}" for name in values.rlimit_names() for value in ("", "unlimited")]


def _actions(made: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in made._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from _actions(one)


# ---- all commands as one parser ----


def _parsers() -> dict[str, argparse.ArgumentParser]:
    from fastspawn.serve import cli as serve

    from . import bench, explain, run, top, work
    from .doctor import command as doctor

    modules = {"serve": serve, "work": work, "run": run, "explain": explain, "doctor": doctor,
               "bench": bench, "top": top}  # fmt: skip
    made: dict[str, argparse.ArgumentParser] = {
        name: module.parser() for name, module in modules.items()
    }
    # Which the server finds by itself.
    made["serve"].add_argument("argv", nargs="...", metavar="CMD", help=argparse.SUPPRESS)
    return {**made, "completion": parser()}


def everything() -> argparse.ArgumentParser:
    """What the manual page is made of, too. Not to parse with: a command parses its own words."""
    whole = argparse.ArgumentParser(
        prog="fastspawn", usage="fastspawn COMMAND [ARG ...]", description=_DESCRIPTION
    )
    whole.add_argument("--version", action="store_true", help="show the version")
    whole.add_argument(
        "--include", action="store_true",
        help="show the directory of fastspawn/checkpoint.h, for a C compiler's -I",
    )  # fmt: skip
    whole.add_argument(
        "--install", metavar="PROGRAM",
        help="run a Python program (a script, -m MODULE or -c CODE) with its subprocesses started "
        "by fastspawn",
    )  # fmt: skip
    commands = whole.add_subparsers(metavar="COMMAND", title="commands")
    for name, one in _parsers().items():
        commands.add_parser(
            name,
            help=COMMANDS[name],
            description=one.description,
            usage=one.usage,
            epilog=one.epilog,
            formatter_class=one.formatter_class,
            parents=[one],
            add_help=False,
        )
    return whole
