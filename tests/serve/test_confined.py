"""What processes may do, and that none is left when their server is killed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serve.harness import Client, Server, alive, children, poll
from serve.test_cli import assert_refused, run

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

OURS = ["direct", "snapshot", "warm", "pool"]


@pytest.mark.parametrize("how", OURS)
def test_rlimits(start: Serve, script: Script, how: str) -> None:
    server = start(
        *("--strategy", how, "--rlimit", "nofile=64", "--rlimit", "cpu=7:9"),
        command=script("read -r _; ulimit -n; ulimit -St; ulimit -Ht"),
    )
    for _ in range(2):
        with server.connect() as client:
            client.post(b"go\n")
            assert client.read().body == b"64\n7\n9\n"


def test_rlimits_of_routes(start: Serve, tmp_path: Path) -> None:
    """Those of a route are added to those at the top, and go before them."""
    path = tmp_path / "routes.toml"
    path.write_text(
        """
        rlimit = ["nofile=64", "core=0"]
        command = ["sh", "-c", "ulimit -n; ulimit -c"]
        [[route]]
        path = "/own"
        command = ["sh", "-c", "ulimit -n; ulimit -c; ulimit -f"]
        rlimit = { nofile = 32, fsize = "1M:unlimited" }
        """
    )
    server = start("--config", str(path), command=())
    assert server.get("/").body == b"64\n0\n"
    # POSIX has -f in units of 512 bytes; bash, as sh, of 1024.
    assert server.get("/own").body in (b"32\n0\n2048\n", b"32\n0\n1024\n")


def test_environment_variable(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSPAWN_RLIMIT", "nofile=64\ncore=0")
    monkeypatch.setenv("FASTSPAWN_SANDBOX", "env 'A=b c'")
    server = start(command=("sh", "-c", 'ulimit -n; ulimit -c; echo "$A"'))
    assert server.get().body == b"64\n0\nb c\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--rlimit", "nofile"], ["--rlimit", "'nofile' is not NAME=VALUE"]),
        (["--rlimit", "files=3"], ["--rlimit", "nofile"]),
        (["--rlimit", "nofile=some"], ["--rlimit", "'some' is not a size"]),
        (["--rlimit", "nofile=9:8"], ["--rlimit", "above the hard one"]),
        # More than the kernel allows anybody (fs.nr_open).
        (["--rlimit", "nofile=99999999999"], ["--rlimit nofile: Operation not permitted"]),
        (["--cgroup", "/no/such"], ["--cgroup /no/such: No such file or directory"]),
        (["--cgroup", "/tmp"], ["--cgroup /tmp: No such file or directory"]),
        (["--sandbox", "'"], ["--sandbox", "No closing quotation"]),
        (["--sandbox", "/no/such --"], ["cannot run /no/such: No such file"]),
        (["--strategy", "subprocess", "--rlimit", "core=0"], ["--strategy subprocess"]),
    ],
)
def test_refused_at_the_start(args: list[str], words: list[str]) -> None:
    assert_refused(run("--port", "0", *args), *words)


@pytest.mark.parametrize("how", OURS)
def test_no_new_privs(start: Serve, how: str) -> None:
    command = ("sh", "-c", "cat; grep NoNewPrivs /proc/self/status")
    server = start("--no-new-privs", "--strategy", how, command=command)
    assert server.get().body == b"NoNewPrivs:\t1\n"


def cgroup2() -> Path:
    """Where it is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[2] == "cgroup2":
            return Path(line.split()[1])
    return Path("/sys/fs/cgroup")


@pytest.mark.parametrize("how", OURS)
def test_cgroup(start: Serve, tmp_path: Path, how: str) -> None:
    """A cgroup where we may make one; else a directory that is none: the child writes its file."""
    group = cgroup2() / f"fastspawn-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        (tmp_path / "cgroup.procs").write_text("")
        server = start("--cgroup", str(tmp_path), command=("cat", str(tmp_path / "cgroup.procs")))
        assert server.get().body == b"0"
        return
    try:
        command = ("sh", "-c", "cat; cat /proc/self/cgroup")
        server = start("--cgroup", str(group), "--strategy", how, command=command)
        assert f"/{group.name}\n".encode() in server.get().body
        assert group.name not in Path(f"/proc/{server.pid}/cgroup").read_text()
        server.stop()
        poll(lambda: not (group / "cgroup.procs").read_text(), "its processes' end")
    finally:
        group.rmdir()


@pytest.mark.parametrize("how", [*OURS, "subprocess"])
def test_sandbox(start: Serve, how: str) -> None:
    server = start(
        *("--strategy", how, "--sandbox", "env 'INSIDE=a b'"),
        *("--route", "/say/{word}=sh -c 'echo $INSIDE $1' sh {word}"),
        command=("sh", "-c", "cat; echo $INSIDE"),
    )
    assert server.get().body == b"a b\n"
    assert server.get("/say/x").body == b"a b x\n"


def test_sandbox_of_scripts(start: Serve, tmp_path: Path) -> None:
    script = tmp_path / "cgi-bin" / "say"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s %s\\n' $INSIDE $0\n")
    script.chmod(0o755)
    server = start("--sandbox", "env INSIDE=yes", "--cgi-dir", str(tmp_path), command=())
    assert server.get("/cgi-bin/say").body == f"yes {script}\n".encode()


