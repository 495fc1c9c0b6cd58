"""aio.create_subprocess_exec and _shell: each case on the standard library (asyncio's on asyncio,
uvloop's on uvloop) and on fastspawn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

import fastspawn
from conftest import Run
from fastspawn import aio
from fastspawn._popen import Popen
from support import (
    BOUND,
    async_failure,
    async_poll,
    gone,
    is_alive,
    open_fds,
    own_threads,
    remembers,
    remembers_at_once,
    run_script,
    same_error,
    script,
    sh,
    sigchld_ignored,
)

BIG = bytes(range(256)) * 8192


class Api:
    def __init__(self, name: str) -> None:
        module: Any = aio if name == "fastspawn" else asyncio
        self.exec: Callable[..., Any] = module.create_subprocess_exec
        self.shell: Callable[..., Any] = module.create_subprocess_shell


@pytest.fixture(params=["stdlib", "fastspawn"])
def api(request: pytest.FixtureRequest) -> Api:
    """The standard library's functions, then ours."""
    return Api(request.param)


def on_asyncio(make: Callable[[], Any]) -> Any:
    """What a coroutine of the standard library's comes to on asyncio."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(make())
    finally:
        loop.close()


# ---- input and output -------------------------------------------------------------------------

BOTH = sh("cat; echo err >&2; exit 3")


@pytest.mark.parametrize(
    ("argv", "options", "input", "expected"),
    [
        (["echo", "hi"], {"stdout": PIPE}, None, (b"hi\n", None, 0)),
        (["echo", b"hi"], {"stdout": PIPE, "stdin": DEVNULL}, None, (b"hi\n", None, 0)),
        (BOTH, {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}, b"in", (b"in", b"err\n", 3)),
        (BOTH, {"stdin": PIPE, "stdout": PIPE, "stderr": STDOUT}, b"in", (b"inerr\n", None, 3)),
        (BOTH, {"stdin": PIPE, "stdout": DEVNULL, "stderr": PIPE}, b"x", (None, b"err\n", 3)),
        (BOTH, {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": STDOUT}, None, (None, None, 3)),
        (["cat"], {"stdin": PIPE, "stdout": PIPE}, b"", (b"", None, 0)),
        (["cat"], {"stdin": PIPE, "stdout": PIPE}, BIG, (BIG, None, 0)),
        (["cat"], {"stdin": PIPE, "stdout": PIPE, "limit": 100}, BIG, (BIG, None, 0)),
        (sh("cat >&2"), {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}, BIG, (b"", BIG, 0)),
        (sh("read line"), {"stdin": PIPE, "stdout": PIPE}, BIG, (b"", None, 0)),
        (sh("kill -9 $$"), {"stdout": PIPE}, None, (b"", None, -9)),
    ],
)
async def test_communicate(
    api: Api, argv: list[Any], options: dict[str, Any], input: bytes | None, expected: Any
) -> None:
    process = await api.exec(*argv, **options)
    assert isinstance(process, asyncio.subprocess.Process)
    out, err = await process.communicate(input)
    assert (out, err, process.returncode) == expected
    assert await process.wait() == expected[2]


async def test_input_for_one_that_is_gone() -> None:
    """uvloop's own transport refuses it, once it has seen that nobody reads."""
    process = await aio.create_subprocess_exec("true", stdin=PIPE, stdout=PIPE)
    await process.wait()
    assert await process.communicate(BIG) == (b"", None)


async def test_shell(api: Api) -> None:
    process = await api.shell("cat; exit $((1 + 1))", stdin=PIPE, stdout=PIPE)
    assert await process.communicate(b"a") == (b"a", None)
    assert process.returncode == 2


async def test_files_and_descriptors(api: Api, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"text")
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    with (tmp_path / "in").open("rb") as file:
        process = await api.exec(*BOTH, stdin=file.fileno(), stdout=out, stderr=out)
        assert await process.wait() == 3
    os.close(out)
    assert (tmp_path / "out").read_bytes() == b"texterr\n"


async def test_conversation(api: Api) -> None:
    process = await api.exec("cat", stdin=PIPE, stdout=PIPE)
    for i in range(20):
        process.stdin.write(b"%d\n" % i)
        await process.stdin.drain()
        assert await process.stdout.readline() == b"%d\n" % i
    process.stdin.write_eof()
    assert await process.stdout.read() == b""
    assert await process.wait() == 0


