"""A steady load: requests at a rate, whatever becomes of those before, and what became of each."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

FETCH = b"GET /fetch HTTP/1.1\r\nHost: fleet\r\n\r\n"
NOTE = b"POST /note HTTP/1.1\r\nHost: fleet\r\nContent-Length: %d\r\n\r\n%b"


@dataclass
class Outcome:
    """``failed``: how many of which kind failed, and how: a status, or what happened to the
    connection. ``noted``: the names of POST requests that were answered with 200, and others."""

    sent: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        """Seconds, from when a request was due to its answer's last byte."""
        ordered = sorted(self.seconds)
        return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


class Load:
    """To ``where``, a request at each of ``moments`` (seconds from the start) until ``stop``, over
    ``connections`` kept ones, every ``posts``-th of them a POST (0: none). Nothing is ever tried
    again."""

    def __init__(
        self, where: tuple[str, int], moments: Iterable[float], connections: int, posts: int
    ) -> None:
        self._where = where
        self._moments = moments
        self._connections = connections
        self._posts = posts
        self._due: asyncio.Queue[tuple[float, int] | None] = asyncio.Queue()
        self._stopping = asyncio.Event()
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        clients = [asyncio.create_task(self._client()) for _ in range(self._connections)]
        start = time.monotonic()
        for number, moment in enumerate(self._moments, 1):
            due = start + moment
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), max(due - time.monotonic(), 0))
            if self._stopping.is_set():
                break
            self._due.put_nowait((due, number))
        for _ in clients:
            self._due.put_nowait(None)
        await asyncio.gather(*clients)
        return self.outcome

    def stop(self) -> None:
        self._stopping.set()

    async def _client(self) -> None:
        streams = None
        while (next_one := await self._due.get()) is not None:
            due, number = next_one
            name = str(number)
            is_post = self._posts and number % self._posts == 0
            kind = "POST" if is_post else "GET"
            self.outcome.sent[kind] += 1
            try:
                streams = streams or await asyncio.open_connection(*self._where)
                data = NOTE % (len(name) + 1, f"{name}\n".encode()) if is_post else FETCH
                status, kept = await _exchange(*streams, data)
            except (OSError, EOFError, ValueError) as error:
                status, kept = type(error).__name__, False
            if status == "200":
                self.outcome.seconds.append(time.monotonic() - due)
            else:
                self.outcome.failed[f"{kind} {status}"] += 1
            if is_post:
                (self.outcome.noted if status == "200" else self.outcome.unsure).append(name)
            if not kept and streams is not None:
                streams[1].close()
                streams = None
        if streams is not None:
            streams[1].close()


def steady(rate: float) -> Iterator[float]:
    """Moments, without end."""
    return (number / rate for number in itertools.count(1))


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes
) -> tuple[str, bool]:
    """The status of the answer, once all of it is here; may the connection be used again?"""
    writer.write(data)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = head.split(b" ", 2)[1].decode()
    if b"\r\ntransfer-encoding: chunked\r\n" in head:
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    else:
        fields = dict(line.split(b": ", 1) for line in head.strip().split(b"\r\n")[1:])
        body = await reader.readexactly(int(fields[b"content-length"]))
    if status == "200" and body != b"done\n":
        raise ValueError(body)
    return status, b"\r\nconnection: close\r\n" not in head


async def under_load(load: Load, work: Callable[[], None]) -> Outcome:
    """Do ``work``, in a thread, while it goes on."""
    running = asyncio.create_task(load.run())
    try:
        await asyncio.get_running_loop().run_in_executor(None, work)
    finally:
        load.stop()
        await running
    return load.outcome
