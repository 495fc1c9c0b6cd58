"""Two runs of the benchmark: which rows have become slower."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench.slower import Slower, slower
from bench.store import Results

ROOT = Path(__file__).parents[2]
BEFORE = (1000.0, 1010.0, 990.0, 1005.0, 995.0)


def row(figure: str, values: tuple[Any, ...]) -> dict[str, Any]:
    rounds = [{"round": number, figure: value} for number, value in enumerate(values)]
    return {"about": "", "rounds": rounds}


def run(section: str = "http", figure: str = "requests_per_second", **rows: Any) -> Results:
    found = {name.replace("_", "-"): row(figure, values) for name, values in rows.items()}
    return Results({"schema": 1, "meta": {}, "sections": {section: found}})


def times(factor: float, *noise: float) -> tuple[float, ...]:
    noise = noise or (0, 0, 0, 0, 0)
    return tuple(value * (factor + more) for value, more in zip(BEFORE, noise, strict=True))


def only(before: Results, now: Results) -> Slower:
    (found,) = slower(before, now)
    return found


@pytest.mark.parametrize(
    ("factor", "noise", "is_slower", "is_unclear"),
    [
        (1, (), False, False),
        (1.5, (), False, False),
        (0.98, (), False, False),  # though beyond noise
        (0.96, (), True, False),
        (0.9, (0.02, -0.02, 0.01, 0, -0.01), True, False),
        (0.96, (0.06, 0.05, -0.01, 0.07, -0.02), False, False),
        (0.96, (0, 0.06, 0, 0.07, -0.02), False, True),
    ],
)
def test_slower_is_by_more_than_a_share_and_beyond_noise(
    factor: float, noise: tuple[float, ...], is_slower: bool, is_unclear: bool
) -> None:
    found = only(run(ours=BEFORE, same=BEFORE), run(ours=times(factor, *noise), same=BEFORE))
    assert found.compared == 2
    assert found.slower.keys() == ({"ours"} if is_slower else set())
    assert found.unclear.keys() == ({"ours"} if is_unclear else set())


@pytest.mark.parametrize("rust", [0.8, 1.2])
def test_a_machine_that_is_another_throughout_is_no_difference(rust: float) -> None:
    """... where both runs have the yardstick; else there is only the machine."""
    now = {"ours": times(rust), "worse": times(rust * 0.9)}
    both = run(**now, rust_tokio_hyper=times(rust))
    found = only(run(ours=BEFORE, worse=BEFORE, rust_tokio_hyper=BEFORE), both)
    assert (found.compared, [*found.slower]) == (2, ["worse"])
    found = only(run(ours=BEFORE, worse=BEFORE), both)
    assert [*found.slower] == (["ours", "worse"] if rust < 1 else [])


def test_rows_of_one_run_only_are_not_compared() -> None:
    found = only(run(ours=BEFORE, old=BEFORE), run(ours=BEFORE, new=BEFORE))
    assert (found.compared, found.slower) == (1, {})
    failed = run(ours=BEFORE)
    failed.section("http")["ours"]["rounds"][1] = {"round": 1, "failed": "no answer"}
    assert slower(run(ours=BEFORE), failed) == []
    assert slower(run(ours=BEFORE), run("handlers", ours=BEFORE)) == []


def test_more_rounds_in_one_run() -> None:
    found = only(run(ours=BEFORE), run(ours=times(0.9)[:3]))
    assert found.slower["ours"].size == 3


def test_of_a_time_more_is_slower() -> None:
    figure, was = "wall_us", tuple([value, value * 1.01] for value in BEFORE)
    now = tuple([value * 1.1 for value in batches] for batches in was)
    less = tuple([value * 0.9 for value in batches] for batches in was)
    found = only(
        run("library", figure, caller=was, engine_1=was),
        run("library", figure, caller=now, engine_1=less),
    )
    assert [*found.slower] == ["caller"]
    assert found.slower["caller"].size == 10
    assert "`caller`: speed -9.1 % (-9.1 to -9.1 %)" in str(found)


def bench(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "--slower", *files]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("before.json", "now.json", "other.json")]
    rows = {"fastspawn_direct": BEFORE, "fastspawn_pool": BEFORE}
    files[0].write_text(json.dumps(run(**rows).data))
    files[1].write_text(json.dumps(run(**{**rows, "fastspawn_direct": times(0.9)}).data))
    files[2].write_text(json.dumps(run("handlers", **rows).data))
    same = bench(files[0], files[0])
    assert (same.returncode, same.stdout, same.stderr) == (0, "http: 2 rows, none slower\n", "")
    worse = bench(files[0], files[1])
    assert worse.returncode == 1
    assert worse.stdout == (
        "http: 2 rows, 1 slower\n  `fastspawn-direct`: speed -10.0 % (-10.0 to -10.0 %)\n"
    )
    assert bench(files[1], files[0]).returncode == 0
    for other in (files[2], tmp_path / "none.json"):
        nothing = bench(files[0], other)
        assert (nothing.returncode, nothing.stdout) == (2, "")
        assert "nothing to compare" in nothing.stderr
