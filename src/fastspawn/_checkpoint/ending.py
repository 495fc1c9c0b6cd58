"""The end of a fork.

Most of its cost would be the teardown of the interpreter: it touches, and so copies, nearly every
page, to free what the end of the process frees anyhow. All that a program can see of it is done
here instead, at the last moment that a program hears of: the collection between the flush of its
streams and the teardown of its modules. Then the process ends at once if it is certain how the
interpreter would end it, and else as the interpreter does.

Most requests leave nothing to be seen: then it ends at the last exit handler already
(``_core._AtExit``), or, if these have nothing to do either, before the first
(``_core._AtShutdown``).
"""

from __future__ import annotations

import gc
import io
import opcode
import sys
from types import FunctionType
from typing import Any, Final

from fastspawn import _core
from fastspawn._checkpoint.output import Output, flush_standard, in_order

_RETURNS: Final = {
    code for name, code in opcode.opmap.items() if name in ("RETURN_VALUE", "RETURN_CONST")
}
_NAMES: Final = """
    path argv ps1 ps2 last_exc last_type last_value last_traceback path_hooks path_importer_cache
    meta_path __interactivehook__
""".split()
"""Of sys: sys_deletes in CPython's pylifecycle.c."""


_STREAMS: Final = {
    io.FileIO,
    io.BufferedReader,
    io.BufferedWriter,
    io.BufferedRandom,
    io.BufferedRWPair,
    io.TextIOWrapper,
    io.BytesIO,
    io.StringIO,
}
"""Those whose finalizers ask for no names: to take names down is dear."""


class End:
    """``general``: exit handlers that run at the end of each fork."""

    def __init__(self, output: Output, general: list[Any]) -> None:
        frame = sys._getframe()
        while frame.f_back is not None:
            frame = frame.f_back
        self._outermost = _core._Outermost(frame, _RETURNS)
        self._is_main = _is_main(frame)
        self._output = output
        self._flushed = False
        self._error: BaseException | None = None
        self._callback = _core._AtCollection(self._begin, self._end)
        streams = output.standard() if self._is_main else None
        self._general = general
        self._at_exit = _core._AtExit(self._outermost, streams, self._callback, self._last)
        self._shutdown: _core._AtShutdown | None = None
        if streams is not None:
            self._watch_shutdown()
        _record_exits(frame)
        gc.callbacks.append(self._callback)

    def _watch_shutdown(self) -> None:
        if sys.version_info >= (3, 13):
            return  # an error that a SystemExit has left makes it fail there, and is told of
        threading: Any = sys.modules.get("threading")
        shutdown = getattr(threading, "_shutdown", None)
        if type(shutdown) is FunctionType and shutdown.__globals__ is vars(threading):
            self._shutdown = _core._AtShutdown(self._at_exit, threading, self._general)
            threading._shutdown = self._shutdown

    def forget(self) -> None:
        gc.callbacks.remove(self._callback)
        _core._forget_outermost()
        threading: Any = sys.modules.get("threading")
        if self._shutdown is not None and threading._shutdown is self._shutdown:
            threading._shutdown = self._shutdown.original

    def enter_fork(self) -> None:
        self._at_exit.register(self._general)

    def _last(self) -> None:
        """At the last exit handler, if more is to be done than to flush."""
        self._flushed = flush_standard()
        gc.enable()

    def _begin(self, phase: str) -> list[Any] | None:
        """What was made below and has a finalizer: the collector sees nothing else, all that was
        made above is frozen."""
        if not sys.is_finalizing() or not sys.modules:
            return None
        things = _core._made_below()
        if things and phase == "start":
            self._output.flush(things)
            return None  # what is garbage is collected now
        self._error = _core._shown()
        if not all(type(thing) in _STREAMS for thing in things):
            _take_down_names()
        return in_order(things)

    def _end(self) -> None:
        self._output.flush()
        alone = gc.callbacks == [self._callback]  # others are to hear of the collection
        if flush_standard() and self._flushed and self._is_main and alone:
            self._leave()
        if sys.modules:
            _take_down_names()

    def _leave(self) -> None:
        """If the interpreter's status is known; returns if it is not."""
        if _core._inspects():
            return
        status = self._outermost.status(lambda: self._error)
        if isinstance(status, SystemExit):
            sys.stderr = _Nowhere()  # it has said there what it had to say
            _core._leave_by(status)
        elif status is not None:
            _core._leave(status)


def _take_down_names() -> None:
    """As the interpreter does, for the finalizers that run below it.  But modules stay: what was
    made above is not finalized here, and no more is taken down than sys.modules names."""
    for name in _NAMES:
        setattr(sys, name, None)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, name, getattr(sys, f"__{name}__", None))
    _core._keep(list(sys.modules.values()))
    sys.modules.clear()


class _Nowhere:
    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass


def _is_main(frame: Any) -> bool:
    """Is it the frame of Python's own main, which ends with it?"""
    if not sys.orig_argv or sys.flags.inspect:
        return False  # of another program, which runs Python; or it asks for more then
    if frame.f_code.co_name == "<module>":
        return frame.f_globals is vars(sys.modules["__main__"])
    return (frame.f_globals.get("__name__"), frame.f_code.co_name) == (
        "runpy",
        "_run_module_as_main",
    )


def _record_exits(frame: Any) -> None:
    kinds = [SystemExit]
    for kind in kinds:
        _core._record_exits(kind)
        kinds += kind.__subclasses__()
    _core._record_sys_exit(sys.exit, frame)
