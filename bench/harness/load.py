"""Load by bombardier, and a client of our own that compares every body it gets.

bombardier counts status codes and bytes but does not look at bodies. So a launch counts only if

* every one of the n answers of the measured load had a 2xx status;
* the bytes bombardier wrote are n times some size: it repeats a request, without a word, when the
  answer takes longer than 2 s or the connection is closed before it, and then the count is off;
* the bytes bombardier read are n times the size of one complete answer (when the answers of the
  checking client were all of one size, which it reports);
* the checking client, at the same concurrency, got the right status and body each time, before
  the measured load and after it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


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


@dataclass
class Check:
    """What the checking client saw."""

    answers: int = 0
    mismatches: int = 0
    first_mismatch: str = ""
    sizes: Counter[int] = field(default_factory=Counter)

    @property
    def size(self) -> int | None:
        """Bytes of one complete answer, headers included, or None when they differ."""
        return next(iter(self.sizes)) if len(self.sizes) == 1 else None

    def add(self, problem: str) -> None:
        self.mismatches += 1
        self.first_mismatch = self.first_mismatch or problem


def bombard(program: Path, port: int, requests: int, connections: int) -> LoadResult:
    """Run the article's command, plus ``-l -p r -o json`` to get the latencies as JSON."""
    url = f"http://localhost:{port}"
    command = [str(program), "-c", str(connections), "-n", str(requests), "-l", "-p", "r"]
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
            "bombardier had to repeat requests that were not answered within 2 s, or whose "
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


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, int, bool]:
    """One HTTP/1.1 answer: status, body, its size on the wire, whether the connection stays."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = len(head)
    lines = head.split(b"\r\n")
    status = int(lines[0].split(b" ", 2)[1])
    headers = {}
    for line in lines[1:-2]:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    stays = headers.get(b"connection", b"").lower() != b"close"
    if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
        body = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            length = int(line.split(b";")[0], 16)
            chunk = await reader.readexactly(length + 2)
            size += len(line) + len(chunk)
            if not length:
                return status, body, size, stays
            body += chunk[:-2]
    if b"content-length" not in headers:
        raise ValueError("neither Content-Length nor chunked: the answer has no visible end")
    body = await reader.readexactly(int(headers[b"content-length"]))
    return status, body, size + len(body), stays


async def _check_async(port: int, answers: int, connections: int, expected: bytes) -> Check:
    check = Check()
    left = iter(range(answers))
    # The request that bombardier's client sends, so that the answers are the same size.
    request = b"GET / HTTP/1.1\r\nUser-Agent: fasthttp\r\nHost: localhost:%d\r\n\r\n" % port

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for _ in left:
                writer.write(request)
                status, body, size, stays = await _read_answer(reader)
                check.answers += 1
                check.sizes[size] += 1
                if status != 200 or body != expected:
                    check.add(f"status {status}, body {body[:60]!r} instead of {expected!r}")
                if not stays:
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


def check_bytes(check: Check, load: LoadResult) -> bool:
    """Compare bombardier's byte count, if all answers have one size; raise when it is off."""
    if check.size is None:
        return False
    wanted = check.size * load.answers
    if load.bytes_read != wanted:
        raise LoadError(
            f"bombardier read {load.bytes_read} bytes instead of "
            f"{load.answers} x {check.size} = {wanted}"
        )
    return True