async def test_slow_reader_and_writer(api: Api) -> None:
    """Flow control in both directions; nothing is lost."""
    process = await api.exec("cat", stdin=PIPE, stdout=PIPE, limit=1000)

    async def write() -> None:
        for i in range(0, len(BIG), 50_000):
            process.stdin.write(BIG[i : i + 50_000])
            await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()

    task = asyncio.ensure_future(write())
    pieces = []
    while piece := await process.stdout.read(777):
        pieces.append(piece)
    await task
    assert b"".join(pieces) == BIG
    assert await process.wait() == 0


async def test_too_long_a_line(api: Api) -> None:
    process = await api.exec(*sh("echo 0123456789; echo x"), stdout=PIPE, limit=5)
    error = await async_failure(process.stdout.readline())
    assert isinstance(error, ValueError)
    assert await process.communicate() == (b"x\n", None)


async def test_nobody_reads_stdin(api: Api) -> None:
    process = await api.exec("true", stdin=PIPE)
    await process.wait()

    async def write() -> None:
        for _ in range(10):
            process.stdin.write(BIG)
            await process.stdin.drain()

    # uvloop says RuntimeError when its transport is closed already.
    expected = (BrokenPipeError, ConnectionResetError, RuntimeError)
    assert isinstance(await async_failure(write()), expected)


@pytest.mark.parametrize("end", ["close", "write_eof"])
async def test_drain_after_the_end(api: Api, end: str) -> None:
    """It has nothing to wait for, and is no error."""
    process = await api.exec("cat", stdin=PIPE, stdout=PIPE)
    process.stdin.write(b"all")
    getattr(process.stdin, end)()
    await process.stdin.drain()
    assert await process.communicate() == (b"all", None)


