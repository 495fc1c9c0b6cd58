"""The process becomes a template; each request goes on in a fork of it."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from typing import Any, Final

from fastspawn import _core
from fastspawn._checkpoint import seeds
from fastspawn._checkpoint.ending import End
from fastspawn._checkpoint.environment import Environment
from fastspawn._checkpoint.exits import Exits
from fastspawn._checkpoint.files import files
from fastspawn._checkpoint.hooks import Hooks
from fastspawn._checkpoint.output import Output
from fastspawn._checkpoint.stdin import Input
from fastspawn._makers import cures

_IS_TEMPLATE: Final = 1
"""What ``_core._freeze`` returns in the template; 0 in the fork that goes on, else negative."""
_REFUSED: Final = -0x10000
"""... less the reason; above it: nobody has asked for a checkpoint here."""
_OWN_ENVIRONMENT: Final = 2
"""What ``_core._serve`` returns in a fork whose environment is not the template's."""

_THREADS: Final = 5
_REASONS: Final = {
    _THREADS: "a single thread",
    9: "fewer files that could change",
    19: "event loops to be made below it",
}
"""Those that the program can do something about; the server tells all (``no_checkpoint``)."""


def freeze(arguments: list[bytes]) -> None:
    """Returns in each request's fork, or where there is no template."""
    gc.collect()
    things = gc.get_objects()
    output = Output(things)
    environment = Environment()
    input = Input(things)
    exits = Exits()
    end = End(output, exits.general)
    hooks = Hooks()
    seeds.keep()
    has_loop = any(map(_is_open_loop, things))
    del things
    output.flush()
    gc.freeze()
    result = _core._freeze(files(), has_loop)
    if result < 0:
        _go_on(exits, end, result)
        return
    if result == _IS_TEMPLATE:
        input.forget()
        environment.follow()
        hooks.settle()
        _core._keep((input, environment, exits, hooks))  # no fork spends time on freeing them
        gc.freeze()
        how = _core._serve()
        if not how:
            exits.run()
            os._exit(0)
        if _core._has_other_arguments(arguments):
            _take_arguments(arguments)
        if how == _OWN_ENVIRONMENT:
            environment.follow()
        seeds.renew()
    end.enter_fork()


def _go_on(exits: Exits, end: End, result: int) -> None:
    """As a plain process."""
    gc.unfreeze()
    exits.restore()
    end.forget()
    needs = _REASONS.get(_REFUSED - result)
    if needs is not None:
        makers = cures(_core._makers()) if _REFUSED - result == _THREADS else ""
        there = f", and has {makers}" if makers else ""
        warnings.warn(
            f"checkpoint() needs {needs}{there}; this process goes on as a plain one",
            RuntimeWarning,
            stacklevel=4,
        )


def _is_open_loop(thing: Any) -> bool:
    """With or without a descriptor (csrc/guest/loops.c), it wakes itself by a pipe; but for ours,
    which has none as long as it rests (``_app/asgi/loop.py``)."""
    events: Any = sys.modules.get("asyncio.events")
    if events is None or not issubclass(type(thing), events.AbstractEventLoop):
        return False
    try:
        return not (thing.is_closed() or getattr(thing, "forks", False))
    except Exception:
        return False  # it is none that could run


def _take_arguments(before: list[bytes]) -> None:
    arguments = _core._arguments() or before
    given = [os.fsencode(arg) for arg in sys.argv[1:]]
    start = len(before) - len(given)
    # Unless the program has rewritten sys.argv: then it is the program's.
    if start >= 1 and before[start:] == given:
        sys.argv[1:] = [os.fsdecode(arg) for arg in arguments[start:]]
