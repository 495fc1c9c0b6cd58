"""Ended processes whose Popen is kept: 300 with 256 descriptors. HOW is how their end was met.

kept.py HOW
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import fastspawn
from support import open_fds

MANY = 300
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
make_transport: Any = asyncio.SelectorEventLoop._make_subprocess_transport  # type: ignore[attr-defined]


class Loop(asyncio.SelectorEventLoop):
    """One that keeps asyncio's own transport, which is who sets the code of a Popen of ours."""

    _make_subprocess_transport = make_transport


def waitpid() -> Any:
    process = fastspawn.Popen(["true"])
    os.waitpid(process.pid, 0)
    return process


def told() -> Any:
    process = waitpid()
    process.returncode = 0
    return process


def dropped() -> Any:
    process = fastspawn.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    process.returncode = None  # it is reaped when the next one is made
    process.__del__()
    return process


def fallback() -> Any:
    """Started by the standard library's own code."""
    process = fastspawn.Popen(["true"], preexec_fn=lambda: None)
    os.waitpid(process.pid, 0)
    return process


async def through_asyncio() -> list[Any]:
    kept = []
    for _ in range(MANY):
        process = await asyncio.create_subprocess_exec("true")
        popen = process._transport.get_extra_info("subprocess")  # type: ignore[attr-defined]
        assert type(popen) is fastspawn.Popen
        assert await process.wait() == 0
        kept.append((process, popen))
    return kept


def main(how: str) -> None:
    if how == "asyncio":
        fastspawn.install()
        loop = Loop()
        before = open_fds()
        kept = loop.run_until_complete(through_asyncio())
        assert open_fds() == before
        loop.close()
        return
    if how == "ignored":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    make = {"told": told, "dropped": dropped, "fallback": fallback}.get(how, waitpid)
    if how == "ignored":

        def make() -> Any:
            process = fastspawn.Popen(["true"], stdout=subprocess.PIPE)
            process.stdout.read()  # type: ignore[union-attr]
            process.stdout.close()  # type: ignore[union-attr]
            return process

    before = open_fds()
    kept = [make() for _ in range(MANY)]
    left = len(open_fds()) - len(before)
    assert left <= {"told": 0, "dropped": 1}.get(how, 16), left
    assert [process.wait() for process in kept] == [0] * MANY
    assert open_fds() == before


main(sys.argv[1])
print("ok")