async def test_who_goes_on_writing_is_told(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """In the log, and not of a few writes."""
    process = await api.exec("cat", stdin=PIPE)
    process.stdin.close()
    for _ in range(5):
        process.stdin.write(b"x")
    assert not caplog.records
    if not _is_uvloop():
        process.stdin.write(b"x")
        assert "pipe closed by peer" in caplog.text
    await process.wait()


async def test_wrong_data(api: Api) -> None:
    process = await api.exec("cat", stdin=PIPE, stdout=PIPE)
    assert isinstance(await async_failure(_write(process, "text")), (TypeError, AssertionError))
    assert await process.communicate(b"on") == (b"on", None)


def _is_uvloop() -> bool:
    return isinstance(asyncio.get_running_loop(), uvloop.Loop)


async def _write(process: Any, data: Any) -> None:
    process.stdin.write(data)


async def test_stdin_that_is_left(api: Api) -> None:
    """A child that ends leaves no pipe behind that nobody closed."""
    process = await api.exec("true", stdin=PIPE, stdout=PIPE)
    assert await process.wait() == 0


async def test_background_child_keeps_the_pipe(api: Api) -> None:
    process = await api.exec(*sh("sleep 0.2 & echo $!"), stdout=PIPE)
    out, _ = await process.communicate()
    assert int(out) > 0
    assert process.returncode == 0


# ---- the end ----------------------------------------------------------------------------------


async def test_signals(api: Api) -> None:
    for end, code in (("terminate", -15), ("kill", -9)):
        process = await api.exec("sleep", "60")
        assert process.returncode is None
        getattr(process, end)()
        assert await process.wait() == code
        assert process.returncode == code
    process = await api.exec("sleep", "60")
    process.send_signal(signal.SIGUSR1)
    assert await process.wait() == -signal.SIGUSR1
    assert isinstance(await async_failure(_kill(process)), ProcessLookupError)


async def _kill(process: Any) -> None:
    process.kill()


async def test_many_wait(api: Api) -> None:
    process = await api.exec(*sh("sleep 0.05; exit 7"))
    assert await asyncio.gather(*(process.wait() for _ in range(5))) == [7] * 5


async def test_many_at_a_time(api: Api) -> None:
    async def one(i: int) -> None:
        process = await api.exec("echo", str(i), stdout=PIPE)
        assert await process.communicate() == (b"%d\n" % i, None)

    await asyncio.gather(*map(one, range(40)))


async def test_nothing_but_the_pidfd() -> None:
    """No SIGCHLD handler, no thread."""
    handler, threads = signal.getsignal(signal.SIGCHLD), own_threads()
    process = await aio.create_subprocess_exec("sleep", "0.05")
    assert own_threads().keys() == threads.keys()
    assert signal.getsignal(signal.SIGCHLD) is handler
    assert await process.wait() == 0


async def test_another_reaps_it(caplog: pytest.LogCaptureFixture) -> None:
    process = await aio.create_subprocess_exec("cat", stdin=PIPE)
    process.stdin.close()  # type: ignore[union-attr]
    os.waitpid(process.pid, 0)
    assert await process.wait() == (0 if remembers() else 255)
    assert ("Unknown child process" in caplog.text) is not remembers()


@pytest.mark.parametrize(("end", "code"), [("exit 42", 42), ("kill -9 $$", -9)])
@pytest.mark.skipif(not remembers_at_once(), reason="the kernel does not remember")
def test_sigchld_ignored(run: Run, end: str, code: int) -> None:
    async def all_ways() -> None:
        for _ in range(10):
            process = await aio.create_subprocess_exec(*sh(end))
            assert await process.wait() == code
            process = await aio.create_subprocess_exec(*sh("echo x; " + end), stdout=PIPE)
            assert await process.communicate() == (b"x\n", None)
            assert process.returncode == code
            result = await aio.run(sh(end))
            assert (result.returncode, result.lost) == (code, False)

    with sigchld_ignored():
        run(all_ways())


async def test_popen_of_a_process() -> None:
    """get_extra_info("subprocess") is a Popen that may be used from other threads, too."""
    process = await aio.create_subprocess_exec(*sh("exit 3"))
    popen = process._transport.get_extra_info("subprocess")  # type: ignore[attr-defined]
    assert isinstance(popen, subprocess.Popen)
    assert await asyncio.to_thread(popen.wait) == 3
    assert await process.wait() == 3
    process = await aio.create_subprocess_exec("sleep", "60")
    popen = process._transport.get_extra_info("subprocess")  # type: ignore[attr-defined]
    assert popen.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        popen.wait(0.01)
    popen.kill()
    assert popen.wait(BOUND) == -9
    assert await process.wait() == -9


async def test_what_the_popen_says(api: Api) -> None:
    for process in (await api.exec("true", stdin=PIPE), await api.shell("true")):
        popen = process._transport.get_extra_info("subprocess")
        if popen is not None:  # uvloop has none
            asked = ("true",) if process.stdin else "true"
            assert (popen.args, popen.text_mode) == (asked, False)
        await process.communicate()


async def test_a_method_that_was_replaced(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools do so to see or forbid processes."""

    def forbidden(*args: object, **options: object) -> None:
        raise RuntimeError("no processes here")

    monkeypatch.setattr(subprocess.Popen, "__init__", forbidden)
    monkeypatch.setattr(subprocess.Popen, "__del__", lambda self: None)
    if not (api.exec is asyncio.create_subprocess_exec and _is_uvloop()):
        assert isinstance(await async_failure(api.exec("true")), RuntimeError)


async def test_another_popen_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that a program puts in Popen's place is used."""
    made = []

    class Mine(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(args)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", Mine)
    process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    assert await process.communicate(b"x") == (b"x", None)
    assert made == [(("cat",),)]


async def test_without_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox may refuse them."""

    def refuse(*_: int) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    process = await aio.create_subprocess_exec(*sh("exit 3"), preexec_fn=lambda: None)
    assert await process.wait() == 3
    process = await aio.create_subprocess_exec("sleep", "60", preexec_fn=lambda: None)
    process.kill()
    assert await process.wait() == -9
    process = await aio.create_subprocess_exec("cat", stdin=PIPE, preexec_fn=lambda: None)
    process.stdin.close()  # type: ignore[union-attr]
    os.waitpid(process.pid, 0)
    assert await process.wait() == 255


# ---- the arguments of Popen -------------------------------------------------------------------


def seen(text: bytes) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(text)
    state["leads"] = (state["group"] == state["pid"], state["session"] == state["pid"])
    for name in ("pid", "group", "session"):
        del state[name]
    return state


ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"env": {"A": "1"}, "cwd": "/"},
    {"umask": 0o31},
    {"start_new_session": True},
    {"restore_signals": False},
    {"close_fds": False},
    {"pass_fds": (1,), "stderr": STDOUT},
    {"pipesize": 65536, "stdin": PIPE},
    {"user": os.geteuid(), "group": os.getegid()},
    {"preexec_fn": lambda: os.umask(0o17) and None},
    {"executable": sys.executable},
]
if sys.version_info >= (3, 11):
    ARGUMENTS.append({"process_group": 0})


@pytest.mark.parametrize("options", ARGUMENTS, ids=lambda options: "-".join(options) or "none")
def test_arguments(run: Run, options: dict[str, Any]) -> None:
    """The child finds the same, on uvloop as well, which has not got all of them itself."""

    async def call(create: Any) -> dict[str, Any]:
        process = await create(*script("state.py", "a"), stdout=PIPE, **options)
        out, _ = await process.communicate()
        assert process.returncode == 0
        return seen(out)

    expected = on_asyncio(lambda: call(asyncio.create_subprocess_exec))
    found = run(call(aio.create_subprocess_exec))
    if options.get("close_fds", True):
        assert found == expected
    else:
        # The loops have descriptors of their own; none of them is inheritable.
        assert set(found["fds"]) == set(expected["fds"])


class Foreign:
    """Not a path."""


def bad_input(tmp_path: Path) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    plain = tmp_path / "plain"
    plain.write_text("text")
    noexec = tmp_path / "noexec"
    noexec.write_text("no program")
    noexec.chmod(0o755)
    return [
        (("no-such-program",), {}),
        ((b"no-such-program",), {}),
        ((tmp_path / "missing",), {}),
        (("",), {}),
        ((str(plain),), {}),
        ((str(noexec),), {}),
        ((str(tmp_path),), {}),
        (("true",), {"cwd": str(tmp_path / "missing")}),
        (("true",), {"cwd": tmp_path / "missing"}),
        (("true",), {"cwd": str(plain)}),
        (("true",), {"cwd": 1.5}),
        (("true", "a\0b"), {}),
        (("tr\0ue",), {}),
        (("true", 1), {}),
        ((None,), {}),
        ((Foreign(),), {}),
        (("true",), {"env": {"A=B": "1"}}),
        (("true",), {"env": {"A": "1\0"}}),
        (("true",), {"env": {"A": 1}}),
        (("true",), {"env": {1: "A"}}),
        (("true",), {"env": ["A=1"]}),
        (("true",), {"env": {"A": "x" * 10_000_000, "PATH": os.environ["PATH"]}}),
        (("true",), {"pass_fds": (900,)}),
        (("true",), {"pass_fds": (-1,)}),
        (("true",), {"pass_fds": ("1",)}),
        (("true",), {"stdin": 900}),
        (("true",), {"stdout": 900}),
        (("true",), {"stdin": STDOUT}),
        (("true",), {"stdout": "PIPE"}),
        (("true",), {"stdout": 1.5}),
        (("true",), {"stdout": Foreign()}),
        (("true",), {"umask": "022"}),
        (("true",), {"user": "no-such-user"}),
        (("true",), {"user": -5}),
        (("true",), {"group": "no-such-group"}),
        (("true",), {"extra_groups": ["no-such-group"]}),
        (("true",), {"startupinfo": object()}),
        (("true",), {"creationflags": 1}),
        (("true",), {"preexec_fn": 1}),
        (("true",), {"preexec_fn": lambda: 1 / 0}),
        (("true",), {"executable": "no-such-program"}),
        (("true",), {"start_new_session": "yes"}),
        (("true",), {"no_such_argument": 1}),
        (("true",), {"text": True}),
        (("true",), {"encoding": "utf-8"}),
        (("true",), {"errors": "strict"}),
        (("true",), {"universal_newlines": True}),
        (("true",), {"bufsize": 10}),
        (("true",), {"shell": True}),
        (("true",), {"limit": 0}),
        ((), {}),
    ]


def test_bad_input(run: Run, tmp_path: Path) -> None:
    """The same error, and nothing is left behind."""
    before = open_fds()
    for args, options in bad_input(tmp_path):
        expected = on_asyncio(lambda: _fail(asyncio.create_subprocess_exec, args, options))  # noqa: B023
        error = run(_fail(aio.create_subprocess_exec, args, options))
        try:
            _compare(error, expected)
        except AssertionError as exc:
            raise AssertionError(f"{args!r} {options!r:.200}") from exc
    assert open_fds().keys() == before.keys()


def _compare(error: Exception, expected: Exception) -> None:
    if isinstance(expected, TypeError) and "create_subprocess_exec" not in str(expected):
        # "Popen.__init__() got an unexpected ..." names the class; only the kind matters.
        assert type(error) is TypeError
    else:
        assert same_error(error, expected)


async def _fail(create: Any, args: Any, options: dict[str, Any]) -> Exception:
    async def call() -> None:
        process = await create(*args, **options)
        await process.wait()

    try:
        await call()
    except Exception as exc:
        return exc
    return Exception("none")


def test_bad_shell_input(run: Run) -> None:
    cases: list[tuple[Any, dict[str, Any]]] = [
        (["true"], {}),
        (Path("true"), {}),
        ("a\0b", {}),
        ("true", {"shell": False}),
        ("true", {"cwd": "/no/such/directory"}),
        ("true", {"executable": "/no/such/shell"}),
        ("true", {"text": True}),
        ("true", {"bufsize": -1}),
    ]
    for command, options in cases:
        expected = on_asyncio(lambda: _fail(asyncio.create_subprocess_shell, [command], options))  # noqa: B023
        error = run(_fail(aio.create_subprocess_shell, [command], options))
        assert same_error(error, expected)


# ---- cancellation -----------------------------------------------------------------------------


@pytest.mark.parametrize("stdin", [None, PIPE])
@pytest.mark.parametrize("turns", range(4))
async def test_cancelled_creation(stdin: int | None, turns: int) -> None:
    """Wherever it is: what the test left behind is looked for after it."""
    task = asyncio.ensure_future(
        aio.create_subprocess_exec("sleep", "60", stdin=stdin, stdout=PIPE, stderr=PIPE)
    )
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        process = await task
        process.kill()
        await process.wait()


async def test_cancelled_creation_cancelled() -> None:
    """The second one, while it waits for the end of what was started."""
    task = asyncio.ensure_future(aio.create_subprocess_exec("sleep", "60", stdin=PIPE, stdout=PIPE))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], BaseException)


@pytest.mark.parametrize("what", ["communicate", "wait", "drain", "read"])
async def test_cancelled(api: Api, what: str) -> None:
    process = await api.exec("sleep", "60", stdin=PIPE, stdout=PIPE)

    async def drain() -> None:
        process.stdin.write(BIG)
        await process.stdin.drain()

    await_it: dict[str, Any] = {
        "communicate": lambda: process.communicate(BIG),
        "wait": process.wait,
        "drain": drain,
        "read": process.stdout.read,
    }
    task = asyncio.ensure_future(await_it[what]())
    done, _ = await asyncio.wait([task], timeout=0.02)
    assert not done
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    process.kill()
    assert await process.wait() == -9


async def test_output_after_a_cancelled_communicate() -> None:
    """What was read is not lost."""
    read, write = os.pipe()
    process = await aio.create_subprocess_exec(
        *sh("echo early; read x; echo late"), stdin=read, stdout=PIPE
    )
    os.close(read)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(process.communicate(), 0.1)
    os.close(write)
    assert await process.communicate() == (b"early\nlate\n", None)


# ---- transports and protocols -----------------------------------------------------------------


class Recorder(asyncio.SubprocessProtocol):
    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.events.append(("made",))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.events.append(("data", fd, data))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self.events.append(("pipe", fd, exc))

    def process_exited(self) -> None:
        self.events.append(("exited",))

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(("lost", exc))
        self.lost.set_result(None)


async def test_protocol() -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await aio.subprocess_exec(loop, Recorder, *BOTH)
    assert protocol.events == [("made",)]
    stdin: Any = transport.get_pipe_transport(0)
    stdin.write(b"in")
    assert stdin.can_write_eof()
    stdin.write_eof()
    await protocol.lost
    events = protocol.events
    assert events[0] == ("made",)
    assert events[-1] == ("lost", None)
    assert sorted(map(str, events[1:-1])) == sorted(
        map(
            str,
            [
                ("data", 1, b"in"),
                ("data", 2, b"err\n"),
                ("pipe", 0, None),
                ("pipe", 1, None),
                ("pipe", 2, None),
                ("exited",),
            ],
        )
    )
    assert transport.get_returncode() == 3
    transport.close()


async def test_protocol_that_fails(run: Run) -> None:
    """What it raises goes to the loop's handler, and the rest goes on."""

    class Bad(Recorder):
        def process_exited(self) -> None:
            raise ZeroDivisionError

    transport, protocol = await aio.subprocess_shell(
        asyncio.get_running_loop(), Bad, "exit 4", stdin=None, stdout=PIPE, stderr=None
    )
    await protocol.lost
    assert transport.get_returncode() == 4
    assert isinstance(run.unhandled.pop()["exception"], ZeroDivisionError)
    transport.close()


async def test_pipe_transports() -> None:
    process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    transport: Any = process._transport  # type: ignore[attr-defined]
    stdin, stdout = transport.get_pipe_transport(0), transport.get_pipe_transport(1)
    assert stdin.get_extra_info("pipe").fileno() >= 0
    assert stdout.is_reading()
    stdout.pause_reading()
    stdout.pause_reading()
    assert not stdout.is_reading()
    stdin.write(b"x")
    await asyncio.sleep(0.02)
    stdout.resume_reading()
    stdout.resume_reading()
    assert await process.stdout.read(1) == b"x"  # type: ignore[union-attr]
    assert stdin.get_write_buffer_size() == 0
    stdin.write(BIG)
    assert stdin.get_write_buffer_size() > 0
    stdin.abort()
    assert stdin.is_closing()
    assert await process.wait() == 0
    assert "closed" in repr(stdin)
    assert transport.get_pipe_transport(2) is None


async def test_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="asyncio")
    asyncio.get_running_loop().set_debug(True)
    process = await aio.create_subprocess_exec("echo", "hi", stdout=PIPE, stderr=STDOUT)
    assert await process.communicate() == (b"hi\n", None)
    assert "execute program 'echo' stdout=stderr=<pipe>" in caplog.text


# ---- waiting -----------------------------------------------------------------------------------


class Way:
    """aio's functions, and asyncio's after install()."""

    def __init__(self, name: str) -> None:
        module: Any = aio if name == "aio" else asyncio
        self.exec: Callable[..., Any] = module.create_subprocess_exec


@pytest.fixture(params=["aio", "installed"])
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    if request.param == "installed":
        fastspawn.install()
    yield Way(request.param)
    fastspawn.uninstall()


# Prints the pid of the one that goes on, which holds all of its leader's pipes.
LEAVES = "cat fifo & echo $!; exit 3"


@pytest.fixture
def fifo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    return tmp_path / "fifo"


async def test_wait_is_for_the_process(way: Way, fifo: Path) -> None:
    """Not for those who hold its pipes; what these write is read afterwards."""
    process = await way.exec(*sh(LEAVES), stdin=PIPE, stdout=PIPE, stderr=PIPE)
    codes = await asyncio.gather(process.wait(), process.wait(), process.wait())
    assert codes == [3, 3, 3]
    assert process.returncode == await process.wait() == 3
    assert is_alive(int(await process.stdout.readline()))
    assert not process.stdout.at_eof()
    fifo.write_text("late")
    assert await process.communicate() == (b"late", b"")


async def test_communicate_is_for_the_pipes(way: Way, fifo: Path) -> None:
    process = await way.exec(*sh(LEAVES), stdout=PIPE)
    task = asyncio.ensure_future(process.communicate())
    assert await process.wait() == 3
    assert not task.done()
    fifo.write_text("late")
    out, _ = await task
    assert out.endswith(b"late")


async def test_wait_with_output_that_nobody_reads(way: Way) -> None:
    process = await way.exec("yes", stdin=PIPE, stdout=PIPE)
    pipe = process._transport.get_pipe_transport(1)
    await async_poll(lambda: not pipe.is_reading(), "the reader has had enough")
    process.kill()
    assert await asyncio.wait_for(process.wait(), BOUND) == -9
    assert (await process.stdout.read()).startswith(b"y\ny\n")
    assert await process.wait() == -9


async def test_wait_that_was_cancelled(way: Way, fifo: Path) -> None:
    process = await way.exec(*sh("read go; " + LEAVES), stdin=PIPE, stdout=PIPE)
    given_up, kept = (asyncio.ensure_future(process.wait()) for _ in range(2))
    await asyncio.sleep(0)
    given_up.cancel()
    process.stdin.write(b"go\n")
    assert await kept == 3
    assert given_up.cancelled()
    fifo.write_text("")
    await process.stdout.read()


async def test_nothing_is_left_when_wait_returns(way: Way) -> None:
    """A program that nobody outlives has closed its pipes by then, and so have we."""
    before = open_fds()
    for stdin in (PIPE, None):
        process = await way.exec(
            *sh("echo out; echo err >&2"), stdin=stdin, stdout=PIPE, stderr=PIPE
        )
        assert await process.wait() == 0
        assert open_fds().keys() == before.keys()
        assert (await process.stdout.read(), await process.stderr.read()) == (b"out\n", b"err\n")


async def test_order_of_the_ends(way: Way, fifo: Path) -> None:
    """The exit, the pipes that are held, and then the connection."""
    loop = asyncio.get_running_loop()
    transport, protocol = await aio.subprocess_exec(loop, Recorder, *sh(LEAVES), stderr=None)
    assert await transport._wait() == 3  # type: ignore[attr-defined]
    await async_poll(lambda: ("exited",) in protocol.events, "it was told")
    assert ("lost", None) not in protocol.events
    fifo.write_text("late")
    await protocol.lost
    # Nobody holds stdin, whose end comes with the exit, before or after.
    others = [event for event in protocol.events if event[0] != "data" and event[1:2] != (0,)]
    assert others == [("made",), ("exited",), ("pipe", 1, None), ("lost", None)]
    transport.close()


# ---- loops and threads ------------------------------------------------------------------------


def test_threads_and_loops() -> None:
    """Any number of loops, in any thread."""
    failures: list[BaseException] = []

    async def work() -> None:
        for i in range(10):
            process = await aio.create_subprocess_exec("echo", str(i), stdout=PIPE)
            assert await process.communicate() == (b"%d\n" % i, None)

    def body(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
        loop = make()
        try:
            loop.run_until_complete(work())
        except BaseException as exc:
            failures.append(exc)
        finally:
            loop.close()

    makes = [asyncio.new_event_loop, uvloop.new_event_loop] * 2
    threads = [threading.Thread(target=body, args=(make,)) for make in makes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_loop_closed_with_a_live_process(make: Any) -> None:
    """It warns as the standard library does; the process is killed and reaped."""
    loop = make()
    process = loop.run_until_complete(
        aio.create_subprocess_exec("sleep", "60", stdin=PIPE, stdout=PIPE)
    )
    pid = process.pid
    loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del process, loop
        gc.collect()
    assert "unclosed transport <SubprocessTransport" in str([str(w.message) for w in caught])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_loop_closed_after_the_transport(make: Any) -> None:
    """Killed, and its end comes when no loop is left to hear of it."""
    loop = make()
    process = loop.run_until_complete(aio.create_subprocess_exec("sleep", "60", stdin=PIPE))
    pid = process.pid
    process._transport.close()
    loop.close()
    del process, loop
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_closed_transport_kills() -> None:
    process = await aio.create_subprocess_exec("sleep", "60", stdout=PIPE)
    process._transport.close()  # type: ignore[attr-defined]
    assert await process.wait() == -9


async def test_custom_loop_pipes(run: Run) -> None:
    """A loop that makes pipe transports its own way keeps it."""
    loop: Any = run.loop
    original, made = loop.connect_read_pipe, []

    async def connect_read_pipe(*args: Any) -> Any:
        made.append(args)
        return await original(*args)

    loop.connect_read_pipe = connect_read_pipe
    process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert await process.communicate(b"x") == (b"x", b"")
    assert len(made) == 2


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("entry", ["exec", "shell", "popen", "run", "installed"])
def test_many_spawns(entry: str, kind: str) -> None:
    """The same descriptors, threads and memory afterwards."""
    found = json.loads(run_script("many_async.py", entry, kind, 300))
    assert found["fds"] == found["threads"] == found["children"] == 0
    assert found["rss"] < 1 << 20


async def test_dead_ends(tmp_path: Path) -> None:
    """Popen is what start() falls back to, and it is ours."""
    with (tmp_path / "out").open("wb") as file:
        process = await aio.create_subprocess_exec("echo", "hi", stdout=file)
        popen = process._transport.get_extra_info("subprocess")  # type: ignore[attr-defined]
        assert type(popen) is Popen
        await process.wait()
    assert (tmp_path / "out").read_bytes() == b"hi\n"
    await gone(process.pid)
    await async_poll(lambda: popen.returncode == 0, "the Popen knows")
