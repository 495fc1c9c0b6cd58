"""Each strategy, tried: a program or two are run by it, and what it says itself is the answer."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from fastspawn import _core
from fastspawn._command import Command
from fastspawn._engine import Engine
from fastspawn._program import why_not_template
from fastspawn._refusals import TemplateError
from fastspawn._resettable.job import WorkerError
from fastspawn._resettable.pool import ResettablePool
from fastspawn._result import Result
from fastspawn._template import Template
from fastspawn._warm.pool import WarmPool

_PYTHON: Final = (sys.executable, "-I", "-c")
_CAT: Final = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
_CHECKPOINT: Final = """\
import sys; sys.path[:0] = [{path!r}]
from fastspawn import checkpoint
checkpoint()
sys.stdout.buffer.write(sys.stdin.buffer.read())
"""
_PATIENCE: Final = 20.0
"""Seconds for a strategy: a busy machine may take its time."""
_LITTLE: Final = 4.0
"""The same where something that it needs is known to be missing."""
_PAUSE: Final = 0.02
"""Seconds between runs while something is still being made."""


@dataclass(frozen=True)
class Answer:
    """``how`` it works, or ``why`` it does not, in words."""

    works: bool
    text: str


def _program() -> Command:
    """One that copies its input: cat, but where there is none that may be a template, Python."""
    path = shutil.which("cat")
    if path is not None and why_not_template(path) is None:
        return Command(["cat"])
    return Command([*_PYTHON, _CAT])


def _told(result: Result) -> None:
    if result.stdout != b"hi":
        raise ValueError(f"wrong output, and exit status {result.returncode}")


async def _direct() -> str:
    async with Engine(1) as engine:
        _told(await engine.run(_program(), b"hi"))
    return f"by {_core.backend()}"


async def _warm() -> str:
    async with WarmPool(_program()) as pool:
        _told(await pool.run(b"hi"))
        return f"by {_core.backend()}"


async def _pool() -> str:
    async with ResettablePool(_program(), size=1) as pool:
        _told(await pool.run(b"hi"))
    return "the worker of the package"


async def _until(template: Template, done: Callable[[], bool]) -> None:
    """Run it until something has come to be."""
    while not done():
        _told(await template.run(input=b"hi"))
        if not done():
            await asyncio.sleep(_PAUSE)


async def _snapshot() -> str:
    async with Template(_program(), size=1, at="main") as template:
        await _until(template, lambda: template.stats["forked"] > 0)
        return f"forks of {template.command.argv[0]!s}, stopped before main"


async def _effect() -> str:
    async with Template(_program(), size=1, at="effect") as template:
        await _until(template, lambda: template.stats["forked"] > 0)
        return f"forks of {template.command.argv[0]!s}, stopped before its first effect"


def _with_checkpoint() -> Command:
    """A program of the Python that this is."""
    import fastspawn

    path = os.path.dirname(os.path.dirname(os.path.abspath(fastspawn.__file__)))
    return Command([*_PYTHON, _CHECKPOINT.format(path=path)])


async def _checkpoint() -> str:
    program = _with_checkpoint()
    async with Template(program, size=1, at="checkpoint") as template:
        await _until(
            template,
            lambda: template.no_checkpoint is not None or template.place == "checkpoint",
        )
        if template.no_checkpoint is not None:
            raise ValueError(template.no_checkpoint)
        return "forks of a Python program, stopped at checkpoint()"


async def _reset() -> str:
    async with Template(_program(), size=1, at="main", reset=True) as template:
        await _until(
            template, lambda: template.not_reset is not None or template.stats["resets"] > 0
        )
        if template.not_reset is not None:
            raise ValueError(template.not_reset)
        return f"one process of {template.command.argv[0]!s} for many requests"


_WAYS: Final[dict[str, Callable[[], Awaitable[str]]]] = {
    "direct": _direct,
    "warm": _warm,
    "pool": _pool,
    "snapshot": _snapshot,
    "effect": _effect,
    "checkpoint": _checkpoint,
    "reset": _reset,
}


async def _try(name: str, patience: float) -> Answer:
    try:
        return Answer(True, await asyncio.wait_for(_WAYS[name](), patience))
    except (asyncio.TimeoutError, TimeoutError):  # not the same before Python 3.11
        return Answer(False, f"nothing came of it within {patience:g} s")
    except (OSError, ValueError, RuntimeError, TemplateError, WorkerError) as error:
        return Answer(False, str(error) or type(error).__name__)


def try_each(names: Sequence[str], doubtful: Collection[str] = ()) -> dict[str, Answer]:
    """One after the other; ``doubtful``: those that lack something."""

    async def main() -> dict[str, Answer]:
        return {
            name: await _try(name, _LITTLE if name in doubtful else _PATIENCE) for name in names
        }

    return asyncio.run(main())
