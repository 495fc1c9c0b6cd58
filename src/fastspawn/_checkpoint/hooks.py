"""Hooks of forks (os.register_at_fork) that find nothing to do in a fork of a template.

The standard library's free what other threads may have held at the fork, and forget these. In a
template there are no others, and between two forks nothing runs but hooks; so if there are only
such before a fork, what they leave behind is there already, once they have run in the template.
Then they are no more run around its forks; each fork has them for forks of its own.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Any, NamedTuple

from fastspawn import _core


class _Hook(NamedTuple):
    before: Any
    parent: Any
    child: Any


class Hooks:
    """To be made before anything is frozen: the collector knows where they are."""

    def __init__(self) -> None:
        self._lists = _find_lists()

    def settle(self) -> None:
        """In the template."""
        if self._lists is None:
            return
        known = [hook for hook in (_of_threading(), _of_logging(), _of_futures()) if hook]
        before, parent, child = self._lists
        if not all(_is_one_of(hook, [each.before for each in known]) for hook in before):
            return
        if not all(_is_one_of(hook, [each.parent for each in known]) for hook in parent):
            return
        done = [hook for hook in child if _is_one_of(hook, [each.child for each in known])]
        full = tuple(map(list, self._lists))
        for hook in done:
            hook()
        before[:] = parent[:] = []
        child[:] = [hook for hook in child if not any(hook is each for each in done)]
        child.insert(0, _core._Hooks(self._lists, full))


def _find_lists() -> tuple[list[Any], list[Any], list[Any]] | None:
    """Those of the interpreter, which has no name for them: before, after in parent, in child."""
    marks: tuple[Any, Any, Any] = (lambda: None, lambda: None, lambda: None)
    os.register_at_fork(before=marks[0], after_in_parent=marks[1], after_in_child=marks[2])
    found = [
        thing
        for mark in marks
        for thing in gc.get_referrers(mark)
        if type(thing) is list and thing and thing[-1] is mark
    ]
    if len(found) != len(marks):
        return None  # the program has frozen them
    for hooks in found:
        del hooks[-1]
    return found[0], found[1], found[2]


def _is_one_of(hook: Any, known: list[Any]) -> bool:
    # Methods of C are made anew each time; what the program has registered is asked nothing.
    return any(hook is each or (type(hook) is type(each) and hook == each) for each in known)


def _of_threading() -> _Hook | None:
    threading: Any = sys.modules.get("threading")
    child = getattr(threading, "_after_fork", None)
    return None if child is None else _Hook(None, None, child)


def _of_logging() -> _Hook | None:
    logging: Any = sys.modules.get("logging")
    handlers = getattr(logging, "_at_fork_reinit_lock_weakset", None)
    if handlers is None or not all(map(_has_plain_lock, handlers)):
        return None
    return _Hook(
        getattr(logging, "_prepareFork", None) or getattr(logging, "_acquireLock", None),
        getattr(logging, "_afterFork", None) or getattr(logging, "_releaseLock", None),
        getattr(logging, "_after_at_fork_child_reinit_locks", None),
    )


def _has_plain_lock(handler: Any) -> bool:
    logging: Any = sys.modules["logging"]
    own = logging.Handler._at_fork_reinit, logging.NullHandler._at_fork_reinit
    lock = getattr(handler, "lock", None)
    plain = lock is None or type(lock) is type(logging.threading.RLock())
    return plain and getattr(type(handler), "_at_fork_reinit", None) in own


def _of_futures() -> _Hook | None:
    lock: Any = getattr(sys.modules.get("concurrent.futures.thread"), "_global_shutdown_lock", None)
    return None if lock is None else _Hook(lock.acquire, lock.release, lock._at_fork_reinit)
