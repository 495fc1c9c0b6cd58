"""install() and python -m fastspawn --install."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvloop
from blockbuster import blockbuster_ctx

import fastspawn
from conftest import Run
from fastspawn import _core
from fastspawn.aio._transport import SubprocessTransport
from support import LINUX, sh

STDLIB_POPEN = subprocess.Popen


@pytest.fixture
def installed() -> Iterator[None]:
    fastspawn.install()
    yield
    fastspawn.uninstall()


def names() -> dict[str, Any]:
    """Everything that install() touches."""
    return {
        "Popen": subprocess.Popen,
        "asyncio": vars(asyncio.SelectorEventLoop)["_make_subprocess_transport"],
        "exec": uvloop.Loop.subprocess_exec,
        "shell": uvloop.Loop.subprocess_shell,
        "vars": set(vars(uvloop.Loop)),
    }


def test_reversible() -> None:
    before = names()
    fastspawn.install()
    once = names()
    fastspawn.install()
    assert names() == once
    assert fastspawn.installed()
    assert all(once[name] != before[name] for name in before)
    fastspawn.uninstall()
    assert names() == before
    fastspawn.uninstall()
    assert not fastspawn.installed()


LATE = """\
import sys, fastspawn
fastspawn.install()
assert not {"asyncio", "uvloop"} & set(sys.modules)
import %s as module
from fastspawn.aio._transport import SubprocessTransport

async def main(loop):
    transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "true")
    transport.close()
    return type(transport) is SubprocessTransport

def run(loop):
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()

import asyncio, pkgutil
print(run(module.new_event_loop()), module.__spec__.loader is module.__loader__)
print(pkgutil.get_data(module.__name__, "__init__.py") == open(module.__file__, "rb").read())
ours = [each for each in sys.meta_path if type(each).__module__ == "fastspawn._install"]
print([type(each).__name__ for each in ours])
fastspawn.uninstall()
print(vars(module.new_event_loop().__class__).keys() & {"subprocess_exec", "subprocess_shell"})
print(any(each in sys.meta_path for each in ours))
"""


@pytest.mark.parametrize("module", ["asyncio", "uvloop"])
def test_modules_that_come_later(programs: Path, module: str) -> None:
    """install() imports neither, and serves each as soon as it is there; nothing of it stays."""
    status, out, err = python("-W", "ignore", "-c", LATE % module, cwd=programs)
    assert (status, err) == (0, "")
    assert out == "True True\nTrue\n['_Finder']\nset()\nFalse\n"


def test_a_module_that_is_never_there(programs: Path) -> None:
    """An import that fails does so as it would have."""
    code = (
        "import importlib.util, sys, fastspawn; fastspawn.install(); sys.path[:] = []\n"
        "print(importlib.util.find_spec('uvloop'))\n"
        "import uvloop\n"
    )
    status, out, err = python("-c", code, cwd=programs)
    assert (status, out) == (1, "None\n")
    assert err.endswith("ModuleNotFoundError: No module named 'uvloop'\n")


def test_repr(installed: None) -> None:
    assert repr(subprocess.Popen) == "<class 'fastspawn.Popen'>"
    for name, value in names().items():
        assert "fastspawn" in repr(value) or name == "vars"


def test_subprocess(installed: None) -> None:
    assert subprocess.check_output(["echo", "hi"]) == b"hi\n"
    with subprocess.Popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        assert type(process) is fastspawn.Popen
        assert isinstance(process, STDLIB_POPEN)
        assert process.communicate(b"x") == (b"x", None)
    assert pickle.loads(pickle.dumps(subprocess.Popen)) is fastspawn.Popen

    class Sub(subprocess.Popen):  # type: ignore[type-arg]
        pass

    with Sub(["true"]) as process:
        assert process.wait() == 0
    assert issubclass(Sub, fastspawn.Popen)


async def test_asyncio(installed: None) -> None:
    process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, umask=0o22)
    assert type(process._transport) is SubprocessTransport  # type: ignore[attr-defined]
    assert await process.communicate(b"x") == (b"x", None)
    process = await asyncio.create_subprocess_shell("exit 3")
    assert type(process._transport) is SubprocessTransport  # type: ignore[attr-defined]
    assert await process.wait() == 3
    loop = asyncio.get_running_loop()
    transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "true", stdin=None)
    assert type(transport) is SubprocessTransport
    await transport._wait()
    transport.close()


def test_loops_that_run_already(run: Run) -> None:
    async def kind() -> type:
        process = await asyncio.create_subprocess_exec("true")
        await process.wait()
        return type(process._transport)  # type: ignore[attr-defined]

    assert run(kind()) is not SubprocessTransport
    fastspawn.install()
    try:
        assert run(kind()) is SubprocessTransport
    finally:
        fastspawn.uninstall()
    assert run(kind()) is not SubprocessTransport


def test_other_thread(installed: None) -> None:
    """No rule about the main thread."""
    found = []

    def body() -> None:
        async def call() -> bytes:
            process = await asyncio.create_subprocess_exec("echo", "hi", stdout=PIPE)
            return (await process.communicate())[0]

        found.append(asyncio.run(call()))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found == [b"hi\n"]


@pytest.mark.parametrize("use_uvloop", [False, True])
def test_anyio(installed: None, use_uvloop: bool) -> None:
    async def main() -> None:
        done = await anyio.run_process(["cat"], input=b"x")
        assert done.stdout == b"x"
        with pytest.raises(subprocess.CalledProcessError):
            await anyio.run_process(sh("exit 3"))
        async with await anyio.open_process(["cat"], stderr=None) as process:
            inner: Any = process
            assert type(inner._process._transport) is SubprocessTransport
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.send(b"hello")
            assert await process.stdout.receive() == b"hello"
            await process.stdin.aclose()
            assert await process.wait() == 0
        with anyio.move_on_after(0.05) as scope:
            await anyio.run_process(["sleep", "60"])
        assert scope.cancelled_caught

    anyio.run(main, backend_options={"use_uvloop": use_uvloop})


# What Popen has a slower way for, or had.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"user": os.getuid()},
    {"group": os.getgid()},
    {"user": os.getuid(), "group": os.getgid(), "umask": 0o22},
    {"extra_groups": os.getgroups()},
    {"umask": 0o22},
    {"pass_fds": (1,)},
    {"start_new_session": True},
]


@pytest.fixture
def blocking_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Those made on a thread whose event loop runs; blockbuster allows them to asyncio."""
    found = []
    read = os.read

    def watched(fd: int, size: int) -> bytes:
        if asyncio._get_running_loop() is not None and os.get_blocking(fd):
            found.append(fd)
        return read(fd, size)

    monkeypatch.setattr(os, "read", watched)
    return found


