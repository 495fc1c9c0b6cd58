"""at="imports": Python scripts that know nothing of it are frozen where their imports have run."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import needs
from conftest import Run
from fastspawn import Command, Template, TemplateError
from fastspawn._imports import launched
from fastspawn._launch.point import point
from support import async_poll, at_checkpoint

# ---- the point, by the source alone ----

ABOVE = {
    "documentation": '"""Of the module."""',
    "from": "from os import path",
    "future": "from __future__ import annotations",
    "constant": "A = B = -1",
    "displays": "A = [1, (2, {'a': {3}}), None]",
    "annotated": "A: int = 1",
    "declared": "A: int",
    "variable": "os.environ['OMP_NUM_THREADS'] = '1'",
    "def": "@cache\ndef f(a=1): return print(a)",
    "async def": "async def f(): pass",
    "class": "class A(Base):\n    x = f()",
    "type checking": "if TYPE_CHECKING:\n    import a",
    "typing": "if typing.TYPE_CHECKING:\n    import a",
    "version": "if sys.version_info >= (3, 11):\n    import a\nelse:\n    a = 1",
    "platform": "if sys.platform == 'linux' and not os.name != 'posix':\n    import a",
    "attempt": "try:\n    import a\nexcept ImportError:\n    a = None\nelse:\n    import b",
    "pass": "pass",
}
BELOW = {
    "main": "if __name__ == '__main__':\n    import a",
    "call": "main()",
    "computed": "A = f()",
    "sum": "A = B",
    "added": "A += 1",
    "of a variable": "if os.environ:\n    import a",
    "loop": "for a in (): pass",
    "with": "with a: import b",
    "in a try": "try:\n    import a\nexcept ImportError:\n    sys.exit(1)",
    "in an if": "if TYPE_CHECKING:\n    f()",
    "del": "del a",
    "unpacked": "A = {**b}",
    "place": "f().a = 1",
    "formatted": "A = f'{b}'",
}


def point_of(text: str) -> int:
    return point(ast.parse(text).body)


@pytest.mark.parametrize("kind", ABOVE)
def test_what_is_above(kind: str) -> None:
    """Whatever follows it is below, and it is not."""
    assert point_of(f"{ABOVE[kind]}\nimport sys\nmain()\n") == 2


@pytest.mark.parametrize("kind", BELOW)
def test_what_is_below(kind: str) -> None:
    assert point_of(f"import os\nX = 1\n{BELOW[kind]}\nimport sys\n") == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("print(1)\nimport os", "nothing is imported above line 1, where it begins to run"),
        ("'''A.'''\nfrom __future__ import annotations\nA = 1\nprint(A)", "above line 4, where"),
        ("", "nothing is imported above its end"),
        ("import os\ndef f(): pass", "it has nothing but imports and definitions"),
    ],
)
def test_no_point(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        point_of(text)


# ---- the command line ----


@pytest.mark.parametrize(
    ("line", "options", "rest"),
    [
        ("python3 a.py", "", "a.py"),
        ("/usr/bin/python3.11 -OO -W error -Xutf8 -X dev a.py -c b", "-OO -W error -Xutf8 -X dev",
         "a.py -c b"),
        ("python -BW ignore a.py", "-BW ignore", "a.py"),
        ("python --check-hash-based-pycs never a.py", "--check-hash-based-pycs never", "a.py"),
        ("python -m a -m b", "", "-m a -m b"),
        ("python -ma b", "", "-m a b"),
        ("python -Ima b", "-I", "-m a b"),
        ("python -u -- a.py", "-u", "a.py"),
    ],
)  # fmt: skip
def test_the_launcher_goes_where_the_script_was(line: str, options: str, rest: str) -> None:
    words = list(launched(line.split()))
    launcher = next(i for i, word in enumerate(words) if word.endswith("/_launch/__main__.py"))
    assert words[:launcher] == [line.partition(" ")[0], *options.split()]
    assert words[launcher + 1 :] == rest.split()
    assert launched(words) == tuple(words)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("sort -u", "sort is not Python"),
        ("./a.py", "./a.py is not Python: name it, as in: python3 SCRIPT"),
        ("pythonista a.py", "pythonista is not Python"),
        ("python", "Python is given no script"),
        ("python -u", "Python is given no script"),
        ("python -m", "Python is given no script"),
        ("python -W", "Python is given no script"),
        ("python -", "it has no script"),
        ("python -Bc pass", "-c is no script"),
        ("python -V a.py", "-V runs no script"),
        ("python --version", "--version runs no script"),
    ],
)
def test_what_runs_no_script(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        launched(line.split())


# ---- it is as without the launcher ----

TELL = '''"""Documentation."""
from __future__ import annotations

import json
import sys

A: int = 1


def fail():
    raise KeyError("here")


def told(value):
    return str(value).partition(" at 0x")[0]


if __name__ == "__main__":
    names = {name: told(value) for name, value in globals().items() if name != "names"}
    print(json.dumps(names, sort_keys=True), sys.argv, sys.orig_argv, sys.path, sys.flags)
    print(told(sys._getframe().f_code), fail.__code__.co_firstlineno, told.__module__)
    sys.stdout.flush()
    exec("+".join(sys.argv[1:]))
'''


def both(argv: list[str], cwd: Path) -> list[subprocess.CompletedProcess[str]]:
    return [
        subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
        for words in (argv, launched(argv))
    ]


HOW = {
    "script": ["tell.py"],
    "elsewhere": ["inner/linked.py"],
    "module": ["-m", "inner.tell"],
    "package": ["-m", "inner"],
    "isolated": ["-I", "tell.py"],
    "optimized": ["-OO", "-W", "error", "tell.py"],
}


@pytest.mark.parametrize("how", HOW)
def test_all_that_a_script_sees_of_itself(how: str, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    for name in ("tell.py", "inner/tell.py", "inner/__main__.py"):
        (tmp_path / name).write_text(TELL)
    (inner / "linked.py").symlink_to("../tell.py")
    plain, ours = both([sys.executable, *HOW[how], "1", "2"], tmp_path)
    assert (plain.returncode, plain.stderr) == (0, "")
    assert (ours.returncode, ours.stderr, ours.stdout) == (0, "", plain.stdout)


@pytest.mark.parametrize(
    "end",
    [
        *("sys.exit(7)", "sys.exit('no')", "exit(3)", "1/0", "sys.exit()", "fail()"),
        "try:\n        1 / 0\n    except ZeroDivisionError:\n        fail()",
        "sys.excepthook = lambda *args: sys.__excepthook__(*args); fail()",
    ],
)
def test_how_it_ends(end: str, tmp_path: Path) -> None:
    """Tracebacks have the script's lines, and no others."""
    (tmp_path / "tell.py").write_text(TELL.replace("exec(", f"{end}\n    exec("))
    plain, ours = both([sys.executable, "tell.py"], tmp_path)
    assert (ours.returncode, ours.stderr) == (plain.returncode, plain.stderr)
    assert ours.stdout == plain.stdout


