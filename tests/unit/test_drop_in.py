"""subprocess's names: each case is tried with the standard library and with ours, and the same must
come of it, whether it is a result or an error."""

from __future__ import annotations

import io
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fastspawn
from support import (
    LINUX,
    longer_times,
    poll,
    remembers,
    remembers_at_once,
    run_script,
    seen_of_os_error,
    sh,
    sigchld_ignored,
)

Case = Callable[[Any], object]
MODULES = pytest.mark.parametrize("module", [subprocess, fastspawn], ids=["stdlib", "ours"])

# ---- comparing -------------------------------------------------------------------------------


def seen(value: object) -> object:
    """What a program sees of a result or an exception."""
    if isinstance(value, OSError):
        return seen_of_os_error(value)
    if isinstance(value, subprocess.TimeoutExpired):
        return type(value), value.cmd, value.timeout, value.output, value.stderr
    if isinstance(value, subprocess.CalledProcessError):
        return type(value), value.returncode, value.cmd, value.output, value.stderr
    if isinstance(value, (UnicodeError, TypeError)):
        return type(value)  # the text depends on who looked first
    if isinstance(value, BaseException):
        return type(value), value.args
    if isinstance(value, subprocess.CompletedProcess):
        return type(value), vars(value)
    return value


def outcome(case: Case, module: ModuleType) -> object:
    try:
        return seen(case(module))
    except Exception as exc:
        return seen(exc)


def check_same(case: Case) -> object:
    """Returns what it is."""
    expected = outcome(case, subprocess)
    assert outcome(case, fastspawn) == expected
    return expected


def through_popen(*args: Any, **options: Any) -> Case:
    """Popen, and how the child ended."""

    def case(module: Any) -> object:
        with module.Popen(*args, **options) as process:
            return process.communicate(), process.returncode

    return case


def through_run(*args: Any, **options: Any) -> Case:
    return lambda module: module.run(*args, **options)


def closed_file() -> io.IOBase:
    file = io.BytesIO()
    file.close()
    return file


# ---- wrong input -----------------------------------------------------------------------------

TRUE = ["true"]
HUGE = "x" * (1 << 22)

