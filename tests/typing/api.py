"""What a type checker must find, and what it must not accept: mypy --strict reads this, nothing
runs it. An `ignore` that nothing needs is an error, so each one proves a refusal."""

import asyncio
import os
import resource
import subprocess
from pathlib import Path
from typing import Any

from typing_extensions import assert_type

import fastspawn
from fastspawn import (
    DEVNULL,
    PIPE,
    STDOUT,
    STREAM,
    Command,
    Engine,
    Job,
    Limits,
    Process,
    Result,
    Sink,
    _core,
    aio,
)
from fastspawn._process import StdinWriter

# ---- Command, Limits ----

command = Command(["echo", b"hi", Path("x")])
Command(("echo",), executable=Path("/bin/echo"), cwd=b"/", umask=0o22)
Command(["echo"], env=os.environ, stdout=PIPE, stderr=STDOUT)
Command(["echo"], env={b"A": b"x"}, stdout=None, stderr=DEVNULL)
Command(["echo"], start_new_session=True, restore_signals=False, limits=Limits())
assert_type(command.argv, "tuple[str | bytes | os.PathLike[str] | os.PathLike[bytes], ...]")
assert_type(command.limits, Limits)
assert_type(command.pipes, "tuple[bool, bool]")
assert_type(command.resolve(), str)

Command([1])  # type: ignore[list-item]
Command(["echo"], "/bin/echo")  # type: ignore[call-arg]
Command(["echo"], shell=True)  # type: ignore[call-arg]
Command(["echo"], env={"A": 1})  # type: ignore[arg-type]
Command(["echo"], cwd=1)  # type: ignore[arg-type]
Command(["echo"], limits=5)  # type: ignore[arg-type]
Command(["echo"], stdout="PIPE")  # type: ignore[arg-type]
Command()  # type: ignore[call-arg]

limits = Limits(timeout=1, kill_grace=0.5, drain=0, max_output=10)
Limits(rlimits={resource.RLIMIT_CPU: (1, 2)})
assert_type(limits.timeout, "float | None")
assert_type(limits.kill_grace, float)
assert_type(limits.drain, float)
assert_type(limits.max_output, "int | None")
Limits(1.0)  # type: ignore[call-arg]
Limits(timeout="1")  # type: ignore[arg-type]
Limits(max_output=1.5)  # type: ignore[arg-type]
Limits(rlimits={resource.RLIMIT_CPU: 5})  # type: ignore[dict-item]
limits.timeout = 2  # type: ignore[misc]

# ---- Engine, Result ----


async def use(loop: asyncio.AbstractEventLoop) -> None:
    Engine("2")  # type: ignore[arg-type]
    async with Engine() as engine, Engine(spawners=2) as other:
        assert_type(engine, Engine)
        assert_type(other.stats, "dict[str, int]")
        assert_type(engine.live, int)

        result = await engine.run(command)
        assert_type(result, Result)
        assert_type(await engine.run(["echo", "hi"], b"input", check=True), Result)
        await engine.run(command, bytearray())
        await engine.run(command, input=memoryview(b""))
        await engine.run(command, "text")  # type: ignore[arg-type]
        await engine.run(command, b"", True)  # type: ignore[call-arg]
        await engine.run([1])  # type: ignore[list-item]

        completed: subprocess.CompletedProcess[bytes] = result
        completed.check_returncode()
        assert_type(result.returncode, int)
        assert_type(result.pid, int)
        assert_type(result.wall, float)
        assert_type(result.rusage, resource.struct_rusage)
        for flag in (result.timed_out, result.truncated, result.cancelled, result.lost):
            assert_type(flag, bool)

        # ---- Process ----

        process = await engine.open(command, stdin=False)
        assert_type(process, Process)
        assert_type(process.stdin, StdinWriter)
        assert_type(process.stdout, "asyncio.StreamReader | None")
        assert_type(process.stderr, "asyncio.StreamReader | None")
        assert_type(process.pid, int)
        assert_type(process.returncode, "int | None")
        assert_type(await process.wait(), int)
        assert_type(await process.result(), Result)
        process.stdin.write(b"text")
        process.stdin.write("text")  # type: ignore[arg-type]
        await process.stdin.drain()
        process.send_signal("TERM")  # type: ignore[arg-type]
        process.stdout.read()  # type: ignore[union-attr]
        async with process as same:
            assert_type(same, Process)
    await engine.open(command, False)  # type: ignore[call-arg]


# ---- sinks and jobs ----


class Whole:
    def on_output(self, data: bytes, /) -> None: ...
    def on_errors(self, data: bytes, /) -> None: ...
    def on_drain(self) -> None: ...
    def on_exit(self, job: Job, /) -> None: ...


class Part:
    def on_exit(self, job: Job, /) -> None: ...


