"""Templates: forks in place of executed processes, and checkpoints."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import needs
from conftest import Run
from fastspawn import Command, Engine, Result, Template, TemplateError
from soak.processes import children
from support import BOUND, async_poll, at_checkpoint, policies

pytestmark = needs.templates

TOP = """\
import os, sys
from sys import exit as leave
from fastspawn import checkpoint
checkpoint()
"""

ENDS = {
    "normal": "print(1)",
    "exit-3": "sys.exit(3)",
    "exit-none": "sys.exit()",
    "exit-text": "sys.exit('bad')",
    "exit-true": "sys.exit(True)",
    "exit-negative": "sys.exit(-1)",
    "exit-300": "sys.exit(300)",
    "exit-early-name": "leave(13)",
    "exit-in-function": "def f(): sys.exit(9)\nf()",
    "raise-exit": "raise SystemExit(7)",
    "raise-exit-class": "raise SystemExit",
    "raise-own-exit": "class E(SystemExit): pass\nraise E(11)",
    "builtin-exit": "exit(2)",
    "never-raised": "e = SystemExit(4)",
    "caught": "try: sys.exit(5)\nexcept SystemExit: pass\nprint('on')",
    "caught-below": "def f():\n try: sys.exit(5)\n except SystemExit: pass\nf()",
    "finally": "try: sys.exit(5)\nfinally: print('f')",
    "raised-again": "try: sys.exit(6)\nexcept SystemExit: raise",
    "in-thread": "import threading\nt = threading.Thread(target=sys.exit, args=(5,))\nt.start()",
    "error": "1 / 0",
    "error-in-function": "def f(): raise ValueError('x')\ntry: f()\nexcept ValueError: pass\nf()",
    "error-remembered": "try: 1 / 0\nexcept Exception as e: sys.last_exc = sys.last_value = e",
    "interrupt": "raise KeyboardInterrupt",
    "at-exit": "import atexit\natexit.register(print, 'bye')\nsys.exit(4)",
    "thread-outlives": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(0.05), print('t'))).start()",
    "stdout-closed": "sys.stdout.close()",
    "full": "sys.stdout = open('/dev/full', 'w')\nprint('x')",
    "no-collector": "import gc\ngc.disable()\nsys.exit(3)",
    "os-exit": "os._exit(8)",
    "killed": "os.kill(os.getpid(), 9)",
}


def ending(result: Result) -> tuple[int, bytes, bytes]:
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_fork_ends_as_the_program_does(run: Run, tmp_path: Path, end: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(TOP + end)

    async def main() -> None:
        async with Engine(1) as engine:
            direct = await engine.run([sys.executable, script])
        async with Template([sys.executable, script], size=1) as template:
            # The one that reaches the checkpoint, and forks of it.
            assert ending(await at_checkpoint(template, template.run)) == ending(direct)
            for _ in range(2):
                assert ending(await template.run()) == ending(direct)
            assert template.stats["checkpoints"] == 1

    run(main())


def test_what_stands_above_runs_once(run: Run, tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = tmp_path / "program.py"
    script.write_text(
        f"import sys\nopen({str(count)!r}, 'a').write('x')\nprint('above')\n"
        "from fastspawn import checkpoint\ncheckpoint()\nimport os\n"
        "print(os.getpid(), sys.argv[1:], os.environ.get('X'), sys.stdin.read())"
    )

    async def main() -> None:
        async with Template([sys.executable, script, "a"], size=1) as template:
            first = await at_checkpoint(template, lambda: template.run(input=b"one"))
            above = count.read_text()
            assert first.stdout == b"above\n%d ['a'] None one\n" % first.pid
            second = await template.run([script, "b", "c d"], b"two", env={"X": "1"})
            assert second.stdout == b"%d ['b', 'c d'] 1 two\n" % second.pid
            third = await template.run()
            assert third.stdout == b"%d ['a'] None \n" % third.pid
        assert count.read_text() == above

    run(main())


def test_threads_are_refused(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import threading\nstop = threading.Event()\nthreading.Thread(target=stop.wait).start()\n"
        "from fastspawn import checkpoint\ncheckpoint()\nprint('on')\nstop.set()"
    )

    async def main() -> None:
        async with Template([sys.executable, script], size=1) as template:
            for _ in range(2):
                result = await template.run()
                assert result.stdout == b"on\n"
            assert template.stats["checkpoints"] == 0

    run(main())


def test_outside_a_template_a_checkpoint_is_nothing(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(TOP + "print('on')")

    async def main() -> None:
        async with Engine(1) as engine:
            assert (await engine.run([sys.executable, script])).stdout == b"on\n"

    run(main())


def test_each_run_is_a_process_of_its_own(run: Run) -> None:
    async def main() -> None:
        async with Template(["sh", "-c", "echo $$ $1", "sh", "x"], size=2) as template:
            pids = set()
            for word in ("a", "b c", ""):
                result = await template.run(["-c", "echo $$ $1", "sh", word])
                pid, _, rest = result.stdout.partition(b" ")
                assert int(pid) == result.pid
                assert rest.decode().rstrip("\n") == word
                pids.add(result.pid)
            assert len(pids) == 3
            assert template.stats["forked"] == 3

    run(main())


def test_no_child_is_scheduled_as_its_spawner(run: Run) -> None:
    """Neither a fork, nor what the same spawner executes: 0 is SCHED_OTHER (proc(5))."""
    command = ["awk", "{ print $41 }", "/proc/self/stat"]

    async def main() -> None:
        async with Engine(1) as engine:
            before = await engine.run(command)
            async with Template(command, engine=engine) as template:
                assert (await template.run()).stdout == before.stdout
                assert template.stats["forked"] == 1
                assert os.SCHED_BATCH in policies(os.getpid()).values()
                assert (await engine.run(command)).stdout == before.stdout

    run(main())


def test_a_template_process_that_dies_is_replaced(run: Run) -> None:
    async def main() -> None:
        async with Template(["sh", "-c", "echo $PPID"], size=1) as template:
            (before,) = children()
            os.kill(before, signal.SIGKILL)
            await async_poll(lambda: template.stats["restarted"] == 1, "it was seen to die")
            assert (await template.run()).stdout == b"%d\n" % os.getpid()
            await async_poll(lambda: template.stats["ready"] == 1, "there is another")
            forked = template.stats["forked"]
            assert (await template.run()).returncode == 0
            assert template.stats["forked"] == forked + 1

    run(main())


def test_a_program_that_changes_is_noticed(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "program"
    script.write_text("#!/bin/sh\necho one")
    script.chmod(0o755)

    async def main() -> None:
        async with Template([script], size=1) as template:
            assert (await template.run()).stdout == b"one\n"
            script.write_text("#!/bin/sh\necho two")

            async def is_new() -> bool:
                result = await template.run()
                assert result.stdout == b"two\n"
                return template.stats["ready"] == 1 and template.stats["direct"] > 0

            await async_poll(is_new, "it was started anew")

    run(main())


def test_who_cannot_be_a_template(run: Run, tmp_path: Path) -> None:
    static = tmp_path / "static"
    data = bytearray(Path(os.path.realpath("/bin/sh")).read_bytes())
    at = int.from_bytes(data[32:40], "little")
    for i in range(int.from_bytes(data[56:58], "little")):
        if data[at + 56 * i] == 3:  # PT_INTERP
            data[at + 56 * i] = 0
    static.write_bytes(data)
    setuid = tmp_path / "setuid"
    setuid.write_bytes(Path("/bin/sh").read_bytes())
    text = tmp_path / "text"
    text.write_text("echo hi")
    for path in (static, setuid, text):
        path.chmod(0o4755 if path is setuid else 0o755)

    async def reason(path: Path) -> str:
        with pytest.raises(TemplateError) as caught:
            await Template([path]).start()
        return str(caught.value)

    async def main() -> None:
        assert "statically linked" in await reason(static)
        assert "setuid" in await reason(setuid)
        assert "neither" in await reason(text)
        with pytest.raises(FileNotFoundError):
            await Template(["./missing"]).start()

    run(main())


def test_the_directory_must_exist_for_each_run(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    async def main() -> None:
        async with Template(Command(["sh", "-c", "pwd"], cwd=folder), size=1) as template:
            assert (await template.run()).stdout == os.fsencode(folder) + b"\n"
            folder.rmdir()
            with pytest.raises(FileNotFoundError) as caught:
                await template.run()
            assert caught.value.filename == folder

    run(main())


async def test_started_twice(engine: Engine) -> None:
    """The first goes on."""
    async with Template(["cat"], engine=engine) as template:
        with pytest.raises(RuntimeError, match="running already"):
            await template.start()
        assert (await template.run(input=b"x")).stdout == b"x"
        assert template.stats["forked"] == 1


async def test_an_engine_that_closes_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(1)
    await engine.start()
    template = Template(["cat"], engine=engine)
    closing: list[asyncio.Task[None]] = []

    def close() -> bool:
        closing.append(asyncio.create_task(engine.close()))
        return False

    monkeypatch.setattr(template, "_is_ready", close)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the engine is"):
            await asyncio.wait_for(template.start(), BOUND)
    await asyncio.gather(*closing)


ELSEWHERE = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static int state;
__attribute__((constructor)) static void begin(void) { syscall(SYS_set_tid_address, &state); }
static pthread_mutex_t m = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
static void *other(void *unused) { return (void *)(long)pthread_mutex_unlock(&m); }
static void hear(int sig) { write(1, "heard\n", 6); }
int main(void) {
    pthread_t thread;
    void *result;
    int a = pthread_mutex_lock(&m), b = pthread_mutex_lock(&m), status;
    signal(SIGUSR1, hear);
    raise(SIGUSR1);
    pthread_create(&thread, NULL, other, NULL);
    pthread_join(thread, &result);
    if (fork() == 0) return pthread_kill(pthread_self(), 9);
    wait(&status);
    printf("%d %d %ld %d %d\n", a, b, (long)result, pthread_mutex_unlock(&m), status);
}
"""


