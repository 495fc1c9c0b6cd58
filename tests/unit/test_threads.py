"""Many threads at once: nothing of the binding counts on a GIL to keep others out."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable

import pytest

import fastspawn
from fastspawn import Engine, _core
from support import often

FREE = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
THREADS = 8


def together(*works: Callable[[], object]) -> None:
    """Each in a thread of its own, from the same moment on; the first error is raised."""
    start = threading.Barrier(len(works))
    errors: list[BaseException] = []

    def one(work: Callable[[], object]) -> None:
        start.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.skipif(not FREE, reason="for an interpreter without a GIL")
def test_no_part_of_it_brings_the_gil_back() -> None:
    code = "import sys, fastspawn._core as core; core.EngineCore; sys.exit(sys._is_gil_enabled())"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_runs() -> None:
    def work() -> None:
        for i in range(20):
            done = fastspawn.run(["echo", str(i)], capture_output=True, text=True)
            assert done.stdout == f"{i}\n"

    together(*[work] * often(THREADS, 64))


def test_one_child_that_all_wait_for() -> None:
    for sig in (signal.SIGTERM, signal.SIGKILL) * 5:
        child = fastspawn.Popen(["sleep", "60"])
        waits = [child.wait] * 3 + [functools.partial(child.wait, 60)] * 2

        def stop(child: fastspawn.Popen[bytes] = child, sig: signal.Signals = sig) -> None:
            while child.poll() is None:
                child.send_signal(sig)

        together(*waits, stop, stop)
        assert child.returncode == -sig


def test_children_that_are_dropped_while_others_start() -> None:
    """The list of those whose descriptors go when someone else reaps them is everybody's."""
    before = len(os.listdir("/dev/fd"))

    def work() -> None:
        children = []
        for i in range(40):
            children.append(fastspawn.Popen(["true"]))
            if i % 2:
                os.waitpid(children[-1].pid, 0)
            if i % 5 == 4:
                for child in children:
                    child.wait()
                children.clear()

    together(*[work] * THREADS)
    assert len(os.listdir("/dev/fd")) <= before + 64


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfds")
def test_a_child_that_many_take_and_let_go() -> None:
    """Nothing but the list: no process starts or ends between two changes of it."""
    with fastspawn.Popen(["cat"], stdin=subprocess.PIPE) as child:

        def work() -> None:
            for i in range(400):
                held = [_core.adopt(child.pid) for _ in range(1 + i % 20)]
                assert None not in held

        together(*[work] * THREADS)
        assert child.poll() is None
    assert child.returncode == 0


def test_starts_and_their_ends() -> None:
    plan = _core.Plan(["true"])
    for _ in range(10):
        start = _core.start(plan)
        if start is None:
            pytest.skip("no backend here starts so")
        ends: list[object] = []

        def end(start: _core.Start = start, ends: list[object] = ends) -> None:
            try:
                ends.append(start.end())
            except ValueError:
                ends.append(None)

        together(*[end] * 4)
        (child,) = [each for each in ends if each is not None]
        assert isinstance(child, _core.Child)
        assert child.wait() == 0


def test_the_backend_is_chosen_while_others_start() -> None:
    def choose() -> None:
        for _ in range(20):
            _core.select_backend("")
            with pytest.raises(ValueError, match="no-such-way"):
                _core.select_backend("no-such-way")

    def start() -> None:
        for _ in range(10):
            with contextlib.suppress(ValueError):
                fastspawn.run(["true"])

    try:
        together(choose, choose, *[start] * 4)
    finally:
        _core.select_backend(os.environ.get("FASTSPAWN_BACKEND"))


def test_the_environment_changes_while_others_start() -> None:
    def change() -> None:
        for i in range(300):
            os.environ[f"FASTSPAWN_{i}"] = "x" * (i % 100)
        for i in range(300):
            del os.environ[f"FASTSPAWN_{i}"]

    def start() -> None:
        for _ in range(8):
            done = fastspawn.run(["printenv", "PATH"], capture_output=True)
            assert os.fsdecode(done.stdout).rstrip("\n") == os.environ["PATH"]

    together(change, *[start] * 4)


def test_an_outlet_is_closed_while_others_write() -> None:
    with open(os.devnull, "wb") as null:
        for _ in range(10):
            outlet = _core.Outlet(null.fileno(), 1 << 12)

            def put(outlet: _core.Outlet = outlet) -> None:
                while outlet.put(b"x\n"):
                    _ = outlet.state

            together(put, put, put, functools.partial(outlet.close, 1))


async def test_an_engine_that_other_threads_look_at() -> None:
    """Its jobs are its loop's; who looks, writes or stops from elsewhere breaks nothing."""
    over = threading.Event()
    jobs: list[_core.Job] = []

    def look(engine: Engine) -> None:
        while not over.is_set():
            assert engine.stats["spawners"] == 2
            for job in tuple(jobs):
                with contextlib.suppress(BrokenPipeError):  # after write_eof()
                    job.write(b"x")
                job.pause_reading()
                job.resume_reading()
                job.send_signal(0)
                _ = job.pid, job.output, job.returncode, job.rusage

    class Sink(fastspawn.Sink):
        def on_exit(self, job: _core.Job) -> None:
            ended.append(job)

    ended: list[_core.Job] = []
    async with Engine(spawners=2) as engine:
        threads = [threading.Thread(target=look, args=(engine,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            command = fastspawn.Command(["head", "-c", "1"])
            for _ in range(10):
                jobs[:] = [engine.submit(command, Sink(), fastspawn.STREAM) for _ in range(8)]
                for _ in range(3):
                    assert (await engine.run(["echo", "hi"])).stdout == b"hi\n"
                for job in jobs:
                    job.write_eof()
            while len(ended) < 80:
                await engine.run(["true"])
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert {job.returncode for job in ended} == {0}


IMPORTS = """\
import sys, threading
import fastspawn
names = [name for name in fastspawn.__all__ if name != "aio"]
start = threading.Barrier(8)
errors = []
def work(shift):
    start.wait()
    try:
        from fastspawn import _core
        for name in names[shift:] + names[:shift]:
            getattr(fastspawn, name)
        _core.Outlet, _core.TemplateCore, _core.EngineCore
    except BaseException as error:
        errors.append(error)
threads = [threading.Thread(target=work, args=(3 * i,)) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(str(errors) if errors else 0)
"""


def test_names_that_many_ask_for_first() -> None:
    for _ in range(3):
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