WRONG: dict[str, tuple[Any, dict[str, Any]]] = {
    "no arguments": ([], {}),
    "empty program": ([""], {}),
    "None": (None, {}),
    "a number": (5, {}),
    "a number among the arguments": (["echo", 5], {}),
    "null in an argument": (["echo", "a\0b"], {}),
    "null in the program": (["ec\0ho"], {}),
    "null in executable": (TRUE, {"executable": "tr\0ue"}),
    "null in cwd": (TRUE, {"cwd": "/\0"}),
    "null in a value": (TRUE, {"env": {"A": "x\0y"}}),
    "null in a name": (TRUE, {"env": {"A\0": "x"}}),
    "= in a name": (TRUE, {"env": {"A=B": "x"}}),
    "an empty name": (TRUE, {"env": {"": "x"}}),
    "a value that is a number": (TRUE, {"env": {"A": 1}}),
    "a name that is a number": (TRUE, {"env": {1: "A"}}),
    "env is a list": (TRUE, {"env": ["A=B"]}),
    "two PATHs": (TRUE, {"env": {"PATH": "/bin", b"PATH": "/bin"}}),
    "PATH is a number": (TRUE, {"env": {"PATH": 1}}),
    "no such program": (["no-such-program"], {}),
    "no such program, bytes": ([b"no-such-program"], {}),
    "no such program, a path": ([pathlib.Path("no-such-program")], {}),
    "no such file": (["/no/such/program"], {}),
    "no such executable": (TRUE, {"executable": "/no/such/program"}),
    "a directory": (["/"], {}),
    "not a directory": (["/dev/null/program"], {}),
    "a name that is too long": (["x" * 5000], {}),
    "an argument that is too long": (["echo", HUGE], {}),
    "no such cwd": (TRUE, {"cwd": "/no/such/directory"}),
    "no such cwd, a path": (TRUE, {"cwd": pathlib.Path("/no/such/directory")}),
    "cwd is a file": (TRUE, {"cwd": "/dev/null"}),
    "cwd is empty": (TRUE, {"cwd": ""}),
    "cwd is a number": (TRUE, {"cwd": 5}),
    "cwd and program are missing": (["/no/such/program"], {"cwd": "/no/such/directory"}),
    "cwd is fine, the program is missing": (["no-such-program"], {"cwd": "/"}),
    "a closed descriptor to pass": (TRUE, {"pass_fds": [987]}),
    "a closed descriptor to pass, and cwd": (TRUE, {"pass_fds": [987], "cwd": "/"}),
    "a negative descriptor to pass": (TRUE, {"pass_fds": [-1]}),
    "a name to pass": (TRUE, {"pass_fds": ["x"]}),
    "a number to pass": (TRUE, {"pass_fds": 5}),
    "a closed stdin": (TRUE, {"stdin": 987}),
    "a closed stdout": (TRUE, {"stdout": 987}),
    "a closed stderr": (TRUE, {"stderr": 987}),
    "a negative stdin": (TRUE, {"stdin": -5}),
    "stdout is a text": (TRUE, {"stdout": "file"}),
    "stdout is STDOUT": (TRUE, {"stdout": subprocess.STDOUT}),
    "stdin is STDOUT": (TRUE, {"stdin": subprocess.STDOUT}),
    "a closed file": (TRUE, {"stdout": closed_file()}),
    "no file at all": (TRUE, {"stdout": io.BytesIO()}),
    "bufsize is a text": (TRUE, {"bufsize": "x"}),
    "pipesize is a text": (TRUE, {"pipesize": "x", "stdout": subprocess.PIPE}),
    "a shell for a path": (pathlib.Path("true"), {"shell": True}),
    "a shell that is missing": ("true", {"shell": True, "executable": "/no/such/shell"}),
    "startupinfo": (TRUE, {"startupinfo": 1}),
    "creationflags": (TRUE, {"creationflags": 1}),
    "a negative user": (TRUE, {"user": -1}),
    "an unknown user": (TRUE, {"user": "no-such-user"}),
    "a user that is a list": (TRUE, {"user": []}),
    "a negative group": (TRUE, {"group": -1}),
    "a user that is too large": (TRUE, {"user": 1 << 40}),
    "a group that is too large": (TRUE, {"group": 1 << 40}),
    "groups that are too large": (TRUE, {"extra_groups": [1 << 40]}),
    "too many groups": (TRUE, {"extra_groups": [*range(70_000)]}),
    "negative groups": (TRUE, {"extra_groups": [-1]}),
    "a user, and no such program": (["no-such-program"], {"user": os.getuid()}),
    "a user, and no such cwd": (TRUE, {"user": os.getuid(), "cwd": "/no/such/directory"}),
    "groups are a text": (TRUE, {"extra_groups": "x"}),
    "umask is a text": (TRUE, {"umask": "x"}),
    "umask is a float": (TRUE, {"umask": 1.5}),
    "umask is huge": (TRUE, {"umask": 1 << 40}),
    "session is None": (TRUE, {"start_new_session": None}),
    "session is a text": (TRUE, {"start_new_session": "x"}),
    "signals are a text": (TRUE, {"restore_signals": "x"}),
    "no such group of processes": (TRUE, {"process_group": 1}),
    "that, and cwd": (TRUE, {"process_group": 1, "cwd": "/"}),
    "process_group is a text": (TRUE, {"process_group": "x"}),
    "text or not": (TRUE, {"text": True, "universal_newlines": False}),
    "an unknown encoding": (TRUE, {"encoding": "no-such", "stdout": subprocess.PIPE}),
    "no text encoding": (TRUE, {"encoding": "hex", "stdout": subprocess.PIPE}),
    "an encoding that is a number": (TRUE, {"encoding": 5, "stdout": subprocess.PIPE}),
    "an unknown keyword": (TRUE, {"no_such": 1}),
}