@needs.glibc
@pytest.mark.parametrize("at", ["main", "effect"])
def test_the_threads_id_is_not_where_the_kernel_clears_it(
    run: Run, tmp_path: Path, at: Any
) -> None:
    """From 2.43 on glibc has it clear something else, as this program does on any."""
    (tmp_path / "program.c").write_text(ELSEWHERE)
    subprocess.run(["cc", "-w", "program.c", "-o", "program", "-pthread"], cwd=tmp_path, check=True)
    command = [tmp_path / "program"]

    async def main() -> None:
        async with Engine(1) as engine:
            direct = await engine.run(command)
        async with Template(command, size=1, at=at) as template:
            for _ in range(3):
                assert (await template.run()).stdout == direct.stdout
            assert (template.kind, template.stats["direct"]) == (at, 0)
        assert direct.stdout == b"heard\n0 35 1 0 9\n"

    run(main())


# ---- the directory, by its name ------------------------------------------------------------------

READS = r"""
#include <stdio.h>
static char above[100], below[100];
static void read_text(char *buf) { fgets(buf, 100, fopen("text", "r")); }
__attribute__((constructor)) static void begin(void) { read_text(above); }
int main(void) { read_text(below); printf("%s%s", above, below); }
"""
STANDS = """
from fastspawn import checkpoint
above = open("text").read()
checkpoint()
print(above + open("text").read(), end="")
"""


