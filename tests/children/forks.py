"""Forks with an engine running: the child must neither use it nor harm it."""

import asyncio
import os
import sys
import traceback
import warnings
from collections.abc import Callable

from common import run

from fastspawn import PIPE, Command, Engine, Process, aio

# That a process with threads forks is the point here.
warnings.simplefilter("ignore", DeprecationWarning)


def in_child(body: Callable[[], object]) -> int:
    """Run it in a forked child; returns the child's pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        body()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def refuses(call: Callable[[], object]) -> None:
    try:
        call()
    except RuntimeError as error:
        if "belongs to the process that forked" not in str(error):
            raise
    else:
        raise AssertionError("it works")


def use_of_the_parents(engine: Engine, process: Process) -> None:
    refuses(lambda: engine.submit(Command(["true"]), None))
    refuses(lambda: asyncio.run(engine.run(["true"])))
    refuses(lambda: asyncio.run(engine.open(["true"])))
    refuses(lambda: asyncio.run(engine.close()))
    process.stdin.write(b"from the child")
    process.stdin.close()
    process.kill()
    process.cancel()
    engine._drain()
    engine._stop()
    engine._free()


async def own(kind: str) -> None:
    async with Engine(2) as engine:
        for i in range(20):
            result = await engine.run(["echo", str(i)])
            assert result.stdout == f"{i}\n".encode()


def everything(
    kind: str, engine: Engine, process: Process, other: asyncio.subprocess.Process
) -> None:
    use_of_the_parents(engine, process)
    other.terminate()
    other.kill()
    run(kind, own(kind))


def leave(engine: Engine) -> None:
    """As a program ends that does not know of os._exit."""
    sys.exit(0)


async def main(kind: str) -> None:
    async with Engine(2) as engine:
        process = await engine.open(["cat"])
        other = await aio.create_subprocess_exec("cat", stdin=PIPE)
        sleeper = asyncio.ensure_future(engine.run(["sleep", "0.2"]))
        running = [asyncio.ensure_future(engine.run(["echo", str(i)])) for i in range(30)]
        await asyncio.sleep(0)
        pids = [in_child(lambda: everything(kind, engine, process, other)) for _ in range(3)]
        for pid in pids:
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
        for i, result in enumerate(await asyncio.gather(*running)):
            assert result.stdout == f"{i}\n".encode()
        assert (await sleeper).returncode == 0
        assert process.returncode is other.returncode is None
        await other.communicate(b"")
        assert other.returncode == 0
        process.stdin.write(b"from the parent")
        process.stdin.close()
        assert process.stdout is not None
        assert await process.stdout.read() == b"from the parent"
        assert await process.wait() == 0
        assert (await engine.run(["echo", "hi"])).stdout == b"hi\n"


(kind,) = sys.argv[1:]
run(kind, main(kind))
print("ok")
