"""The rows without HTTP and without Python: alone.c over the core, compiled for the purpose."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.harness import tools
from bench.harness.server import environment
from bench.row import COMMAND, EXPECTED

SOURCE = tools.BENCH / "alone.c"
CORE = tools.ROOT / "csrc"
FLAGS = ("-std=gnu11", "-fvisibility=hidden", "-pthread", f"-I{CORE}")
WAYS = {
    "c-exec-1": ("exec", "the engine from C, one job at a time: executed"),
    "c-template-1": ("fork", "the same, forks from before the first effect"),
    "c-template-reset-1": ("reset", "the same, one process that puts itself back"),
}
"""The CPU of children is that of those alive, too: the template, and the one that stays."""


def command(way: str) -> list[str]:
    """What to run for it, in the place of cases/worker.py. Raises Unavailable."""
    program = shutil.which(COMMAND[0], path=environment()["PATH"])
    if program is None:
        raise tools.Unavailable(f"no {COMMAND[0]} here")
    kind, _ = WAYS[way]
    return [str(_driver()), kind, str(_preload()), EXPECTED.decode(), program, *COMMAND]


def _listed(name: str) -> list[str]:
    """What setup.py says that a part of the core is made of."""
    found = re.search(rf'^{name} = "(.*)"$', (tools.ROOT / "setup.py").read_text(), re.MULTILINE)
    assert found, name
    return found[1].split()


def _rooms(name: str) -> list[Path]:
    return [path for room in _listed(name) for path in sorted((CORE / room).glob("*.c"))]


@tools.once
def _driver() -> Path:
    return _compiled("alone", FLAGS, [SOURCE, *_rooms("CORE")])


@tools.once
def _preload() -> Path:
    sources = [*_rooms("PRELOAD"), *(CORE / f"{name}.c" for name in _listed("PRELOAD_FILES"))]
    flags = ("-fPIC", "-shared", "-nostartfiles", "-Wl,-z,noseparate-code", "-Wl,-z,norelro")
    return _compiled("alone-preload.so", [*FLAGS, *flags], sources)


def _compiled(name: str, flags: Sequence[str], sources: Sequence[Path]) -> Path:
    """Both are made anew when anything of the core is newer: they speak one version."""
    return tools.compiled(name, flags, sources, CORE.glob("**/*.[ch]"))