def test_sandbox_is_not_the_script(start: Serve) -> None:
    """SCRIPT_FILENAME is the command, not what confines it."""
    server = start(
        *("--mode", "cgi", "--sandbox", "env INSIDE=yes"),
        command=("sh", "-c", 'printf "Content-Type: text/plain\n\n$SCRIPT_FILENAME"'),
    )
    assert os.path.basename(server.get().body) == b"sh"


if sys.platform == "linux":
    # It waits for input (warm), holds a named pipe, whose end is its own, and ends by nothing but
    # SIGKILL.
    HOLD = """
        trap '' TERM HUP INT
        read -r x || exit; exec 9>"$1"; echo $$ >&9
        while :; do read -r x || exec sleep 60; done
    """

    @contextmanager
    def held(server: Server, fifo: Path) -> Iterator[int]:
        """A request is being answered, by the process with this id."""
        with server.connect() as client:
            client.request("POST", "/", "Content-Length: 1000", body=b"some\n")
            with fifo.open("rb", buffering=0) as pipe:
                yield int(pipe.read(100))
                # What holds the pipe's other end is gone when this returns.
                assert pipe.read() == b""

    @pytest.mark.parametrize("how", OURS)
    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_killed_server_leaves_no_child(
        start: Serve, script: Script, tmp_path: Path, how: str, workers: str
    ) -> None:
        """With workers: all of them, supervisor first, since it would start others."""
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        command = script(HOLD, fifo)
        server = start("--strategy", how, "--workers", workers, command=command)
        with held(server, fifo) as pid:
            assert alive(pid)
            victims = children(server.pid) if workers == "2" else {}
            assert len(victims) == (2 if workers == "2" else 0)
            server.signal(signal.SIGKILL)
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            server.wait()
        poll(lambda: not alive(pid), "the child's end")

    @pytest.mark.parametrize("how", OURS)
    def test_killed_worker_leaves_no_child(
        start: Serve, script: Script, tmp_path: Path, how: str
    ) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        command = script(HOLD, fifo)
        server = start("--strategy", how, "--workers", "2", command=command)
        with held(server, fifo):
            for victim in children(server.pid):
                os.kill(victim, signal.SIGKILL)

    def test_killed_supervisor_leaves_no_child(
        start: Serve, script: Script, tmp_path: Path
    ) -> None:
        """The workers finish what has been asked for, as at any other end, and then leave."""
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        command = script(HOLD, fifo)
        server = start(
            *("--workers", "2", "--graceful-timeout", "0.1s", "--kill-grace", "0.1s"),
            command=command,
        )
        victims = children(server.pid)
        with held(server, fifo):
            server.signal(signal.SIGKILL)
            server.wait()
        poll(lambda: not any(map(alive, victims)), "the workers' end")

    def test_a_pid_namespace_ends_grandchildren_too(
        start: Serve, script: Script, tmp_path: Path
    ) -> None:
        """The death signal reaches the process itself; all below it is for a sandbox."""
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        server = start(
            *("--sandbox", "unshare -fp --kill-child --"),
            command=script('exec 9>"$1"; echo $$ >&9; sleep 60 & wait', fifo),
        )
        with held(server, fifo):
            server.signal(signal.SIGKILL)
            server.wait()

    class Load:
        """A connection that asks again and again, and the worker it belongs to."""

        def __init__(self, server: Server) -> None:
            self.client: Client = server.connect()
            self.worker = self._ask()
            self.answers = 0
            self.lost = self.stopping = False
            self.thread = threading.Thread(target=self._run)
            self.thread.start()

        def _ask(self) -> int:
            self.client.get()
            response = self.client.read()
            assert response.status == 200
            assert response.complete
            return int(response.body)

        def _run(self) -> None:
            try:
                while not self.stopping:
                    assert self._ask() == self.worker
                    self.answers += 1
            except (OSError, AssertionError):
                self.lost = True

        def stop(self) -> None:
            self.stopping = True
            self.thread.join()
            self.client.sock.close()

    def test_killed_worker_loses_its_own_connections_only(start: Serve) -> None:
        server = start("--workers", "4", command=("sh", "-c", "echo $PPID"))
        workers = set(children(server.pid))
        loads: list[Load] = []
        try:
            loads.extend(Load(server) for _ in range(24))
            victim = loads[0].worker
            assert {load.worker for load in loads} <= workers
            others = [load for load in loads if load.worker != victim]
            assert others
            os.kill(victim, signal.SIGKILL)
            poll(lambda: all(load.lost for load in loads if load.worker == victim), "the loss")
            before = [load.answers for load in others]
            poll(
                lambda: (
                    all(load.answers > n + 5 for load, n in zip(others, before, strict=True))
                    or any(load.lost for load in others)
                ),
                "more answers",
            )
            assert not any(load.lost for load in others)
            poll(lambda: len(set(children(server.pid)) - {victim}) == 4, "another worker")
            assert server.get().status == 200
        finally:
            for load in loads:
                load.stop()