@pytest.mark.parametrize(
    ("args", "options"), [pytest.param(*value, id=name) for name, value in WRONG.items()]
)
@pytest.mark.parametrize("way", [through_popen, through_run])
def test_wrong(way: Callable[..., Case], args: Any, options: dict[str, Any]) -> None:
    check_same(way(args, **options))


@pytest.mark.parametrize("way", [through_popen, through_run])
def test_files_that_cannot_be_executed(way: Callable[..., Case], tmp_path: Path) -> None:
    contents = {
        "forbidden": (0o644, "#!/bin/sh\n"),
        "unknown": (0o755, "no format at all\n"),
        "empty": (0o755, ""),
        "lost": (0o755, "#!/no/such/interpreter\n"),
    }
    for name, (mode, text) in contents.items():
        path = tmp_path / name
        path.write_text(text)
        path.chmod(mode)
        for program in (str(path), os.fsencode(path), path):
            check_same(way([program]))
        env = {"PATH": f"{tmp_path}:/no/such/directory"}
        check_same(way([name], env=env))
        # The first error that says more than "not there" is the one that counts.
        check_same(way([name], env={"PATH": f"/no/such:{tmp_path}:/usr/bin"}))


RUN_ONLY_WRONG: dict[str, tuple[Any, dict[str, Any]]] = {
    "text for bytes": (["cat"], {"input": "x", "stdout": subprocess.PIPE}),
    "bytes for text": (["cat"], {"input": b"x", "text": True, "stdout": subprocess.PIPE}),
    "a number for bytes": (["cat"], {"input": 5}),
    "input and stdin": (["cat"], {"input": b"x", "stdin": subprocess.DEVNULL}),
    "output captured twice": (TRUE, {"capture_output": True, "stdout": subprocess.PIPE}),
    "what cannot be encoded": (["cat"], {"input": "\u20ac", "encoding": "ascii"}),
    "what cannot be decoded": (
        ["printf", "\\377"],
        {"encoding": "utf-8", "capture_output": True},
    ),
    "a timeout that is a text": (TRUE, {"timeout": "x"}),
    "a timeout that is a list": (TRUE, {"timeout": []}),
    "twice": (TRUE, {"args": TRUE}),
}


@pytest.mark.parametrize(
    ("args", "options"),
    [pytest.param(*value, id=name) for name, value in RUN_ONLY_WRONG.items()],
)
def test_wrong_for_run(args: Any, options: dict[str, Any]) -> None:
    check_same(through_run(args, **options))


def test_wrong_for_the_others() -> None:
    check_same(lambda module: module.check_output(TRUE, stdout=module.PIPE))
    check_same(lambda module: module.check_output(TRUE, check=True))
    check_same(lambda module: module.call(TRUE, input=b"x"))
    check_same(lambda module: module.call())
    check_same(lambda module: module.run())
    check_same(lambda module: module.check_call(["false"]))
    check_same(lambda module: module.check_call(args=["false"]))
    check_same(lambda module: module.check_output(sh("echo out; exit 3")))


# ---- right input -----------------------------------------------------------------------------

BOTH = sh("echo out; echo err >&2; exit 3")
LINES = ["printf", "a\\r\\nb\\rc\\n"]

