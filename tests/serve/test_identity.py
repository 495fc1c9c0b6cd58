"""The server's own rights, and its duties as the parent of orphans."""

from __future__ import annotations

import ast
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fastspawn
from fastspawn.serve.host import identity
from serve.harness import Client, Server, children, poll
from serve.test_cli import assert_refused, run

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

WHO = ("sh", "-c", 'id -u; id -g; id -G; echo "$HOME $USER"')


def ids(pid: int) -> tuple[set[str], set[str], list[str]]:
    """User and group ids, real, effective and saved, and supplementary groups."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = [re.search(rf"{name}:\s*(.*)", status) for name in ("Uid", "Gid", "Groups")]
    user, group, groups = (match[1].split() for match in found if match is not None)
    return set(user), set(group), groups


def imported_late() -> set[str]:
    """Modules that functions of the server import, when they are called."""
    folder = Path(identity.__file__).parent.parent
    found = set()
    for file in folder.rglob("*.py"):
        package = ".".join(("fastspawn.serve", *file.parent.relative_to(folder).parts))
        functions = [each for each in ast.walk(ast.parse(file.read_text()))
                     if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]  # fmt: skip
        for each in (inner for function in functions for inner in ast.walk(function)):
            if isinstance(each, ast.Import):
                found |= {alias.name for alias in each.names}
            elif isinstance(each, ast.ImportFrom):
                found |= {module_of(each, alias.name, package) for alias in each.names}
    return found


def module_of(each: ast.ImportFrom, name: str, package: str) -> str:
    """What ``from ... import name`` imports: that module, or the one that has the name."""
    module = importlib.util.resolve_name("." * each.level + (each.module or ""), package)
    within = importlib.util.find_spec(module)
    if within is None or within.submodule_search_locations is None:
        return module
    return f"{module}.{name}" if importlib.util.find_spec(f"{module}.{name}") else module


def test_all_that_is_imported_late_is_imported_before_rights_are_given_up() -> None:
    assert imported_late() <= set(identity._LATER)


if os.geteuid() == 0:

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_becomes_the_user(start: Serve, workers: str) -> None:
        """Everywhere, and before anything is run."""
        user = pwd.getpwnam("nobody")
        groups = sorted(os.getgrouplist("nobody", user.pw_gid))
        options = ("--user", "nobody", "--workers", workers)
        if workers != "1":
            try:
                subprocess.run([sys.executable, "-c", ""], user="nobody", check=True)
            except PermissionError:  # the interpreter is somebody else's
                assert_refused(run("--port", "0", *options), "nobody cannot execute")
                return
        server = start(*options, command=WHO)
        body = server.get().body.decode().splitlines()
        assert body[:2] == [str(user.pw_uid), str(user.pw_gid)]
        assert sorted(map(int, body[2].split())) == groups
        assert body[3] == f"{user.pw_dir} nobody"
        if sys.platform == "linux":
            for pid in (server.pid, *children(server.pid)):
                uids, gids, supplementary = ids(pid)
                assert (uids, gids) == ({str(user.pw_uid)}, {str(user.pw_gid)})
                assert sorted(map(int, supplementary)) == groups

    def test_group_of_its_own(start: Serve) -> None:
        server = start("--user", "12345", "--group", "54321", command=("sh", "-c", "id -u; id -G"))
        assert server.get().body == b"12345\n54321\n"

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_group_alone(start: Serve, workers: str) -> None:
        command = ("sh", "-c", "id -u; id -G")
        server = start("--group", "54321", "--workers", workers, command=command)
        assert server.get().body == b"0\n54321\n"

    @pytest.mark.parametrize(
        ("options", "who"),
        [
            (("--user", "12345", "--group", "54321"), (12345, 54321)),
            (("--group", "54321"), (0, 54321)),
            ((), (0, 0)),
            (("--uds-owner", "12345", "--uds-group", "54321"), (12345, 54321)),
            (("--uds-group", "54321"), (0, 54321)),
            (("--user", "12345", "--group", "12345", "--uds-group", "54321"), (12345, 54321)),
            (("--user", "12345", "--group", "12345", "--uds-owner", "777"), (777, 12345)),
            (("--uds-owner", "nobody"), (pwd.getpwnam("nobody").pw_uid, 0)),
        ],
    )
    def test_socket_is_the_users(
        start: Serve, options: tuple[str, ...], who: tuple[int, int]
    ) -> None:
        """With permissions that let nobody else in."""
        with tempfile.TemporaryDirectory(dir="/var/tmp") as there:
            os.chmod(there, 0o755)
            path = Path(there) / "socket"
            start(*options, where=("--uds", str(path), "--uds-mode", "660"))
            found = path.lstat()
            assert (found.st_uid, found.st_gid) == who
            assert stat.S_IMODE(found.st_mode) == 0o660
            with socket.socket(socket.AF_UNIX) as sock:
                os.setegid(who[1])
                os.seteuid(who[0])
                try:
                    sock.connect(str(path))
                finally:
                    os.seteuid(0)
                    os.setegid(0)
                with Client(sock) as client:
                    client.get()
                    assert client.read().body == b"hi\n"

    LINUX_ONLY = ("snapshot", "auto") if sys.platform == "linux" else ()
    CLOSED = ("direct", "warm", "pool", "subprocess", *LINUX_ONLY)

    @pytest.fixture
    def closed(tmp_path: Path) -> Path:
        """Where root alone can go, with a program and a copy of the package."""
        folder = tmp_path / "closed"
        shutil.copytree(Path(fastspawn.__file__).parent, folder / "fastspawn")
        shutil.copy("/bin/sort", folder / "sort")
        (folder / "script").write_text(f"#!{folder}/sort\n")
        (folder / "script").chmod(0o755)
        folder.chmod(0o700)
        return folder

    def open_script(folder: Path) -> Iterator[Path]:
        """Anybody's script, whose interpreter is not."""
        with tempfile.TemporaryDirectory(dir="/var/tmp") as there:
            os.chmod(there, 0o755)
            script = Path(there) / "script"
            script.write_text(f"#!{folder}/sort\n")
            script.chmod(0o755)
            yield script

    @pytest.mark.parametrize("strategy", CLOSED)
    def test_commands_that_the_user_cannot_run(strategy: str, closed: Path) -> None:
        args = ("--port", "0", "--user", "nobody", "--strategy", strategy, "--")
        who = "--user nobody: cannot run "
        assert_refused(run(*args, f"{closed}/sort"), f"{who}{closed}/sort: Permission denied")
        for script in open_script(closed):
            said = f"{who}{script}: its interpreter {closed}/sort: Permission denied"
            assert_refused(run(*args, str(script)), said)

    def apart(start: Serve, closed: Path, *options: str) -> Server:
        """A server of the package that the user cannot read."""
        prefix = ("env", f"PYTHONPATH={closed}")
        return start("--user", "nobody", *options, command=("sort",), prefix=prefix)

    @pytest.mark.parametrize("options", [(), ("--strategy", "warm"), ("--mode", "ws"),
                                         ("--metrics-path", "/m"), ("--strategy", "auto"),
                                         ("--subreaper", "--proxy-headers"), ("--mode", "cgi")],
                             ids=str)  # fmt: skip
    def test_a_package_that_the_user_cannot_read(
        start: Serve, closed: Path, options: tuple[str, ...]
    ) -> None:
        """What is loaded late was loaded before."""
        server = apart(start, closed, *options)
        if options == ("--mode", "cgi"):
            assert server.get().status == 502
        elif options != ("--mode", "ws"):
            with server.connect() as client:
                client.post(b"b\na\n")
                assert client.read().body == b"a\nb\n"
        if "auto" in options and sys.platform == "linux":
            server.says(f"auto is direct: {closed}/fastspawn/_preload")

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            pytest.param(("--strategy", "snapshot"), "--strategy snapshot: {}/_preload",
                         marks=pytest.mark.skipif(not LINUX_ONLY, reason="no templates")),
            (("--strategy", "pool"), "--strategy pool: cannot run {}/_worker: "),
            (("--workers", "2"), "--workers: --user nobody cannot "),
        ],
    )  # fmt: skip
    def test_files_of_ours_that_the_user_cannot_read(
        closed: Path, options: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONPATH", str(closed))
        result = run("--port", "0", "--user", "nobody", *options, "--", "sort")
        assert_refused(result, said.format(closed / "fastspawn"))

    def test_limits_are_tried_as_the_user(tmp_path: Path) -> None:
        """Root may raise them. The user may not, and that is an error at the start."""
        args = ("--port", "0", "--rlimit", "nofile=unlimited")
        for options in ((), ("--user", "nobody")):
            assert_refused(run(*args, *options), "--rlimit nofile: Operation not permitted")
        group = tmp_path / "cgroup"
        group.mkdir()
        (group / "cgroup.procs").write_text("")
        (group / "cgroup.procs").chmod(0o600)
        args = ("--port", "0", "--user", "nobody", "--cgroup", str(group))
        assert_refused(run(*args), f"--cgroup {group}: Permission denied")

else:

    def test_refused_without_the_right() -> None:
        assert_refused(run("--port", "0", "--user", "root"), "--user root: Operation not permitted")

    def test_one_self(start: Serve) -> None:
        server = start("--user", str(os.getuid()), command=("id", "-u"))
        assert server.get().body == b"%d\n" % os.getuid()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--user", "no such"], ["--user", "'no such' is not"]),
        (["--user", "no-such"], ["--user no-such: there is no such user"]),
        (["--group", "no-such"], ["--group no-such: there is no such group"]),
        (["--user", "3999999999"], ["--user 3999999999: unknown, and so needs --group"]),
        (["--subreaper", "--strategy", "subprocess"], ["--subreaper", "--strategy subprocess"]),
    ],
)
def test_refused(args: list[str], words: list[str]) -> None:
    assert_refused(run("--port", "0", *args), *words)