def release(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "text").write_text(text + "\n")


def swap(folder: Path, text: str) -> None:
    """A release is deployed: the link leads to another directory at once."""
    release(folder / text, text)
    (folder / "next").symlink_to(text)
    (folder / "next").rename(folder / "current")


def remake(folder: Path, text: str) -> None:
    if (folder / "current").exists():
        shutil.rmtree(folder / "current")
    release(folder / "current", text)


@pytest.mark.parametrize("at", ["main", "effect", "checkpoint"])
@pytest.mark.parametrize("change", [swap, remake])
def test_the_directorys_name_leads_elsewhere(
    run: Run, tmp_path: Path, change: Callable[[Path, str], None], at: Any
) -> None:
    change(tmp_path, "one")
    (tmp_path / "program.c").write_text(READS)
    subprocess.run(["cc", "-w", "program.c", "-o", "program"], cwd=tmp_path, check=True)
    argv = [sys.executable, "-c", STANDS] if at == "checkpoint" else [tmp_path / "program"]
    command = Command(argv, cwd=tmp_path / "current")

    async def main() -> None:
        async with Template(command, size=1, at=at) as template:

            async def says(text: str) -> bool:
                forked = template.stats["forked"]
                said = (await template.run()).stdout.decode()  # may fail where it was, for a moment
                return said == f"{text}\n" * 2 and template.stats["forked"] > forked

            for text in ("one", "two", "three"):
                if text != "one":
                    change(tmp_path, text)
                await async_poll(partial(says, text), f"forks are in {text}")
                assert template.kind == at

    run(main())


def test_a_library_that_was_loaded_above_the_checkpoint(run: Run, tmp_path: Path) -> None:
    """It is not imported: only the process's mappings know of it."""

    def build(number: int) -> None:
        (tmp_path / "a.c").write_text(f"int number(void) {{ return {number}; }}")
        subprocess.run(["cc", "-shared", "-fPIC", "a.c", "-o", "new.so"], cwd=tmp_path, check=True)
        (tmp_path / "new.so").rename(tmp_path / "a.so")

    code = (
        "import ctypes; from fastspawn import checkpoint; a = ctypes.CDLL('./a.so')\n"
        "checkpoint(); print(a.number())"
    )
    command = Command([sys.executable, "-c", code], cwd=tmp_path)

    async def main() -> None:
        build(1)
        async with Template(command, size=1) as template:

            async def says(number: int) -> bool:
                result = await template.run(check=True)
                return result.stdout == b"%d\n" % number and template.kind == "checkpoint"

            for number in (1, 2, 3):
                if number != 1:
                    build(number)
                await async_poll(partial(says, number), f"forks have library {number}")

    run(main())


