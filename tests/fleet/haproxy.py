"""HAProxy with the configuration of docs/fleet.md."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support import BOUND, listens, poll

PROGRAM = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
DOCUMENT = Path(__file__).parents[2] / "docs" / "fleet.md"


def documented(kind: str) -> str:
    """The one block of that kind."""
    (found,) = re.findall(rf"```{kind}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return str(found)


def configuration(front: int, control: Path, addresses: Sequence[tuple[str, int, int]]) -> str:
    """The documented one, listening on descriptor ``front``, over as many servers as there are
    ``addresses``: host, port, the agent's port. ``control``: HAProxy's own socket."""
    text = documented("haproxy").replace("bind :8080", f"bind fd@{front}")
    text = text.replace("global\n", f"global\n    stats socket {control} level admin\n")
    text, count = re.subn(r"    server .*\n", "", text)
    assert count == 4
    return text.rstrip() + "".join(
        f"\n    server s{number} {host}:{port} agent-addr {host} agent-port {agent}"
        for number, (host, port, agent) in enumerate(addresses)
    ) + "\n"  # fmt: skip


def weighted(text: str) -> str:
    """With the agent, as the document has it in its text."""
    line = "default-server weight 100 agent-check agent-inter 500ms"
    assert line in DOCUMENT.read_text()
    return text.replace("default-server", line)


class HAProxy:
    """A running one. ``where`` it listens: host and port."""

    def __init__(self, where: tuple[str, int], control: Path) -> None:
        self.where = where
        self._control = control

    def ask(self, command: str) -> str:
        """Its management guide's commands."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(BOUND)
            sock.connect(str(self._control))
            sock.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: sock.recv(65536), b"")).decode()

    def servers(self) -> list[dict[str, str]]:
        """Of each server a line of ``show stat``."""
        head, *lines = self.ask("show stat commands 4 -1").lstrip("# ").strip().splitlines()
        names = head.split(",")
        return [dict(zip(names, line.split(","), strict=False)) for line in lines]

    def up(self) -> int:
        """How many servers get new requests."""
        return sum(each["status"].startswith("UP") for each in self.servers())


@contextmanager
def haproxy(
    folder: Path,
    addresses: Sequence[tuple[str, int, int]],
    edit: Callable[[str], str] = lambda text: text,
) -> Iterator[HAProxy]:
    """Once it takes all servers to be there. ``edit``: of its file."""
    assert PROGRAM is not None
    control = folder / "haproxy"
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as sock:
        file = folder / "haproxy.cfg"
        file.write_text(edit(configuration(sock.fileno(), control, addresses)))
        with (folder / "haproxy.log").open("wb") as out:
            process = subprocess.Popen(
                [PROGRAM, "-f", file, "-db"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=[sock.fileno()],
            )  # fmt: skip
        try:
            poll(lambda: listens(control) or process.poll() is not None, "HAProxy")
            assert process.poll() is None, (folder / "haproxy.log").read_text()
            found = HAProxy(sock.getsockname(), control)
            poll(lambda: found.up() == len(addresses), "HAProxy's trust in all servers")
            yield found
        finally:
            process.terminate()
            process.wait(BOUND)
