"""Requests of a soak by HTTP: what is asked, when its client leaves, what may be answered."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass

from soak.answers import Figures, Program, Request, Wrong, check_head

PATIENCE = 240.0
"""Seconds after which an answer never comes, however busy the machine."""
STAGES = ("connected", "head", "body", "asked", "answered", "within")
"""After which part a client may leave; the last two are of the answer."""
ENDLESS = frozenset({"wait", "deaf", "family", "flood"})
"""Orders that nobody ends but the server, or a signal."""
HEAD = re.compile(
    rb"HTTP/1\.1 (?P<status>\d{3}) [\w -]*\r\nServer: fastspawn\r\nDate: [\w, :]{29}\r\n"
    rb"Content-Type: text/plain; charset=utf-8\r\n"
    rb"(?:Content-Length: (?P<length>\d+)|"
    rb"Transfer-Encoding: chunked(?:\r\nX-Accel-Buffering: no)?)\r\n"
    rb"(?:Keep-Alive: timeout=\d+\r\n)?(?P<last>Connection: close\r\n)?\r\n"
)
STATUSES = {0: 200, **{code: 206 + code for code in range(1, 64)}}
"""HTTP's, by exit status: none that has no body."""


@dataclass
class Manner:
    """How a client asks."""

    until: str = ""
    """One of STAGES: it leaves then."""
    some: int = 0
    """``within``: when a line has come, and so many bytes."""
    abruptly: bool = False
    """It leaves as in a crash."""
    chunked: bool = False
    half: bool = False
    """It shuts its sending side, and takes the answer."""


@dataclass
class Answer:
    status: int
    streamed: bool
    """It began before the process had ended."""
    body: bytes = b""
    whole: bool = False
    last: bool = False
    """The server has closed the connection, or will."""


@dataclass
class Client:
    """One connection at a time, kept where the server keeps it."""

    port: int
    figures: Figures
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    length: bytes | None = None
    """Of the answer that is being read, where it is told."""

    async def connect(self) -> None:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)

    def leave(self, *, abruptly: bool = False) -> None:
        if self.streams is not None:
            writer = self.streams[1]
            if abruptly:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort() if abruptly else writer.close()
            self.streams = None

    async def ask(self, path: str, asked: Request, manner: Manner) -> Answer | None:
        """Until that stage; None: there is nothing of an answer. ConnectionError and EOFError as
        they come."""
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        if not await send(writer, request_parts(path, asked, manner), manner):
            return None
        answer = await self.read_head(reader)
        if manner.until != "answered":
            await self.read_body(reader, answer, manner)
        if answer.last or manner.half:
            self.leave()
        return answer

    async def read_head(self, reader: asyncio.StreamReader) -> Answer:
        head = await reader.readuntil(b"\r\n\r\n")
        found = HEAD.fullmatch(head)
        if found is None:
            raise Wrong(f"the head: {head!r}")
        self.length = found["length"]
        return Answer(int(found["status"]), not self.length, last=bool(found["last"]))

    async def read_body(self, reader: asyncio.StreamReader, answer: Answer, manner: Manner) -> None:
        """All of it, or some."""
        try:
            if self.length:
                answer.body = await reader.readexactly(int(self.length))
            else:
                async for data in chunks(reader):
                    answer.body += data
                    if manner.until == "within" and b"\n" in answer.body[manner.some :]:
                        return
            answer.whole = True
        except asyncio.IncompleteReadError as error:
            answer.body += error.partial if self.length else b""
            answer.last = True


