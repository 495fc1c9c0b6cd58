"""The benchmark's own rules: which loads count, what an interval is, how a run goes on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import final

import pytest
from bench.harness import load
from bench.harness.stats import paired_ratio, spread

ROOT = Path(__file__).parents[2]
BODY = b"hi\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhi\n\r\n0\r\n\r\n"


@final
class Streaming:
    """A server that answers with `answer`, whatever it is asked."""

    def __init__(self) -> None:
        self.answer = PLAIN
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._ends = asyncio.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Streaming:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ends.set)
        self._thread.join(30)
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        clients = set()

        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            clients.add(task)
            try:
                while await reader.readuntil(b"\r\n\r\n"):
                    writer.write(self.answer)
            except asyncio.IncompleteReadError:
                writer.close()
                await writer.wait_closed()
            finally:
                clients.discard(task)

        server = await asyncio.start_server(client, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ends.wait()
        server.close()
        await server.wait_closed()
        if clients:
            await asyncio.wait(clients, timeout=30)


@pytest.fixture
def server() -> Iterator[Streaming]:
    with Streaming() as server:
        yield server


def loaded(answers: list[bytes]) -> load.LoadResult:
    """What bombardier tells of a load that was answered with these."""
    size = sum(map(len, answers))
    return load.LoadResult(1.0, len(answers), 1.0, 1.0, size, len(answers), 0)


MIXED = [PLAIN, CHUNKED, PLAIN]


@pytest.mark.parametrize("seen", [PLAIN, CHUNKED])
def test_a_streaming_server_may_answer_in_both_forms(server: Streaming, seen: bytes) -> None:
    server.answer = seen
    check = load.check_answers(server.port, 6, 2, BODY)
    assert load.check_bytes(check, loaded(MIXED), streams=True)
    with pytest.raises(load.LoadError, match=f"not 3 x {len(seen)}"):
        load.check_bytes(check, loaded(MIXED), streams=False)


@pytest.mark.parametrize("seen", [PLAIN, CHUNKED])
@pytest.mark.parametrize("answers", [[PLAIN, PLAIN, PLAIN[:-1]], [CHUNKED, CHUNKED + b"x"]])
def test_lost_and_added_bytes_are_seen(
    server: Streaming, seen: bytes, answers: list[bytes]
) -> None:
    server.answer = seen
    check = load.check_answers(server.port, 6, 2, BODY)
    with pytest.raises(load.LoadError, match="bombardier read"):
        load.check_bytes(check, loaded(answers), streams=True)


def test_sizes_that_differ_without_streaming_are_not_compared(server: Streaming) -> None:
    check = load.check_answers(server.port, 2, 1, BODY)
    server.answer = PLAIN.replace(b"OK", b"Fine")
    check.include(load.check_answers(server.port, 2, 1, BODY))
    assert not load.check_bytes(check, loaded([PLAIN]), streams=False)


def test_a_wrong_body_is_seen(server: Streaming) -> None:
    server.answer = PLAIN.replace(b"hi", b"ho")
    with pytest.raises(load.LoadError, match="2 mismatches in 2 of 2"):
        load.check_answers(server.port, 2, 1, BODY)
    with pytest.raises(load.LoadError, match="status 200"):
        load.ask_in_turn(server.port, 1, 0, BODY)


def test_an_interval_holds_its_median_and_is_the_same_each_time() -> None:
    values = [9.0, 10.0, 11.0, 10.5, 9.5, 30.0, 10.2]
    found = spread(values)
    assert found == spread(values)
    assert found is not None
    assert min(values) <= found.low < found.median < found.high < max(values)
    assert found.size == len(values)
    assert spread([]) is None


def test_a_ratio_is_taken_within_each_round() -> None:
    found = paired_ratio({0: 2.0, 1: 20.0, 2: 200.0}, {0: 1.0, 1: 10.0, 3: 1.0})
    assert found is not None
    assert tuple(found) == (2.0, 2.0, 2.0, 2)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "bench",
            "--quick",
            "--library",
            "--rows",
            "subprocess-run",
            *arguments,
        ],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_a_run_goes_on_with_the_rounds_that_are_missing(tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    whole = bench("--rounds", "2", "--output", str(output))
    assert whole.returncode == 0, whole.stderr
    before = json.loads(output.read_text())
    (row,) = before["sections"]["library"].values()
    first, _ = row["rounds"]
    row["rounds"] = [first]
    output.write_text(json.dumps(before))

    other = bench("--rounds", "3", "--output", str(output), "--resume")
    assert other.returncode == 2
    assert "rounds was 2, is 3" in other.stderr

    now, before["meta"]["commit"] = before["meta"]["commit"], "0" * 40
    output.write_text(json.dumps(before))
    other = bench("--rounds", "2", "--output", str(output), "--resume")
    assert other.returncode == 2
    assert "commit was 0" in other.stderr

    rest = bench("--rounds", "2", "--output", str(output), "--resume", "--another-commit")
    assert rest.returncode == 0, rest.stderr
    assert "1 launch," in rest.stderr
    after = json.loads(output.read_text())
    (row,) = after["sections"]["library"].values()
    assert [record["round"] for record in row["rounds"]] == [0, 1]
    assert row["rounds"][0] == first
    assert after["meta"] == {**before["meta"], "later_commits": [now]}
