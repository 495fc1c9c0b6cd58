"""Run an unchanged Python program with its subprocesses started by fastspawn.

The program sees what it would see under plain python: sys.argv, sys.path, __main__, tracebacks
and the exit status.
"""

from __future__ import annotations

import builtins
import io
import os
import runpy
import sys
import types
from types import TracebackType

import fastspawn

TYPE_CHECKING = False  # as in popen.py
if TYPE_CHECKING:
    from typing import Any, NoReturn

USAGE = """\
usage: python -m fastspawn --install script.py [ARG ...]
       python -m fastspawn --install -m module [ARG ...]
       python -m fastspawn --install -c code [ARG ...]
       python -m fastspawn --help | --version | --include
"""

HELP = f"""{USAGE}
Run a Python program with its subprocesses (subprocess, asyncio, uvloop) started by fastspawn.

  --install   put fastspawn in the standard library's place, then run the program: a script (-
              is stdin), a directory or zip file with a __main__.py, a module, or code
  --help      show this
  --version   show the version
  --include   show the directory of fastspawn/checkpoint.h, for a C compiler's -I

The HTTP server is python -m fastspawn.serve.
"""


def refuse(why: str) -> NoReturn:
    """Like an option parser: usage and reason on stderr, status 2."""
    sys.stderr.write(f"{USAGE}python -m fastspawn: error: {why}\n")
    raise SystemExit(2)


def show(text: str) -> None:
    """On stdout."""
    from fastspawn._stdout import printing

    with printing("python -m fastspawn"):
        sys.stdout.write(text)


def set_path(first: str) -> None:
    """sys.path[0], unless python was told to have none (-P, -I)."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = first


def run_code(source: str | bytes, filename: str, **names: Any) -> None:
    """In a new __main__, so that nothing of this one is in its way."""
    main = types.ModuleType("__main__")
    vars(main).update(__builtins__=builtins, __spec__=None, **names)
    sys.modules["__main__"] = main
    exec(compile(source, filename, "exec", dont_inherit=True), vars(main))


def run_script(script: str) -> None:
    """What python does with its first argument."""
    if script == "-":
        set_path("")
        run_code(sys.stdin.read(), "<stdin>", __file__="<stdin>")
        return
    path = os.path.abspath(script)
    if os.path.isdir(path) or _is_zip(path):
        set_path(path)
        runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]
        return
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as exc:
        sys.stderr.write(
            f"python -m fastspawn: can't open file {path!r}: [Errno {exc.errno}] {exc.strerror}\n"
        )
        raise SystemExit(2) from None
    set_path(os.path.dirname(os.path.realpath(path)))
    run_code(source, path, __file__=path, __cached__=None)


def _is_zip(path: str) -> bool:
    import zipimport

    try:
        zipimport.zipimporter(path)
    except ImportError:
        return False
    return True


def run_program(args: list[str]) -> None:
    """Run what follows --install."""
    kind, rest = args[0], args[1:]
    if kind in ("-m", "-c"):
        if not rest:
            refuse(f"argument expected for the {kind} option")
        sys.argv[:] = [kind, *rest[1:]]
        if kind == "-m":
            set_path(os.getcwd())
            runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]
        else:
            set_path("")
            if sys.version_info >= (3, 13):  # tracebacks show its lines
                import linecache

                lines = rest[0].splitlines(keepends=True)
                linecache.cache["<string>"] = (len(rest[0]), None, lines, "<string>")
            run_code(rest[0], "<string>")
        return
    if kind.startswith("-") and kind != "-":
        refuse(f"unknown option: {kind}")
    sys.argv[:] = args
    run_script(kind)


_OURS = {__file__, getattr(runpy, "__file__", __file__)}


def _theirs(traceback: TracebackType | None) -> TracebackType | None:
    """From the program's first frame on."""
    while traceback is not None:
        filename = traceback.tb_frame.f_code.co_filename
        if filename not in _OURS and not filename.startswith("<frozen runpy"):
            break
        traceback = traceback.tb_next
    return traceback


def main() -> None:
    """Run what the command line says."""
    args = sys.argv[1:]
    if not args:
        refuse("nothing to do")
    if args[0] in ("-h", "--help"):
        show(HELP)
    elif args[0] in ("-V", "--version"):
        show(f"fastspawn {fastspawn.__version__}\n")
    elif args[0] == "--include":
        show(f"{fastspawn.get_include()}\n")
    elif args[0] != "--install":
        refuse(f"unknown option: {args[0]}" if args[0].startswith("-") else "--install is missing")
    elif len(args) == 1:
        refuse("a program is expected after --install")
    else:
        fastspawn.install()
        try:
            run_program(args[1:])
        except SystemExit:
            raise
        except BaseException as exc:
            # Shown without the frames from here to the program; the status is the interpreter's.
            exc.__traceback__ = _theirs(exc.__traceback__)
            sys.excepthook(type(exc), exc, exc.__traceback__)
            sys.excepthook = lambda *_: None
            raise


if __name__ == "__main__":
    main()
