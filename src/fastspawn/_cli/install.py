"""``fastspawn --install``: an unchanged Python program, its subprocesses started by fastspawn.

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

TYPE_CHECKING = False  # as in _popen.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


def main(args: list[str], refuse: Callable[[str], NoReturn]) -> None:
    """Run the program that ``args`` name; ``refuse`` is told what is wrong with them."""
    if not args:
        refuse("a program is expected after --install")
    fastspawn.install()
    try:
        _run_program(args, refuse)
    except SystemExit:
        raise
    except BaseException as exc:
        # Shown without the frames from here to the program; the status is the interpreter's.
        exc.__traceback__ = _theirs(exc.__traceback__)
        sys.excepthook(type(exc), exc, exc.__traceback__)
        sys.excepthook = lambda *_: None
        raise


def _set_path(first: str) -> None:
    """sys.path[0], unless python was told to have none (-P, -I)."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = first


def _run_code(source: str | bytes, filename: str, **names: Any) -> None:
    """In a new __main__, so that nothing of this one is in its way."""
    main = types.ModuleType("__main__")
    vars(main).update(__builtins__=builtins, __spec__=None, **names)
    sys.modules["__main__"] = main
    exec(compile(source, filename, "exec", dont_inherit=True), vars(main))


def _run_script(script: str) -> None:
    """What python does with its first argument."""
    if script == "-":
        _set_path("")
        _run_code(sys.stdin.read(), "<stdin>", __file__="<stdin>")
        return
    path = os.path.abspath(script)
    if os.path.isdir(path) or _is_zip(path):
        _set_path(path)
        runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]
        return
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as exc:
        sys.stderr.write(
            f"fastspawn: can't open file {path!r}: [Errno {exc.errno}] {exc.strerror}\n"
        )
        raise SystemExit(2) from None
    _set_path(os.path.dirname(os.path.realpath(path)))
    _run_code(source, path, __file__=path, __cached__=None)


def _is_zip(path: str) -> bool:
    import zipimport

    try:
        zipimport.zipimporter(path)
    except ImportError:
        return False
    return True


def _run_program(args: list[str], refuse: Callable[[str], NoReturn]) -> None:
    kind, rest = args[0], args[1:]
    if kind in ("-m", "-c"):
        if not rest:
            refuse(f"argument expected for the {kind} option")
        sys.argv[:] = [kind, *rest[1:]]
        if kind == "-m":
            _set_path(os.getcwd())
            runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]
        else:
            _set_path("")
            if sys.version_info >= (3, 13):  # tracebacks show its lines
                import linecache

                lines = rest[0].splitlines(keepends=True)
                linecache.cache["<string>"] = (len(rest[0]), None, lines, "<string>")
            _run_code(rest[0], "<string>")
        return
    if kind.startswith("-") and kind != "-":
        refuse(f"unknown option: {kind}")
    sys.argv[:] = args
    _run_script(kind)


_OURS = {__file__, getattr(runpy, "__file__", __file__)}


def _theirs(traceback: TracebackType | None) -> TracebackType | None:
    """From the program's first frame on."""
    while traceback is not None:
        filename = traceback.tb_frame.f_code.co_filename
        if filename not in _OURS and not filename.startswith("<frozen runpy"):
            break
        traceback = traceback.tb_next
    return traceback
