"""The shape of the package: layers, types, documentation."""

from __future__ import annotations

import ast
import inspect
import os
import re
import site
import subprocess
import sys
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest

import fastspawn
from fastspawn import _core, command, engine, pool, process, result, warm

ROOT = Path(__file__).parents[2]
CSRC = sorted((ROOT / "csrc").glob("*.[ch]"))
MODULES = [fastspawn, _core, command, engine, pool, process, result, warm]

# ---- the C core ----------------------------------------------------------------------------------


def test_the_core_knows_no_python() -> None:
    assert CSRC
    for path in CSRC:
        text = path.read_text()
        assert not re.search(r"\bPython\.h\b|\bPy[A-Z_]\w*\s*\(|\bPyObject\b", text), path


def test_each_c_file_says_what_it_is_for() -> None:
    for path in CSRC:
        assert re.match(rf"/\*\n \* {re.escape(path.name)} - \S", path.read_text()), path


def test_every_trap_has_its_test() -> None:
    """The tests that tests/TRAPS.md names are there."""
    rows = re.findall(r"^\|.*\|.*\|(.*)\|$", (ROOT / "tests" / "TRAPS.md").read_text(), flags=re.M)
    named = 0
    for row in rows:
        program = ""
        for where, name in re.findall(r"`(?:([\w./]+)::? ?)?(\w+)`", row):
            program = where or program
            if program.endswith(".py"):
                path = program if "/" in program else f"unit/{program}"
                head = f"def {name}("
            else:
                path, head = f"c/test_{program}.c", f"RUN({name});"
            assert head in (ROOT / "tests" / path).read_text(), (path, name)
            named += 1
    assert named > 50


def test_public_c_names_have_the_prefix() -> None:
    header = (ROOT / "csrc" / "fastspawn.h").read_text()
    code = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    functions = re.findall(r"^[a-z][\w \*]*?(\w+)\(", code, flags=re.M)
    assert len(functions) > 20
    assert all(name.startswith("fsp_") for name in functions), functions
    macros = re.findall(r"^#define (\w+)", code, flags=re.M)
    assert all(name.startswith("FSP_") for name in macros if name != "FASTSPAWN_H"), macros


def test_the_binding_transcribes_the_header() -> None:
    """No function that the header does not declare."""
    header = (ROOT / "csrc" / "fastspawn.h").read_text()
    binding = (ROOT / "src" / "fastspawn" / "_cfastspawn.pxd").read_text()
    declared = set(re.findall(r"\b(fsp_\w+)\(", header))
    used = set(re.findall(r"\b(fsp_\w+)\(", binding))
    assert used
    assert used <= declared


# ---- the package ---------------------------------------------------------------------------------


def test_all() -> None:
    assert len(set(fastspawn.__all__)) == len(fastspawn.__all__)
    namespace: dict[str, object] = {}
    exec("from fastspawn import *", namespace)
    assert set(fastspawn.__all__) <= set(namespace)
    public = {
        name
        for name, value in vars(fastspawn).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("fastspawn")
    }
    public |= {*subprocess.__all__, "list2cmdline"}  # its classes and numbers, too
    public |= {"aio"}  # a module
    assert public == set(fastspawn.__all__) - {"__version__"}


HEAVY = {"asyncio", "uvloop", "typing", "inspect", "dataclasses", "importlib.metadata"}
"""Modules that take milliseconds to import and that subprocess does without."""


@pytest.mark.parametrize(
    ("code", "also"),
    [
        ("import fastspawn as subprocess", set()),
        ("import fastspawn as subprocess; subprocess.run(['true'], check=True)", set()),
        ("import fastspawn as subprocess; subprocess.Popen(['true']).wait()", set()),
        ("import fastspawn as subprocess; subprocess.getoutput('true')", set()),
        ("import fastspawn; fastspawn.install()", set()),
        ("import fastspawn.__main__", {"typing"}),  # runpy's, in some versions
        ("import fastspawn.serve.__main__", HEAVY - {"uvloop", "importlib.metadata"}),
    ],
)
def test_what_is_not_needed_is_not_imported(code: str, also: set[str]) -> None:
    # Without site: a venv's own files may import anything.
    path = os.pathsep.join([str(Path(fastspawn.__file__).parents[1]), *site.getsitepackages()])
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
    )
    assert HEAVY & set(done.stdout.split()) <= also


def test_names_that_are_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = fastspawn.no_such_name  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="no_such_name"):
        exec("from fastspawn import no_such_name")
    assert set(fastspawn.__all__) <= set(dir(fastspawn))


IN_ANOTHER = """\
import fastspawn
try:
    fastspawn.run(["true"])
except ImportError as error:
    print(error, flush=True)
"""
OTHER_INTERPRETER = """\
import fastspawn, sys
fastspawn.run(["true"])
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
each = interpreters.create()
interpreters.run_string(each, sys.argv[1])
interpreters.destroy(each)
"""


def test_another_interpreter_is_refused_in_one_line() -> None:
    argv = [sys.executable, "-W", "ignore", "-c", OTHER_INTERPRETER, IN_ANOTHER]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout == f"{fastspawn._OTHER_INTERPRETER}\n"


def test_version() -> None:
    assert fastspawn.__version__ == distribution("fastspawn").version
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", fastspawn.__version__)


def test_it_is_typed() -> None:
    assert files("fastspawn").joinpath("py.typed").is_file()
    assert files("fastspawn").joinpath("_core.pyi").is_file()


def test_the_stub_names_what_the_module_has() -> None:
    tree = ast.parse(files("fastspawn").joinpath("_core.pyi").read_text())
    stubbed = {
        node.name: node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    }
    public = {
        name
        for name, value in vars(_core).items()
        if getattr(value, "__module__", None) == "fastspawn._core" and not name.startswith("_")
    }
    assert public
    assert public <= stubbed.keys() | {"STREAM"}
    for name, node in stubbed.items():
        if isinstance(node, ast.ClassDef) and name != "_Stream":
            members = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            visible = {member for member in vars(getattr(_core, name)) if member[0] != "_"}
            assert visible <= members, name


def documented() -> dict[str, object]:
    """Every public function and class of the package, and their public methods."""
    found: dict[str, object] = {}
    for module in MODULES:
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            if not (inspect.isclass(value) or inspect.isroutine(value)):
                continue
            found[f"{module.__name__}.{name}"] = value
            if inspect.isclass(value):
                for member, attribute in vars(value).items():
                    if member.startswith("_") or not (
                        inspect.isroutine(attribute) or isinstance(attribute, property)
                    ):
                        continue
                    found[f"{module.__name__}.{name}.{member}"] = attribute
    return found


DOCUMENTED = documented()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_it_is_documented(name: str) -> None:
    assert (inspect.getdoc(DOCUMENTED[name]) or "").strip()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_modules_are_documented(module: ModuleType) -> None:
    assert (module.__doc__ or "").strip()


def test_the_stream_marker() -> None:
    assert repr(fastspawn.STREAM) == "fastspawn.STREAM"
