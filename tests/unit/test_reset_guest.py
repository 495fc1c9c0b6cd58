"""The process that resets itself: its own side (csrc/guest/resident.c and what belongs to it).

The spawner's part is played by residents.py. "Checked" residents compare their memory, mappings,
descriptors, directory, umask, handlers with what they were, after each job, and tell.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import fastspawn
import needs
from residents import (
    CHECKED,
    DONE,
    EFFECT,
    LEFT,
    MAIN,
    NULL,
    OWN,
    PARTS,
    PLAIN,
    R_REFUSED,
    READY,
    Template,
    answer,
    by_exec,
    can_reset,
    drain,
    same,
)
from services import Service
from support import CHILDREN, poll

pytestmark = [
    needs.compiler,
    pytest.mark.skipif(not can_reset(), reason="no process can reset itself here"),
]

MANY = 300
WAYS = {"learnt": CHECKED, "plain": CHECKED | PLAIN, "unchecked": 0}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    folder = tmp_path_factory.mktemp("compiled")

    def build(name: str) -> str:
        program = folder / name
        if not program.exists():
            assert needs.CC is not None
            flags = ["-O1", "-pthread", "-Wno-uninitialized", "-I", fastspawn.get_include()]
            subprocess.run([needs.CC, *flags, "-o", program, CHILDREN / f"{name}.c"], check=True)
        return str(program)

    return build


@pytest.fixture(params=WAYS)
def flags(request: pytest.FixtureRequest) -> int:
    return WAYS[request.param]


# ---- one run after the other --------------------------------------------------------------------


@pytest.mark.parametrize("command", [["cat"], ["sh", "-c", "read x; echo $x"]], ids=" ".join)
def test_nothing_of_another_request(command: list[str], flags: int) -> None:
    with Template(command) as template, template.resident(flags) as resident:
        for i in range(MANY):
            nonce = f"{i * 7919:032x}\n".encode()
            outcome = resident.run(nonce)
            assert answer(outcome) == (0, nonce, b"")
            same(outcome)


def test_many_resets() -> None:
    """tests/children/resets.py, which is run by hand for 1,000,000."""
    command = [sys.executable, CHILDREN / "resets.py", "10000", "effect", "echo", "hi"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("10000 runs of 1 resident, 0 wrong")


def test_it_spoils_all_that_it_can(compiled: Callable[[str], str], flags: int) -> None:
    seen: set[str] = set()
    first: list[str] = []
    with Template([compiled("spoil")]) as template, template.resident(flags) as resident:
        for _ in range(MANY):
            outcome = resident.run(b"x")
            assert (outcome.code, outcome.stderr) == (5, b"")
            same(outcome)
            lines = outcome.stdout.decode().splitlines()
            alike = [line for line in lines if line.startswith("=")]
            first = first or alike
            assert alike == first
            other = {line for line in lines if line.startswith("~")}
            assert len(other) == 3
            assert not other & seen
            seen |= other
        assert resident.record.done == MANY


def test_each_run_asks_a_service_by_a_socket_of_its_own(
    compiled: Callable[[str], str], flags: int, tmp_path: Path
) -> None:
    """... which was made before the freeze; it is closed with the run."""
    path = str(tmp_path / "service")
    command = [compiled("asks"), str(tmp_path / "missing"), path]
    with (
        Service(Path(path)) as service,
        Template(command) as template,
        template.resident(flags) as resident,
    ):
        expected = by_exec(command)
        assert b"there" in expected[1]
        for i in range(30):
            outcome = resident.run(b"")
            assert answer(outcome) == expected
            same(outcome)
            poll(lambda left=i + 2: service.left == left, "it has left")


def test_two_residents_of_a_template_share_nothing_else(compiled: Callable[[str], str]) -> None:
    with (
        Template([compiled("spoil")]) as template,
        template.resident(CHECKED) as one,
        template.resident(CHECKED) as two,
    ):
        random: set[bytes] = set()
        for _ in range(MANY // 10):
            for resident in (one, two):
                outcome = resident.run()
                same(outcome)
                random.add(b"".join(x for x in outcome.stdout.splitlines() if x[:1] == b"~"))
        assert len(random) == 2 * (MANY // 10)


def huge_pages(pid: int) -> int:
    """KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("AnonHugePages:")[2].split()[0])


DRIFTS = [(way, []) for way in WAYS] + [("learnt", ["huge"]), ("unchecked", ["huge"])]


@pytest.mark.parametrize(("way", "options"), DRIFTS)
def test_a_template_that_changes_before_each_fork(
    compiled: Callable[[str], str], way: str, options: list[str]
) -> None:
    """Its memory is written, dropped, mapped anew, moved: each resident has that of its own fork,
    and not of the image, which was taken before the first. In huge pages, too."""
    flags, command = WAYS[way], [compiled("drifts"), *options]
    with Template(command, effect=MAIN, checkpoint=True) as template:
        if options and not huge_pages(template.pids[0]):
            pytest.skip("no huge pages here")
        residents = [template.resident(flags) for _ in range(5)]
        for i, resident in enumerate(residents):
            for _ in range(3):
                outcome = resident.run()
                assert answer(outcome) == (0, b"%d: 0 0 0 0 0 0 0 0 0 1 1 0\n" % (i + 2), b"")
                same(outcome)
            resident.close()


def image_of(pid: int) -> int:
    """How much of the image is in this process's page tables, in pages."""
    lines = iter(Path(f"/proc/{pid}/smaps").read_text().splitlines())
    assert any("memfd:fastspawn" in line for line in lines)
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) // 4


def test_a_new_resident_compares_what_may_differ_only(tmp_path: Path) -> None:
    """Some pages of thousands; the others are as the template has them, which has not written to
    them. It looks at nothing else of the image."""
    program = tmp_path / "program.py"
    program.write_text(HANDLER)
    with Template([sys.executable, str(program)], effect=MAIN, checkpoint=True) as template:
        for _ in range(4):
            with template.resident(CHECKED) as resident:
                ready = resident.ready
                assert ready is not None
                assert ready.value > 2000
                assert 0 < ready.scans < 100
                assert ready.pages <= ready.scans
                assert image_of(resident.pid) < 16 * ready.scans  # the kernel maps 16 around each
                outcome = resident.run()
                same(outcome)
                assert outcome.code == 0