async def send(
    writer: asyncio.StreamWriter, parts: list[tuple[str, bytes]], manner: Manner
) -> bool:
    """False: it is to leave now."""
    for name, data in parts:
        writer.write(data[: len(data) // 2] if name == manner.until else data)
        with contextlib.suppress(ConnectionError):  # it may have answered already
            await writer.drain()
        if name == manner.until:
            return False
    if manner.half:
        writer.write_eof()
    return manner.until != "asked"


async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Until the last one. Raises Wrong."""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        data = await reader.readexactly(size + 2)
        if not data.endswith(b"\r\n"):
            raise Wrong(f"a chunk's end: {data[-2:]!r}")
        yield data[:-2]
    if await reader.readexactly(2) != b"\r\n":
        raise Wrong("what follows the last chunk")


def request_parts(path: str, asked: Request, manner: Manner) -> list[tuple[str, bytes]]:
    """Head and body."""
    body = asked.input
    length = "Transfer-Encoding: chunked" if manner.chunked else f"Content-Length: {len(body)}"
    if manner.chunked:
        half = len(body) // 2
        pieces = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:], b"")]
        body = b"".join(pieces)
    head = f"POST {path}?n={asked.given} HTTP/1.1\r\nHost: soak\r\n{length}\r\n\r\n"
    return [("connected", b""), ("head", head.encode()), ("body", body)]


def judge(
    program: Program, asked: Request, got: Answer, figures: Figures, manner: Manner, may_end: str
) -> None:
    """Raises Wrong. ``may_end``: what the server may say instead of letting it end by itself."""
    if got.status >= 500:
        check_failure(asked, got, figures, may_end)
        return
    whole = check_start(program, asked, got, figures)
    rest = got.body.partition(b"\n")[2]
    expected = b"" if at_once(asked) else asked.rest(len(rest))
    if not expected.startswith(rest):
        raise Wrong("what follows its first line")
    if got.whole:
        if asked.order in ENDLESS or not whole or rest != expected:
            raise Wrong("a whole answer that is not all")
        if asked.ends() < 0 or got.status != (200 if got.streamed else STATUSES[asked.ends()]):
            raise Wrong("its status")
        figures.counts["right"] += 1
    elif manner.until:
        figures.counts["left"] += 1
    elif may_end:
        figures.counts[may_end] += 1
    elif asked.order != "crash":
        explain(figures, CUT_OFF)


def at_once(asked: Request) -> bool:
    return asked.given.startswith("now")


def check_start(program: Program, asked: Request, got: Answer, figures: Figures) -> bool:
    """Is its first line whole? Raises Wrong."""
    if not at_once(asked):
        return check_head(program, asked, got.body, figures)
    if not f"{asked.given}\n".encode().startswith(got.body):
        raise Wrong("what it says at once")
    return got.body.endswith(b"\n")


CUT_OFF = 0
"""A key of ``Figures.died``: answers that are cut off tell no signal."""


def explain(figures: Figures, number: int) -> None:
    """One request more ended by a signal that was sent. Raises Wrong."""
    figures.died[number] += 1
    of_all = sum(figures.died.values()) > sum(figures.struck.values())
    if of_all or (number != CUT_OFF and figures.died[number] > figures.struck[number]):
        raise Wrong("an end that nothing explains")


FAILURES = {
    "late": (504, b"504 Gateway Timeout: the command did not finish in time\n"),
    "cut": (500, b"500 Internal Server Error: the command wrote too much\n"),
}
SIGNAL = re.compile(rb"500 Internal Server Error: the command was killed by signal (\d+)\n")
NOT_STARTED = b"502 Bad Gateway: the command could not be started: "
WORKER = (502, NOT_STARTED + b"the worker has died (status -9)\n")
NO_WORKER = (502, NOT_STARTED + b"no worker could be started\n")
"""All that wait are told so, when the last worker has died soon after it was started."""


def check_failure(asked: Request, got: Answer, figures: Figures, may_end: str) -> None:
    """Raises Wrong."""
    if not got.whole:
        raise Wrong("half an error")
    found = SIGNAL.fullmatch(got.body) if got.status == 500 else None
    if may_end and (got.status, got.body) == FAILURES[may_end]:
        figures.counts[may_end] += 1
    elif found and asked.order == "crash" and int(found[1]) == signal.SIGSEGV:
        figures.counts["crashed"] += 1
    elif found:
        explain(figures, int(found[1]))
    elif (got.status, got.body) == WORKER:
        explain(figures, signal.SIGKILL)
    elif (got.status, got.body) == NO_WORKER and figures.struck[signal.SIGKILL]:
        figures.counts["without a worker"] += 1
    else:
        raise Wrong("an error that nothing explains")
