"""Command: cgroup, no_new_privs and death_signal, on every way that a process comes to be."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastspawn import Command, Engine, Result, Template
from support import failure

if sys.platform != "linux":  # elsewhere they are refused, and there is nothing else to see

    def test_refused() -> None:
        for option in ({"cgroup": "/"}, {"no_new_privs": True}, {"death_signal": 9}):
            with pytest.raises(NotImplementedError):
                Command(["true"], **option)  # type: ignore[arg-type]

else:
    STATUS = ["grep", "NoNewPrivs", "/proc/self/status"]

    async def run(command: Command, how: str) -> Result:
        async with Engine(1) as engine:
            if how == "engine":
                return await engine.run(command)
            async with Template(command, engine=engine) as template:
                return await template.run()

    @pytest.mark.parametrize("how", ["engine", "template"])
    def test_no_new_privs(how: str) -> None:
        result = asyncio.run(run(Command(STATUS, no_new_privs=True), how))
        assert result.stdout == b"NoNewPrivs:\t1\n"
        assert Command(STATUS, no_new_privs=True).replace()._options["no_new_privs"]

    @pytest.mark.parametrize("how", ["engine", "template"])
    def test_cgroup(how: str, tmp_path: Path) -> None:
        """The file is written by the child, in the place of the kernel's."""
        procs = tmp_path / "cgroup.procs"
        procs.write_text("")
        result = asyncio.run(run(Command(["cat", procs], cgroup=tmp_path), how))
        assert result.stdout == b"0"

    def test_cgroup_that_is_not_there() -> None:
        command = Command(["true"], cgroup="/no/such")
        error = failure(lambda: asyncio.run(run(command, "engine")))
        assert isinstance(error, FileNotFoundError)
        assert error.filename == "/no/such"

    SERVER = """
import asyncio, sys
from fastspawn import Command, Engine, Template
async def main():
    async with Engine(1) as engine:
        command = Command(sys.argv[2:], death_signal=9)
        if sys.argv[1] == "engine":
            await engine.run(command)
        else:
            async with Template(command, engine=engine) as template:
                await template.run()
asyncio.run(main())
"""
    CHECKPOINTS = """
import os, sys, time
from fastspawn import checkpoint
checkpoint()
os.write(int(sys.argv[1]), b"x")
time.sleep(1000)
"""

    @pytest.mark.parametrize("how", ["engine", "template", "checkpoint"])
    def test_a_killed_program_leaves_no_child(how: str, tmp_path: Path) -> None:
        """The child holds a named pipe: its end of file is the child's end."""
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        if how == "checkpoint":
            script = tmp_path / "program.py"
            text = CHECKPOINTS.replace("int(sys.argv[1])", f"os.open({str(fifo)!r}, os.O_WRONLY)")
            script.write_text(text)
            command = [sys.executable, str(script)]
        else:
            command = ["sh", "-c", f"exec >{fifo}; echo x; exec sleep 1000"]
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, how, *command], stdout=subprocess.PIPE
        )
        with fifo.open("rb", buffering=0) as pipe:
            assert pipe.read(1) == b"x"
            process.send_signal(signal.SIGKILL)
            process.communicate()
            while pipe.read(100):
                pass
