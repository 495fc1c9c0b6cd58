"""Others reap the engine's children: SIGCHLD is ignored, or waitpid(-1) is called."""

import asyncio
import contextlib
import os
import signal
import sys
import threading

from common import run

from fastspawn import Engine, Result

OURS = 3  # the exit status of each command


def reap(*_: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def reap_for_ever(stop: threading.Event) -> None:
    while not stop.is_set():
        reap()


async def results(engine: Engine) -> list[Result]:
    argv = ["sh", "-c", "echo hi; exit 3"]
    found = []
    for _ in range(20):
        runs = [asyncio.wait_for(engine.run(argv), 45) for _ in range(10)]
        found += await asyncio.gather(*runs)
    process = await engine.open(["sleep", "60"])
    process.kill()
    assert await asyncio.wait_for(process.wait(), 45) in (-signal.SIGKILL, 255)
    return found


async def main(how: str) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=reap_for_ever, args=[stop])
    async with Engine(2) as engine:
        if how == "ignored":
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        elif how == "handler":
            signal.signal(signal.SIGCHLD, reap)
        else:
            thread.start()
        found = await results(engine)
    stop.set()
    if thread.is_alive():
        thread.join()
    for result in found:
        assert result.stdout == b"hi\n", result
        assert result.returncode == (255 if result.lost else OURS), result
        assert result.pid > 0
    if known == "all":  # the kernel remembers
        assert not any(result.lost for result in found)
    elif known == "none" and how == "ignored":
        assert all(result.lost for result in found)


kind, how, known = sys.argv[1:]
run(kind, main(how))
print("ok")
