"""The shape of the package: layers, types, documentation."""

from __future__ import annotations

import ast
import inspect
import os
import pickle
import re
import site
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pytest

import fastspawn
from fastspawn import _core
from support import LINUX

ROOT = Path(__file__).parents[2]
CSRC = sorted((ROOT / "csrc").rglob("*.[ch]"))
PACKAGE = Path(fastspawn.__file__).parent
LIBRARY = sorted(path for path in PACKAGE.rglob("*.py") if "serve" not in path.parts[-3:-1])
"""The package but for the inside of the server, which is a program."""

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


SOURCES = [
    path
    for folder in ("csrc", "src", "tests")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".c", ".h", ".py", ".pyx", ".pxd"}
]


def test_every_trap_is_where_it_is_said_to_be() -> None:
    """The files that tests/TRAPS.md names are there, and have the functions that it names."""
    rows = re.findall(r"^\|.*\|(.*)\|.*\|$", (ROOT / "tests" / "TRAPS.md").read_text(), flags=re.M)
    named = 0
    for row in rows:
        text = ""
        for name in re.findall(r"`([^`]+)`", row):
            if re.fullmatch(r"[\w/*.]+\.(?:c|h|pyx?)", name):
                text = "".join(path.read_text() for path in SOURCES if path.match(name))
            assert name.split(".")[-1] in text or (text and "." in name), (name, row)
            named += 1
    assert named > 50


@pytest.mark.parametrize(
    "document", ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "README.md"]
)
def test_the_files_that_are_named_are_there(document: str) -> None:
    text = (ROOT / document).read_text()
    names = set(re.findall(r"`([\w/*]+\.(?:c|h|pyx?))`", text)) - NOT_OURS
    for name in names:
        found = [path for path in SOURCES if path.match(name)]
        assert found or (ROOT / name).exists(), name


NOT_OURS = {"script.py", "Python.h"}
"""Users' and CPython's."""


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


SYMBOLS = re.search(r"-g(?!0)", os.environ.get("CFLAGS", "")) or any(
    os.environ.get(f"FASTSPAWN_{switch}") for switch in ("DEBUG", "SANITIZE", "COVERAGE")
)


@pytest.mark.skipif(not LINUX, reason="the names of ELF's sections")
@pytest.mark.skipif(bool(SYMBOLS), reason="built with symbols")
def test_what_is_built_has_no_symbols_but_those_that_are_looked_up() -> None:
    built = [PACKAGE / "_worker", *PACKAGE.rglob(f"*{EXTENSION_SUFFIXES[0]}")]
    assert len(built) >= 3
    for path in built:
        data = path.read_bytes()
        assert b"\0.debug_info\0" not in data, path
        assert b"\0.symtab\0" not in data, path
        assert b"\0.dynsym\0" in data, path


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
        ("import fastspawn.__main__", set()),
        ("import fastspawn._cli.install", {"typing"}),  # runpy's, in some versions
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
try:
    {}
except ImportError as error:
    print(error, flush=True)
"""
# Not ended in good order: Python 3.12.1 aborts then, if asyncio was imported there.
OTHER_INTERPRETER = """\
import fastspawn, os, sys
fastspawn.run(["true"])
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
each = interpreters.create()
interpreters.run_string(each, sys.argv[1])
os._exit(0)
"""


@pytest.mark.parametrize(
    "what",
    [
        'import fastspawn; fastspawn.run(["true"])',
        "from fastspawn import Engine",
        "import fastspawn.aio",
        "import fastspawn.asgi",
        "import fastspawn.snapshot",
    ],
)
def test_another_interpreter_is_refused_in_one_line(what: str) -> None:
    within = IN_ANOTHER.format(what)
    argv = [sys.executable, "-W", "ignore", "-c", OTHER_INTERPRETER, within]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout == f"{fastspawn._OTHER_INTERPRETER}\n"


def test_version() -> None:
    assert fastspawn.__version__ == distribution("fastspawn").version
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", fastspawn.__version__)


PARTS = sorted(path.stem for path in (PACKAGE / "_core").glob("*.pyi") if path.stem[0] != "_")


def test_it_is_typed() -> None:
    assert files("fastspawn").joinpath("py.typed").is_file()
    assert files("fastspawn").joinpath("_core/__init__.pyi").is_file()
    assert len(PARTS) > 5


@pytest.mark.parametrize("part", PARTS)
def test_the_stub_names_what_the_module_has(part: str) -> None:
    module = getattr(_core, part)
    assert module is sys.modules[f"fastspawn._core.{part}"]
    assert module.__spec__.origin == _core.__file__
    tree = ast.parse(files("fastspawn").joinpath(f"_core/{part}.pyi").read_text())
    stubbed = {
        node.name: node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    }
    defined = {
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and name[:2] != "__"
    }
    assert defined
    assert {name for name in defined if name[0] != "_"} <= stubbed.keys() | {"INHERIT", "STREAM"}
    for name in defined:
        assert getattr(_core, name) is getattr(module, name)
    for name, node in stubbed.items():
        if isinstance(node, ast.ClassDef) and name not in ("_Inherit", "_Stream"):
            members = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            visible = {member for member in vars(getattr(module, name)) if member[0] != "_"}
            assert visible <= members, name


LATER = """\
import sys, threading
import fastspawn
fastspawn.run(["true"])
from fastspawn import _core
made = {name for name in sys.modules if name.startswith("fastspawn._core.")}
assert made == {f"fastspawn._core.{name}" for name in ("ways", "plan", "child", "talk")}, made
start = threading.Barrier(8)
found = []
def ask():
    start.wait()
    found.append((_core.EngineCore, _core.TemplateCore, _core.Outlet))
threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(found) == 8 and len(set(found)) == 1
import fastspawn._core.template
assert fastspawn._core.template.TemplateCore is found[0][1]
assert {"EngineCore", "Plan"} <= set(dir(_core))
try: _core.no_such_name
except AttributeError as error: print(error)
"""


def test_parts_that_are_made_later() -> None:
    """Once, whoever asks first."""
    done = subprocess.run([sys.executable, "-c", LATER], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == "module 'fastspawn._core' has no attribute 'no_such_name'\n"


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_private(name: str) -> bool:
    return any(re.match("_(?!_)", part) for part in name.split("."))


MODULES = [import_module(name_of(path)) for path in LIBRARY] + [_core]
PUBLIC = ["fastspawn", "fastspawn.aio", "fastspawn.asgi"]
PROGRAMS = ["fastspawn.__main__", "fastspawn.snapshot"]
"""Run with ``python -m``, and not imported from."""


def test_what_is_private_begins_with_an_underscore() -> None:
    """A module that has none is one that the documentation names."""
    assert sorted(m.__name__ for m in MODULES if not is_private(m.__name__)) == sorted(
        PUBLIC + PROGRAMS
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_nothing_else_does(name: str) -> None:
    """What a public module lists is all that it has: of its own, and documented."""
    module = import_module(name)
    assert not [each for each in module.__all__ if is_private(each) and each != "__version__"]
    here = {
        each
        for each, value in vars(module).items()
        if each[0] != "_" and getattr(value, "__module__", "").startswith("fastspawn")
    }
    assert here <= set(module.__all__)


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_no_file_takes_what_another_keeps_to_itself(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or "fastspawn" in (node.module or "")):
            taken = [alias.name for alias in node.names if is_private(alias.name)]
            assert node.module == "fastspawn" or not taken, f"line {node.lineno}: {taken}"


def imported_by(path: Path) -> set[str]:
    """Modules of the library, whether they are imported at once, later, or for types alone."""
    known = {name_of(each) for each in LIBRARY} | {"fastspawn._core"}
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            where = node.module or ""
            if node.level:
                where = f"{name_of(path.parent / '__init__.py')}.{where}".rstrip(".")
            found |= {f"{where}.{alias.name}" for alias in node.names}
            # From a package that is there already comes what is in it.
            if not {f"{where}.{alias.name}" for alias in node.names} <= known:
                found.add(where)
    return found & known


def test_no_file_imports_one_that_imports_it() -> None:
    order = list(TopologicalSorter({name_of(p): imported_by(p) for p in LIBRARY}).static_order())
    assert order.index("fastspawn._limits") < order.index("fastspawn._resettable.pool")


def test_what_is_pickled_or_printed_is_named_as_users_know_it() -> None:
    for name in ("Limits", "Popen", "Result", "TemplateError", "WorkerError"):
        assert getattr(fastspawn, name).__module__ == "fastspawn"
    for value in (
        fastspawn.Limits(timeout=1),
        fastspawn.Result(["true"], 0),
        fastspawn.TemplateError("it is a script"),
    ):
        data = pickle.dumps(value)
        assert b"fastspawn._" not in data
        assert vars(pickle.loads(data)) == vars(value)
    assert get_type_hints(fastspawn.Limits)["timeout"] == float | None
    assert get_type_hints(fastspawn.Result)["wall"] is float


def documented() -> dict[str, object]:
    """Every public function and class, and their public methods; those of the binding, too."""
    found: dict[str, object] = {}
    for name in PUBLIC:
        module = import_module(name)
        found |= {f"{name}.{each}": getattr(module, each) for each in module.__all__}
    found |= {f"fastspawn._core.{name}": getattr(_core, name) for name in dir(_core)}
    for name, value in list(found.items()):
        ours = str(getattr(value, "__module__", "")).startswith("fastspawn")
        if not ours or name.rpartition(".")[2][0] == "_":
            del found[name]
        elif inspect.isclass(value):
            for member, attribute in vars(value).items():
                if not member.startswith("_") and (
                    inspect.isroutine(attribute) or isinstance(attribute, property)
                ):
                    found[f"{name}.{member}"] = attribute
        elif not inspect.isroutine(value):
            del found[name]
    assert len(found) > 100
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
