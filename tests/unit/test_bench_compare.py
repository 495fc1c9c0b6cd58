"""Two runs of the benchmark: when they say the same, and when they do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.compare import compare
from bench.store import Results

ROOT = Path(__file__).parents[2]
RUST, OURS, GO = "rust-tokio-hyper", "fastspawn-direct", "go-nethttp"


def run(**rates: tuple[float, ...]) -> Results:
    """A run in which servers reached so many requests a second, round by round."""
    http = {
        {"rust": RUST, "ours": OURS, "go": GO}[name]: {
            "about": "",
            "rounds": [
                {"round": number, "requests_per_second": rate} for number, rate in enumerate(series)
            ],
        }
        for name, series in rates.items()
    }
    return Results({"schema": 1, "meta": {}, "sections": {"http": http}})


FIRST = run(rust=(1000, 1020), ours=(1100, 1130), go=(800, 810))


def test_a_machine_that_is_slower_throughout_changes_nothing() -> None:
    (found,) = compare(FIRST, run(rust=(700, 720), ours=(780, 790), go=(560, 570)))
    assert (found.same, found.compared) == (True, 3)


def test_rows_that_change_places() -> None:
    (found,) = compare(FIRST, run(rust=(1000, 1020), ours=(960, 970), go=(800, 810)))
    assert found.swapped == [f"`{RUST}` and `{OURS}` have changed places"]


@pytest.mark.parametrize("tied_first", [False, True])
def test_a_tie_is_no_place(tied_first: bool) -> None:
    """The medians change their order, but in one run the intervals overlap."""
    tied = run(rust=(1000, 1080), ours=(985, 1050), go=(800, 810))
    (found,) = compare(tied, FIRST) if tied_first else compare(FIRST, tied)
    assert found.swapped == []


@pytest.mark.parametrize(("rate", "told"), [(1090, []), (1112, ["+11 %"]), (900, ["-10 %"])])
def test_ratios_that_are_more_than_a_tenth_apart(rate: float, told: list[str]) -> None:
    (found,) = compare(run(rust=(1000,), ours=(1000,)), run(rust=(1000,), ours=(rate,)))
    assert [line.rpartition("(")[2].rstrip(")") for line in found.apart] == told
    assert found.same is (not told)


def test_a_row_that_failed_in_one_run() -> None:
    other = run(rust=(1000, 1020), ours=(1100, 1130), go=(800, 810))
    other.section("http")[GO]["rounds"][1] = {"round": 1, "failed": "no answer"}
    (found,) = compare(FIRST, other)
    assert (found.compared, found.alone) == (2, [f"`{GO}` has figures in one run only"])


def test_a_run_of_fewer_rows() -> None:
    (found,) = compare(FIRST, run(rust=(1000, 1020), ours=(1100, 1130)))
    assert (found.compared, found.same) == (2, True)


def bench(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "--compare", *files]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command(tmp_path: Path) -> None:
    first, other = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text(json.dumps(FIRST.data))
    other.write_text(json.dumps(run(rust=(1000, 1020), ours=(800, 810), go=(900, 910)).data))
    same = bench(first, first)
    assert (same.returncode, same.stderr) == (0, "")
    assert same.stdout == "http: 3 rows, the same ranking, no ratios more than 10 % apart\n"
    changed = bench(first, other)
    assert changed.returncode == 1
    assert f"`{OURS}` to `{RUST}`: 1.10x, then 0.80x (-28 %)" in changed.stdout
    missing = bench(first, tmp_path / "none.json")
    assert (missing.returncode, "none.json" in missing.stderr) == (2, True)