@pytest.mark.parametrize(
    "text", ["import os\nprint(1\n", "import os\nreturn\n", "x = 'later'\n1 = 2\n", None]
)
def test_what_python_refuses(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    if text is not None:
        path.write_text(text)
    plain, ours = both([sys.executable, "a.py"], tmp_path)
    assert (ours.returncode, ours.stderr) == (plain.returncode, plain.stderr)
    assert ours.stdout == plain.stdout


# ---- frozen there ----

COUNT = "import os, sys\nfrom state import counts\nKIND = 'a'\ndef run(): counts[1] += 1\n"
COUNT += "if __name__ == '__main__':\n    run()\n"
COUNT += "    print(os.getpid() != counts[0], counts[1], sys.argv[1:], sys.stdin.read())\n"
STATE = "import os\ncounts = [os.getpid(), 0]\n"


@needs.templates
@pytest.mark.parametrize("how", ["script", "module"])
@pytest.mark.parametrize("reset", [False, True])
def test_forks_begin_where_the_imports_have_run(
    run: Run, tmp_path: Path, how: str, reset: bool
) -> None:
    (tmp_path / "state.py").write_text(STATE)
    (tmp_path / "count.py").write_text(COUNT)
    script = ["count.py"] if how == "script" else ["-m", "count"]
    command = Command([sys.executable, *script, "a"], cwd=tmp_path)

    async def main() -> None:
        async with Template(command, size=1, at="imports", reset=reset) as template:
            first = await at_checkpoint(template, lambda: template.run(input=b"0"))
            assert first.stdout.endswith(b" 1 ['a'] 0\n")
            for i in range(1, 4):
                result = await template.run([*script, "b", str(i)], input=b"%d" % i)
                # Not imported by this process: its counts are those of another.
                assert result.stdout == b"True 1 ['b', '%d'] %d\n" % (i, i)
                assert result.returncode == 0
            assert template.place == "checkpoint"
            assert template.stats["direct"] == 0

    run(main())


@needs.templates
def test_a_script_that_changes_is_read_anew(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("import os\nprint('before')\n")

    async def main() -> None:
        async with Template([sys.executable, path], size=1, at="imports") as template:
            assert (await at_checkpoint(template, template.run)).stdout == b"before\n"
            path.write_text("import os\nprint('later', flush=True)\n")

            async def says_later() -> bool:
                return (await template.run()).stdout == b"later\n"

            await async_poll(says_later, "what it says now")

    run(main())


REFUSED = {
    "import os\nprint(1\n": r"line 2: '\(' was never closed|line \d: ",
    "print(1)\n": "a.py: nothing is imported above line 1, where it begins to run",
    "import os\n": "a.py: it has nothing but imports and definitions: nothing is left to run",
    "import os\x00\n": "null bytes",
}


@needs.templates
@pytest.mark.parametrize("text", REFUSED)
def test_a_script_without_such_a_place_is_refused(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.py").write_text(text)

    async def main(command: Command) -> None:
        async with Template(command, size=1, at="imports"):
            pass

    with pytest.raises(TemplateError, match=REFUSED[text]):
        run(main(Command([sys.executable, "a.py"], cwd=tmp_path)))
    with pytest.raises(TemplateError, match=r"can't open file '.*/b\.py'"):
        run(main(Command([sys.executable, "b.py"], cwd=tmp_path)))
    with pytest.raises(TemplateError, match="/ is a directory, not a script"):
        run(main(Command([sys.executable, "/"], cwd=tmp_path)))
    with pytest.raises(TemplateError, match="No module named nowhere"):
        run(main(Command([sys.executable, "-m", "nowhere"], cwd=tmp_path)))
    with pytest.raises(ValueError, match="cat is not Python"):
        Template(["cat"], at="imports")


@needs.templates
def test_a_library_for_other_pythons(run: Run, tmp_path: Path) -> None:
    """A Python that is not the one that this was built for: without its compiled module."""
    package = Path(__import__("fastspawn").__file__).parent
    copy = tmp_path / "fastspawn"
    copy.mkdir()
    for name in ("__init__.py", "_launch", "_checkpoint"):
        (copy / name).symlink_to(package / name)
    (copy / "_core").mkdir()
    (tmp_path / "a.py").write_text("import os\nprint(1)\n")
    launcher = os.path.join(copy, "_launch/__main__.py")
    argv = [sys.executable, "-I", launcher, "--look", "a.py"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert done.stdout == f"its Python, {version}, cannot load this fastspawn: {OTHERS}\n"
    del argv[3]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


OTHERS = "it is built for others"
