"""Runs a command whose stdout and stderr are what the arguments say: None, PIPE or STDOUT."""

import subprocess
import sys

from common import run

from fastspawn import Command, Engine


async def main(stdout: int | None, stderr: int | None) -> None:
    async with Engine(1) as engine:
        argv = ["sh", "-c", "echo out; echo err >&2"]
        await engine.run(Command(argv, stdout=stdout, stderr=stderr), check=True)


kind, *names = sys.argv[1:]
run(kind, main(*(getattr(subprocess, name, None) for name in names)))
