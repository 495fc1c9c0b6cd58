"""Load by bombardier, and a client of our own that compares every body it gets.

bombardier counts status codes and bytes but does not look at bodies. So a launch counts only if

* every one of the n answers of the measured load had a 2xx status;
* the bytes bombardier wrote are n times some size: it repeats a request, without a word, when the
  answer takes longer than 2 s or the connection is closed before it, and then the count is off;
* the bytes bombardier read are n times the size of one complete answer, when those of the checking
  client were all of one size; from a server that may stream, so that an answer comes with its
  length or in chunks as the child is quick or slow, they lie between n times the one form and n
  times the other;
* the checking client, at the same concurrency, got the right status and body each time, before
  the measured load and after it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: %d\r\n"


class LoadError(Exception):
    """A load that cannot be counted; the message says why."""


@dataclass(frozen=True)
class LoadResult:
    """What bombardier saw. Latencies in microseconds."""

    seconds: float
    requests_per_second: float
    p50_us: float
    p99_us: float
    bytes_read: int
    answers: int
    errors: int


class Answer(NamedTuple):
    """One HTTP/1.1 answer."""

    status: int
    body: bytes
    size: int  # bytes on the wire, headers included
    with_length: int  # the same with Content-Length
    in_chunks: int  # the same in one chunk, or in as many as it came in
    stays: bool  # the connection is kept


@dataclass
class Check:
    """What the checking client saw."""

    answers: int = 0
    mismatches: int = 0
    first_mismatch: str = ""
    sizes: Counter[int] = field(default_factory=Counter)
    with_length: set[int] = field(default_factory=set)
    in_chunks: set[int] = field(default_factory=set)

    def count(self, answer: Answer) -> None:
        self.answers += 1
        self.sizes[answer.size] += 1
        self.with_length.add(answer.with_length)
        self.in_chunks.add(answer.in_chunks)

    def include(self, other: Check) -> None:
        """Count the sizes of *other*'s answers, too."""
        self.sizes.update(other.sizes)
        self.with_length |= other.with_length
        self.in_chunks |= other.in_chunks

    def bounds(self, streams: bool) -> tuple[int, int] | None:
        """The smallest and the largest an answer of this server can be; None: not known."""
        if streams and self.sizes:
            return min(self.with_length), max(self.in_chunks)
        if len(self.sizes) == 1:
            return min(self.sizes), min(self.sizes)
        return None

    def add(self, problem: str) -> None:
        self.mismatches += 1
        self.first_mismatch = self.first_mismatch or problem


def bombard(
    program: Path, port: int, requests: int, connections: int, patience: int = 2
) -> LoadResult:
    """Run the article's command, plus ``-l -p r -o json`` to get the latencies as JSON.

    After *patience* seconds bombardier gives an answer up; 2 is its default.
    """
    url = f"http://localhost:{port}"
    command = [str(program), "-c", str(connections), "-n", str(requests), "-l", "-p", "r"]
    command += [] if patience == 2 else ["-t", f"{patience}s"]
    try:
        done = subprocess.run(
            [*command, "-o", "json", url], capture_output=True, text=True, timeout=600, check=False
        )
    except subprocess.TimeoutExpired:
        raise LoadError("bombardier did not finish within 600 s") from None
    if done.returncode != 0:
        raise LoadError(f"bombardier: exit status {done.returncode}: {done.stderr.strip()[:200]}")
    result = json.loads(done.stdout)["result"]
    errors = sum(int(entry["count"]) for entry in result.get("errors") or ())
    good = int(result["req2xx"])
    if good != requests or errors:
        others = {k: result[k] for k in ("req1xx", "req3xx", "req4xx", "req5xx", "others")}
        told = "".join(f"; {entry['description']}" for entry in (result.get("errors") or ())[:1])
        raise LoadError(f"{good} of {requests} answers were 2xx, others {others}{told}")
    if int(result["bytesWritten"]) % requests:
        longest = float(result["latency"]["max"]) / 1e3
        raise LoadError(
            "bombardier had to repeat requests that were not answered in time, or whose "
            f"connection was closed (longest wait {longest:,.0f} ms)"
        )
    seconds = float(result["timeTakenSeconds"])
    percentiles = result["latency"]["percentiles"]
    return LoadResult(
        seconds=seconds,
        requests_per_second=requests / seconds,
        p50_us=float(percentiles["50"]),
        p99_us=float(percentiles["99"]),
        bytes_read=int(result["bytesRead"]),
        answers=good,
        errors=errors,
    )


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """The next answer on a connection. Raises ValueError for one without a visible end."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    status = int(lines[0].split(b" ", 2)[1])
    headers = {}
    for line in lines[1:-2]:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    stays = headers.get(b"connection", b"").lower() != b"close"
    if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
        body, framing = await _read_chunks(reader)
        size = len(head) + len(body) + framing
        with_length = size - len(CHUNKED) - framing + len(LENGTH % len(body))
        return Answer(status, body, size, with_length, size, stays)
    if b"content-length" not in headers:
        raise ValueError("neither Content-Length nor chunked: the answer has no visible end")
    body = await reader.readexactly(int(headers[b"content-length"]))
    size = len(head) + len(body)
    framing = len(b"%x\r\n\r\n" % len(body)) * bool(body) + len(b"0\r\n\r\n")
    in_chunks = size - len(LENGTH % len(body)) + len(CHUNKED) + framing
    return Answer(status, body, size, size, in_chunks, stays)


async def _read_chunks(reader: asyncio.StreamReader) -> tuple[bytes, int]:
    """A chunked body, and how many bytes were put around it."""
    body, framing = b"", 0
    while True:
        line = await reader.readuntil(b"\r\n")
        length = int(line.split(b";")[0], 16)
        chunk = await reader.readexactly(length + 2)
        framing += len(line) + 2
        if not length:
            return body, framing
        body += chunk[:-2]


def request(port: int) -> bytes:
    """The request that bombardier's client sends, so that the answers are the same size."""
    return b"GET / HTTP/1.1\r\nUser-Agent: fasthttp\r\nHost: localhost:%d\r\n\r\n" % port


