"""aio.run: the short form, on an engine that lives as long as its event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import threading
import warnings
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Any

import pytest
import uvloop

from conftest import Run
from fastspawn import Limits, Result, aio
from fastspawn.aio._short import engine_of
from support import (
    async_failure,
    failure,
    gone,
    is_alive,
    longer_times,
    open_fds,
    own_threads,
    poll,
    same_error,
    sh,
)

MAKE = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def only(threads: dict[int, str]) -> None:
    """No other thread is left. The kernel may list one for a moment after it was joined."""
    poll(lambda: own_threads().keys() == threads.keys(), "the same threads")


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        (["echo", "hi"], {}),
        (sh("cat; echo err >&2; exit 3"), {"input": b"in"}),
        (sh("cat; echo err >&2; exit 3"), {"input": b"in", "stderr": STDOUT}),
        (["cat"], {"input": bytearray(b"x" * 1_000_000)}),
        (["cat"], {"input": b"", "stderr": DEVNULL}),
        (sh("printf 'a\\r\\nb\\rc\\n'; cat"), {"text": True, "input": "d\u00e9"}),
        (sh("printf '\\344'"), {"encoding": "latin-1"}),
        (sh("printf '\\344'"), {"encoding": "utf-8", "errors": "replace"}),
        (["pwd"], {"cwd": "/"}),
        (["env"], {"env": {"A": "1", "PATH": os.environ["PATH"]}}),
        (sh("umask"), {"umask": 0o31}),
        (["true"], {"executable": "/bin/echo"}),
        (sh("kill -9 $$"), {}),
        (sh("exit 1"), {"stdout": None, "stderr": None}),
    ],
)
async def test_like_subprocess_run(argv: list[Any], options: dict[str, Any]) -> None:
    defaults = {"stdout": PIPE, "stderr": PIPE, "stdin": DEVNULL}
    if "input" in options:
        del defaults["stdin"]
    expected = subprocess.run(argv, **{**defaults, **options})
    result = await aio.run(argv, **options)
    assert isinstance(result, Result)
    assert isinstance(result, subprocess.CompletedProcess)
    seen = (result.args, result.returncode, result.stdout, result.stderr)
    assert seen == (expected.args, expected.returncode, expected.stdout, expected.stderr)


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        (["no-such-program"], {}),
        (["/etc/passwd"], {}),
        (["true"], {"cwd": "/no/such/directory"}),
        (["true", "a\0b"], {}),
        (["true"], {"env": {"A=B": "1"}}),
        (["true"], {"input": "text"}),
        (["true"], {"input": b"bytes", "text": True}),
        (["false"], {"check": True}),
        (sh("echo out; echo err >&2; exit 3"), {"check": True}),
    ],
)
async def test_errors(argv: list[Any], options: dict[str, Any]) -> None:
    expected = failure(lambda: subprocess.run(argv, capture_output=True, **options))
    assert same_error(await async_failure(aio.run(argv, **options)), expected)
    if isinstance(expected, subprocess.CalledProcessError):
        error: Any = await async_failure(aio.run(argv, **options))
        assert (error.output, error.stderr) == (expected.output, expected.stderr)


@pytest.mark.parametrize("limit", [False, True])
async def test_timeout(limit: bool) -> None:
    for seconds in longer_times():
        options: dict[str, Any] = {"timeout": seconds}
        if limit:
            options = {"limits": Limits(timeout=seconds)}
        error: Any = await async_failure(aio.run(sh("echo $$; exec sleep 60"), **options))
        assert type(error) is subprocess.TimeoutExpired
        assert (error.timeout, error.stderr) == (seconds, b"")
        if error.output:
            break
    await gone(int(error.output))


async def test_no_time_at_all() -> None:
    for timeout in (0, -1):
        error = await async_failure(aio.run(["sleep", "60"], timeout=timeout))
        assert type(error) is subprocess.TimeoutExpired


async def test_cancelled(tmp_path: Path) -> None:
    """The whole group is ended."""
    pids = tmp_path / "pids"
    command = sh(f"sleep 60 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait")
    task = asyncio.ensure_future(aio.run(command))
    while not pids.exists():
        assert not task.done()
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(*map(int, pids.read_text().split()))


async def test_many() -> None:
    results = await asyncio.gather(*(aio.run(["echo", str(i)]) for i in range(100)))
    assert [result.stdout for result in results] == [b"%d\n" % i for i in range(100)]


async def test_one_engine() -> None:
    await aio.run(["true"])
    threads = own_threads()
    await aio.run(["true"])
    assert own_threads().keys() == threads.keys()


@pytest.mark.parametrize("kind", MAKE)
def test_goes_with_the_loop(kind: str) -> None:
    """Neither thread nor descriptor is left after close(), which may be called again."""
    fds, threads = open_fds(), own_threads()
    loop = MAKE[kind]()
    assert loop.run_until_complete(aio.run(["echo", "hi"])).stdout == b"hi\n"
    assert len(own_threads()) > len(threads)
    loop.close()
    only(threads)
    assert open_fds().keys() == fds.keys()
    loop.close()
    assert "close" not in vars(loop)


@pytest.mark.parametrize("kind", MAKE)
def test_closed_while_it_runs(kind: str) -> None:
    loop = MAKE[kind]()
    task = loop.create_task(aio.run(["sleep", "60"]))
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0.05))
    engine = engine_of(loop)
    loop.close()
    assert engine.live == 0
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_running_loop_is_not_closed(run: Run) -> None:
    async def body() -> None:
        await aio.run(["true"])
        with pytest.raises(RuntimeError, match="running"):
            asyncio.get_running_loop().close()
        assert (await aio.run(["echo", "hi"])).stdout == b"hi\n"

    run(body())


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
@pytest.mark.parametrize("kind", MAKE)
def test_goes_with_a_loop_that_is_garbage(kind: str) -> None:
    threads = own_threads()
    loop = MAKE[kind]()
    loop.run_until_complete(aio.run(["true"]))
    if kind == "uvloop":
        loop.close()  # the references that libuv has to an open loop keep it
    del loop
    gc.collect()
    only(threads)


def test_asyncio_run() -> None:
    threads = own_threads()
    for _ in range(3):
        assert asyncio.run(aio.run(["echo", "hi"])).returncode == 0
    only(threads)


def test_threads() -> None:
    """Each thread's loop has an engine of its own."""
    results: list[bytes] = []

    def body(kind: str) -> None:
        loop = MAKE[kind]()
        results.extend(loop.run_until_complete(aio.run(["echo", "hi"])).stdout for _ in range(5))
        loop.close()

    threads = [threading.Thread(target=body, args=(kind,)) for kind in MAKE for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"hi\n"] * 20


def test_forked_child_closes_its_copy() -> None:
    """Closing the loop in a forked child leaves the parent's engine alone."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(aio.run(["true"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            loop.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert not is_alive(pid)
    assert loop.run_until_complete(aio.run(["echo", "hi"])).stdout == b"hi\n"
    loop.close()
