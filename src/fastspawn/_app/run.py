"""From KIND and MODULE:APP to an answer, one step after the other.

Without a request it comes as far as the checkpoint: so the server finds out whether there is an
application, and brings a template there before anybody asks.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final

from fastspawn import _core
from fastspawn._checkpoint import checkpoint

from . import broken, output, request
from .load import LoadError, load

Answer = Callable[[dict[str, str], output.Output], bool]
"""``answer(request, output)`` answers one request; false: the answer is not complete, and must not
look as if it were."""

_DEFAULTS: Final = {"wsgi": "application", "asgi": "app"}
"""What APP is without one: as gunicorn has it, and uvicorn."""

REFUSED: Final = 2
"""The exit status when there is no application, which a line on standard error explains. What it
raises itself is Python's 1."""


def main(words: Sequence[str]) -> int:
    kind, target = words
    hidden = request.hide()
    output.prepare()
    out = output.Output()
    try:
        answer = _prepare(kind, target)
    except BaseException as error:
        broken.tell(error, f"--{kind} {target}")
        if hidden is None:
            return REFUSED if isinstance(error, LoadError) else 1
        broken.watch(error)
        answer = broken.answer
    finally:
        out.give_back()

    checkpoint()
    asked = request.take(hidden)
    if asked is None:
        return 0
    return 0 if answer(asked, output.Output()) else 1


def _prepare(kind: str, target: str) -> Answer:
    runner: Any = import_module(f"fastspawn._app.{kind}")
    answer: Answer = runner.prepare(load(target, _DEFAULTS[kind]))
    if _core._arguments() is not None:
        _import_late()
    with contextlib.suppress(Exception):
        # What was printed is told before anything that a request prints.
        sys.stderr.flush()
    return answer


def _import_late() -> None:
    """What the standard library imports when it is used, so that a template has it, and not each
    request anew. Werkzeug encodes the name of each request's host by this codec, as does whoever
    looks an address up; loading it costs 2 ms, and a fork some 330 pages that it copies."""
    "localhost".encode("idna")