async def _check_async(port: int, answers: int, connections: int, expected: bytes) -> Check:
    check = Check()
    left = iter(range(answers))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for _ in left:
                writer.write(request(port))
                answer = await read_answer(reader)
                check.count(answer)
                if answer.status != 200 or answer.body != expected:
                    told = f"status {answer.status}, body {answer.body[:60]!r}"
                    check.add(f"{told} instead of {expected!r}")
                if not answer.stays:
                    writer.close()
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            check.add(f"{type(error).__name__}: {error}")
        finally:
            writer.close()

    clients = [client() for _ in range(min(connections, answers))]
    for problem in await asyncio.gather(*clients, return_exceptions=True):
        if isinstance(problem, BaseException):
            check.add(f"{type(problem).__name__}: {problem}")
    return check


def check_answers(port: int, answers: int, connections: int, expected: bytes) -> Check:
    """Ask *answers* times over *connections* connections, each kept as long as the server keeps it;
    raise on any mismatch.
    """
    limit = 60 + answers * 0.05

    async def bounded() -> Check:
        return await asyncio.wait_for(_check_async(port, answers, connections, expected), limit)

    try:
        check = asyncio.run(bounded())
    except asyncio.TimeoutError:
        raise LoadError(f"{answers} answers did not come within {limit:.0f} s") from None
    if check.mismatches or check.answers != answers:
        raise LoadError(
            f"{check.mismatches} mismatches in {check.answers} of {answers} checked answers: "
            f"{check.first_mismatch}"
        )
    return check


def check_bytes(check: Check, load: LoadResult, streams: bool) -> bool:
    """Compare bombardier's byte count with what the answers can have had; raise when it is off.

    Returns False where nothing is known: the answers differ in size although nothing *streams*.
    """
    bounds = check.bounds(streams)
    if bounds is None:
        return False
    low, high = (size * load.answers for size in bounds)
    if not low <= load.bytes_read <= high:
        size = " to ".join(map(str, sorted(set(bounds))))
        raise LoadError(f"bombardier read {load.bytes_read} bytes, not {load.answers} x {size}")
    return True


async def _ask_in_turn(port: int, answers: int, gap: float, expected: bytes) -> list[float]:
    times = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for _ in range(answers):
            await asyncio.sleep(gap)
            start = time.perf_counter()
            writer.write(request(port))
            answer = await read_answer(reader)
            times.append((time.perf_counter() - start) * 1e6)
            if answer.status != 200 or answer.body != expected:
                raise LoadError(f"status {answer.status}, body {answer.body[:60]!r}")
    finally:
        writer.close()
    return times


def ask_in_turn(port: int, answers: int, gap: float, expected: bytes) -> list[float]:
    """One request after another on one connection, *gap* seconds of idleness before each.

    Returns the microseconds that each took. Raises LoadError for an answer that is not right.
    """
    try:
        return asyncio.run(_ask_in_turn(port, answers, gap, expected))
    except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
        raise LoadError(f"{type(error).__name__}: {error}") from None
