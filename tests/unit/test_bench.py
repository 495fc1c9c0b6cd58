"""The benchmark's own rules: which loads count, what an interval is, how a run goes on."""

from __future__ import annotations

import asyncio
import json
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import pytest
from bench import alone, handlers, resets, rows, waiting
from bench.freeze import LINES, summary
from bench.harness import load, procs, tools
from bench.harness.server import Server, ServerError
from bench.harness.stats import paired_ratio, spread
from bench.library import Worker
from bench.plan import chosen_rows

import needs

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

    other = bench("--rounds", "1", "--output", str(output), "--resume")
    assert other.returncode == 2
    assert "rounds was 2, is 1" in other.stderr

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


def test_a_run_goes_on_with_more_rounds(tmp_path: Path) -> None:
    """So that the rounds of two versions may take turns."""
    output = tmp_path / "run.json"
    for rounds in (1, 2):
        more = ["--resume"] if rounds > 1 else []
        told = bench("--rounds", str(rounds), "--output", str(output), *more)
        assert told.returncode == 0, told.stderr
        assert "1 launch," in told.stderr
    after = json.loads(output.read_text())
    (row,) = after["sections"]["library"].values()
    assert [record["round"] for record in row["rounds"]] == [0, 1]
    assert after["meta"]["options"]["rounds"] == 2


# ---- rows of processes that put themselves back --------------------------------------------------


def sample(parent: int, cpu_us: float, child_us: float = 0.0) -> procs.Sample:
    return procs.Sample(parent, "S", cpu_us, child_us, frozenset(), 3, 0, 100)


def test_helpers_that_come_and_go_count_with_what_they_used_meanwhile() -> None:
    server, stays, goes, comes = (procs.Identity(pid, 0) for pid in (1, 2, 3, 4))
    before = {server: sample(0, 1000, 500), stays: sample(1, 100), goes: sample(1, 40)}
    # It has reaped one that had used 90, and requests that used 300.
    after = {server: sample(0, 1500, 890), stays: sample(1, 150), comes: sample(1, 70)}
    usage = procs.usage(before, after)
    assert (usage.server_us, usage.helper_us, usage.child_us) == (500 + 50 + 70, 50 + 70, 50 + 300)
    assert (usage.processes, usage.replaced) == (3, 1)


@pytest.mark.parametrize("name", waiting.WAYS)
def test_memory_of_processes_that_wait(name: str) -> None:
    if find_spec("numpy") is None:  # imported, it would start threads here
        pytest.skip("there is no numpy")
    if name.endswith("reset") and platform.machine() != "x86_64":
        pytest.skip("residents are for x86-64")
    told = waiting.measure(name)
    assert told["processes"] == waiting.PROCESSES + name.endswith("reset")
    assert told["pss_kib"] > 1000 * waiting.PROCESSES


RESET_ROWS = [row.name for row in (*rows.ROWS, *rows.PROGRAM_ROWS.values()) if "reset" in row.name]


def test_the_group_of_reset_has_what_they_are_compared_with() -> None:
    chosen = chosen_rows("reset")
    assert {*RESET_ROWS, *handlers.HANDLERS, *rows.PROGRAM_ROWS} <= chosen
    assert {"fastspawn-effect", rows.RUST, "template-reset-1", "freeze-echo"} <= chosen


def test_what_resets_are_judged_by_can_be_measured() -> None:
    judged = {name for each in resets.WANTED for name in (each.row, each.base)}
    assert (
        {*judged, resets.ALONE, resets.ALONE_FORK} <= chosen_rows("wanted") <= chosen_rows("reset")
    )


@pytest.mark.parametrize("name", [name for name in handlers.HANDLERS if "checkpoint" in name])
def test_a_handler_may_come_to_its_checkpoint(name: str) -> None:
    """Whether the server would start is asked with the row's own command."""
    row = handlers.HANDLERS[name].row
    if "numpy" in name and tools.package("numpy") is None:
        pytest.skip("no numpy here")
    try:
        row.prepare()
    except tools.Unavailable as error:
        if "echo" in str(error):
            raise
        pytest.skip(str(error))


STARTS = """
import socket, sys, time
print(sys.argv[2], file=sys.stderr, flush=True)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    while True:
        time.sleep(60)
"""


@pytest.mark.parametrize(
    "told", ["fastspawn: --strategy reset is snapshot: why", "fastspawn: ready"]
)
def test_a_server_that_forks_instead_is_no_row(told: str) -> None:
    def launch() -> None:
        words = "--strategy reset is snapshot"
        with Server(
            lambda port: [sys.executable, "-c", STARTS, str(port), told], unless_told=words
        ):
            pass

    if "snapshot" in told:
        with pytest.raises(tools.Unavailable, match=f"^{told}$"):
            launch()
    else:
        launch()


def test_a_server_that_says_so_and_dies_has_failed() -> None:
    script = "import sys; print('--strategy reset is snapshot', file=sys.stderr); sys.exit(3)"
    with (
        pytest.raises(ServerError, match="status 3"),
        Server(lambda _: [sys.executable, "-c", script], unless_told="--strategy reset"),
    ):
        pass


@pytest.mark.parametrize("way", ["template-1", "template-reset-1", *alone.WAYS])
def test_a_template_without_http(way: str) -> None:
    try:
        with Worker(way) as worker:
            answer = worker.batch(30, 30.0)
    except tools.Unavailable as error:
        pytest.skip(str(error))
    assert (answer["spawns"], answer["wrong"]) == (30, 0)


def freeze_host(*argv: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.cases.freeze_host", "60", *argv],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=100,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@needs.effects
def test_where_programs_stop() -> None:
    absent = next((name for name, line in LINES.items() if not shutil.which(line.argv[0])), None)
    names = ["echo", "date", *[absent] * (absent is not None)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.freeze", "--count", "3", *names],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=100,
        text=True,
        check=True,
    )
    echo, date, *others, summary = done.stdout.splitlines()
    assert echo.endswith("of standard output (descriptor 1)")
    assert "a clock" in date
    assert all("is not installed" in line for line in others)
    assert summary.startswith("2 of 2 can be templates: median ")


def test_what_is_told_of_where_they_stop() -> None:
    """Those without an effect begin at main; what is no template counts among neither."""
    assert summary([(2.0, 4.0), (2.0, None), (2.0, 2.1), (None, None)]) == (
        "3 of 4 can be templates: median 2.00x at main, 2.10x at the effect; 2 gain less than a"
        " tenth there"
    )


def test_outputs_of_each_way_are_compared() -> None:
    told = freeze_host("echo", "hi")
    assert (told["wrong"], told["statuses"]) == (0, [0])
    assert {"exec", *told["why_not"]} | told["ways"].keys() == {
        *("exec", "main", "effect", "reset-main", "reset-effect")
    }
    assert freeze_host("sh", "-c", "echo $$")["wrong"] > 0
