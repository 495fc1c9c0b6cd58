"""--strategy snapshot: what the server says of its templates."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import needs
from fastspawn._program import why_no_checkpoint
from serve.harness import Server, poll
from serve.test_cli import assert_refused, run
from support import script

pytestmark = needs.templates

Serve = Callable[..., Server]
THREADS = """
import threading
from fastspawn import checkpoint
stop = threading.Event()
threading.Thread(target=stop.wait).start()
checkpoint()
print('on')
stop.set()
"""


def test_why_there_is_no_template_at_a_checkpoint(start: Serve, loop: str) -> None:
    """Said once, though each request meets the reason again."""
    server = start(
        "--strategy", "snapshot", "--loop", loop, command=(sys.executable, "-c", THREADS)
    )
    said = "no template at checkpoint(): it has several threads at its checkpoint, 1 of Python "
    with server.connect() as client:
        for _ in range(3):
            client.get()
            assert client.read().body == b"on\n"
    poll(lambda: said in server.errors(), "the reason")
    server.says(said, 1)


@needs.filters
def test_no_template_at_a_checkpoint_without_pidfds(start: Serve, loop: str) -> None:
    program = "from fastspawn import checkpoint\ncheckpoint()\nprint('on')"
    server = start(
        *("--strategy", "snapshot", "--loop", loop),
        command=(sys.executable, "-c", program),
        prefix=script("refuse_call.py", "434"),
    )
    said = "no template at checkpoint(): the kernel has no pidfd_open(2) (Linux 5.3), or does not "
    poll(lambda: server.get().body == b"on\n" and said in server.errors(), "the reason")
    server.says(said, 1)


@pytest.mark.parametrize("strategy", ["snapshot", "auto"])
@pytest.mark.parametrize("command", [["sort"], ["sh", "-c", "exec true"], ["script"]], ids=str)
def test_checkpoint_of_a_program_that_cannot_call_it(
    command: list[str], strategy: str, tmp_path: Path
) -> None:
    (tmp_path / "script").write_text("#!/usr/bin/env sh\n")
    (tmp_path / "script").chmod(0o755)
    path = f"PATH={tmp_path}:{os.environ['PATH']}"
    options = ("--strategy", strategy, "--snapshot-at", "checkpoint", "--set-env", path)
    assert_refused(
        run("--port", "0", *options, "--", *command),
        "--snapshot-at checkpoint is where a program calls checkpoint(): ",
        "cannot call it: neither it nor a library of it looks up functions by name",
    )


SCRIPT = "import os, sys\nfrom state import pid\nif __name__ == '__main__':\n"
SCRIPT += "    print(os.getpid() != pid, sys.argv[1:], sys.stdin.read())\n    sys.exit(0)\n"


@pytest.mark.parametrize("strategy", ["snapshot", "reset", "auto"])
def test_imports_of_a_script_that_knows_nothing(
    start: Serve, loop: str, strategy: str, tmp_path: Path
) -> None:
    (tmp_path / "state.py").write_text("import os\npid = os.getpid()\n")
    (tmp_path / "a.py").write_text(SCRIPT)
    options = ("--strategy", strategy, "--snapshot-at", "imports", "--spawners", "1")
    server = start(
        *(*options, "--loop", loop, "--cwd", str(tmp_path)),
        *("--route", f"/{{name}}={sys.executable} a.py {{name}}"),
        command=(),
    )
    said = "--snapshot-at imports is checkpoint: forks begin there now"
    poll(lambda: server.get("/a").body and said in server.errors(), "a checkpoint")
    for name in ("b", "c"):
        with server.connect() as client:
            client.get(f"/{name}")
            assert client.read().body == f"True ['{name}'] \n".encode()


def test_imports_that_cannot_be_frozen(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("print(1)\nimport os\n")
    options = ("--port", "0", "--cwd", str(tmp_path), "--strategy", "snapshot")
    at = ("--snapshot-at", "imports")
    for command, why in (
        (("sort",), "--snapshot-at imports: sort is not Python: name it, as in: python3 SCRIPT"),
        ((sys.executable, "a.py"), "a.py: nothing is imported above line 1, where it begins"),
        ((sys.executable, "no.py"), "--snapshot-at imports: "),
        ((sys.executable, "-c", "import os"), "--snapshot-at imports: -c is no script"),
    ):
        assert_refused(run(*options, *at, "--", *command), why)
    assert_refused(
        run(*options, *at, "--shell", "--", "python3 a.py"),
        "--snapshot-at imports is for the command of one Python script",
    )
    wsgi = run(*options, *at, "--wsgi", "a:b")
    assert_refused(wsgi, "--wsgi has no --snapshot-at imports: it has a checkpoint")


def test_programs_that_may_call_checkpoint(tmp_path: Path) -> None:
    """Interpreters, and scripts for them; what is not there is not asked for here."""
    script = tmp_path / "script"
    for name in ("python3", "perl", "ruby", "node", "php", "lua", "bash"):
        found = shutil.which(name)
        if found is None:
            continue
        for line in (found, f"/usr/bin/env {name}"):
            script.write_text(f"#!{line}\n")
            script.chmod(0o755)
            assert why_no_checkpoint(str(script)) is None, line
        assert why_no_checkpoint(found) is None


@pytest.mark.parametrize("place", ["main", "auto", "effect"])
def test_any_place_will_do_for_any_program(start: Serve, loop: str, place: str) -> None:
    server = start("--strategy", "snapshot", "--snapshot-at", place, "--loop", loop)
    with server.connect() as client:
        for _ in range(3):
            client.get()
            assert client.read().body == b"hi\n"


@pytest.mark.parametrize("place", ["main", "checkpoint", "auto"])
def test_where_forks_begin(start: Serve, loop: str, place: str) -> None:
    text = "import os\nfrom fastspawn import checkpoint\nabove = os.getpid()\ncheckpoint()\n"
    text += "print(above == os.getpid())\n"
    server = start("--strategy", "snapshot", "--snapshot-at", place, "--spawners", "1", "--loop",
                   loop, command=(sys.executable, "-c", text))  # fmt: skip
    with server.connect() as client:
        for _ in range(3):
            client.get()
            assert client.read().body == (b"True\n" if place == "main" else b"False\n")


def test_a_program_below_a_relative_working_directory(start: Serve, tmp_path: Path) -> None:
    """The template process is there already when a fork goes there."""
    (tmp_path / "inner").mkdir()
    shutil.copy("/bin/pwd", tmp_path / "inner" / "program")
    options = ("--strategy", "snapshot", "--snapshot-at", "main", "--cwd", "inner")
    server = start(*options, command=("./program",), prefix=("env", "-C", str(tmp_path)))
    assert server.get().body == f"{tmp_path}/inner\n".encode()
