"""install(): the whole program's subprocesses go through fastspawn.

What is replaced are names in the standard library and in uvloop, each looked up when a process is
started: code that was imported before, and loops that run already, are served as well. Only who
took ``from subprocess import Popen`` before, or made a class from it, keeps what it has.

A module that the program has not imported, asyncio or uvloop, is not imported for it: its names
are replaced as soon as it is there.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from fastspawn._popen import Popen

TYPE_CHECKING = False  # as in _popen.py
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, TypeAlias

_Name: TypeAlias = "tuple[Any, str, Any]"
"""Who has it, what it is called, and what it is (to be)."""

_WATCHERS = frozenset({
    "ThreadedChildWatcher",
    "PidfdChildWatcher",
    "SafeChildWatcher",
    "MultiLoopChildWatcher",
})  # fmt: skip
"""asyncio's that wait for none but the processes that they were told of."""

_lock = threading.RLock()
_replaced: list[_Name] = []
_MISSING = object()


# ---- what is put in their place --------------------------------------------------------------


def _has_own_watcher() -> bool:
    """Has the program chosen a child watcher that may reap every child, or is not asyncio's?"""
    import asyncio
    from asyncio import unix_events

    if not hasattr(unix_events, "FastChildWatcher"):  # none since Python 3.14
        return False
    watcher = getattr(asyncio.get_event_loop_policy(), "_watcher", None)
    return watcher is not None and type(watcher).__name__ not in _WATCHERS


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """So that whoever looks sees where it comes from."""
    function.__qualname__ = name
    return function


def _make_transport(original: Callable[..., Any]) -> Callable[..., Any]:
    async def _make_subprocess_transport(self: Any, *args: Any, **kwargs: Any) -> Any:
        from fastspawn.aio._transport import make_transport

        if _has_own_watcher():
            return await original(self, *args, **kwargs)
        return await make_transport(self, *args, **kwargs)

    return _named("fastspawn.aio.make_transport", _make_subprocess_transport)


def _method(name: str) -> Callable[..., Any]:
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        from fastspawn import aio

        return await getattr(aio, name)(self, *args, **kwargs)

    return _named(f"fastspawn.aio.{name}", method)


def _in_subprocess(module: Any) -> list[_Name]:
    return [(module, "Popen", Popen)]


def _in_asyncio(module: Any) -> list[_Name]:
    loop = module.SelectorEventLoop
    name = "_make_subprocess_transport"
    return [(loop, name, _make_transport(getattr(loop, name)))]


def _in_uvloop(module: Any) -> list[_Name]:
    return [(module.Loop, name, _method(name)) for name in ("subprocess_exec", "subprocess_shell")]


_REPLACEMENTS = {
    "subprocess": _in_subprocess,
    "asyncio": _in_asyncio,
    "uvloop": _in_uvloop,
}


def _replace(name: str) -> None:
    """In the module ``name``, which is there."""
    for owner, attribute, new in _REPLACEMENTS[name](sys.modules[name]):
        _replaced.append((owner, attribute, vars(owner).get(attribute, _MISSING)))
        setattr(owner, attribute, new)


# ---- modules that are yet to come ------------------------------------------------------------


class _Loader:
    """Another's, and a look at the module that it has made."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # Whoever looks at it from now on, the module itself for one, sees the other's.
        module.__loader__ = self._loader
        assert module.__spec__ is not None
        module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        with _lock:
            if _finder.waiting.pop(module.__name__, None):
                _replace(module.__name__)


class _Finder:
    """First on sys.meta_path while modules are awaited: finds them as the others do."""

    def __init__(self) -> None:
        self.waiting: dict[str, bool] = {}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in self.waiting:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


_finder = _Finder()


# ---- the public functions --------------------------------------------------------------------


def install() -> None:
    """Let all of this program's subprocesses be started by fastspawn.

    That is subprocess.Popen with all that is built on it (run, check_output ...), and
    asyncio.create_subprocess_exec, create_subprocess_shell, loop.subprocess_exec and
    loop.subprocess_shell on asyncio's and uvloop's event loops, which may be imported later.
    Nothing happens the second time. uninstall() takes it back.

    A program that has set an asyncio child watcher which reaps every child (FastChildWatcher), or
    one of its own, keeps it on asyncio's loops.
    """
    for name in _REPLACEMENTS.keys() & sys.modules.keys():
        __import__(name)  # another thread may be at it
    with _lock:
        if _replaced:
            return
        for name in _REPLACEMENTS:
            if name in sys.modules:
                _replace(name)
            else:
                _finder.waiting[name] = True
        if _finder.waiting:
            sys.meta_path.insert(0, _finder)


def uninstall() -> None:
    """Take install() back. Processes that run are not affected."""
    with _lock:
        if _finder in sys.meta_path:
            sys.meta_path.remove(_finder)
        _finder.waiting.clear()
        while _replaced:
            owner, name, old = _replaced.pop()
            if old is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, old)


def installed() -> bool:
    """Is install() in force?"""
    return bool(_replaced)