def test_a_resident_adds_what_is_written_to_and_little_more(tmp_path: Path) -> None:
    """However much memory there is."""
    program = tmp_path / "program.py"
    program.write_text("much = bytearray(100 << 20)\n" + HANDLER)
    with Template([sys.executable, str(program)], effect=MAIN, checkpoint=True) as template:
        residents = [template.resident() for _ in range(3)]
        outcomes = [resident.run() for _ in range(3) for resident in residents]
        own = [own_pages(resident.pid) for resident in residents]  # what all share is of all
        for resident in residents:
            resident.close()
        for pages, outcome in zip(own, outcomes[-3:], strict=True):
            assert outcome.reply is not None
            assert pages <= outcome.reply.pages + 48


def own_pages(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) // 4


LISTS = """
import os
from fastspawn import checkpoint
checkpoint()
print([fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2])
"""


def test_forks_have_nothing_of_what_watches_their_template(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(LISTS)

    def fork() -> bytes:
        reader, writer = os.pipe()
        pid = template.request(0, [writer], [NULL, 0, NULL])
        os.close(writer)
        (listed,) = drain([reader])
        template.pids.remove(pid)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return listed

    with Template([sys.executable, str(program)], effect=MAIN, checkpoint=True) as template:
        before = fork()
        with template.resident() as resident:
            assert resident.run().code == 0
        assert fork() == before


def test_a_fork_of_a_template_of_residents_is_a_template(compiled: Callable[[str], str]) -> None:
    """Of residents that are as it is, and not as that was."""
    with Template([compiled("drifts")], effect=MAIN) as template:
        with template.resident() as other:
            pass
        os.waitpid(other.pid, 0)
        template._reach_checkpoint()
        with template.resident(CHECKED) as resident:
            assert resident.ready is not None
            assert resident.ready.scans < 100
            for _ in range(3):
                outcome = resident.run()
                assert answer(outcome) == (0, b"2: 0 0 0 0 0 0 0 0 0 1 1 0\n", b"")
                same(outcome)


OF_MUSL = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int runs;
int main(void) {
    char line[100], *copy;
    if (fgets(line, sizeof line, stdin) == NULL) return 4;
    copy = strdup(line);
    setenv("RUNS", "1", 1);
    printf("%d %s", ++runs, copy);
    return 3;
}
"""


@needs.musl
def test_a_program_of_musl(tmp_path: Path, flags: int) -> None:
    """The preloaded object is glibc's, but what serves calls no libc.  Such a program is not
    watched on its way to an effect."""
    (tmp_path / "program.c").write_text(OF_MUSL)
    program = tmp_path / "program"
    subprocess.run(["musl-gcc", "-o", program, tmp_path / "program.c"], check=True)
    with (
        Template([str(program)], effect=MAIN) as template,
        template.resident(flags, told=True) as resident,
    ):
        for i in range(MANY // 10):
            outcome = resident.run(b"%d\n" % i)
            assert answer(outcome) == (3, b"1 %d\n" % i, b"")
            same(outcome)


# ---- what a job brings ---------------------------------------------------------------------------


def test_arguments_and_environment_of_each_job_at_main() -> None:
    with Template(["sh", "-c", "echo $0 $X"], effect=MAIN) as template:
        resident = template.resident(CHECKED, told=True)
        for i in range(MANY // 10):
            long = "y" * (i * 997 % 20000)
            argv = ["sh", "-c", f"echo $0 $X ${{#LONG}}; X={i}; export X; set -- {i}", f"name{i}"]
            outcome = resident.run(None, argv, {"X": f"value{i}", "LONG": long})
            assert answer(outcome) == (0, f"name{i} value{i} {len(long)}\n".encode(), b"")
            same(outcome)
        resident.close()


@pytest.fixture
def stderr_of_ours() -> Iterator[int]:
    """A pipe that is standard error for the template as well."""
    reader, writer = os.pipe()
    kept = os.dup(2)
    os.dup2(writer, 2)
    os.close(writer)
    yield reader
    os.dup2(kept, 2)
    os.close(kept)
    os.close(reader)


def test_the_jobs_own_stderr_may_be_set(compiled: Callable[[str], str]) -> None:
    with (
        Template([compiled("holes"), "unblocks"]) as template,
        template.resident(CHECKED) as resident,
    ):
        for _ in range(3):
            outcome = resident.run()
            assert answer(outcome) == (0, b"1\n", b"")
            same(outcome)


def test_a_stderr_that_others_have_is_not_set_by_a_resident(
    compiled: Callable[[str], str], stderr_of_ours: int
) -> None:
    """It is as with exec: what is shared stays set; so it leaves."""
    with Template([compiled("holes"), "unblocks"]) as template, template.resident() as resident:
        reader, writer = os.pipe()
        resident.send([writer], [NULL, 0, OWN])
        os.close(writer)
        (stdout,) = drain([reader])
        reply = resident.hear()
        assert reply is not None
        assert (reply.kind, reply.value) == (LEFT, 72)  # fcntl
        assert stdout == b"1\n"
    assert fcntl.fcntl(2, fcntl.F_GETFL) & os.O_NONBLOCK


SOFT = "ulimit -Sf; ulimit -Sf $1 || exit; ulimit -Sf; ulimit -Sf 7; ulimit -Sc 0; ulimit -Sf"


def test_soft_limits_are_put_back() -> None:
    command = ["sh", "-c", SOFT, "sh", "5"]
    with Template(command) as template, template.resident(CHECKED) as resident:
        for _ in range(5):
            outcome = resident.run()
            assert answer(outcome) == (0, b"unlimited\n5\n7\n", b"")
            same(outcome)
        assert resident.record.done == 5


# ---- leaving -------------------------------------------------------------------------------------

LEAVES = {
    "pipe": "ls / | wc -l",
    "substitution": "x=$(echo a); echo $x; exit 4",
    "exec": "exec echo c",
    "kill": "kill -TERM $$",
    "segv": "kill -SEGV $$",
    "sys": "kill -SYS $$",
    "background": "sleep 0 & wait $!; echo d; exit 6",
    "limit": "ulimit -n 20; ulimit -n",
    "soft limit of files": "ulimit -Sn 20; ulimit -n",
    "soft limit of time": "ulimit -St 60; ulimit -t",
    "hard limit": "ulimit -f 1000000; ulimit -Hf",
    "late": "cd /; echo e; umask 77; (exit 9); echo $?; umask; pwd",
    "trap": "trap 'echo t; exit 3' TERM; kill -TERM $$",
}


@pytest.mark.parametrize("name", LEAVES)
@pytest.mark.parametrize("at", ["main", "effect"])
def test_what_cannot_be_undone_is_done_by_an_ordinary_process(name: str, at: str) -> None:
    command = ["sh", "-c", LEAVES[name]]
    expected = by_exec(command)
    with Template(command, effect=EFFECT if at == "effect" else MAIN) as template:
        for _ in range(5):
            with template.resident(CHECKED) as resident:
                outcome = resident.run(b"")
                assert outcome.left is not None
                assert answer(outcome) == expected
                assert (resident.record.left, resident.record.done) == (1, 0)


CHANGES = r"""
import ctypes, os, resource, signal, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
exec(sys.argv[1])
fds = [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 3]
print("after", "memfd:fastspawn" in open("/proc/self/maps").read(), fds)
"""

STATEMENTS = {
    "setsid": "os.setsid(); print(os.getsid(0) == os.getpid())",
    "setpgid": "os.setpgid(0, 0); print(os.getpgrp() == os.getpid())",
    "nice": "print(os.nice(3))",
    "rlimit": "resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99)); print('set')",
    "timer": "n = ctypes.c_int(); print(libc.timer_create(1, None, ctypes.byref(n)))",
    "thread": "t = threading.Thread(target=lambda: print('in it')); t.start(); t.join()",
    "fork": "pid = os.fork(); pid or os._exit(5); print(os.waitpid(pid, 0)[1])",
    "vfork": "import subprocess; print(subprocess.run(['echo', 'a'], capture_output=True).stdout)",
    "kill": "signal.signal(signal.SIGUSR1, lambda *a: print('came')); "
    "os.kill(os.getpid(), signal.SIGUSR1)",
    "personality": "print(libc.personality(0x0040000))",
    "mlock": "print(libc.mlock(ctypes.create_string_buffer(10), 10))",
    "affinity": "os.sched_setaffinity(0, {0}); print(os.sched_getaffinity(0))",
    "keyctl": "print(libc.syscall(250, 0, -3, 0))",
    "prctl": "print(libc.prctl(36, 1, 0, 0, 0))",  # PR_SET_CHILD_SUBREAPER
    "setuid": "os.setuid(os.getuid()); print('same')",
    "oom": "f = open('/proc/self/oom_score_adj', 'w'); f.write('5'); f.close(); print('set')",
    "sigsys": "signal.signal(signal.SIGSYS, lambda *a: print('sys')); "
    "os.kill(os.getpid(), signal.SIGSYS)",
    "many": "f = [os.open('/dev/null', 0) for _ in range(600)]; [os.close(x) for x in f]; "
    "print('many')",
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_calls_before_which_it_leaves(name: str) -> None:
    """Python before its main; what was ours in the process is gone then."""
    command = [sys.executable, "-I", "-S", "-c", CHANGES, STATEMENTS[name]]
    code, stdout, stderr = by_exec(command)
    assert code == 0, stderr
    with Template(command, effect=MAIN) as template, template.resident(told=True) as resident:
        outcome = resident.run(b"")
        assert outcome.left is not None
        assert answer(outcome) == (code, stdout, stderr)


def test_a_signal_that_nobody_expects() -> None:
    """SIGSYS of somebody else is the program's: its default action ends it."""
    with (
        Template(["sh", "-c", "echo a; read x; echo b"]) as template,
        template.resident() as resident,
    ):
        source, to = os.pipe()
        outputs = resident.begin(source)
        os.close(source)
        assert os.read(outputs[0], 2) == b"a\n"
        os.kill(resident.pid, signal.SIGSYS)
        outcome = resident.end(outputs)
        os.close(to)
        assert (outcome.code, outcome.stdout) == (-signal.SIGSYS, b"")


# ---- what resets could miss ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wiped", "droppable", "huge"])
def test_memory_that_is_not_as_other_is(
    compiled: Callable[[str], str], kind: str, flags: int
) -> None:
    command = [compiled("holes"), kind]
    if subprocess.run(command).returncode == 77:
        pytest.skip("this kernel has no such memory")
    with (
        Template(command, effect=MAIN, checkpoint=True) as template,
        template.resident(flags) as resident,
    ):
        for _ in range(MANY // 10):
            outcome = resident.run()
            assert answer(outcome) == (0, b"0\n", b"")
            same(outcome)


def test_pages_are_learnt_beside_memory_that_may_be_dropped(compiled: Callable[[str], str]) -> None:
    """userfaultfd(2) does not take it; newer libcs have some in each process."""
    command = [compiled("holes"), "droppable"]
    if subprocess.run(command).returncode == 77:
        pytest.skip("this kernel has no such memory")
    for flags, learns in ((CHECKED, True), (CHECKED | PLAIN, False)):
        with (
            Template(command, effect=MAIN, checkpoint=True) as template,
            template.resident(flags) as resident,
        ):
            outcome = resident.run()
            same(outcome)
            assert outcome.reply is not None
            assert (outcome.reply.scans > 0) == learns


ASKS = {"TCGETS": 0x5401, "TCGETS2": 0x802C542A, "TIOCGWINSZ": 0x5413, "FIONREAD": 0x541B}


@pytest.mark.parametrize("name", ASKS)
def test_what_a_device_is_asked(name: str) -> None:
    """isatty(3) is one of these, another in each libc."""
    ask = (
        "import fcntl\n"
        f"try: print(len(fcntl.ioctl(0, {ASKS[name]}, bytes(60))))\n"
        "except OSError as error: print(error.errno)"
    )
    command = [sys.executable, "-I", "-S", "-c", ask]
    with Template(command, effect=MAIN) as template, template.resident(CHECKED) as resident:
        outcome = resident.run(b"in")
        assert outcome.left is None
        assert answer(outcome) == by_exec(command, b"in")


HOLES = {
    "handled": b"-1 1 1 11 0\n",
    "masks": b"0 1 1 1 1 1\n",
    "deep": b"-236\n",
}


@pytest.mark.parametrize("name", HOLES)
def test_holes(compiled: Callable[[str], str], name: str, flags: int) -> None:
    """The program's own handlers; masks with SIGSYS, and none at all; a deep stack, which is gone
    afterwards."""
    command = [compiled("holes"), name]
    assert by_exec(command) == (0, HOLES[name], b"")
    with Template(command) as template, template.resident(flags) as resident:
        for _ in range(MANY // 10):
            outcome = resident.run()
            assert answer(outcome) == (0, HOLES[name], b"")
            same(outcome)


def test_the_signal_that_is_ours_blocked_by_a_handler(
    compiled: Callable[[str], str], flags: int
) -> None:
    """What is told of it is not put back by the handler's return, but by the next mask, and with
    the run. Nobody sends it who would not make it leave."""
    command = [compiled("holes"), "inside"]
    assert by_exec(command) == (0, b"0 0\n", b"")
    with Template(command) as template, template.resident(flags) as resident:
        for _ in range(3):
            outcome = resident.run()
            assert answer(outcome) == (0, b"1 0\n", b"")
            same(outcome)


@pytest.mark.parametrize("at", [MAIN, EFFECT], ids=["main", "effect"])
def test_clocks_that_are_no_system_calls(compiled: Callable[[str], str], at: int) -> None:
    """The vDSO's, and the processor's own: none was read before the freeze."""
    with (
        Template([compiled("holes"), "clocks"], effect=at) as template,
        template.resident(CHECKED) as resident,
    ):
        read = []
        for _ in range(MANY // 10):
            outcome = resident.run()
            same(outcome)
            read.append([int(word) for word in outcome.stdout.split()])
    assert all(one < other for one, other in itertools.pairwise(read))
    assert all(one[1] < other[1] for one, other in itertools.pairwise(read))


OWN_SIGSYS = """
import os, signal
before = signal.getsignal(signal.SIGSYS)
old = signal.signal(signal.SIGSYS, lambda *a: print("came", flush=True))
print(before, old, callable(signal.getsignal(signal.SIGSYS)), flush=True)
import ctypes
libc = ctypes.CDLL(None)
told = (ctypes.c_ulong * 19)()
print(libc.sigaction(31, None, told), bool(told[0]), flush=True)
"""
SENDS = "os.kill(os.getpid(), signal.SIGSYS); print('on', os.getpid() > 0)\n"


def python(script: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", script]


def test_a_handler_for_the_signal_that_is_ours(flags: int) -> None:
    """vim, ps, ruby and whoever catches all. Nobody calls it until it is sent."""
    command = python(OWN_SIGSYS)
    expected = by_exec(command)
    assert expected[0] == 0
    with Template(command) as template, template.resident(flags) as resident:
        for _ in range(3):
            outcome = resident.run()
            assert outcome.left is None
            assert answer(outcome) == expected
            same(outcome)


def test_a_handler_for_the_signal_that_is_ours_and_it_comes() -> None:
    command = python(OWN_SIGSYS + SENDS)
    expected = by_exec(command)
    assert b"came\non True" in expected[1]
    with Template(command) as template, template.resident() as resident:
        outcome = resident.run()
        assert outcome.left == 62  # kill
        assert answer(outcome) == expected


@pytest.mark.parametrize("how", ["IGN", "handler"])
def test_somebody_sends_the_signal_that_is_ours(how: str) -> None:
    handler = "signal.SIG_IGN" if how == "IGN" else r"lambda *a: os.write(1, b'came\n')"
    script = (
        f"import os, signal, sys\nsignal.signal(signal.SIGSYS, {handler})\n"
        "os.write(1, b'now\\n')\nsys.stdin.read()\nprint('end')"
    )
    with Template(python(script)) as template, template.resident() as resident:
        given, stdin = os.pipe()
        out, stdout = os.pipe()
        resident.send([given, stdout], [0, 1, OWN])
        os.close(given)
        os.close(stdout)
        assert os.read(out, 100) == b"now\n"
        os.kill(resident.pid, signal.SIGSYS)
        reply = resident.hear()
        assert reply is not None
        assert (reply.kind, reply.value) == (LEFT, -signal.SIGSYS)
        if how == "handler":
            assert os.read(out, 100) == b"came\n"
        os.close(stdin)
        assert drain([out]) == [b"end\n"]


TIMERS = """
import signal, time
signal.signal(signal.SIGALRM, lambda *a: print("rang", flush=True))
for which in signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF:
    print(signal.getitimer(which), signal.setitimer(which, 1000, 7), flush=True)
print(0 < signal.alarm(2000) <= 1000, 0 < signal.alarm(0) <= 2000, signal.alarm(0), flush=True)
signal.setitimer(signal.ITIMER_REAL, 1e-3)
signal.pause()
signal.setitimer(signal.ITIMER_REAL, 1000, 7)
"""
FIRES = """
import signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
signal.setitimer(signal.ITIMER_REAL, 1e-6)
while not signal.sigpending():
    pass
print("it will", flush=True)
"""


def test_timers_are_of_one_run(flags: int) -> None:
    command = python(TIMERS)
    expected = by_exec(command)
    assert expected[1].endswith(b"True True 0\nrang\n")
    with Template(command) as template, template.resident(flags) as resident:
        for _ in range(3):
            outcome = resident.run()
            assert outcome.left is None
            assert answer(outcome) == expected
            same(outcome)


def test_a_timer_that_fires_at_the_end_is_nobodys() -> None:
    with Template(python(FIRES)) as template, template.resident() as resident:
        assert answer(resident.run()) == (0, b"it will\n", b"")
        outcome = resident.run()
        assert outcome.died
        assert answer(outcome) == (0, b"", b"")
        assert resident.record.begun == 1


def test_a_timer_goes_with_who_leaves() -> None:
    script = TIMERS + "import os\nos.kill(os.getpid(), signal.SIGALRM)\n"
    script += "print(0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000)"
    command = python(script)
    expected = by_exec(command)
    assert expected[1].endswith(b"rang\nrang\nTrue\n")
    with Template(command) as template, template.resident() as resident:
        outcome = resident.run()
        assert outcome.left == 62
        assert answer(outcome) == expected


NAMES = """
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
name = ctypes.create_string_buffer(b"mine")
def name_it(at):
    return libc.prctl(0x53564D41, 0, at, 4096, ctypes.addressof(name)), ctypes.get_errno()
made = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
print(name_it(ctypes.addressof(ctypes.c_char.from_buffer(made)))[0] in (0, -1))
with open("/proc/self/maps") as maps:
    heap = next(line for line in maps if "[heap]" in line)
print(name_it(int(heap.split("-")[0], 16)))
"""


def test_memory_that_was_there_has_no_name(flags: int) -> None:
    """What a kernel without CONFIG_ANON_VMA_NAME answers, and so what php goes on with."""
    with Template(python(NAMES)) as template, template.resident(flags) as resident:
        for _ in range(3):
            outcome = resident.run()
            assert outcome.left is None
            assert answer(outcome) == (0, b"True\n(-1, 22)\n", b"")
            same(outcome)


def test_a_signal_that_has_not_come_at_the_end(compiled: Callable[[str], str], flags: int) -> None:
    """It would come to the next run."""
    command = [compiled("holes"), "pending"]
    assert by_exec(command) == (0, b"-1\n", b"")
    with Template(command) as template, template.resident(flags) as resident:
        assert answer(resident.run()) == (0, b"-1\n", b"")
        outcome = resident.run()
        assert outcome.died
        assert answer(outcome) == (0, b"", b"")
        assert resident.record.begun == 1


OURS = {
    "places": b"-1 1\n",
    "polls": b"1 1\n",
    "selects": b"-1 1\n",
    "begins": b"0 -1 0 0 -1\n",
    "hidden": b"8 1 0\n",
    "below": b"4\n",
}


@pytest.mark.parametrize("way", OURS)
def test_what_is_ours_is_not_open(compiled: Callable[[str], str], way: str) -> None:
    """The kernel answers that, once it has left, to those that wait for several, and for names."""
    command = [compiled("holes"), way]
    with Template(command) as template, template.resident(CHECKED) as resident:
        outcome = resident.run()
        assert answer(outcome) == (0, OURS[way], b"")
        assert (outcome.left is not None) == (way in ("polls", "selects", "below"))


# ---- what others have, too -----------------------------------------------------------------------


def test_the_flags_of_dev_null_are_of_one_run(
    compiled: Callable[[str], str], tmp_path: Path, flags: int
) -> None:
    """It is the same open file for each of them."""
    command = [compiled("shares"), "nulls", str(tmp_path / "none")]
    with Template(command) as template, template.resident(flags) as resident:
        for _ in range(3):
            outcome = resident.run()
            assert outcome.left is None
            assert answer(outcome) == (0, b"0 1\n", b"")
            same(outcome)


SHARED = {
    "null_locked": (b"0\n", "flock"),
    "copied": (b"0 1\n", "fcntl"),
    "placed": (b"1\n", "fcntl"),
    "locked": (b"0\n", "flock"),
}
NUMBERS = {"fcntl": 72, "flock": 73, "exit_group": 231}


@pytest.mark.parametrize("way", SHARED)
def test_what_is_set_by_a_copy_is_set_of_what_was_open_before(
    compiled: Callable[[str], str], tmp_path: Path, way: str
) -> None:
    """So it leaves: the next run would find it so."""
    file = tmp_path / "file"
    file.touch()
    stdout, call = SHARED[way]
    with Template([compiled("shares"), way, str(file)]) as template, template.resident() as one:
        outcome = one.run()
        assert answer(outcome) == (0, stdout, b"")
        assert outcome.left == NUMBERS[call]


def test_what_the_run_has_opened_it_may_set(
    compiled: Callable[[str], str], tmp_path: Path, flags: int
) -> None:
    file = tmp_path / "file"
    file.touch()
    command = [compiled("shares"), "own_locked", str(file)]
    with Template(command) as template, template.resident(flags) as resident, file.open() as other:
        for _ in range(3):
            outcome = resident.run()
            assert outcome.left is None
            assert answer(outcome) == (0, b"0 0 0 0\n", b"")
            same(outcome)
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(other, fcntl.LOCK_UN)


def test_a_copy_for_a_number_that_is_none(
    compiled: Callable[[str], str], tmp_path: Path, flags: int
) -> None:
    command = [compiled("shares"), "nowhere", str(tmp_path / "none")]
    with Template(command) as template, template.resident(flags) as resident:
        for _ in range(2):
            outcome = resident.run()
            assert outcome.left is None
            assert answer(outcome) == (0, b"-1 -1 -1\n", b"")
            same(outcome)


def test_a_lock_in_shared_memory_that_it_ends_with(
    compiled: Callable[[str], str], tmp_path: Path
) -> None:
    """The kernel gives it to the next one, if its owner has ended (robust_list(2))."""
    file = tmp_path / "file"
    file.touch()
    command = [compiled("shares"), "robust", str(file)]
    with Template(command) as template:
        for expected in (b"free\n", b"abandoned\n"):
            with template.resident() as resident:
                outcome = resident.run()
                assert answer(outcome) == (5, expected, b"")
                assert outcome.left == NUMBERS["exit_group"]
    file.write_bytes(b"")
    with (
        Template(command, env=os.environ | {"UNLOCK": "1"}) as template,
        template.resident(CHECKED) as resident,
    ):
        for _ in range(3):
            outcome = resident.run()
            assert answer(outcome) == (5, b"free\n", b"")
            same(outcome)


@pytest.mark.parametrize(("way", "stdout"), [("opens", b"1 0\n"), ("asks", b"1\n")])
def test_a_handler_leaves_in_the_middle_of_a_call(
    compiled: Callable[[str], str], tmp_path: Path, way: str, stdout: bytes
) -> None:
    """What the call goes on with afterwards is there still."""
    command = [compiled("shares"), way, str(tmp_path / "fifo")]
    with Template(command) as template:
        for _ in range(10):
            with template.resident() as resident:
                outcome = resident.run()
                assert answer(outcome) == (0, stdout, b"")
                assert outcome.left is not None


# ---- memory that was there before ----------------------------------------------------------------


@pytest.mark.parametrize("way", ["unmap", "protect", "drop", "move", "shrink"])
def test_memory_that_was_there_is_given_back(
    compiled: Callable[[str], str], way: str, flags: int
) -> None:
    command = [compiled("gives"), way]
    expected = by_exec(command)
    with Template(command) as template, template.resident(flags) as resident:
        for _ in range(MANY // 10):
            outcome = resident.run()
            assert outcome.left is None
            assert answer(outcome) == expected
            same(outcome)


def test_memory_that_is_given_back_without_a_fault(
    compiled: Callable[[str], str], flags: int
) -> None:
    """Nothing tells of it but the call."""
    command = [compiled("gives"), "quietly"]
    expected = by_exec(command, b"-")
    with Template(command) as template, template.resident(flags) as resident:
        for how in b"----d--u--w--s--":
            outcome = resident.run(bytes([how]))
            assert answer(outcome) == expected
            same(outcome)


@pytest.mark.parametrize("way", ["place", "ask", "alter", "shrunk"])
def test_what_would_notice_that_memory_is_still_there(
    compiled: Callable[[str], str], way: str
) -> None:
    """It leaves then, and there is none."""
    command = [compiled("gives"), way]
    expected = by_exec(command)
    with Template(command) as template, template.resident() as resident:
        outcome = resident.run()
        assert outcome.left is not None
        assert answer(outcome) == expected


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_what_the_kernel_writes_to_the_threads_memory(compiled: Callable[[str], str]) -> None:
    """The processor on which it runs (rseq(2)): put back, it would be that of the freeze, until the
    next time that the thread is preempted; so the second job is there already."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    with Template([compiled("holes"), "where"]) as template:
        os.sched_setaffinity(template.process.pid, {first})
        for _ in range(MANY // 10):
            with template.resident() as resident:
                os.sched_setaffinity(resident.pid, {second})
                outputs = [resident.begin() for _ in range(4)]
                assert [answer(resident.end(each)) for each in outputs] == [(0, b"1\n", b"")] * 4


def test_a_crash_is_the_jobs(compiled: Callable[[str], str]) -> None:
    command = [compiled("holes"), "fault"]
    with Template(command) as template, template.resident() as resident:
        outcome = resident.run()
        assert outcome.died
        assert (outcome.code, outcome.left) == (-signal.SIGSEGV, None)
        assert (resident.record.begun, resident.record.done, resident.record.left) == (1, 0, 0)


@pytest.mark.parametrize("at", [MAIN, EFFECT], ids=["main", "effect"])
def test_signals_in_the_middle_of_a_call(
    compiled: Callable[[str], str], flags: int, at: int
) -> None:
    """Their handlers are set by the resident, or before there was one."""
    with (
        Template([compiled("holes"), "waits"], effect=at) as template,
        template.resident(flags) as resident,
    ):
        for _ in range(5):
            source, to = os.pipe()
            outputs = resident.begin(source)
            os.close(source)
            assert os.read(outputs[0], 6) == b"ready\n"
            poll(lambda: waits_for_input(resident.pid), "it waits")
            os.kill(resident.pid, signal.SIGUSR1)
            poll(lambda: waits_for_input(resident.pid), "it waits again")
            os.kill(resident.pid, signal.SIGUSR2)
            poll(lambda: handled_all(resident.pid), "it was told")
            os.write(to, b"z")
            os.close(to)
            outcome = resident.end(outputs)
            assert answer(outcome) == (0, b"interrupted z 2 1\n", b"")
            same(outcome)


def handled_all(pid: int) -> bool:
    """No signal is pending, and it waits for input."""
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    pending = int(status["ShdPnd"], 16) | int(status["SigPnd"], 16)
    return not pending and waits_for_input(pid)


def waits_for_input(pid: int) -> bool:
    return "pipe" in Path(f"/proc/{pid}/wchan").read_text()


# ---- signals and deaths --------------------------------------------------------------------------


def test_a_signal_between_two_jobs_is_nobodys() -> None:
    with Template(["cat"]) as template, template.resident() as resident:
        assert resident.run(b"a").stdout == b"a"
        os.kill(resident.pid, signal.SIGTERM)
        outcome = resident.run(b"b")
        assert outcome.died
        assert (outcome.code, outcome.stdout) == (0, b"")
        assert (resident.record.begun, resident.record.done) == (1, 1)


def test_signals_at_any_moment() -> None:
    """Each job is begun and ended by the signal, or done whole, or not begun."""
    counts = {"done": 0, "killed": 0, "not begun": 0}
    with Template(["echo", "hi"]) as template:
        for i in range(MANY // 3):
            resident = template.resident()
            assert resident.ready is not None
            for _ in range(3):
                resident.run()
            outputs = resident.begin()
            if i % 2:
                while resident.record.begun != 4:
                    pass
            os.kill(resident.pid, signal.SIGTERM)
            outcome = resident.end(outputs)
            record = resident.record
            if not outcome.died:
                assert answer(outcome) == (0, b"hi\n", b"")
                assert record.done == 4
                counts["done"] += 1
            elif record.begun == 4 and record.done != 4:
                assert outcome.code == -signal.SIGTERM
                counts["killed"] += 1
            elif record.done == 4:
                assert (outcome.code, outcome.stdout) == (0, b"hi\n")
                counts["done"] += 1
            else:
                assert (outcome.code, outcome.stdout) == (0, b"")
                counts["not begun"] += 1
            resident.close()
    assert sum(counts.values()) == MANY // 3
    assert counts["done"] + counts["killed"] >= MANY // 6


def test_what_is_told_of_one_that_was_killed() -> None:
    with Template(["cat"]) as template, template.resident() as resident:
        source, to = os.pipe()
        outputs = resident.begin(source)
        os.close(source)
        poll(lambda: resident.record.begun == 1, "it begins")
        os.kill(resident.pid, signal.SIGKILL)
        outcome = resident.end(outputs)
        os.close(to)
        assert outcome.died
        assert (outcome.code, resident.record.done) == (-signal.SIGKILL, 0)


def test_it_ends_when_nobody_wants_it_any_more() -> None:
    with Template(["echo"]) as template:
        resident = template.resident()
        resident.run()
        resident.close()
        assert os.waitpid(resident.pid, 0) == (resident.pid, 0)


SPENT = {
    "getrusage": ["sh", "-c", "i=0; while [ $i -lt $N ]; do i=$((i+1)); done; times"],
    "times": [
        *(sys.executable, "-I", "-S", "-c"),
        (
            "import os, posix\nfor _ in range(int(os.environ['N'])): hash(_)\n"
            "print('m%.2fs' % sum(posix.times()[:2]))"
        ),
    ],
    "clock": [
        *(sys.executable, "-I", "-S", "-c"),
        (
            "import os, time\nfor _ in range(int(os.environ['N'])): hash(_)\n"
            "print('m%.2fs' % time.process_time())"
        ),
    ],
}


@pytest.mark.parametrize("way", SPENT)
def test_what_a_job_used(way: str) -> None:
    """Not what those before it did."""
    many = "300000" if way == "getrusage" else "5000000"
    with (
        Template(SPENT[way], effect=MAIN) as template,
        template.resident(told=True) as resident,
    ):
        much, little = [resident.run(None, None, {"N": n}) for n in (many, "1")]
        assert much.code == little.code == 0
        used = [sum(map(float, re.findall(rb"m([\d.]+)s", o.stdout))) for o in (much, little)]
        assert used[1] < used[0] / 2
        assert resident.record.user + resident.record.system < used[0] * 1e6 / 2


# ---- the check itself ----------------------------------------------------------------------------


def test_what_is_not_put_back_is_seen(compiled: Callable[[str], str]) -> None:
    """The negative control: memory that is written from outside is no fault of the resident's, so
    it does not look; and tells that it is not what it was."""
    with (
        Template([compiled("holes"), "untouched"]) as template,
        template.resident(CHECKED) as resident,
    ):
        for _ in range(5):
            same(resident.run(b""))
        source, to = os.pipe()
        outputs = resident.begin(source)
        os.close(source)
        pid, address = map(int, os.read(outputs[0], 100).split())
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(address)
            memory.write(b"\1")
        os.close(to)
        outcome = resident.end(outputs)
        assert outcome.stdout == b"1\n"
        assert outcome.reply is not None
        assert PARTS[outcome.reply.differs] == "memory"
        assert outcome.reply.where == address


def test_settings_that_are_not_as_they_were_are_seen() -> None:
    with Template(["echo", "hi"]) as template, template.resident(CHECKED) as resident:
        same(resident.run())
        resource.prlimit(resident.pid, resource.RLIMIT_CORE, (0, 0))
        outcome = resident.run()
        assert answer(outcome) == (0, b"hi\n", b"")
        assert outcome.reply is not None
        assert PARTS[outcome.reply.differs] == "settings"


# ---- Python at its checkpoint --------------------------------------------------------------------

HANDLER = """
import asyncio, email, gc, json, os, random, re, secrets, ssl, sys, tempfile, time, urllib.request
import uuid
import decimal, logging, sqlite3
seen = [1]
large = [bytes(100 + i % 300) for i in range(20000)]
table = list(range(100000))
from fastspawn import checkpoint
checkpoint()
"""

GIVES_BACK = {
    "arenas": "print(sum(map(len, large))); del large; gc.collect()\n"
    "large = [bytes(300) for _ in range(20000)]; print(len(large))",
    "grow": "table += range(500000); print(len(table)); del table[10:]; print(len(table))",
}


@pytest.mark.parametrize("name", GIVES_BACK)
def test_python_gives_back_what_was_there(tmp_path: Path, name: str) -> None:
    """Arenas of its allocator, and large tables."""
    program = tmp_path / "program.py"
    program.write_text(HANDLER + GIVES_BACK[name] + "\n")
    expected = by_exec([sys.executable, str(program)])
    with (
        Template([sys.executable, str(program)], effect=MAIN, checkpoint=True) as template,
        template.resident(CHECKED) as resident,
    ):
        for _ in range(10):
            outcome = resident.run()
            assert answer(outcome) == expected
            same(outcome)


DRAWN = """
base = sqlite3.connect(":memory:")
print(random.random(), uuid.uuid4(), os.urandom(8).hex(), ssl.RAND_bytes(8).hex(),
      secrets.token_hex(8), base.execute("select random()").fetchone()[0])
base.close()
"""


def test_python_draws_other_random_numbers_in_each_run(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(HANDLER + DRAWN)
    rows: list[list[bytes]] = []
    with Template([sys.executable, str(program)], effect=MAIN, checkpoint=True) as template:
        for _ in range(2):
            with template.resident() as resident:
                for _ in range(MANY // 3):
                    outcome = resident.run()
                    assert (outcome.code, outcome.stderr) == (0, b"")
                    rows.append(outcome.stdout.split())
    for source in zip(*rows, strict=True):
        assert len(set(source)) == len(rows)


MANY_MODULES = "import asyncio, atexit, email, json, logging, os, re, sys, urllib.request\n"
DEARER = {
    "an exit handler": ("", "atexit.register(len, '')\n"),
    "a finalizer": ("class A:\n    def __del__(self): pass\n", "a = A()\n"),
    "a hook before forks": ("os.register_at_fork(before=lambda: None)\n", ""),
}


@pytest.mark.parametrize("what", DEARER)
def test_what_has_nothing_to_do_is_not_run(tmp_path: Path, what: str) -> None:
    """What runs writes to pages, which are put back then; no time is measured."""

    def pages(above: str, below: str) -> int:
        program = tmp_path / "program.py"
        program.write_text(
            f"{MANY_MODULES}{above}from fastspawn import checkpoint\ncheckpoint()\n"
            f"{below}print(json.dumps({{'a': 1}}))\n"
        )
        with (
            Template([sys.executable, str(program)], effect=MAIN, checkpoint=True) as template,
            template.resident(CHECKED) as resident,
        ):
            for _ in range(3):
                outcome = resident.run()
                assert answer(outcome) == (0, b'{"a": 1}\n', b"")
                same(outcome)
            assert outcome.reply
            return outcome.reply.pages

    above, below = DEARER[what]
    assert pages("", "") < 0.95 * pages(above, below)


def test_a_copy_of_stdout_made_above_the_checkpoint(tmp_path: Path) -> None:
    """It is the job's, and gone with it."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os\ncopy = os.dup(1)\nfrom fastspawn import checkpoint\ncheckpoint()\n"
        "os.write(copy, b'through a copy')\nos.close(copy)\n"
    )
    with (
        Template([sys.executable, str(program)], effect=MAIN, checkpoint=True) as template,
        template.resident(CHECKED) as resident,
    ):
        for _ in range(5):
            outcome = resident.run()
            assert answer(outcome) == (0, b"through a copy", b"")
            same(outcome)


def test_streams_that_were_moved_above_the_checkpoint(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are the job's, and gone with it, where it does not bring all of them, too."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os\na = os.dup(1)\nos.dup2(2, 1)\nos.dup2(a, 2)\nos.close(a)\nos.close(0)\n"
        "from fastspawn import checkpoint\ncheckpoint()\n"
        "os.write(1, b'to stderr')\nos.write(2, b'to stdout')\nos._exit(os.open('/dev/null', 0))\n"
    )
    with (
        Template([sys.executable, str(program)], effect=MAIN, checkpoint=True) as template,
        template.resident(CHECKED) as resident,
    ):
        for _ in range(5):
            outcome = resident.run()
            assert answer(outcome) == (0, b"to stdout", b"to stderr")
            same(outcome)
            reader, writer = os.pipe()
            resident.send([writer], [NULL, 0, OWN])
            os.close(writer)
            assert drain([reader]) == [b"to stdout"]
            reply = resident.hear()
            assert capfd.readouterr().err == "to stderr"
            assert reply is not None
            assert (reply.kind, reply.differs) == (DONE, 0)


# ---- where it cannot be --------------------------------------------------------------------------


def test_few_descriptors() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with Template(["sh", "-c", "ulimit -n"]) as template:
        resource.prlimit(template.process.pid, resource.RLIMIT_NOFILE, (64, hard))
        with template.resident(CHECKED) as resident:
            assert not resident.ended
            for _ in range(3):
                outcome = resident.run()
                assert answer(outcome) == (0, b"64\n", b"")
                same(outcome)


def test_too_few_descriptors() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with Template(["echo", "hi"]) as template:
        resource.prlimit(template.process.pid, resource.RLIMIT_NOFILE, (6, hard))
        with template.resident() as resident:
            assert resident.ready is None or resident.ready.kind != READY


def test_without_a_way_to_learn_which_pages_are_written(tmp_path: Path) -> None:
    """A small program is copied whole; a large one is refused."""
    with Template(["echo", "hi"]) as template, template.resident(CHECKED | PLAIN) as resident:
        for _ in range(3):
            outcome = resident.run()
            same(outcome)
            assert outcome.reply is not None
            assert outcome.reply.kind == DONE
            assert outcome.reply.scans == 0
    program = tmp_path / "program.py"
    program.write_text("x = [bytes(5000) for _ in range(10000)]\n" + HANDLER)
    with Template([sys.executable, str(program)], effect=MAIN, checkpoint=True) as template:
        with template.resident(PLAIN) as refused:
            assert refused.ready is not None
            assert refused.ready.kind != READY
        with template.resident() as resident:
            assert resident.run().code == 0


ASK = """
import asyncio, fastspawn, sys
from residents import CHECKED, MAIN, Template
with Template(["echo", "hi"], effect=MAIN) as template:
    resident = template.resident(CHECKED)
    answers = [] if resident.ended else [resident.run() for _ in range(3)]
    for each in answers:
        assert each.stdout == b"hi\\n" and not each.reply.differs, each
    print("refused" if resident.ended else "learns" if answers[-1].reply.scans else "copies")

async def main():
    command = sys.argv[2:]
    async with fastspawn.Template(command, size=1, at=sys.argv[1], reset=True) as template:
        while not template.stats["without"] and not template.stats["resets"]:
            assert (await template.run()).stdout == b"hi\\n"
        print(template.not_reset)
asyncio.run(main())
"""
LARGE = """
from fastspawn import checkpoint
x = [bytes(5000) for _ in range(10000)]
checkpoint()
print("hi")
"""
NO_SUCH = "it cannot be reset here: "
REFUSED = {
    "dispatch": ("157/0/59", "refused", f"{NO_SUCH}Invalid argument"),
    "close_range": ("436", "refused", f"{NO_SUCH}Function not implemented"),
    "process_vm_readv": ("310", "refused", f"{NO_SUCH}Function not implemented"),
    "userfaultfd": ("323", "copies", "None"),
    "asynchronous write protection": ("16/1/0xC018AA3F", "copies", "None"),  # UFFDIO_API
    "registration": ("16/1/0xC020AA00", "copies", "None"),  # UFFDIO_REGISTER
    "write protection": ("16/1/0xC018AA06", "copies", "None"),  # UFFDIO_WRITEPROTECT
    "PAGEMAP_SCAN": ("16/1/0xC0606610", "copies", "None"),
}


def ask_where(call: str, at: str, command: Sequence[str]) -> list[str]:
    refuser = [sys.executable, str(CHILDREN / "refuse_call.py"), call]
    done = subprocess.run(
        [*refuser, sys.executable, "-c", ASK, at, *command],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(CHILDREN.parent)},
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", REFUSED)
def test_on_a_kernel_that_lacks_it(name: str) -> None:
    """Forks, and it says so; or another way."""
    call, *expected = REFUSED[name]
    found, why = ask_where(call, "main", ["echo", "hi"])
    assert found == expected[0]
    assert why.startswith(expected[1])


def test_a_large_program_where_pages_cannot_be_learnt() -> None:
    command = [sys.executable, "-c", LARGE]
    why = ask_where("323", "checkpoint", command)[1]
    assert why.startswith(f"{NO_SUCH}Operation not supported")


def test_without_memory_files_there_are_no_templates() -> None:
    refuser = [sys.executable, str(CHILDREN / "refuse_call.py"), "319", sys.executable, "-c"]
    ask = "import asyncio, fastspawn\nasyncio.run(fastspawn.Template(['echo'], reset=True).start())"
    done = subprocess.run([*refuser, ask], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "OSError: [Errno 38] Function not implemented: 'echo'"


COVER = """
import subprocess, sys
from residents import MAIN, Template
with Template(["echo", "hi"], effect=MAIN) as template:
    pagemap = f"/proc/{template.process.pid}/pagemap"
    if subprocess.run(["mount", "--bind", "/dev/null", pagemap]).returncode:
        sys.exit(77)
    print(template.resident().ready)
"""


def test_without_a_list_of_pages() -> None:
    """CONFIG_PROC_PAGE_MONITOR, or what a container hides."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare(1)")
    command = ["unshare", "--mount", sys.executable, "-c", COVER]
    env = os.environ | {"PYTHONPATH": str(CHILDREN.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("it needs the right to mount")
    assert f"kind={R_REFUSED}, " in done.stdout, done.stderr
