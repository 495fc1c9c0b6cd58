"""A real git over git-http-backend in mode cgi."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import needs
from serve.harness import Server

Serve = Callable[..., Server]

CLIENTS = 20
REFS = 60
"""Enough for a request that git compresses."""
LARGE = 1_500_000
"""Bytes: more than git sends in one piece (http.postBuffer)."""


def backend() -> str | None:
    if shutil.which("git") is None:
        return None
    where = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True)
    return shutil.which("git-http-backend", path=where.stdout.strip())


BACKEND = backend()
pytestmark = needs.have(BACKEND, "no git-http-backend")


class Git:
    """Runs git, with nothing of the user's configuration."""

    def __init__(self, home: Path, version: int) -> None:
        self.home = home
        who = {"NAME": "t", "EMAIL": "t@example.org"}
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "protocol.version",
            "GIT_CONFIG_VALUE_0": str(version),
            "GIT_CONFIG_KEY_1": "gc.auto",
            "GIT_CONFIG_VALUE_1": "0",
            **{f"GIT_{role}_{key}": who[key] for role in ("AUTHOR", "COMMITTER") for key in who},
        }

    def __call__(self, *args: object, cwd: Path | None = None, **env: str) -> str:
        done = subprocess.run(
            ["git", *map(str, args)],
            cwd=cwd or self.home,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, (args, done.stdout, done.stderr)
        return done.stdout.strip()

    def commit(self, work: Path, name: str, data: bytes) -> str:
        (work / name).write_bytes(data)
        self("add", name, cwd=work)
        self("commit", "-qm", name, cwd=work)
        return self("rev-parse", "HEAD", cwd=work)


@pytest.mark.parametrize(("strategy", "version"), [("direct", 0), ("direct", 2), ("subprocess", 2)])
def test_clone_fetch_and_push(start: Serve, tmp_path: Path, strategy: str, version: int) -> None:
    git = Git(tmp_path, version)
    repository = tmp_path / "root" / "project.git"
    git("init", "-q", "--bare", "-b", "main", repository)
    git("config", "http.receivepack", "true", cwd=repository)
    first = tmp_path / "first"
    git("init", "-q", "-b", "main", first)
    git.commit(first, "large", os.urandom(LARGE))
    for i in range(REFS):
        git("commit", "-q", "--allow-empty", "-m", i, cwd=first)
        git("branch", f"b{i}", cwd=first)
    assert BACKEND is not None
    server = start(
        *("--mode", "cgi", "--strategy", strategy, "--max-inflight", "8", "--no-access-log"),
        *("--set-env", f"GIT_PROJECT_ROOT={repository.parent}"),
        *("--set-env", "GIT_HTTP_EXPORT_ALL=1"),
        command=(BACKEND,),
    )
    url = f"http://127.0.0.1:{server.port}/project.git"

    trace = tmp_path / "trace"
    git("push", "-q", "--all", url, cwd=first, GIT_TRACE_CURL=str(trace))
    traced = trace.read_text()
    assert "Transfer-Encoding: chunked" in traced
    trace.unlink()
    git("clone", "-q", url, "traced", GIT_TRACE_CURL=str(trace))
    traced = trace.read_text()
    assert "Content-Encoding: gzip" in traced
    assert ("version 2" in traced) == (version == 2)

    def client(n: int) -> str:
        """Clone, push a branch, fetch one that was there before."""
        work = tmp_path / f"work{n}"
        git("clone", "-q", url, work)
        assert git("rev-parse", "HEAD", cwd=work) == head
        git("checkout", "-q", "-b", f"c{n}", cwd=work)
        mine = git.commit(work, f"file{n}", os.urandom(LARGE if n % 4 == 0 else 1000))
        git("push", "-q", "origin", f"c{n}", cwd=work)
        git("fetch", "-q", "origin", cwd=work)
        git("fsck", "--strict", cwd=work)
        return mine

    head = git("rev-parse", "main", cwd=first)
    with ThreadPoolExecutor(CLIENTS) as pool:
        commits = list(pool.map(client, range(CLIENTS)))
    git("fsck", "--full", "--strict", cwd=repository)
    for n, commit in enumerate(commits):
        assert git("rev-parse", f"c{n}", cwd=repository) == commit
    git("fetch", "-q", url, "+refs/heads/*:refs/remotes/all/*", cwd=first)
    assert git("rev-parse", f"all/c{CLIENTS - 1}", cwd=first) == commits[-1]
    server.says("\n", 1)


def test_refusals_of_git_reach_the_client(start: Serve, tmp_path: Path) -> None:
    assert BACKEND is not None
    Git(tmp_path, 2)("init", "-q", "--bare", "there.git")
    server = start(
        *("--mode", "cgi", "--set-env", f"GIT_PROJECT_ROOT={tmp_path}"),
        *("--set-env", "GIT_HTTP_EXPORT_ALL=1"),
        command=(BACKEND,),
    )
    for target, status in (
        ("/missing.git/info/refs?service=git-upload-pack", 404),
        ("/there.git/info/refs?service=git-receive-pack", 403),
    ):
        with server.connect() as client:
            client.get(target)
            assert client.read_until(b"\r\n").startswith(b"HTTP/1.1 %d " % status)