@pytest.mark.skipif(
    not LINUX or not _core.tells_stages(), reason="the standard library finds out what failed"
)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "none")
@pytest.mark.parametrize("use_uvloop", [False, True])
def test_nothing_blocks_the_loop(
    installed: None, blocking_reads: list[int], use_uvloop: bool, options: dict[str, Any]
) -> None:
    """Neither anyio's run_process nor open_process, which wants to know it of its own tests."""

    async def main() -> None:
        done = await anyio.run_process(["cat"], input=b"x", **options)
        assert done.stdout == b"x"
        async with await anyio.open_process(["cat"], **options) as process:
            assert process.stdin is not None
            await process.stdin.aclose()
            assert await process.wait() == 0
        with pytest.raises(FileNotFoundError):
            await anyio.run_process(["no-such-program"], **options)

    if "extra_groups" in options and os.getuid() != 0:
        pytest.skip("only root may have other groups")
    with blockbuster_ctx():
        anyio.run(main, backend_options={"use_uvloop": use_uvloop})
    assert blocking_reads == []


# ---- python -m fastspawn ----------------------------------------------------------------------


def python(*args: str, cwd: Path, **options: Any) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, *args], cwd=cwd, capture_output=True, text=True, timeout=60, **options
    )
    return done.returncode, done.stdout, done.stderr