# ---- the program's own LD_PRELOAD ----------------------------------------------------------------


@needs.glibc
@pytest.mark.parametrize("at", ["main", "effect"])
@pytest.mark.parametrize("shape", ["PATH", "PATH:PATH", "", ":PATH", None])
def test_an_object_that_the_program_preloads(
    run: Run, tmp_path: Path, at: Any, shape: str | None
) -> None:
    """It is there for the program and for its children, and its variable where it stood."""
    (tmp_path / "own.c").write_text("int getpagesize(void) { return 77; }")
    subprocess.run(["cc", "-shared", "-fPIC", "own.c", "-o", "own.so"], cwd=tmp_path, check=True)
    program = (
        "#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\nextern char **environ;\n"
        "int main(void) { for (char **e = environ; *e; e++) puts(*e);"
        ' printf("%d\\n", getpagesize()); fflush(stdout); return system("env; ./own_child"); }'
    )
    (tmp_path / "program.c").write_text(program)
    child = (
        '#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf("%d", getpagesize()); }'
    )
    (tmp_path / "own_child.c").write_text(child)
    for name in ("program", "own_child"):
        subprocess.run(["cc", "-w", f"{name}.c", "-o", name], cwd=tmp_path, check=True)
    env = {"A": "1", "LD_PRELOAD": "", "PATH": os.environ["PATH"], "Z": "2"}
    if shape is None:
        del env["LD_PRELOAD"]
    else:
        env["LD_PRELOAD"] = shape.replace("PATH", str(tmp_path / "own.so"))
    command = Command([tmp_path / "program"], cwd=tmp_path, env=env)

    async def main() -> None:
        async with Engine(1) as engine:
            direct = await engine.run(command)
        async with Template(command, size=1, at=at) as template:
            for _ in range(3):
                result = await template.run()
                assert (result.returncode, result.stdout) == (0, direct.stdout)
            assert (template.kind, template.stats["direct"]) == (at, 0)
        preloads = shape and "PATH" in shape
        assert direct.stdout.splitlines()[-1] == (b"77" if preloads else b"4096")

    run(main())


# ---- a template that is of no use ----------------------------------------------------------------


@needs.x86_64
def test_most_runs_differ_from_the_template(run: Run) -> None:
    async def main() -> None:
        async with Template(["echo", "a"], size=1, at="effect") as template:
            for _ in range(16):
                assert template.kind == "effect"
                await template.run(["b"])
            assert (template.kind, template.place) == ("exec", "effect")
            assert template.by_exec is not None
            assert template.by_exec.startswith("they differ from the template in arguments")
            while template.kind == "exec":
                await template.run()
            assert (template.kind, template.by_exec) == ("effect", None)
            assert template.stats["forked"] == 16

    run(main())


@needs.x86_64
def test_a_template_that_its_own_runs_make_stale(run: Run, tmp_path: Path) -> None:
    source = """
        #include <stdlib.h>
        #include <sys/stat.h>
        int main(int argc, char **argv) {
            struct stat st;
            char name[] = "own/XXXXXX";
            return stat("own", &st) || mkstemp(name) < 0;
        }"""
    (tmp_path / "program.c").write_text(source)
    subprocess.run(["cc", "-w", "program.c", "-o", "program"], cwd=tmp_path, check=True)
    (tmp_path / "own").mkdir()

    async def main() -> None:
        command = Command([tmp_path / "program"], cwd=tmp_path)
        async with Template(command, size=1, at="effect") as template:

            async def is_told() -> bool:
                """Some at once, each time that the next one looks at what has changed."""
                await async_poll(lambda: template.stats["ready"] == 1, "a process")
                await template.run(check=True)
                due = time.monotonic() + 0.2
                await async_poll(lambda: time.monotonic() > due, "a look is due")
                await asyncio.gather(*(template.run(check=True) for _ in range(8)))
                return template.kind == "exec"

            await async_poll(is_told, "it is told")
            assert template.by_exec is not None
            assert template.by_exec.startswith(f"{tmp_path}/own changed, the last of ")

    run(main())


def test_the_last_to_go(tmp_path: Path) -> None:
    """With its own class, which has lost its methods by then: its processes end all the same."""
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio\n"
        "from fastspawn import Template\n"
        "class Kept(Template):\n"
        "    pass\n"
        "async def main():\n"
        "    Kept.own = Kept(['true'], size=1, at='main', start_timeout=45.0)\n"
        "    await Kept.own.start()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
