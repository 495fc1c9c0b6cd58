"""Whose threads keep a program from being a template, and what helps, in words."""

from __future__ import annotations

import os
from typing import Final

_PACKAGES: Final = ("site-packages", "dist-packages")
_PYTHON: Final = "Python (threading)"
_BELOW: Final = "what starts them belongs below the checkpoint"

_NAMES: Final = {"polars_runtime_32": "polars", "polars_runtime_64": "polars"}
"""Of packages that are parts of another one."""
_CURES: Final = {
    "polars": "import it below the checkpoint",
    "pyarrow": "set JE_ARROW_MALLOC_CONF=background_thread:false, or import it below",
    "duckdb": "connect with threads=1 and async_threads=0, or below the checkpoint",
    "libgomp": "set OMP_NUM_THREADS=1, or use it below the checkpoint",
    _PYTHON: "join them above the checkpoint, or start them below",
}
"""What was seen to help, by the name of a package or, before that, of a library."""


def told(said: bytes) -> str:
    """In a line: of whom there are how many, and what their names are. ``said`` is as
    csrc/template/snapshot.h has it; empty: nothing is known, nor told."""
    return "; ".join(_each(*group) for group in _groups(said).items())


def cures(said: bytes) -> str:
    """The same, and what helps at a checkpoint."""
    return "; ".join(
        f"{_each(name, group)}: {_cure(group)}" for name, group in _groups(said).items()
    )


class _Group:
    """Those of one maker."""

    def __init__(self, path: str) -> None:
        self.object = path
        self.threads = 0
        self.names: list[str] = []


def _groups(said: bytes) -> dict[str, _Group]:
    found: dict[str, _Group] = {}
    for line in said.decode(errors="replace").split("\n")[:-1]:
        threads, name, path = map(_printable, line.split("\t"))
        group = found.setdefault(_package(path) or _library(path), _Group(path))
        group.threads += int(threads)
        if name:
            group.names.append(name)
    return found


def _printable(text: str) -> str:
    """A program names its threads as it likes."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _each(name: str, group: _Group) -> str:
    of = f" of {name}" if name else ""
    names = f" ({', '.join(group.names)})" if group.names else ""
    return f"{group.threads}{of}{names}"


def _cure(group: _Group) -> str:
    return _CURES.get(_library(group.object)) or _CURES.get(_package(group.object)) or _BELOW


def _library(path: str) -> str:
    """``/usr/lib/libgomp.so.1`` is ``libgomp``, and so is ``libgomp-a34b3233.so.1``."""
    name = os.path.basename(path).partition(".")[0].partition("-")[0]
    return _PYTHON if name.startswith(("python", "libpython")) else name


def _package(path: str) -> str:
    """``.../site-packages/numpy.libs/libx.so`` is of ``numpy``; empty: of none."""
    parts = path.split("/")
    for i, part in enumerate(parts[:-1]):
        if part in _PACKAGES:
            name = parts[i + 1].partition(".")[0].lstrip("_")
            return _NAMES.get(name, name)
    return ""
