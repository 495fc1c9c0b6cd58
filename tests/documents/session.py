"""Whoever follows a section of a document, block by block.

Each section has a directory of its own.  A block whose first comment is a file's name is put there
under it; other Python is run; of ``console`` blocks the lines that begin with ``$`` are run, and
print what is shown below them.  A command that serves goes on while the rest is done, until the
section ends or the next one wants its port: what it is shown to print, it says at some time.

Nothing is changed but what a machine has once: ports are any that are free, and ``/srv``, ``/run``
and the like are the section's own.
"""

from __future__ import annotations

import ast
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import queues
from documents import checks
from documents.markdown import ROOT, Block, Entry, Section, alike, entries, shown_by_comments
from support import BOUND, LINUX, poll

SERVES = re.compile(
    r"\bfastspawn[.-]serve\b|\bfastspawn (?:serve|work)\b|\buvicorn\b|\bmake serve\b"
    r"|^(?:redis|nats)-server\b"
)
READY = re.compile(
    r" on (?:https?://[^\s/]+:(\d+)|unix:)|\bworking on |Ready to accept conn|Server is ready"
)
OWN = re.compile(r"(?<![\w.~/-])/(?=(?:srv|run|etc/fastspawn|etc/haproxy)\b)")
PROGRAMS = (
    "bash bwrap caddy convert curl git haproxy jq nginx node openssl perl php-cgi "
    "redis-cli redis-server ruby systemd-analyze"
)
"""Without one of these a section that names it is skipped."""

TOP_LEVEL_AWAIT = """
import ast, asyncio, pathlib, sys, types
text = pathlib.Path(sys.argv[1]).read_text()
code = compile(text, sys.argv[1], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
asyncio.run(types.FunctionType(code, globals())())
"""
"""What ``python -m asyncio`` does to what is pasted into it."""