if sys.platform == "linux":
    # What it leaves behind waits for the pipe, and then ends.
    LEAVES = 'setsid sh -c "read -r x < $1; exit 7" >/dev/null 2>&1 & echo left'

    def adopted(server: Server, pid: int) -> None:
        """The reaper takes what was adopted, and the status of nothing else."""
        # Its process is a zombie until another one lets go of its output: seconds, in which the
        # reaper looks more than once.
        response = server.get("/late")
        assert response.body == b"500 Internal Server Error: the command exited with status 3\n"
        assert server.get("/fine").body == b"fine\n"
        poll(lambda: not children(pid), "the orphan's reaping")

    def leave(server: Server, gate: Path, pid: int) -> None:
        """A request leaves a process behind, which ``pid`` adopts, and which then ends."""
        known = set(children(pid))
        assert server.get("/leave").body == b"left\n"
        poll(lambda: any(state[0] == "S" for each, state in children(pid).items()
                         if each not in known), "the adoption")  # fmt: skip
        with gate.open("wb", buffering=0) as out:
            out.write(b"\n")

    @pytest.fixture
    def gate(tmp_path: Path) -> Path:
        path = tmp_path / "gate"
        os.mkfifo(path)
        return path

    def routes(gate: Path) -> tuple[str, ...]:
        return (
            *("--route", f"/leave=sh -c '{LEAVES}' sh {gate}"),
            *("--route", "/late=sh -c 'sleep 2.5 & exit 3'", "--drain-timeout", "20s"),
            *("--route", "/fine=echo fine"),
        )

    @pytest.mark.parametrize("how", ["direct", "snapshot"])
    def test_subreaper(start: Serve, gate: Path, how: str) -> None:
        server = start("--subreaper", "--strategy", how, *routes(gate), command=())
        templates = set(children(server.pid))
        leave(server, gate, server.pid)
        poll(lambda: set(children(server.pid)) <= templates, "the orphan's reaping")
        if how == "direct":
            adopted(server, server.pid)

    def test_subreaper_with_workers(start: Serve, gate: Path) -> None:
        """A worker has its own orphans; those of one that was killed come to the supervisor."""
        server = start("--subreaper", "--workers", "2", *routes(gate), command=())
        workers = set(children(server.pid))
        assert server.get("/leave").body == b"left\n"
        poll(lambda: any(map(children, workers)), "the adoption")
        (worker,) = (each for each in workers if children(each))
        (orphan,) = children(worker)
        os.kill(worker, signal.SIGKILL)
        poll(lambda: orphan in children(server.pid), "the second adoption")
        poll(lambda: len(children(server.pid)) == 3, "another worker")
        with gate.open("wb", buffering=0) as out:
            out.write(b"\n")
        poll(lambda: orphan not in children(server.pid), "the orphan's reaping")
        assert server.get("/fine").body == b"fine\n"

    def test_process_1(start: Serve, gate: Path) -> None:
        """Without being asked."""
        unshare = ("unshare", "-pf" if os.geteuid() == 0 else "-Urpf", "--kill-child")
        server = start(*routes(gate), command=(), prefix=unshare)
        (init,) = children(server.pid)
        leave(server, gate, init)
        adopted(server, init)
        server.says(", pid 1)")
        os.kill(init, signal.SIGTERM)
        assert server.wait() == 0
