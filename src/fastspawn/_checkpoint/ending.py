"""The end of a fork.

Most of its cost would be the teardown of the interpreter: it touches, and so copies, nearly every
page, to free what the end of the process frees anyhow. All that a program can see of it is done
here instead, at the last moment that a program hears of: the collection between the flush of its
streams and the teardown of its modules. Then the process ends at once if it is certain how the
interpreter would end it, and else as the interpreter does.
"""

from __future__ import annotations

import gc
import io
import opcode
import os
import sys
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
    def __init__(self, output: Output) -> None:
        frame = sys._getframe()
        while frame.f_back is not None:
            frame = frame.f_back
        self._frame = frame
        self._code = frame.f_code.co_code
        self._is_main = _is_main(frame)
        self._output = output
        self._flushed = False
        self._error: BaseException | None = None
        self._callback = _core._AtCollection(self._begin, self._end)
        _record_exits(frame)
        gc.callbacks.append(self._callback)

    def forget(self) -> None:
        gc.callbacks.remove(self._callback)
        _core._forget_outermost()

    def at_exit(self) -> None:
        """The last exit handler: the interpreter flushes next, and then it collects."""
        if sys._getframe().f_back is not None:
            return  # it is the program that calls them
        self._flushed = flush_standard()
        gc.enable()

    def _begin(self, phase: str) -> list[Any] | None:
        """What was made below and has a finalizer: the collector sees nothing else, all that was
        made above is frozen."""
        if not sys.is_finalizing() or not sys.modules:
            return None
        things = [
            thing
            for generation in (2, 1, 0)  # as it was made
            for thing in _core._with_finalizer(gc.get_objects(generation))
        ]
        if things and phase == "start":
            self._output.flush(things)
            return None  # what is garbage is collected now
        self._error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if not all(type(thing) in _STREAMS for thing in things):
            _take_down_names()
        return in_order(things)

    def _end(self) -> None:
        self._output.flush()
        if flush_standard() and self._flushed and self._is_main and not _inspects():
            self._leave()
        if sys.modules:
            _take_down_names()

    def _leave(self) -> None:
        """If the interpreter's status is known; returns if it is not."""
        error = self._error
        latest, raised_at = _core._latest_exit()
        if self._code[self._frame.f_lasti] in _RETURNS:
            _core._leave(0)
        elif latest is None:
            if isinstance(error, Exception) and self._was_left_by(error):
                _core._leave(1)
        elif error is None and self._was_exit(latest, raised_at) and _is_plain(latest):
            sys.stderr = _Nowhere()  # it has said there what it had to say
            _core._leave_by(latest)

    def _was_left_by(self, exc: BaseException) -> bool:
        """Did it leave the outermost frame, so that nothing ran after it?"""
        traceback = exc.__traceback__
        return (
            traceback is not None
            and traceback.tb_frame is self._frame
            and traceback.tb_lasti == self._frame.f_lasti
        )

    def _was_exit(self, exc: SystemExit, raised_at: int | None) -> bool:
        """The same of one that only a handler would have given a traceback."""
        if raised_at is None:
            return self._was_left_by(exc)
        return exc.__traceback__ is None and raised_at == self._frame.f_lasti


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
    if not sys.orig_argv:
        return False  # of another program, which runs Python
    if frame.f_code.co_name == "<module>":
        return frame.f_globals is vars(sys.modules["__main__"])
    return (frame.f_globals.get("__name__"), frame.f_code.co_name) == (
        "runpy",
        "_run_module_as_main",
    )


def _inspects() -> bool:
    return bool(sys.flags.inspect or os.environ.get("PYTHONINSPECT"))


def _is_plain(exc: SystemExit) -> bool:
    """Nothing of the program's own runs when the interpreter looks at it once more."""
    if getattr(type(exc), "code", None) is not SystemExit.code:
        return False
    return exc.code is None or isinstance(exc.code, int) or type(exc.code) is str


def _record_exits(frame: Any) -> None:
    kinds = [SystemExit]
    for kind in kinds:
        _core._record_exits(kind)
        kinds += kind.__subclasses__()
    _core._record_sys_exit(sys.exit, frame)