def environment(home: Path) -> dict[str, str]:
    """Of somebody with our ``python`` in an empty home, whose servers take any port."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not re.match(r"FASTSPAWN_(?!BACKEND)|GIT_|MAKE|.*_proxy$", name, re.IGNORECASE)
    }
    who = {f"GIT_{role}_{what}": f"{what.lower()}@localhost"
           for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}  # fmt: skip
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    own = {"PATH": path, "HOME": str(home), "FASTSPAWN_PORT": "0", "ARGS": "--port 0"}
    return kept | who | own | {"GIT_CONFIG_NOSYSTEM": "1"}


class Running:
    """A command in a process group of its own, and what it and its children have printed."""

    def __init__(self, words: list[str], shown: list[str], directory: Path, number: int) -> None:
        self.words = words
        self.shown = shown
        self.output = directory / f".output-{number}"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                words,
                cwd=directory,
                env=environment(directory),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def printed(self) -> str:
        return self.output.read_text(errors="backslashreplace")

    def _group(self) -> bool:
        """Is any of its group left?"""
        self.process.poll()
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # macOS: zombies
            return True
        return True

    def stop(self) -> None:
        """Told twice, a server of ours does not wait for its proxies; what comes at once is told
        once."""
        term, kill = signal.SIGTERM, signal.SIGKILL
        for number, bound in ((term, 0.01), (term, 1), (term, BOUND), (kill, BOUND)):
            if not self._group():
                break
            os.killpg(self.process.pid, number)
            try:
                poll(lambda: not self._group(), f"the end of {self.words[-1]}", bound)
            except AssertionError:
                if number == kill:
                    raise
        self.process.wait(BOUND)


class Session:
    """``ports``: of what is served, the number in the document and the one that it has here."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports: dict[str, str] = {}
        self.servers: dict[str, Running] = {}
        self.started = 0
        for name in ("examples", "docs"):  # as in a checkout
            (directory / name).symlink_to(ROOT / name)

    # ---- between the document and here ---------------------------------------------------------

    def here(self, text: str) -> str:
        """What the document says, for this machine."""
        for theirs, ours in self.ports.items():
            text = re.sub(rf"\b{theirs}\b", ours, text)
        return OWN.sub(f"{self.directory}/", text)

    def there(self, text: str) -> list[str]:
        """What was printed, as the document would show it."""
        for theirs, ours in self.ports.items():
            text = re.sub(rf"\b{ours}\b", theirs, text)
        text = re.sub(rf"{self.directory}/(?=srv|run|etc)", "/", text)
        return [line.rstrip() for line in text.splitlines()]

    # ---- blocks --------------------------------------------------------------------------------

    def follow(self, section: Section) -> None:
        for block in section.blocks:
            if block.not_run:
                continue
            try:
                self.do(block)
            except AssertionError as error:
                where = f"{section.document.name}:{block.line}"
                raise AssertionError(f"{where}: {error}") from None
        for port in list(reversed(self.servers)):  # whoever needs one ends before it
            self.end_server(port)

    def do(self, block: Block) -> None:
        if block.kind == "console":
            for entry in entries(block.text):
                self.command(entry)
        elif block.name:
            self.write(block)
        elif block.kind == "python":
            self.python(block)
        if check := checks.BY_KIND.get(block.kind):
            file = self.directory / (block.name or f".block-{block.line}")
            file.write_text(self.here(block.text))
            check(file, self.directory)

    def write(self, block: Block) -> None:
        file = self.directory / block.name
        file.write_text(self.here(block.text))
        file.chmod(0o755 if block.text.startswith("#!") else 0o644)

    def python(self, block: Block) -> None:
        file = self.directory / f"block{block.line}.py"
        file.write_text(self.here(block.text))
        top = compile(block.text, str(file), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        way = ["-c", TOP_LEVEL_AWAIT] if top.co_flags & 0x80 else []  # CO_COROUTINE
        self.end([sys.executable, "-W", "error", *way, str(file)], shown_by_comments(block.text))

    def command(self, entry: Entry) -> None:
        need(entry.command)
        if entry.command.startswith("pip install "):
            checks.requirement(entry.command)
            return
        if entry.command == "npm install":
            return  # tests/serve/test_terminal.py does it, where that can be
        if SERVES.search(entry.command):
            self.serve(entry)
        else:
            self.end(["sh", "-c", self.here(entry.command)], entry.shown)

    def start(self, words: list[str], shown: list[str]) -> Running:
        self.started += 1
        return Running(words, shown, self.directory, self.started)

    def end(self, words: list[str], shown: list[str]) -> None:
        """Run it to its end."""
        running = self.start(words, shown)
        try:
            running.process.wait(BOUND)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on: {words[-1]}\n{running.printed()}") from None
        finally:
            running.stop()
        self.compare(running)

    def compare(self, ended: Running) -> None:
        """A command fails only where it is shown that it does: with our line, and status 2."""
        printed, status = self.there(ended.printed()), ended.process.returncode
        refused = any(line.startswith("fastspawn: error: ") for line in ended.shown)
        told = "\n".join([f"$ {ended.words[-1]}", *printed])
        assert status == (2 if refused else 0), f"status {status}:\n{told}"
        shown = "\n".join(ended.shown)
        assert alike(ended.shown, printed), f"it is shown to print\n{shown}\nbut\n{told}"

    def serve(self, entry: Entry) -> None:
        """Run it until it serves; one that ends instead is a command like others."""
        if "fastspawn work" in entry.command:
            self.run_on(f"worker {self.started}", self.here(entry.command), entry)
            return
        found = re.search(r"(?:--port[ =]|-p |\bPORT=)(\d+)", entry.command)
        port = found[1] if found else "8001"
        if re.match("redis|nats", entry.command):
            self.ports[port] = str(queues.free_port())  # neither says which it took
            self.run_on(port, queues.with_program(self.here(entry.command)), entry)
            return
        if port in self.servers:
            self.end_server(port)
        if "make serve" in entry.command and not checks.made():
            pytest.skip("this Python is not make's")
        command = self.here(entry.command).replace("make serve", f"make -C {ROOT} serve")
        command = command.replace(f"--port {port}", "--port 0")
        if f" PORT={port} " in f" {command}":  # which counts where no variable of ours does
            command = f"unset FASTSPAWN_PORT; {command.replace(f'PORT={port}', 'PORT=0')}"
        self.run_on(port, command, entry)

    def run_on(self, port: str, command: str, entry: Entry) -> None:
        """``port``: that of the document, or another name for it."""
        running = self.servers[port] = self.start(["sh", "-c", command], entry.shown)
        poll(lambda: READY.search(running.printed()) or running.process.poll() is not None, command)
        if ready := READY.search(running.printed()):
            if ready[1]:
                self.ports[port] = ready[1]
        else:
            self.servers.pop(port).stop()
            self.compare(running)

    def end_server(self, port: str) -> None:
        """Once it has said what it is shown to say, among other things."""
        server = self.servers.pop(port)

        def says_it_all() -> bool:
            lines = self.there(server.printed())
            return all(any(alike([line], [said]) for said in lines) for line in server.shown)

        try:
            poll(says_it_all, f"all of {server.shown}")
            assert "Traceback" not in server.printed()
        except AssertionError as error:
            raise AssertionError(f"{error}: it says\n{server.printed()}") from None
        finally:
            server.stop()
        self.ports.pop(port, None)

    def close(self) -> None:
        for server in self.servers.values():
            server.stop()


def elsewhere(section: Section) -> str:
    """Why it does not hold here, if it does not."""
    text = "".join(block.text for block in section.blocks)
    if not LINUX and re.search(r"strategy (snapshot|auto|reset)|Template|rlimit|bubblewrap", text):
        return "for Linux"
    if platform.machine() != "x86_64" and re.search(r"reset|effect", text):
        return "for x86-64"
    return ""


def need(text: str) -> None:
    """Skip the test if ``text`` names a program that is not here."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    for program in PROGRAMS.split():
        if not re.search(rf"(?<![\w./-]){program}(?![\w-])", text):
            continue
        # There are others of this name, but ImageMagick's comes with an identify.
        found = shutil.which("identify" if program == "convert" else program, path=path)
        if found is None:
            pytest.skip(f"no {program}")
        if program == "bwrap" and not checks.sandboxes(found):
            pytest.skip("bwrap may not make namespaces here")
