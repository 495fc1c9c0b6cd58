"""Requests to a template whose processes are killed again and again.

    python tests/children/templates.py [REQUESTS [EVERY [engine|http]]]

A process of the template is killed EVERY seconds (default 1), and now and then stopped, while
REQUESTS (default 200,000) are answered, 30 at a time, by a Template (engine, the default) or by a
server with --strategy snapshot (http). Each has a token of its own in its environment and its
input, an argument or a header, and a file; it must get back all of them, its own pid and the
descriptors that any process begins with. Fails when an answer is wrong, mixed or lost, or when a
process or a descriptor is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fastspawn import Template
from serve.harness import Server
from support import async_poll

AT_ONCE = 30
TEMPLATES = 2
SLACK = 8
"""Descriptors that a spawner may keep for its next processes."""
NEVER_EXECUTED = 0x40
"""PF_FORKNOEXEC of the kernel's sched.h, in the ninth field of /proc/PID/stat."""

SCRIPT = r"""
read -r line
file=@@${PATH_INFO}
echo "$line" >"$file"
fds=; for fd in /proc/self/fd/*; do fds=$fds${fd##*/}; done
read -r back <"$file"
echo Content-Type: text/plain
echo
echo "$0 $HTTP_X_TOKEN $QUERY_STRING $line $back $$ $fds"
"""


# ---- what /proc says --------------------------------------------------------


def processes(of: int) -> set[int]:
    """Children, of any thread; those that nobody has waited for as well."""
    found = set()
    for task in Path(f"/proc/{of}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def descriptors(of: int) -> int:
    """Of all threads: spawners have tables of their own."""
    return sum(len(os.listdir(task / "fd")) for task in Path(f"/proc/{of}/task").iterdir())


def is_template(pid: int) -> bool:
    """It was executed, unlike its forks, and has a socket, unlike other processes."""
    try:
        flags = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[6])
        links = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return not flags & NEVER_EXECUTED and any(link.startswith("socket:") for link in links)


def strike(pid: int, number: int) -> bool:
    """The signal to this process, if it is a template's."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not is_template(pid):
            return False
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


# ---- requests ---------------------------------------------------------------


class Soak(ABC):
    def __init__(self, folder: str, requests: int) -> None:
        self.folder = folder
        self.left = requests
        self.wrong = 0
        self.kills = 0
        self.done = 0

    @property
    @abstractmethod
    def parent(self) -> int:
        """Whose children the processes are."""

    @abstractmethod
    async def ask(self, client: object, name: str, token: str) -> tuple[bool, object]:
        """Is it the right answer? And the whole of it."""

    async def connect(self) -> object:
        return None

    @property
    def script(self) -> str:
        return SCRIPT.replace("@@", self.folder)

    async def client(self, number: int) -> None:
        client = await self.connect()
        while self.left > 0:
            self.left -= 1
            token = f"{self.left}-{random.getrandbits(64):x}"
            right, answer = await self.ask(client, f"/{number}", token)
            self.done += 1
            if not right:
                self.wrong += 1
                print(f"{token}: {answer}", file=sys.stderr)

    async def killer(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            for pid in processes(self.parent):
                number = signal.SIGSTOP if self.kills % 50 == 7 else signal.SIGKILL
                if strike(pid, number):
                    self.kills += 1
                    break

    def settled(self) -> bool:
        found = [is_template(pid) for pid in processes(self.parent)]
        return len(found) == TEMPLATES and all(found)

    async def run(self, requests: int, every: float) -> bool:
        self.left = 2 * AT_ONCE
        await asyncio.gather(*(self.client(number) for number in range(AT_ONCE)))
        await async_poll(self.settled, "two processes")
        before = descriptors(self.parent)
        killer = asyncio.create_task(self.killer(every))
        start = time.monotonic()
        self.left, self.done = requests, 0
        await asyncio.gather(*(self.client(number) for number in range(AT_ONCE)))
        took = time.monotonic() - start
        killer.cancel()
        await async_poll(self.settled, "two processes at the end")
        grown = descriptors(self.parent) - before
        print(
            f"{self.done} requests, {self.done / took:.0f} a second: {self.wrong} wrong; "
            f"{self.kills} kills; {grown} descriptors more"
        )
        return not self.wrong and grown <= SLACK and self.kills > 0 and self.done == requests


class EngineSoak(Soak):
    template: Template
    parent = os.getpid()

    async def ask(self, client: object, name: str, token: str) -> tuple[bool, object]:
        env = {"HTTP_X_TOKEN": token, "QUERY_STRING": token, "PATH_INFO": name}
        args = ["-c", self.script, token]
        result = await self.template.run(args, f"{token}\n".encode(), env=env)
        expected = f"Content-Type: text/plain\n\n{' '.join([token] * 5)} {result.pid} 0123\n"
        got = (result.returncode, result.stdout, result.stderr)
        return got == (0, expected.encode(), b""), result


class HttpSoak(Soak):
    server: Server

    @property
    def parent(self) -> int:
        return self.server.pid

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.server.port)

    async def ask(self, client: object, name: str, token: str) -> tuple[bool, object]:
        reader, writer = client  # type: ignore[misc]
        fields = f"Host: test\r\nX-Token: {token}\r\nContent-Length: {len(token) + 1}"
        writer.write(f"POST {name}?{token} HTTP/1.1\r\n{fields}\r\n\r\n{token}\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)^content-length: *(\d+)", head, re.M)
        body = await (reader.readexactly(int(length[1])) if length else self.chunks(reader))
        expected = rf"sh( {token}){{4}} \d+ 0123\n".encode()
        right = head.startswith(b"HTTP/1.1 200 ") and re.fullmatch(expected, body)
        return bool(right), (head, body)

    async def chunks(self, reader: asyncio.StreamReader) -> bytes:
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return body


async def by_engine(folder: str, requests: int, every: float) -> bool:
    soak = EngineSoak(folder, requests)
    async with Template(["sh", "-c", "exit 9"], size=TEMPLATES, at="main") as soak.template:
        right = await soak.run(requests, every)
        print(soak.template.stats)
    left = processes(os.getpid())
    print(f"{len(left)} processes left")
    return right and not left


async def by_http(folder: str, requests: int, every: float) -> bool:
    soak = HttpSoak(folder, requests)
    options = ("--mode", "cgi", "--strategy", "snapshot", "--snapshot-at", "main")
    options += ("--spawners", str(TEMPLATES), "--no-access-log")
    soak.server = Server(Path(folder), options, ("sh", "-c", soak.script, "sh"))
    try:
        return await soak.run(requests, every)
    finally:
        soak.server.stop()


def main(requests: str = "200000", every: str = "1", way: str = "engine") -> bool:
    with tempfile.TemporaryDirectory() as folder:
        by = {"engine": by_engine, "http": by_http}[way]
        return asyncio.run(by(folder, int(requests), float(every)))


if __name__ == "__main__":
    sys.exit(not main(*sys.argv[1:]))