sink: Sink = Whole()
sink = Part()  # type: ignore[assignment]


def submit(engine: Engine) -> None:
    job = engine.submit(command, Whole(), STREAM, stream=False, notify=True)
    assert_type(job, Job)
    assert_type(job.pid, "int | None")
    assert_type(job.returncode, "int | None")
    assert_type(job.output, bytes)
    assert_type(job.error, "OSError | MemoryError | None")
    assert_type(job.write(b"text"), bool)
    assert_type(job.rusage, "resource.struct_rusage | None")
    engine.submit(["echo"], Whole())  # type: ignore[arg-type]
    job.write("text")  # type: ignore[arg-type]
    job.pid = 5  # type: ignore[misc]


# ---- fastspawn.aio, install ----


async def on_any_loop(loop: asyncio.AbstractEventLoop) -> None:
    process = await aio.create_subprocess_exec("cat", b"-", Path("x"), stdin=PIPE, limit=1024)
    assert_type(process, asyncio.subprocess.Process)
    assert_type(await process.communicate(b""), tuple[bytes, bytes])
    assert_type(process.returncode, "int | None")
    assert_type(await aio.create_subprocess_shell("cat"), asyncio.subprocess.Process)
    await aio.create_subprocess_exec("cat", cwd="/", pass_fds=[3], user="nobody", umask=0o22)
    transport, protocol = await aio.subprocess_exec(loop, asyncio.SubprocessProtocol, "cat")
    assert_type(transport, asyncio.SubprocessTransport)
    assert_type(protocol, asyncio.SubprocessProtocol)
    await aio.create_subprocess_exec()  # type: ignore[call-arg]
    await aio.create_subprocess_exec("cat", 1)  # type: ignore[arg-type]
    await aio.create_subprocess_exec("cat", limit="1")  # type: ignore[arg-type]
    await aio.create_subprocess_shell(["cat"])  # type: ignore[arg-type]

    assert_type(await aio.run(["echo", b"hi"], input="x", text=True, timeout=1), Result)
    assert_type(await aio.run(("echo",), check=True, limits=limits, cwd=Path("/")), Result)
    await aio.run(["echo"], input=1)  # type: ignore[arg-type]
    await aio.run(["echo"], timeout="1")  # type: ignore[arg-type]
    await aio.run(["echo"], shell=True)  # type: ignore[call-arg]


def for_all() -> None:
    fastspawn.install()
    assert_type(fastspawn.installed(), bool)
    fastspawn.uninstall()
    fastspawn.install("subprocess")  # type: ignore[call-arg]


# ---- the core ----


def core(plan: _core.Plan) -> None:
    child = _core.spawn(plan, 0, stdout=1)
    assert_type(child, _core.Child)
    assert_type(child.pid, int)
    assert_type(child.wait(), "int | None")
    assert_type(child.lost, bool)
    assert_type(_core.backends(), "list[str]")
    assert_type(_core.backend(), str)
    _core.select_backend(None)
    _core.select_backend(5)  # type: ignore[arg-type]
    _core.spawn(["true"])  # type: ignore[arg-type]
    assert_type(_core.start(plan), "_core.Start | None")
    assert_type(plan.environment(), dict[bytes, bytes])


assert_type(fastspawn.__version__, str)
assert_type(fastspawn.get_include(), str)
anything: Any = STREAM

# ---- subprocess's names ----

assert_type(fastspawn.run(["echo"], capture_output=True), "subprocess.CompletedProcess[bytes]")
assert_type(fastspawn.run(["echo"], text=True), "subprocess.CompletedProcess[str]")
assert_type(fastspawn.check_output(["echo"]), bytes)
assert_type(fastspawn.check_output("echo", shell=True, encoding="utf-8"), str)
assert_type(fastspawn.call(["true"], timeout=1.5), int)
assert_type(fastspawn.check_call(["true"]), int)
assert_type(fastspawn.getoutput("true"), str)
assert_type(fastspawn.getstatusoutput("true"), tuple[int, str])
assert_type(fastspawn.Popen(["cat"], stdin=PIPE), "subprocess.Popen[bytes]")
assert_type(fastspawn.Popen(["cat"], stdin=PIPE, text=True), "subprocess.Popen[str]")
assert_type(fastspawn.Popen(["cat"], encoding="utf-8").communicate(), tuple[str, str])
with fastspawn.Popen(["cat"]) as drop_in:
    assert_type(drop_in.wait(1), int)
    assert_type(drop_in.poll(), "int | None")

fastspawn.run([1])  # type: ignore[list-item]
fastspawn.run(["echo"], timeout="1")  # type: ignore[call-overload]
fastspawn.Popen(["cat"], no_such=1)  # type: ignore[call-overload]
