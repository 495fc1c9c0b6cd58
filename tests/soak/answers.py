"""What the programs of a soak are asked, and what they may answer."""

from __future__ import annotations

import collections
import os
import shutil
import signal
import subprocess
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import fastspawn
from fastspawn import Command, Limits
from fastspawn._result import Result

HERE = Path(__file__).parent
CAP = 20_000
"""Bytes of output, where there is a limit."""


class Wrong(Exception):
    """An answer that is not the request's, or something that is left."""


@dataclass
class Program:
    """What answers, and where its forks begin."""

    argv: Sequence[str]
    env: dict[str, str]
    at: Literal["main", "effect", "checkpoint"]
    numbers: int
    """random ones in each answer"""
    share: float
    """of all requests"""
    cannot: frozenset[str] = frozenset()
    """orders"""
    lines: int = 4000
    """at most, to copy"""

    def command(self, given: str = "-", limits: Limits | None = None) -> Command:
        env = {**self.env, "NONCE": given}
        return Command([*self.argv, given], env=env, limits=limits or Limits())


def compile_c(folder: Path, name: str, *flags: str) -> Path:
    """A program of here."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler, "no C compiler"
    program = folder / name
    subprocess.run([compiler, "-O1", *flags, "-o", program, HERE / f"{name}.c"], check=True)
    return program


def programs(folder: Path) -> dict[str, Program]:
    """answer.c, answer.sh and answer.py. Their other files are in the folder."""
    program, fifo = str(compile_c(folder, "answer")), str(folder / "fifo")
    os.mkfifo(fifo)
    package = str(Path(fastspawn.__path__[0]).parent)
    env = {"PATH": os.environ["PATH"], "FIFO": fifo, "PYTHONPATH": package}
    script = (HERE / "answer.sh").read_text()
    python = [sys.executable, str(HERE / "answer.py")]
    return {
        "main": Program([program], env, "main", 2, 0.3),
        "effect": Program([program], env, "effect", 2, 0.3),
        # It can only have itself killed.
        "sh": Program(["sh", "-c", script, "sh"], env, "main", 0, 0.25, frozenset({"crash"}), 40),
        "python": Program(python, env, "checkpoint", 4, 0.15),
    }


@dataclass
class Request:
    nonce: int
    order: str
    given: str
    """by argument and environment"""
    more: bytes = field(default=b"", repr=False)

    @property
    def input(self) -> bytes:
        return f"{self.nonce} {self.order}\n".encode() + self.more

    def rest(self, size: int) -> bytes:
        """What follows the first line, or at least so much of it."""
        line = f"{self.nonce}\n".encode()
        if self.order == "flood":
            return line * (size // len(line) + 1)
        said = b"child " + line
        return {"copy": self.more, "leave": said, "stay": said}.get(self.order, b"")

    def ends(self) -> int:
        return -signal.SIGSEGV if self.order == "crash" else self.nonce % 64


@dataclass
class Figures:
    requests: int = 0
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    struck: collections.Counter[int] = field(default_factory=collections.Counter)
    """signals that were sent to residents, and"""
    died: collections.Counter[int] = field(default_factory=collections.Counter)
    """requests that ended by one of them"""
    drawn: array[int] = field(default_factory=lambda: array("Q"))


def check_head(program: Program, asked: Request, got: bytes, figures: Figures) -> bool:
    """Is it whole? Raises Wrong for that of another request."""
    own = f"{asked.nonce} {asked.given} {asked.given} 0" + " " * bool(program.numbers)
    line, newline, _ = got.partition(b"\n")
    begin, numbers = line[: len(own)], line[len(own) :].split()
    if not own.encode().startswith(begin) or len(numbers) > program.numbers:
        raise Wrong("its first line")
    if not newline:
        return False
    if len(begin) < len(own) or len(numbers) < program.numbers:
        raise Wrong("its first line is not whole")
    figures.drawn.extend(int(number, 16) for number in numbers)
    return True


def check(program: Program, asked: Request, got: Result, figures: Figures) -> None:
    """Raises Wrong."""
    whole = check_head(program, asked, got.stdout, figures)
    rest = got.stdout.partition(b"\n")[2]
    expected = asked.rest(len(rest))
    if not expected.startswith(rest):
        raise Wrong("what follows its first line")
    if got.timed_out:
        figures.counts["late"] += 1
    elif got.truncated and len(got.stdout) == CAP:
        figures.counts["cut"] += 1
    elif got.returncode == asked.ends() and whole and rest == expected and not got.stderr:
        figures.counts["right"] += 1
    elif got.returncode < 0 and figures.died[-got.returncode] < figures.struck[-got.returncode]:
        figures.died[-got.returncode] += 1
    else:
        raise Wrong("its end, which nothing explains")
