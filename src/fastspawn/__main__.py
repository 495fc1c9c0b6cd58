"""``fastspawn COMMAND`` and ``python -m fastspawn COMMAND``: finds the command, and nothing more.

What a command does not need is not imported for it.
"""

from __future__ import annotations

import sys

import fastspawn
from fastspawn._cli import COMMANDS

TYPE_CHECKING = False  # as in _popen.py
if TYPE_CHECKING:
    from types import ModuleType
    from typing import NoReturn

USAGE = """\
usage: fastspawn COMMAND [ARG ...]
       fastspawn --install script.py [ARG ...]
       fastspawn --help | --version | --include
"""

HELP = f"""\
{USAGE}
One process per request, fast.

commands (each has --help):
{"".join(f"  {name:<11} {text}{chr(10)}" for name, text in COMMANDS.items())}
options:
  --install   run a Python program with its subprocesses (subprocess, asyncio, uvloop) started by
              fastspawn: a script (- is stdin), a directory or zip file with a __main__.py,
              -m MODULE, or -c CODE
  --help      show this
  --version   show the version
  --include   show the directory of fastspawn/checkpoint.h, for a C compiler's -I
"""


def refuse(why: str) -> NoReturn:
    """Like an option parser: usage and reason on stderr, status 2."""
    from fastspawn._stdout import complain

    complain()
    sys.stderr.write(f"{USAGE}fastspawn: error: {why}\n")
    raise SystemExit(2)


def show(text: str) -> int:
    """On stdout."""
    from fastspawn._stdout import printing

    with printing("fastspawn"):
        sys.stdout.write(text)
    return 0


def module_of(name: str) -> ModuleType:
    """What is behind one of COMMANDS: it has ``main(args)`` and ``parser()``."""
    if name == "serve":
        from fastspawn.serve import cli

        return cli
    if name == "work":
        from fastspawn._cli import work

        return work
    if name == "run":
        from fastspawn._cli import run

        return run
    if name == "doctor":
        from fastspawn._cli.doctor import command

        return command
    if name == "bench":
        from fastspawn._cli import bench

        return bench
    if name == "top":
        from fastspawn._cli import top

        return top
    if name == "completion":
        from fastspawn._cli import completion

        return completion
    from fastspawn._cli import explain

    return explain


def refuse_word(word: str) -> NoReturn:
    """What is neither a command nor an option."""
    import difflib

    kind = "option" if word.startswith("-") else "command"
    close = difflib.get_close_matches(word, [*COMMANDS, "--install"], 1)
    refuse(f"unknown {kind}: {word}" + (f": did you mean {close[0]}?" if close else ""))


def main() -> int:
    """Run what the command line says. Returns the exit status."""
    args = sys.argv[1:]
    if not args:
        refuse("a command is expected")
    first, rest = args[0], args[1:]
    if first in COMMANDS:
        status: int = module_of(first).main(rest)
        return status
    if first in ("-h", "--help"):
        return show(HELP)
    if first in ("-V", "--version"):
        return show(f"fastspawn {fastspawn.__version__}\n")
    if first == "--include":
        return show(f"{fastspawn.get_include()}\n")
    if first != "--install":
        refuse_word(first)
    from fastspawn._cli.install import main as install

    install(rest, refuse)
    return 0


if __name__ == "__main__":
    sys.exit(main())
