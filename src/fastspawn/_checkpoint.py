"""checkpoint(): a Python program says up to where it is the same for every request."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import io
import os
import sys
import warnings
from types import FrameType
from typing import Any

from fastspawn import _core, _seeds

_READERS = (io.TextIOWrapper, io.BufferedReader, io.BufferedRandom)


def checkpoint() -> None:
    """Everything above this call runs once, everything below it once per request.

        import heavy
        from fastspawn import checkpoint

        checkpoint()
        print(heavy.answer(sys.stdin.read()))

    In a process of a ``fastspawn.Template`` (so under ``--strategy snapshot``) the process that
    comes here first becomes the template: each request, its own included, goes on from here in a
    fork, with the request's arguments, environment and standard streams. Anywhere else it returns
    at once, so the same program runs everywhere.

    What was printed above is the first request's. Forks share what is random by start only: the
    hash seed, and whatever the program drew above; ``random``, ``uuid``, ``ssl``, sqlite3's
    ``random()`` and numpy's global generator are seeded anew. At the end exit handlers run and
    streams are flushed, but modules are not taken down: their objects' finalizers do not run.

    Handlers of forks run around each: Python's (``os.register_at_fork``) and those of libraries
    (pthread_atfork(3)). With more than one thread once those before a fork have run, nothing is
    frozen: a RuntimeWarning says so, and the process goes on as a plain one.
    """
    arguments = _core._arguments()
    if arguments is None:
        return
    _flush()
    gc.collect()
    # Here, once, and not in each fork: whatever a fork touches, it copies.
    readers = _stdin_readers()
    at_end = _watch_end()
    _seeds.keep()
    gc.freeze()
    result = _core._checkpoint(_files())
    if result < 0:
        gc.unfreeze()
        gc.callbacks.remove(at_end)
        if result == -errno.EBUSY:
            warnings.warn(
                "checkpoint() needs a single thread; this process goes on as a plain one",
                RuntimeWarning,
                stacklevel=2,
            )
        return
    if result == 1:
        _take_request(arguments, readers)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.flush()


def _files() -> list[bytes]:
    """What was imported: when one of these changes, so may what the template holds."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return [os.path.abspath(os.fsencode(file)) for file in files if file]


def _stdin_readers() -> list[Any]:
    """Whatever may have read ahead from standard input, text before what it reads from."""
    readers = [
        thing
        for thing in gc.get_objects()
        if issubclass(type(thing), _READERS) and _is_stdin(thing)
    ]
    return sorted(readers, key=lambda reader: not issubclass(type(reader), io.TextIOWrapper))


def _is_stdin(reader: Any) -> bool:
    try:
        return bool(reader.fileno() == 0)
    except (OSError, ValueError):
        return False


def _take_request(before: list[bytes], readers: list[Any]) -> None:
    arguments = _core._arguments() or before
    given = [os.fsencode(arg) for arg in sys.argv[1:]]
    start = len(before) - len(given)
    # Unless the program has rewritten sys.argv: then it is the program's.
    if start >= 1 and before[start:] == given:
        sys.argv[1:] = [os.fsdecode(arg) for arg in arguments[start:]]
    environ: Any = os.environ
    environ._data.clear()
    environ._data.update(entry.split(b"=", 1) for entry in _core._environment() if b"=" in entry)
    _forget_input(readers)
    _reopen_stdin()
    _seeds.renew()


def _forget_input(readers: list[Any]) -> None:
    """What they have read ahead is another request's: let them read on to an end."""
    if not readers:
        return
    kept = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for reader in readers:
        with contextlib.suppress(Exception):
            reader.read()
    os.dup2(kept, 0)
    os.close(kept)


def _reopen_stdin() -> None:
    """A decoder that stopped in the middle of a character cannot be made to forget it."""
    streams: Any = sys
    old = streams.stdin
    if old is None or old is not streams.__stdin__:
        return
    raw = io.BufferedReader(io.FileIO(0, closefd=False))
    streams.stdin = streams.__stdin__ = io.TextIOWrapper(
        raw, encoding=old.encoding, errors=old.errors
    )


# ---- the end ----
#
# Most of a fork's cost would be the teardown of the interpreter: it touches, and so copies, nearly
# every page, to free what the end of the process frees anyhow. It is left out where the exit
# status is known for certain; the last moment that a program hears of is the collection between
# the flush of its streams and the teardown of its modules.


def _watch_end() -> Any:
    """The callback of the collector that sees to the end of each fork."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    kinds = [SystemExit]
    for kind in kinds:
        _core._record_exits(kind)
        kinds += kind.__subclasses__()
    recorded = _core._record_sys_exit(sys.exit, frame)
    made_before = any(isinstance(thing, SystemExit) for thing in gc.get_objects())
    hook: Any = _skip_modules
    if recorded and not made_before:
        hook = functools.partial(_skip_teardown, frame)
    gc.callbacks.append(hook)
    return hook


def _last_error() -> BaseException | None:
    """The exception that the interpreter has printed at its end."""
    return getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)


def _has_ended(frame: FrameType, exc: BaseException) -> bool:
    """Did the exception leave the outermost frame, so that nothing ran after it?"""
    traceback = exc.__traceback__
    return (
        traceback is not None
        and traceback.tb_frame is frame
        and traceback.tb_lasti == frame.f_lasti
    )


def _was_never_caught(frame: FrameType, exc: BaseException, raised_at: int) -> bool:
    """The same of one that only a handler would have given a traceback."""
    return exc.__traceback__ is None and raised_at == frame.f_lasti


def _exit_status(frame: FrameType) -> int | None:
    """The status with which the interpreter is about to exit; None: who knows."""
    error = _last_error()
    latest, raised_at = _core._latest_exit()
    if latest is None and error is None:
        return 0
    if latest is None:
        return 1 if isinstance(error, Exception) and _has_ended(frame, error) else None
    code = 0 if latest.code is None else latest.code
    if error is not None or not isinstance(code, int):
        return None
    if raised_at is None:
        ended = _has_ended(frame, latest)
    else:
        ended = _was_never_caught(frame, latest, raised_at)
    return code & 0xFF if ended else None


def _skip_teardown(frame: FrameType, phase: str, info: dict[str, int]) -> None:
    if not sys.is_finalizing() or not sys.modules:
        return
    status = _exit_status(frame)
    if status is not None:
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None and not stream.closed:
                    stream.flush()
        except Exception:
            pass  # the interpreter has failed at it too, and that is a status of its own
        else:
            _core._leave(status)
    _skip_modules(phase, info)


def _skip_modules(phase: str, info: dict[str, int]) -> None:
    """Leave out what can be without knowing the status: what sys.modules does not name."""
    if sys.is_finalizing() and sys.modules:
        _core._keep(list(sys.modules.values()))
        sys.modules.clear()