RIGHT: dict[str, tuple[Any, dict[str, Any]]] = {
    "both outputs": (BOTH, {"capture_output": True}),
    "stdout": (BOTH, {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}),
    "stderr": (BOTH, {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}),
    "one for both": (BOTH, {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}),
    "both to nowhere": (BOTH, {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}),
    "nothing": (TRUE, {}),
    "a tuple": (tuple(BOTH), {"capture_output": True}),
    "bytes": ([b"echo", b"\xff"], {"capture_output": True}),
    "a text alone": ("true", {}),
    "a path alone": (pathlib.Path("/bin/true"), {}),
    "a path among them": (["echo", pathlib.Path("x")], {"capture_output": True}),
    "surrogates": (["echo", "\udcff"], {"capture_output": True}),
    "a shell": ("echo $0; exit 2", {"shell": True, "capture_output": True}),
    "a shell and a list": (["echo $1", "sh", "x"], {"shell": True, "capture_output": True}),
    "another shell": ("echo $0", {"shell": True, "executable": "/usr/bin/sh", "stdout": -1}),
    "another program": (["name", "x"], {"executable": "echo", "capture_output": True}),
    "cwd": (["pwd"], {"cwd": "/usr", "capture_output": True}),
    "cwd, bytes": (["pwd"], {"cwd": b"/usr", "capture_output": True}),
    "a program in cwd": (["./true"], {"cwd": "/bin"}),
    "env": (["env"], {"env": {"A": "x", "PATH": os.environ["PATH"]}, "capture_output": True}),
    "env, bytes": (["/usr/bin/env"], {"env": {b"A": b"\xff"}, "capture_output": True}),
    "no env": (["/usr/bin/env"], {"env": {}, "capture_output": True}),
    "env without PATH": (["env"], {"env": {"A": "x"}, "capture_output": True}),
    "os.environ": (["env"], {"env": os.environ, "stdout": subprocess.PIPE}),
    "text": (LINES, {"text": True, "capture_output": True}),
    "universal_newlines": (LINES, {"universal_newlines": True, "capture_output": True}),
    "not text": (LINES, {"text": False, "capture_output": True}),
    "latin-1": (["printf", "\\351"], {"encoding": "latin-1", "capture_output": True}),
    "utf-16": (["printf", "a\\0b\\0"], {"encoding": "utf-16-le", "capture_output": True}),
    "utf-8-sig": (["printf", "\\357\\273\\277a"], {"encoding": "utf-8-sig", "stdout": -1}),
    "replace": (["printf", "a\\377"], {"encoding": "utf-8", "errors": "replace", "stdout": -1}),
    "errors alone": (["printf", "a\\377"], {"errors": "backslashreplace", "stdout": -1}),
    "input": (["cat"], {"input": b"a\r\nb", "capture_output": True}),
    "input, none": (["cat"], {"input": b"", "capture_output": True}),
    "input, much": (["cat"], {"input": b"x" * 300_000, "capture_output": True}),
    "input, bytearray": (["cat"], {"input": bytearray(b"x"), "capture_output": True}),
    "input, memoryview": (["cat"], {"input": memoryview(b"x"), "capture_output": True}),
    "input, text": (["cat"], {"input": "a\r\n\xe9", "text": True, "capture_output": True}),
    "input, text encoded": (["cat"], {"input": "\xe9", "encoding": "latin-1", "stdout": -1}),
    "input that is not read": (TRUE, {"input": b"x" * 300_000}),
    "input and output at once": (
        ["tee", "/dev/stderr"],
        {"input": b"x" * 300_000, "capture_output": True},
    ),
    "stdin closed": (["cat"], {"stdin": subprocess.PIPE, "capture_output": True}),
    "stdin empty": (["cat"], {"stdin": subprocess.DEVNULL, "capture_output": True}),
    "a signal": (sh("kill -9 $$"), {"capture_output": True}),
    "a time that is enough": (BOTH, {"capture_output": True, "timeout": 60}),
    "a long time": (TRUE, {"timeout": 1e300}),
    "for ever": (TRUE, {"timeout": float("inf")}),
    "a check": (BOTH, {"capture_output": True, "check": True}),
    "a check that passes": (TRUE, {"check": True}),
    "a new session": (sh("ps -o sid= -p $$ | grep -cw $$"), {"start_new_session": True}),
    "a umask": (sh("umask"), {"umask": 0o27, "capture_output": True}),
    "groups": (["id", "-G"], {"extra_groups": [], "capture_output": True}),
    "a user": (["id", "-u"], {"user": os.getuid(), "capture_output": True}),
    "a group": (["id", "-g"], {"group": os.getgid(), "capture_output": True}),
    # Refused alike where the tests are nobody special.
    "someone else": (
        ["cat", "/proc/self/status"],
        {"user": 65534, "group": 65534, "extra_groups": [1, 2], "stdout": subprocess.DEVNULL},
    ),
    "someone else, by name": (["id"], {"user": "nobody", "umask": 0o27, "stdout": -1}),
    "someone else, in a session": (
        ["id"],
        {"user": 65534, "start_new_session": True, "stdout": -1},
    ),
    "someone else, and a shell": ("id; umask", {"user": 65534, "shell": True, "stdout": -1}),
    "preexec_fn": (["pwd"], {"preexec_fn": lambda: os.chdir("/usr"), "stdout": -1}),
    "a pipe's size": (["echo", "x"], {"pipesize": 8192, "stdout": subprocess.PIPE}),
    "no bufsize": (["echo", "x"], {"bufsize": 0, "stdout": subprocess.PIPE}),
}


