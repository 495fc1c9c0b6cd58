"""The rows without HTTP: what one spawn costs.

Each case is a process of its own (cases/worker.py, alone.c). The processes of one comparison live
at the same time and take turns in shuffled order, one batch each, so that a slow moment of the
machine hits all of them.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import final

from bench import alone
from bench.cases.ways import WAYS
from bench.harness.server import environment
from bench.harness.tools import ROOT, Unavailable

ABOUT = {name: about for name, (about, _) in WAYS.items()}
ABOUT |= {name: about for name, (_, about) in alone.WAYS.items()}
COLUMNS = ("wall_us", "parent_cpu_us", "child_cpu_us")
Series = dict[str, list[float]]


class WorkerError(Exception):
    """A worker that died or whose spawns gave a wrong output."""


@final
class Worker:
    """The harness's end of one measured process."""

    def __init__(self, way: str, *options: str) -> None:
        self.way = way
        python = [sys.executable, "-m", "bench.cases.worker", way, *options]
        self._process = subprocess.Popen(
            alone.command(way) if way in alone.WAYS else python,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=ROOT,
            start_new_session=True,
        )

    def __enter__(self) -> Worker:
        try:
            hello = self._answer()
        except BaseException:
            self._end()
            raise
        if "unavailable" in hello:
            self._end()
            raise Unavailable(str(hello["unavailable"]))
        return self

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.way}: the worker ended, status {self._process.wait()}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def batch(self, count: int, seconds: float) -> dict[str, float]:
        assert self._process.stdin is not None
        print(count, seconds, file=self._process.stdin, flush=True)
        answer = self._answer()
        if answer["wrong"]:
            raise WorkerError(
                f"{self.way}: {answer['wrong']} of {answer['spawns']} outputs were wrong"
            )
        return answer

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        """EOF ends a worker; one that does not see it is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def take_turns(workers: dict[str, Worker], batches: int, count: int) -> dict[str, Series]:
    """*batches* batches of *count* spawns (at most 1 s each) from every worker, one at a time."""
    series: dict[str, Series] = {name: {c: [] for c in COLUMNS} for name in workers}
    for worker in workers.values():
        worker.batch(max(10, count // 4), 1.0)
    for _ in range(batches):
        for name in random.sample(sorted(workers), len(workers)):
            answer = workers[name].batch(count, 1.0)
            for column in COLUMNS:
                series[name][column].append(round(answer[column], 2))
    return series


def _open(way: str, stack: ExitStack) -> Worker | str:
    try:
        return stack.enter_context(Worker(way))
    except Unavailable as error:
        return str(error)


def measure_ways(ways: Sequence[str], batches: int, count: int) -> dict[str, Series | str]:
    """One round of the library rows; a string is the reason why a way has no figures."""
    found: dict[str, Series | str] = {}
    workers: dict[str, Worker] = {}
    with ExitStack() as stack:
        for way in ways:
            opened = _open(way, stack)
            if isinstance(opened, Worker):
                workers[way] = opened
            else:
                found[way] = opened
        found.update(take_turns(workers, batches, count))
    return found


def about(way: str) -> str:
    return ABOUT[way]
