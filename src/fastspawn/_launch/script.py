"""A script as Python itself would run it, with a checkpoint at its point.

It is one piece of code with one call more: so line numbers, annotations and what ``__future__``
switches on are the script's. Nothing is written to a file.
"""

from __future__ import annotations

import _ast
import os
import sys
from types import TracebackType
from typing import Any

_ONLY_AST = 0x400  # PyCF_ONLY_AST of Python's compile.h
_CALL = "fastspawn.checkpoint"
"""No name that a program could have."""


class NoPointError(Exception):
    """There is no such point; the message says why."""


# ---- what is looked at ----


def _read(path: str) -> bytes:
    if os.path.isdir(path):
        raise NoPointError(f"{path} is a directory, not a script")
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        sys.stderr.write(
            f"{sys.executable}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}\n"
        )
        raise SystemExit(2) from None


def _of_file(path: str) -> tuple[dict[str, Any], bytes | str]:
    """The names of its module that Python sets, and its source."""
    full = os.path.abspath(path)
    loader = type(sys.modules["__main__"].__loader__)
    return {
        "__loader__": loader("__main__", full),  # type: ignore[call-arg, misc]
        "__package__": None,
        "__spec__": None,
        "__file__": full,
        "__cached__": None,
    }, _read(full)


def _of_module(name: str) -> tuple[dict[str, Any], bytes | str]:
    """As ``python -m`` finds it."""
    runpy: Any = __import__("runpy")
    try:
        name, spec, _ = runpy._get_module_details(name, runpy._Error)
    except runpy._Error as error:
        sys.exit(f"{sys.executable}: {error}")
    source = getattr(spec.loader, "get_source", lambda name: None)(name)
    if source is None:
        raise NoPointError(f"{spec.origin} has no source")
    return {
        "__loader__": spec.loader,
        "__package__": spec.parent,
        "__spec__": spec,
        "__file__": spec.origin,
        "__cached__": spec.cached,
    }, source


def _take_words() -> str | None:
    """sys.argv, sys.orig_argv and sys.path become the script's. Returns the module's name, if it is
    one."""
    ours = len(sys.orig_argv) - len(sys.argv)
    del sys.orig_argv[ours]
    module = None
    if sys.argv[1] == "-m":
        module = sys.argv[2]
        sys.argv[1:3] = ["-m"]
    del sys.argv[0]
    if not sys.flags.isolated and not getattr(sys.flags, "safe_path", False):
        script = os.path.realpath(sys.argv[0])
        sys.path[0] = os.path.dirname(script) if module is None else os.getcwd()
    return module


def _prepare() -> tuple[dict[str, Any], bytes | str]:
    module = _take_words()
    if module is None:
        return _of_file(sys.argv[0])
    names, source = _of_module(module)
    sys.argv[0] = names["__file__"]
    return names, source


# ---- what is run ----


def _compile(source: bytes | str, path: str, point: Any) -> Any:
    """Raises SyntaxError, and NoPointError."""
    tree: Any = compile(source, path, "exec", _ONLY_AST, dont_inherit=True)
    compile(source, path, "exec", dont_inherit=True)  # what is wrong is told as of the source
    try:
        below = point(tree.body)
    except ValueError as error:
        raise NoPointError(f"{path}: {error}") from None
    there = tree.body[below]
    where = {name: getattr(there, name) for name in there._attributes}
    name = _ast.Name(_CALL, _ast.Load(), **where)
    # What is called is asked for first, so that checkpoint() is called by the script alone.
    asked = _ast.Call(name, [], [], **where)
    tree.body.insert(below, _ast.Expr(_ast.Call(asked, [], [], **where), **where))
    return compile(tree, path, "exec", dont_inherit=True)


def _checkpoint() -> Any:
    """fastspawn's of the place where this is, if this Python can load that."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    if "fastspawn" not in sys.modules:
        here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        spec: Any = PathFinder.find_spec("fastspawn", [here])
        sys.modules["fastspawn"] = package = module_from_spec(spec)
        spec.loader.exec_module(package)
    __import__("fastspawn._core")
    if not hasattr(sys.modules["fastspawn._core"], "_arguments"):
        raise ImportError("it is built for others")
    __import__("fastspawn._checkpoint")
    return vars(sys.modules["fastspawn._checkpoint"])["checkpoint"]


def take(names: dict[str, Any], point: Any) -> Any:
    """Let the module of these names (``__main__``) be that of the script, whose code is returned.

    Without a point in it, which is found out earlier (``look``), it is run as it is.
    """

    def asked() -> Any:
        del names[_CALL]
        try:
            return _checkpoint()
        except ImportError:
            return lambda: None

    _show_own()
    of_script, source = _prepare()
    builtins = names["__builtins__"]
    annotations: dict[str, Any] = {"__annotations__": {}} if "__annotations__" in names else {}
    names.clear()
    names.update(__name__="__main__", __doc__=None, **of_script)
    names.update(__builtins__=builtins, **annotations)
    try:
        code = _compile(source, names["__file__"], point)
    except NoPointError:
        return compile(source, names["__file__"], "exec", dont_inherit=True)
    names[_CALL] = asked
    return code


def look(point: Any) -> int:
    """In a process of its own: the exit status, and why not on standard output."""
    del sys.argv[1]
    try:
        names, source = _prepare()
        _compile(source, names["__file__"], point)
        _checkpoint()
    except NoPointError as error:
        return _say(str(error))
    except SyntaxError as error:
        return _say(f"{error.filename}, line {error.lineno}: {error.msg}")
    except ValueError as error:
        return _say(f"{sys.argv[0]}: {error}")  # null bytes
    except ImportError as error:
        version = ".".join(map(str, sys.version_info[:2]))
        return _say(f"its Python, {version}, cannot load this fastspawn: {error}")
    return 0


def _say(why: str) -> int:
    print(why)  # noqa: T201
    return 3


# ---- what is told ----


def _show_own() -> None:
    """Let what the script raises be told without the frames that are not its own.

    By the hook alone: the end of a fork is told by how the frame below all was left, which nothing
    is to catch (``_checkpoint/ending.py``).
    """
    hooks = {id(hook): _hook(hook) for hook in (sys.excepthook, sys.__excepthook__)}
    sys.excepthook = hooks[id(sys.excepthook)]
    sys.__excepthook__ = hooks[id(sys.__excepthook__)]


def _hook(original: Any) -> Any:
    own = os.path.dirname(__file__)

    def excepthook(kind: Any, error: Any, trace: TracebackType | None, /) -> None:
        whole = trace
        while trace is not None and os.path.dirname(trace.tb_frame.f_code.co_filename) == own:
            trace = trace.tb_next
        try:
            error.__traceback__ = trace
            original(kind, error, trace)
        finally:
            error.__traceback__ = whole

    return excepthook
