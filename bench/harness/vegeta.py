"""Load at a fixed rate, by vegeta: a request goes out when it is due, answered or not the others.

A client that waits for an answer before it asks again asks less just when the server is slow, and
so measures only the good moments. Here a latency counts from the moment at which the request was
due, so that what vegeta itself sent late, on a machine that it shares with the server, is in it;
`sent_p99_us` counts from the sending. Every status and every body is compared.
"""

from __future__ import annotations

import base64
import csv
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.harness.load import LoadError
from bench.harness.stats import quantile


@dataclass(frozen=True)
class OpenResult:
    """Latencies in microseconds, the rate in requests per second."""

    rate: float
    seconds: float
    answers: int
    errors: int
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    sent_p99_us: float
    late_p99_us: float  # the sending behind the moment at which it was due


def attack(program: Path, port: int, rate: int, seconds: float, expected: bytes) -> OpenResult:
    """Send *rate* requests per second for *seconds*. Raises LoadError for a wrong answer."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "results.bin"
        command = [str(program), "attack", f"-rate={rate}/s", f"-duration={seconds}s"]
        command += ["-http2=false", "-timeout=30s", f"-output={out}"]
        _run(command, f"GET http://127.0.0.1:{port}/\n", seconds + 60)
        told = _run([str(program), "encode", "-to=csv", str(out)], "", 60)
    return _read(csv.reader(told.splitlines()), rate, expected)


def _run(command: list[str], given: str, timeout: float) -> str:
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise LoadError(f"vegeta did not finish within {timeout:.0f} s") from None
    if done.returncode != 0:
        raise LoadError(f"vegeta: exit status {done.returncode}: {done.stderr.strip()[:200]}")
    return done.stdout


def _read(lines: Iterable[list[str]], rate: int, expected: bytes) -> OpenResult:
    """From the columns that `vegeta encode` writes."""
    wanted = base64.b64encode(expected).decode()
    interval = 1e9 / rate
    sent, latency, problems = [], [], Counter[str]()
    for stamp, status, took, _, _, error, body, _, number, *_ in lines:
        if status != "200" or body != wanted or error:
            problems[error or f"status {status}, body {base64.b64decode(body)[:60]!r}"] += 1
        sent.append(int(stamp) - int(number) * interval)
        latency.append(int(took) / 1e3)
    if problems:
        told, _ = problems.most_common(1)[0]
        raise LoadError(f"{problems.total()} of {len(sent)} answers were wrong: {told}")
    if not sent:
        raise LoadError("vegeta sent nothing")
    # The first on time says when each was due.
    start = min(sent)
    late = [(moment - start) / 1e3 for moment in sent]
    due = [behind + took for behind, took in zip(late, latency, strict=True)]
    return OpenResult(
        rate=rate,
        seconds=len(sent) / rate,
        answers=len(sent),
        errors=0,
        p50_us=quantile(due, 0.5),
        p99_us=quantile(due, 0.99),
        p999_us=quantile(due, 0.999),
        max_us=max(due),
        sent_p99_us=quantile(latency, 0.99),
        late_p99_us=quantile(late, 0.99),
    )