@pytest.mark.parametrize(
    ("args", "options"), [pytest.param(*value, id=name) for name, value in RIGHT.items()]
)
def test_right(args: Any, options: dict[str, Any]) -> None:
    check_same(through_run(args, **options))


IDENTITY = [
    "sh",
    "-c",
    "exec grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status",
]


@pytest.mark.skipif(not LINUX, reason="there is no /proc")
def test_who_the_child_is() -> None:
    """In this process, which may do as it likes or not, and in one that is nobody."""
    for options in (
        {"user": 65534},
        {"group": 65534},
        {"extra_groups": [7, 9]},
        {"user": 65534, "group": 65534, "extra_groups": []},
    ):
        check_same(through_run(IDENTITY, capture_output=True, **options))
    results = [run_script("credentials.py", module) for module in ("subprocess", "fastspawn")]
    assert results[0] == results[1]
    assert results[0].count("\n") >= 6


@pytest.mark.skipif(not LINUX, reason="the standard library does it elsewhere")
def test_a_user_is_the_cores_business(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an error pipe, which someone would have to read."""
    monkeypatch.setattr(subprocess.Popen, "_execute_child", None)
    with fastspawn.Popen(TRUE, user=os.getuid(), group=os.getgid()) as process:
        assert process.wait(60) == 0


def test_read_once() -> None:
    check_same(lambda module: vars(module.run(iter(["echo", "x"]), capture_output=True))["stdout"])
    check_same(lambda module: module.Popen(iter(["no-such-program"])))
    read, write = os.pipe()
    try:
        check_same(
            lambda module: module.run(
                sh(f"ls /proc/self/fd/{read}"), pass_fds=iter([read]), capture_output=True
            )
        )
        check_same(lambda module: module.run(TRUE, pass_fds=iter([read, 987])))
    finally:
        os.close(read)
        os.close(write)


def test_the_others() -> None:
    check_same(lambda module: module.call(sh("exit 3")))
    check_same(lambda module: module.call("exit 4", shell=True, stdout=module.DEVNULL))
    check_same(lambda module: module.call(["cat"], stdin=module.DEVNULL, timeout=60))
    check_same(lambda module: module.check_call(TRUE))
    check_same(lambda module: module.check_output(["echo", "x"], text=True))
    check_same(lambda module: module.check_output(["cat"], input=None))
    check_same(lambda module: module.check_output(["cat"], input=None, text=True))
    check_same(lambda module: module.getoutput("echo x; echo y >&2; exit 3"))
    check_same(lambda module: module.getstatusoutput("printf 'x\n\n'; exit 3"))
    check_same(lambda module: module.getstatusoutput("kill -9 $$"))
    check_same(lambda module: module.list2cmdline(["a b", 'c"d']))


def test_the_names() -> None:
    assert set(subprocess.__all__) <= set(fastspawn.__all__)
    ours = {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
    for name in subprocess.__all__:
        assert (getattr(fastspawn, name) is getattr(subprocess, name)) == (name not in ours)
    assert issubclass(fastspawn.Popen, subprocess.Popen)


# ---- timeouts --------------------------------------------------------------------------------


def check_same_in_time(case: Callable[[float], Case], sign: str) -> None:
    """With a timeout that is long enough for ``sign`` to be there."""
    for seconds in longer_times(0.5):
        expected, found = (outcome(case(seconds), module) for module in (subprocess, fastspawn))
        if sign in repr(expected) and sign in repr(found):
            break
    assert found == expected


@pytest.mark.parametrize("text", [False, True])
def test_a_timeout_of_run(text: bool) -> None:
    argv = sh("echo out; exec sleep 100")
    check_same_in_time(
        lambda s: through_run(argv, timeout=s, capture_output=True, text=text), "out\\n"
    )
    check_same(through_run(["sleep", "100"], timeout=0, stdout=subprocess.PIPE, text=text))
    check_same(through_run(["sleep", "100"], timeout=-1, stdout=subprocess.PIPE, text=text))
    check_same(lambda module: module.call(["sleep", "100"], timeout=0.01))
    check_same_in_time(
        lambda s: lambda module: module.check_output(argv, timeout=s, text=text), "out\\n"
    )
    # To whom it is never written, and which never stops to write.
    check_same(through_run(["sleep", "100"], input=b"x" * 300_000, timeout=0.05))
    error = outcome(through_run(["yes"], stdout=subprocess.PIPE, timeout=0.05), fastspawn)
    assert isinstance(error, tuple)
    assert error[0] is subprocess.TimeoutExpired


def test_a_timeout_after_the_pipes() -> None:
    """The standard library then tells the time that was left, and no output. Ours knows both."""
    argv = sh("echo out; exec >&- 2>&- sleep 100")
    for seconds in longer_times(0.5):
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            fastspawn.run(argv, capture_output=True, timeout=seconds)
        if caught.value.output:
            break
    assert caught.value.timeout == seconds
    assert caught.value.cmd == argv
    assert caught.value.output == b"out\n"
    assert caught.value.stderr == b""
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        fastspawn.run(["sleep", "100"], timeout=-1)
    assert caught.value.timeout == -1
    assert (caught.value.output, caught.value.stderr) == (None, None)


@MODULES
def test_a_timeout_of_wait(module: Any) -> None:
    with module.Popen(["sleep", "100"]) as process:
        for timeout in (0.05, 0, -1):
            with pytest.raises(module.TimeoutExpired) as caught:
                process.wait(timeout)
            assert caught.value.timeout == timeout
            assert caught.value.cmd == ["sleep", "100"]
        assert process.poll() is None
        process.kill()
        assert process.wait(1e300) == -signal.SIGKILL
        assert process.wait(0) == -signal.SIGKILL


@MODULES
def test_threads_that_wait(module: Any) -> None:
    with module.Popen(["sleep", "100"]) as process:
        codes: list[int] = []
        threads = [
            threading.Thread(target=lambda timeout=timeout: codes.append(process.wait(timeout)))
            for timeout in (None, 60, 60, None)
        ]
        for thread in threads:
            thread.start()
        process.terminate()
        for thread in threads:
            thread.join(60)
        assert codes == [-signal.SIGTERM] * 4


def test_a_wait_does_not_look_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    real = os.waitpid
    with fastspawn.Popen(sh("read x"), stdin=subprocess.PIPE) as process:
        monkeypatch.setattr(os, "waitpid", lambda *args: looks.append(1) or real(*args))
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        # Now and at the end, and not every 50 ms.
        assert len(looks) <= (3 if LINUX else 20)
        monkeypatch.undo()


# ---- signals ---------------------------------------------------------------------------------


@MODULES
def test_signals_that_are_wrong(module: Any) -> None:
    with module.Popen(["sleep", "100"]) as process:
        assert failing(process.send_signal, 1000) == (OSError, 22)
        for wrong in ("x", 9.5):
            assert failing(process.send_signal, wrong)[0] is TypeError
        process.send_signal(0)
        assert process.poll() is None
        process.kill()
    process.kill()
    process.send_signal(1000)  # nobody is there to get it


def failing(call: Callable[..., object], *args: object) -> tuple[type[BaseException], object]:
    with pytest.raises((OSError, TypeError)) as caught:
        call(*args)
    return type(caught.value), getattr(caught.value, "errno", None)


@MODULES
def test_a_child_that_someone_else_reaped(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    with module.Popen(TRUE) as process:
        os.waitpid(process.pid, 0)
        monkeypatch.setattr(os, "kill", lambda *args: killed.append(1))
        process.send_signal(signal.SIGTERM)
        assert killed == []
        assert process.returncode == 0
        assert process.wait(1) == 0


ENDS = pytest.mark.parametrize(
    ("end", "code"),
    [("exit 42", 42), ("exit 255", 255), ("kill -TERM $$", -15), ("kill -SEGV $$", -11)],
)
ASKING: dict[str, Callable[[Any], object]] = {
    "wait": lambda process: process.wait(),
    "wait in time": lambda process: process.wait(60),
    "poll": lambda process: poll(lambda: process.poll() is not None, "it has ended"),
    "communicate": lambda process: process.communicate(timeout=60),
    "signal": lambda process: process.send_signal(0),
    "leave": lambda process: process.__exit__(None, None, None),
}


@ENDS
@pytest.mark.parametrize("ask", ASKING.values(), ids=ASKING)
@pytest.mark.skipif(not remembers(), reason="the kernel does not remember")
def test_a_status_that_someone_else_took(ask: Callable[[Any], object], end: str, code: int) -> None:
    """Where the standard library says 0."""
    process = fastspawn.Popen(sh(end))
    assert os.waitpid(process.pid, 0)[0] == process.pid
    ask(process)
    assert process.returncode == code
    assert (process.poll(), process.wait(), process.wait(1)) == (code, code, code)


@ENDS
@pytest.mark.skipif(not remembers_at_once(), reason="the kernel does not remember")
def test_a_status_that_nobody_took(end: str, code: int) -> None:
    """SIGCHLD is ignored."""
    with sigchld_ignored():
        for name, ask in ASKING.items():
            process = fastspawn.Popen(sh(end))
            if name == "signal":
                poll(lambda: not os.path.exists(f"/proc/{process.pid}"), "it is gone")  # noqa: B023
            ask(process)
            assert (name, process.returncode) == (name, code)
        assert fastspawn.call(sh(end)) == code
        assert fastspawn.run(sh(end), capture_output=True).returncode == code
        assert fastspawn.run(sh(end), timeout=60).returncode == code
        assert fastspawn.run(sh(end), user=os.getuid()).returncode == code


@pytest.mark.skipif(not remembers_at_once(), reason="the kernel does not remember")
@pytest.mark.parametrize("module", ["fastspawn", "installed"])
def test_a_race_for_the_status(module: str) -> None:
    """With a thread of the program's in waitpid(-1), which is sometimes first."""
    assert run_script("taken.py", module) == "ok\n"


@pytest.mark.skipif(not LINUX, reason="there are no pidfds")
@pytest.mark.parametrize("how", ["waitpid", "told", "asyncio", "dropped", "ignored", "fallback"])
def test_processes_that_are_kept(how: str) -> None:
    """300 of them, their end known here or elsewhere, with 256 descriptors; none is left."""
    assert run_script("kept.py", how) == "ok\n"


def test_a_return_code_that_was_set() -> None:
    """As asyncio and psutil do. Once it is known nobody is signalled."""
    with fastspawn.Popen(["sleep", "100"]) as process:
        assert process.returncode is None
        process.returncode = None
        assert process.poll() is None
        process.kill()
        os.waitpid(process.pid, 0)
        process.returncode = 5
        assert (process.poll(), process.wait(), vars(process)["returncode"]) == (5, 5, 5)
        process.send_signal(1000)
        process.returncode = None
        process.send_signal(1000)  # its number may be another's by now
        process.returncode = 5
    assert repr(process) == "<Popen: returncode: 5 args: ['sleep', '100']>"
    assert not hasattr(fastspawn.Popen.__new__(fastspawn.Popen), "returncode")


@pytest.mark.skipif(not LINUX, reason="there are no pidfds")
def test_a_signal_never_goes_to_a_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the number has a new owner by the time: only the pidfd says who is meant."""
    with fastspawn.Popen(["sleep", "100"]) as process, fastspawn.Popen(["sleep", "100"]) as other:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED)
        process.pid = other.pid
        monkeypatch.setattr(process, "poll", lambda: None)
        process.send_signal(signal.SIGKILL)
        monkeypatch.undo()
        assert other.poll() is None
        other.kill()
        other.wait()
        process.returncode = -9


@pytest.mark.parametrize("name", ["interrupted", "handled", "raised", "ignored"])
def test_signals_to_the_parent(name: str) -> None:
    """What comes of a signal during run() and wait(), in a program of its own."""
    results = [run_script("signals.py", name, module) for module in ("subprocess", "fastspawn")]
    if name == "ignored" and remembers():
        results[0] = results[0].replace(" 0 ", " 3 ")  # which is the truth
        if not remembers_at_once():
            results[1] = results[1].replace(" 0 ", " 3 ")
    assert results[0] == results[1]
    assert results[0].count("\n") >= 3


def test_audit_events() -> None:
    results = [run_script("audit.py", module) for module in ("subprocess", "fastspawn")]
    assert results[0] == results[1]
    assert results[0].count("subprocess.Popen") == 6


# ---- whose Popen -----------------------------------------------------------------------------


class Recorder(subprocess.Popen[bytes]):
    made = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        Recorder.made += 1


def test_a_popen_that_was_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who replaces subprocess.Popen gets to see every process."""
    Recorder.made = 0
    monkeypatch.setattr(subprocess, "Popen", Recorder)
    fastspawn.run(TRUE, capture_output=True)
    fastspawn.call(TRUE)
    fastspawn.getoutput("true")
    assert Recorder.made == 3


WARNED = """\
import sys, fastspawn as subprocess
subprocess.run("true", shell=True, text=True)
subprocess.call("true", shell=True, universal_newlines=True)
subprocess.check_call("true", shell=True, errors="strict")
subprocess.check_output("true", shell=True, text=True)
subprocess.getoutput("true")
subprocess.getstatusoutput("true")
subprocess.Popen(["true"], text=True).wait()
subprocess.run("true", shell=True, text=True, encoding="utf-8")
subprocess.run("true", shell=True)
try:
    subprocess.run("true", shell=True, text=True, universal_newlines=False)
except subprocess.SubprocessError:
    print("SubprocessError")
"""


def test_encoding_warnings_point_at_the_caller() -> None:
    """PEP 597: where the standard library's do, in lines 2 to 8 (before 3.11 it has none)."""
    argv = [sys.executable, "-X", "warn_default_encoding", "-c"]
    found = []
    for code in (WARNED, WARNED.replace("fastspawn as ", "")):
        done = subprocess.run([*argv, code], capture_output=True, text=True, check=True)
        assert done.stdout == "SubprocessError\n"
        found.append(re.findall(r"^(.*:\d+): (EncodingWarning.*)$", done.stderr, flags=re.M))
    assert found[0] == found[1]
    lines = range(2, 9) if sys.version_info >= (3, 11) else ()
    assert [where for where, _ in found[0]] == [f"<string>:{line}" for line in lines]


@pytest.mark.parametrize("cls", [subprocess.Popen, fastspawn.Popen])
def test_a_method_that_was_replaced(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **options: object) -> None:
        raise RuntimeError("no processes here")

    monkeypatch.setattr(cls, "__init__", forbidden)
    monkeypatch.setattr(cls, "__del__", lambda self: None)
    with pytest.raises(RuntimeError):
        fastspawn.run(TRUE)


def test_the_switch_of_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """subprocess documents _USE_VFORK = False as the way to have no vfork."""
    with monkeypatch.context() as patch:
        patch.setattr(fastspawn._popen, "spawn", None)
        patch.setattr(subprocess, "_USE_VFORK", False)
        with fastspawn.Popen(TRUE) as process:
            assert process.wait(60) == 0


# ---- many ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["run", "popen"])
def test_many(way: str) -> None:
    run_script("many.py", way, 1000)
