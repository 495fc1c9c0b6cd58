"""Who names whom: `make lint` finds what it is to find, in csrc/ and in the package.

Each fault is planted in a copy, and told by the line that names both files.
"""

from __future__ import annotations

import ast
import graphlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import needs

ROOT = Path(__file__).parents[2]

# ---- csrc/ ---------------------------------------------------------------------------------------

BUILT = ROOT / "build" / "c"
NAME = next((name for name in ("gcc", "clang", "cc") if (BUILT / name).is_dir()), "here")
"""What `make lint` compiles."""

in_c = pytest.mark.skipif(needs.CC is None or shutil.which("make") is None, reason="no compiler")


@contextmanager
def planted(path: Path, code: str) -> Iterator[None]:
    before = path.read_text() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_text((before or "") + code)
    try:
        yield
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the C core, compiled."""
    copy = tmp_path_factory.mktemp("core")
    shutil.copytree(ROOT / "csrc", copy / "csrc")
    (copy / "tests" / "c").mkdir(parents=True)
    for path in ("setup.py", "tests/c/Makefile", "tests/c/rooms.py", "tests/c/sites.h"):
        shutil.copy2(ROOT / path, copy / path)
    if (BUILT / NAME).is_dir():  # what has not changed since is not compiled anew
        shutil.copytree(BUILT / NAME, copy / "build" / "c" / NAME)
    made = make(copy, "objects")
    assert made.returncode == 0, made.stderr
    return copy


def make(copy: Path, target: str) -> subprocess.CompletedProcess[str]:
    command = [
        "make",
        "-s",
        "-f",
        "tests/c/Makefile",
        target,
        f"CC={needs.CC}",
        f"PYTHON={sys.executable}",
    ]
    return subprocess.run([*command, f"NAME={NAME}"], cwd=copy, capture_output=True, text=True)


@in_c
def test_each_room_of_the_core_names_those_below(core: Path) -> None:
    made = make(core, "rooms")
    assert (made.returncode, made.stderr) == (0, "")


TALK = "spawn/talk.c uses fsp_wait of spawn/wait.c"
WAIT = "spawn/wait.c uses fsp_talk of spawn/talk.c"
USE = "\nint planted(void);\nint planted(void) {\n    return %s;\n}\n"


@in_c
@pytest.mark.parametrize(
    ("where", "code", "line"),
    [
        (
            "os/fault.c",
            '\n#include "spawn/internal.h"\n',
            "os/fault.c includes spawn/internal.h: spawn is not below os",
        ),
        (
            "spawn/plan.c",
            USE % "fsp_engine_forked(NULL)",
            "spawn/plan.c uses fsp_engine_forked of engine/",
        ),
        (
            "log/outlet.c",
            USE % "fsp_kill(NULL, 0, 0)",
            "log/outlet.c uses fsp_kill of spawn/wait.c: spawn is not below log",
        ),
        (
            "guest/plain.c",
            USE % "fsp_wait(NULL, 0, NULL)",
            "guest/plain.c uses fsp_wait of spawn/wait.c: spawn is not below guest",
        ),
        (
            "spawn/wait.c",
            USE % "fsp_talk(NULL, 0, NULL)",
            f"circle: {TALK}; {WAIT}",
        ),
        (
            "engine/heap.c",
            "\n#include <unistd.h>\n" + USE % "close(\n3)",
            "engine/heap.c:{end} calls close past the seam (os/sys.h)",
        ),
        (
            "engine/heap.c",
            "\n#if 0\n#include <Python.h>\n#endif\n",
            "engine/heap.c includes Python.h: the core knows no Python",
        ),
    ],
    ids=["include", "use", "aside", "guest", "circle", "call", "python"],
)
def test_a_fault_in_the_core_is_told(core: Path, where: str, code: str, line: str) -> None:
    path = core / "csrc" / where
    end = (path.read_text() + code).count("\n") - 2
    with planted(path, code):
        made = make(core, "rooms")
    assert made.returncode != 0
    told = made.stderr.splitlines()
    assert any(each.startswith(line.format(end=end)) for each in told), told


@in_c
def test_a_room_that_nobody_has_heard_of_is_told(core: Path) -> None:
    path = core / "csrc" / "attic" / "trunk.c"
    with planted(path, '#include "os/sys.h"\n'):
        made = make(core, "rooms")
    assert "attic/trunk.c includes os/sys.h: attic is no room" in made.stderr.splitlines()
    assert f"attic/trunk.c has no object in build/c/{NAME}" in made.stderr.splitlines()


@in_c
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("addr2line"), reason="no trace")
def test_a_start_enters_each_file_at_most_twice() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "c" / "way.py")],
        env={**os.environ, "CC": str(needs.CC)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    way = [line.split() for line in done.stdout.splitlines()]
    assert way[0] == ["1", "engine/engine.c", "fsp_engine_submit"]
    assert any(file.startswith("spawn/backend_") for _, file, *_ in way)


# ---- the package ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("package")
    shutil.copytree(
        ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def lint(copy: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as lint; lint()",
    ]
    return subprocess.run(
        [*command, "--no-logo", "--no-cache"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": "src", "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


def test_each_room_of_the_package_names_those_below(package: Path) -> None:
    done = lint(package)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("where", "code", "lines"),
    [
        (
            "serve/config/units.py",
            "import typing\nif typing.TYPE_CHECKING:\n    import fastspawn.serve.http.watch\n",
            ["fastspawn.serve.config.units -> fastspawn.serve.http.watch"],
        ),
        (
            "_result.py",
            "def f(): import fastspawn.serve.config.units\n",
            ["fastspawn._result -> fastspawn.serve.config.units"],
        ),
        (
            "serve/host/systemd.py",
            "import fastspawn.asgi.app\n",
            ["fastspawn.serve.host.systemd -> fastspawn.asgi"],
        ),
        (
            "serve/cgi/request.py",
            "from .environment import Settings\n",
            ["No cycles are allowed in fastspawn.serve.cgi.", "- .request -> .environment"],
        ),
        (
            "serve/ws/handshake.py",
            "import asyncio\n",
            ["fastspawn.serve.ws.handshake -> asyncio"],
        ),
        ("serve/attic.py", "", ["fastspawn.serve.attic"]),
    ],
    ids=["types", "library", "asgi", "circle", "pure", "room"],
)
def test_a_fault_in_the_package_is_told(
    package: Path, where: str, code: str, lines: list[str]
) -> None:
    with planted(package / "src" / "fastspawn" / where, f"\n{code}"):
        done = lint(package)
    assert done.returncode == 1
    for line in lines:
        assert line in done.stdout


def test_the_parts_of_the_binding_are_in_no_circle() -> None:
    """A .pyx, its .pxd and its .pyi are one; the first names all."""
    named: dict[str, set[str]] = {}
    for path in (ROOT / "src" / "fastspawn" / "_core").iterdir():
        if path.suffix in {".pyx", ".pxd", ".pyi"} and path.stem != "__init__":
            found = re.findall(
                r"^c?(?:from|import) +fastspawn\._core\.(\w+)", path.read_text(), re.M
            )
            named.setdefault(path.stem, set()).update(set(found) - {path.stem})
    assert len(named) > 5
    assert len(list(graphlib.TopologicalSorter(named).static_order())) == len(named)


def test_no_module_needs_the_package_that_it_is_in() -> None:
    """Out of it, that is, anything but other modules: their imports come before its own end."""
    source = ROOT / "src" / "fastspawn"
    for path in source.rglob("*.py"):
        inside = path.relative_to(source.parent).with_suffix("").parts
        if inside[1] in {"serve", "asgi", "_work", "_cli", "__main__"}:
            continue  # nothing that the package imports
        for node in ast.walk(ast.parse(path.read_text())):
            whole = tuple(str(getattr(node, "module", "")).split("."))
            if isinstance(node, ast.ImportFrom) and inside[: len(whole)] == whole:
                folder = source.parent.joinpath(*whole)
                modules = {each.name.partition(".")[0] for each in folder.iterdir()}
                names = {alias.name for alias in node.names}
                assert names <= modules, (path, names)
