"""Command and Limits: what is checked when, and that nothing can change afterwards."""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import resource
import subprocess
import sys
import sysconfig
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastspawn import DEVNULL, PIPE, STDOUT, Command, Engine, Limits, aio
from fastspawn._core import Plan
from support import age, async_failure, failure, same_error, script, sh

# ---- validation as the standard library's ------------------------------------------------------

REFUSED: dict[str, dict[str, Any]] = {
    "null in the program": {"args": ["ec\0ho"]},
    "null in an argument": {"args": ["echo", "a\0b"]},
    "null in a bytes argument": {"args": ["echo", b"a\0b"]},
    "null in executable": {"args": ["echo"], "executable": "/bin/ec\0ho"},
    "null in cwd": {"args": ["echo"], "cwd": "/t\0mp"},
    "null in a bytes cwd": {"args": ["echo"], "cwd": b"/t\0mp"},
    "null in a variable": {"args": ["echo"], "env": {"A\0B": "x"}},
    "null in a value": {"args": ["echo"], "env": {"A": "x\0y"}},
    "= in a variable": {"args": ["echo"], "env": {"A=B": "x"}},
    "= in a bytes variable": {"args": ["echo"], "env": {b"A=B": b"x"}},
    "int for argv": {"args": 5},
    "None for argv": {"args": None},
    "int as the program": {"args": [5]},
    "int as an argument": {"args": ["echo", 5]},
    "None as an argument": {"args": ["echo", None]},
    "float as executable": {"args": ["echo"], "executable": 1.5},
    "float as cwd": {"args": ["echo"], "cwd": 1.5},
    "list as cwd": {"args": ["echo"], "cwd": ["/"]},
    "list as env": {"args": ["echo"], "env": ["A=B"]},
    "int as a variable": {"args": ["echo"], "env": {1: "x"}},
    "int as a value": {"args": ["echo"], "env": {"A": 1}},
    "None as a value": {"args": ["echo"], "env": {"A": None}},
    "str as umask": {"args": ["echo"], "umask": "022"},
    "lone surrogate": {"args": ["echo", "\ud800"]},
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_as_by_subprocess(case: str) -> None:
    options = dict(REFUSED[case])
    expected = failure(lambda: subprocess.run(**options))
    refused = failure(lambda: Command(options.pop("args"), **options))
    assert type(refused) is type(expected), (refused, expected)


@pytest.mark.parametrize("argv", [[], ()])
def test_empty_argv_is_refused_as_by_exec(argv: Any) -> None:
    expected = failure(lambda: os.posix_spawn("/bin/sh", argv, {}))
    refused = failure(lambda: Command(argv))
    assert (type(refused), str(refused)) == (type(expected), "argv must not be empty")


@pytest.mark.parametrize("argv", ["echo hi", b"echo hi", Path("echo")], ids=type)
def test_single_argument_is_no_argv(argv: Any) -> None:
    with pytest.raises(TypeError, match="sequence of arguments"):
        Command(argv)


async def test_argv_that_is_readable_once(engine: Engine) -> None:
    command = Command(word for word in ("echo", "once"))  # type: ignore[arg-type]
    assert command.argv == ("echo", "once")
    for _ in range(2):
        assert (await engine.run(command)).args == ["echo", "once"]
    done = await aio.run(word for word in command.argv)  # type: ignore[arg-type]
    assert (done.args, done.stdout) == (["echo", "once"], b"once\n")


@pytest.mark.parametrize(
    "function",
    [
        Command.__init__,
        Command.replace,
        Engine.run,
        Engine.open,
        aio.run,
        aio.create_subprocess_exec,
    ],
    ids=lambda function: function.__qualname__,
)
def test_annotations_are_types(function: Callable[..., Any]) -> None:
    """For who reads them while the program runs."""
    assert typing.get_type_hints(function)["return"] is not None


def test_unknown_option() -> None:
    with pytest.raises(TypeError, match="shell"):
        Command(["echo"], shell=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        Command(["echo"], "/bin/echo")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "options",
    [{"stdout": STDOUT}, {"stdout": 5}, {"stderr": -5}, {"stderr": sys.stderr}, {"stdout": "PIPE"}],
    ids=str,
)
def test_redirections_are_few(options: Any) -> None:
    with pytest.raises(ValueError, match="must be None, PIPE, DEVNULL"):
        Command(["echo"], **options)


@pytest.mark.parametrize("argv", [["echo", "hi"], ("echo", "hi"), [b"echo", Path("hi")]], ids=repr)
async def test_kinds_of_arguments(engine: Engine, argv: Any) -> None:
    command = Command(argv)
    assert command.executable == argv[0]
    result = await engine.run(command)
    assert result.stdout == b"hi\n"
    assert result.args == list(argv)


async def test_kinds_of_paths(engine: Engine, tmp_path: Path) -> None:
    for convert in (os.fspath, os.fsencode, Path):
        path: Any = convert(tmp_path)
        result = await engine.run(Command(["pwd", "-P"], cwd=path))
        assert result.stdout == os.fsencode(tmp_path.resolve()) + b"\n"
        executable: Any = convert("/bin/sh")
        result = await engine.run(Command(["any", "-c", "echo $0"], executable=executable))
        assert result.stdout == b"any\n"


async def test_undecodable_bytes_survive(engine: Engine, tmp_path: Path) -> None:
    raw = b"\xff\xfe n\xc3\xa4me"
    command = Command(["printenv", "A"], env={b"A": raw, b"PATH": os.environb[b"PATH"]})
    assert (await engine.run(command)).stdout == raw + b"\n"
    assert (await engine.run(["printf", "%s", raw])).stdout == raw
    assert (await engine.run(["printf", "%s", os.fsdecode(raw)])).stdout == raw
    name = b"dir " + (raw if sys.platform == "linux" else b"name")
    os.mkdir(os.fsencode(tmp_path) + b"/" + name)
    result = await engine.run(Command(["pwd"], cwd=os.fsencode(tmp_path) + b"/" + name))
    assert result.stdout.endswith(name + b"\n")


# ---- limits ------------------------------------------------------------------------------------

TIMES = ["timeout", "kill_grace", "drain"]


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [-1, -0.001, -math.inf, math.nan])
def test_times_are_not_negative(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        Command(["echo"], limits=Limits(**{name: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", ["1", [1]], ids=repr)
def test_times_are_numbers(name: str, value: Any) -> None:
    with pytest.raises(TypeError):
        Command(["echo"], limits=Limits(**{name: value}))


@pytest.mark.parametrize("value", [1e9, 1e12, 1e300, math.inf])
async def test_huge_times_never_come(engine: Engine, value: float) -> None:
    limits = Limits(timeout=value, kill_grace=value, drain=value)
    result = await engine.run(Command(["echo", "hi"], limits=limits))
    assert (result.stdout, result.returncode, result.timed_out) == (b"hi\n", 0, False)


@pytest.mark.parametrize("value", [0, 0.0, 1e-12])
async def test_no_time_at_all(engine: Engine, value: float) -> None:
    command = Command(["sleep", "60"], limits=Limits(timeout=value, kill_grace=value))
    result = await engine.run(command)
    assert (result.returncode, result.timed_out) == (-9, True)


@pytest.mark.parametrize("value", [0, -1, -(2**70)])
def test_max_output_is_positive(value: int) -> None:
    with pytest.raises(ValueError, match="max_output must be positive"):
        Command(["echo"], limits=Limits(max_output=value))


@pytest.mark.parametrize(
    ("value", "error"), [("1", TypeError), ([1], TypeError), (2**64, OverflowError)], ids=repr
)
def test_max_output_is_a_number(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Command(["echo"], limits=Limits(max_output=value))


async def test_huge_max_output(engine: Engine) -> None:
    command = Command(["echo", "hi"], limits=Limits(max_output=2**64 - 1))
    result = await engine.run(command)
    assert (result.stdout, result.truncated) == (b"hi\n", False)


@pytest.mark.parametrize(
    ("rlimits", "error"),
    [
        ({resource.RLIMIT_CPU: 5}, TypeError),
        ({resource.RLIMIT_CPU: (5,)}, ValueError),
        ({resource.RLIMIT_CPU: (1, 2, 3)}, ValueError),
        ({resource.RLIMIT_CPU: ("1", "2")}, TypeError),
        ({"cpu": (1, 2)}, TypeError),
        ({resource.RLIMIT_CPU: (2**70, 2**70)}, OverflowError),
        ([resource.RLIMIT_CPU], AttributeError),
    ],
    ids=repr,
)
def test_rlimits_are_pairs(rlimits: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Command(["echo"], limits=Limits(rlimits=rlimits))


@pytest.mark.parametrize("rlimits", [{9999: (1, 1)}, {resource.RLIMIT_NOFILE: (64, 32)}], ids=repr)
async def test_rlimits_that_the_system_refuses(engine: Engine, rlimits: Any) -> None:
    error = await async_failure(engine.run(Command(["echo"], limits=Limits(rlimits=rlimits))))
    assert same_error(error, OSError(errno.EINVAL, os.strerror(errno.EINVAL)))


def test_limits_are_by_keyword() -> None:
    with pytest.raises(TypeError):
        Limits(1.0)  # type: ignore[call-arg]
    assert Limits() == Limits(timeout=None, kill_grace=2.0, drain=1.0, max_output=None, rlimits={})


# ---- immutability ------------------------------------------------------------------------------


async def test_what_was_passed_may_change(engine: Engine, monkeypatch: Any) -> None:
    argv = ["printenv", "A"]
    env = {"A": "before", "PATH": os.environ["PATH"]}
    rlimits = {resource.RLIMIT_CORE: (0, 0)}
    command = Command(argv, env=env, limits=Limits(rlimits=rlimits))
    argv[1] = "B"
    env["A"] = "after"
    rlimits[resource.RLIMIT_CORE] = (1, 0)
    result = await engine.run(command)
    assert result.stdout == b"before\n"
    assert result.args == ["printenv", "A"]


async def test_environment_is_taken_when_it_is_made(engine: Engine, monkeypatch: Any) -> None:
    monkeypatch.setenv("FASTSPAWN_TEST", "before")
    command = Command(["printenv", "FASTSPAWN_TEST"])
    monkeypatch.setenv("FASTSPAWN_TEST", "after")
    assert (await engine.run(command)).stdout == b"before\n"
    assert (await engine.run(["printenv", "FASTSPAWN_TEST"])).stdout == b"after\n"
    monkeypatch.delenv("FASTSPAWN_TEST")
    assert (await engine.run(command)).stdout == b"before\n"
    assert (await engine.run(command.replace())).stdout == b"before\n"
    assert (await engine.run(["printenv", "FASTSPAWN_TEST"])).returncode == 1


def test_environment_as_a_dict(monkeypatch: Any) -> None:
    monkeypatch.setenv("FASTSPAWN_TEST", "a=b\udcff")
    # Libraries put what is in no os.environ.
    assert Command(["true"]).environment().items() >= dict(os.environb).items()
    assert Command(["true"], env={"A": "", "B": "x"}).environment() == {b"A": b"", b"B": b"x"}


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="os.environ alone can be read there"
)
async def test_environment_is_the_one_that_exec_passes_on(engine: Engine) -> None:
    """What os.putenv() sets is in no os.environ, and still the children's, as in subprocess."""
    os.putenv("FASTSPAWN_TEST", "put")
    try:
        command = ["printenv", "FASTSPAWN_TEST"]
        assert (await engine.run(command)).stdout == b"put\n"
        assert subprocess.check_output(command) == b"put\n"
    finally:
        os.unsetenv("FASTSPAWN_TEST")


def test_commands_do_not_change() -> None:
    command = Command(["echo", "hi"], cwd="/")
    for name in ("argv", "limits", "executable", "cwd", "pipes", "new"):
        with pytest.raises(AttributeError):
            setattr(command, name, None)
        with pytest.raises(AttributeError):
            delattr(command, name)
    with pytest.raises(TypeError, match="twice"):
        command.__init__(["echo", "ho"])  # type: ignore[misc]
    assert (command.argv, command.cwd) == (("echo", "hi"), "/")
    assert command.limits == Limits()


async def test_results_do_not_share(engine: Engine) -> None:
    command = Command(["echo", "hi"])
    (await engine.run(command)).args.append("more")
    assert (await engine.run(command)).args == ["echo", "hi"]


def test_limits_do_not_change() -> None:
    limits = Limits(timeout=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        limits.timeout = 2  # type: ignore[misc]


def test_plan_that_was_never_made(engine: Engine) -> None:
    plan = Plan.__new__(Plan)
    with pytest.raises(ValueError, match="not initialized"):
        plan.resolve()
    with pytest.raises(ValueError, match="not initialized"):
        engine.submit(plan, None)


def test_repr() -> None:
    assert repr(Command(["echo", b"hi"], cwd="/")) == "Command(['echo', b'hi'])"
    assert repr(Limits(timeout=1.5)).startswith("Limits(timeout=1.5, kill_grace=2.0, ")


def test_pipes() -> None:
    assert Command(["echo"]).pipes == (True, True)
    assert Command(["echo"], stdout=PIPE, stderr=STDOUT).pipes == (True, False)
    assert Command(["echo"], stdout=DEVNULL, stderr=None).pipes == (False, False)


async def test_one_command_many_times(engine: Engine) -> None:
    command = Command(sh("echo $$"))
    pids = {int((await engine.run(command)).stdout) for _ in range(20)}
    assert len(pids) == 20


# ---- resolve -----------------------------------------------------------------------------------


def executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_resolve_finds_what_which_finds(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    found = executable(second / "prog")
    command = Command(["prog"], env={"PATH": f"{first}:{second}"})
    for _ in range(2):
        assert command.resolve() == str(found)
        age(first, second)
    # Not executable, or a directory: the search goes on.
    (first / "prog").mkdir()
    assert command.resolve() == str(found)
    (first / "prog").rmdir()
    (first / "prog").touch()
    assert command.resolve() == str(found)
    # Installed earlier on PATH, removed from there; each while the last answer is remembered.
    (first / "prog").unlink()
    age(first, second)
    assert command.resolve() == str(found)
    executable(first / "prog")
    assert command.resolve() == str(first / "prog")
    age(first, second)
    assert command.resolve() == str(first / "prog")
    (first / "prog").unlink()
    assert command.resolve() == str(found)


def test_resolve_with_a_slash_searches_nothing(tmp_path: Path) -> None:
    found = executable(tmp_path / "sub" / "prog")
    assert Command([found]).resolve() == str(found)
    assert Command(["sub/prog"], cwd=tmp_path).resolve() == "sub/prog"
    assert Command(["echo"], executable=found).resolve() == str(found)
    odd = executable(tmp_path / "a:b" / "prog")
    assert Command([odd]).resolve() == str(odd)
    assert Command(["./prog"], cwd=odd.parent).resolve() == "./prog"


def test_resolve_with_relative_directories(tmp_path: Path, monkeypatch: Any) -> None:
    executable(tmp_path / "sub" / "prog")
    command = Command(["prog"], env={"PATH": "sub"}, cwd=tmp_path)
    assert command.resolve() == "sub/prog"
    monkeypatch.chdir(tmp_path / "sub")
    assert Command(["prog"], env={"PATH": "/nowhere:"}).resolve() == "prog"


def missing(path: Path) -> dict[str, Any]:
    return {"args": [path / "missing"]}


def missing_on_path(path: Path) -> dict[str, Any]:
    return {"args": ["missing"], "env": {"PATH": str(path)}}


def not_executable(path: Path) -> dict[str, Any]:
    (path / "prog").touch()
    return {"args": [path / "prog"]}


def not_executable_on_path(path: Path) -> dict[str, Any]:
    (path / "prog").touch()
    return {"args": ["prog"], "env": {"PATH": f"{path}:/nowhere"}}


def directory(path: Path) -> dict[str, Any]:
    return {"args": [str(path)]}


def below_a_file(path: Path) -> dict[str, Any]:
    (path / "prog").touch()
    return {"args": [os.fsencode(path / "prog" / "x")]}


def below_a_file_on_path(path: Path) -> dict[str, Any]:
    (path / "file").touch()
    return {"args": ["prog"], "env": {"PATH": f"/nowhere:{path}/file"}}


def loop_of_links(path: Path) -> dict[str, Any]:
    (path / "loop").symlink_to("loop")
    return {"args": [path / "loop"]}


def long_name(path: Path) -> dict[str, Any]:
    return {"args": ["x" * 300]}


def no_name(path: Path) -> dict[str, Any]:
    return {"args": [""]}


def other_executable(path: Path) -> dict[str, Any]:
    return {"args": ["echo"], "executable": path / "missing"}


def missing_cwd(path: Path) -> dict[str, Any]:
    return {"args": ["echo"], "cwd": path / "missing"}


def missing_cwd_and_program(path: Path) -> dict[str, Any]:
    return {"args": [path / "prog"], "cwd": str(path / "missing")}


def file_as_cwd(path: Path) -> dict[str, Any]:
    (path / "file").touch()
    return {"args": ["echo"], "cwd": os.fsencode(path / "file")}


@pytest.mark.parametrize(
    "case",
    [
        missing,
        missing_on_path,
        not_executable,
        not_executable_on_path,
        directory,
        below_a_file,
        below_a_file_on_path,
        loop_of_links,
        long_name,
        no_name,
        other_executable,
        missing_cwd,
        missing_cwd_and_program,
        file_as_cwd,
    ],
    ids=lambda case: case.__name__,
)
def test_resolve_raises_what_subprocess_does(
    case: Callable[[Path], dict[str, Any]], tmp_path: Path
) -> None:
    options = case(tmp_path)
    expected = failure(lambda: subprocess.run(**options))
    command = Command(options.pop("args"), **options)
    assert same_error(failure(command.resolve), expected)


def test_resolve_needs_only_search_permission(tmp_path: Path) -> None:
    """A directory that can be entered but not read is a working directory; root sees no
    difference, so this is tried as someone else."""
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o311)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o711)
    done = subprocess.run(script("resolve.py", closed), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("/bin/sh\n", "")