PROGRAM = """\
import os, subprocess, sys
print(sys.argv, sys.path[0], __name__, globals().get("__file__"))
print(sys.modules["__main__"].__dict__ is globals())
print(subprocess.check_output(["echo", "hi"]))
"""
FAILING = "def f():\n    1 / 0\nf()\n"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "good.py").write_text(PROGRAM)
    (tmp_path / "sub" / "bad.py").write_text(FAILING)
    (tmp_path / "sub" / "exit.py").write_text("import sys; sys.exit(7)")
    (tmp_path / "sub" / "says.py").write_text("raise SystemExit('why')")
    (tmp_path / "sub" / "syntax.py").write_text("1 +\n")
    (tmp_path / "sub" / "hook.py").write_text(
        "import sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__)\n1 / 0\n"
    )
    (tmp_path / "sub" / "interrupt.py").write_text("raise KeyboardInterrupt")
    (tmp_path / "sub" / "late.py").write_text(
        "import atexit\nx = 3\natexit.register(lambda: print(x))\n"
    )
    (tmp_path / "sub" / "__main__.py").write_text(PROGRAM)
    (tmp_path / "module.py").write_text(PROGRAM)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "__main__.py").write_text(PROGRAM)
    return tmp_path


@pytest.mark.parametrize(
    "args",
    [
        ["sub/good.py", "a", "--install", "-m"],
        ["sub/bad.py"],
        ["sub/exit.py"],
        ["sub/says.py"],
        ["sub/syntax.py"],
        ["sub/hook.py"],
        ["sub/interrupt.py"],
        ["sub/late.py"],
        ["sub", "a"],
        ["-m", "module", "a", "-b"],
        ["-m", "package"],
        ["-c", PROGRAM, "a"],
        ["-c", FAILING],
        ["-", "a"],
    ],
    ids=lambda args: "-".join(args)[:20],
)
def test_program_runs_as_under_python(programs: Path, args: list[str]) -> None:
    input = PROGRAM if args[0] == "-" else ""
    expected = python(*args, cwd=programs, input=input)
    assert python("-m", "fastspawn", "--install", *args, cwd=programs, input=input) == expected


def test_program_is_installed(programs: Path) -> None:
    code = "import subprocess; print(subprocess.Popen)"
    status, out, _ = python("-m", "fastspawn", "--install", "-c", code, cwd=programs)
    assert (status, out) == (0, "<class 'fastspawn.Popen'>\n")


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ([], "a command is expected"),
        (["--instal", "x.py"], "unknown option: --instal: did you mean --install?"),
        (["x.py"], "unknown command: x.py"),
        (["--install"], "a program is expected after --install"),
        (["--install", "-x"], "unknown option: -x"),
        (["--install", "-m"], "argument expected for the -m option"),
        (["--install", "-c"], "argument expected for the -c option"),
        (["--install", "no-such.py"], "can't open file"),
        (["--install", "-m", "no_such_module"], "No module named no_such_module"),
    ],
)
def test_wrong_arguments(programs: Path, args: list[str], why: str) -> None:
    status, out, err = python("-m", "fastspawn", *args, cwd=programs)
    assert (status, out) == (1 if "No module" in why else 2, "")
    assert why in err
    assert "Traceback" not in err


def test_help_and_version(programs: Path) -> None:
    status, out, err = python("-m", "fastspawn", "--help", cwd=programs)
    assert (status, err) == (0, "")
    assert out.startswith("usage: fastspawn COMMAND")
    status, out, err = python("-m", "fastspawn", "--version", cwd=programs)
    assert (status, out, err) == (0, f"fastspawn {fastspawn.__version__}\n", "")
    status, out, err = python("-m", "fastspawn", "--include", cwd=programs)
    assert (status, out, err) == (0, f"{fastspawn.get_include()}\n", "")
    assert (Path(fastspawn.get_include()) / "fastspawn" / "checkpoint.h").is_file()


def test_child_pythons_are_their_own(installed: None, programs: Path) -> None:
    """install() is for this program, not for those that it starts."""
    code = "import sys; print('fastspawn' in sys.modules)"
    assert python("-c", code, cwd=programs, env=os.environ) == (0, "False\n", "")


WITH_TRIO = """\
import fastspawn, trio

async def main():
    done = await trio.run_process(["cat"], stdin=b"x", capture_stdout=True)
    process = await trio.lowlevel.open_process(["true"])
    print(done.stdout, type(process._proc) is fastspawn.Popen, await process.wait())

trio.run(main)
"""


def test_trio(programs: Path) -> None:
    """trio makes a subprocess.Popen in a thread, so it is ours."""
    found = python("-m", "fastspawn", "--install", "-c", WITH_TRIO, cwd=programs)
    assert found == (0, "b'x' True 0\n", "")
