"""The benchmark's report: that it says what the JSON says, and that lint sees when it does not."""

from __future__ import annotations

import copy
import html.parser
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, final

import pytest
from bench import growth, page, report
from bench.harness.tools import Unavailable
from bench.phases import PHASES, Counting, Table, parsed
from bench.store import Results

ROOT = Path(__file__).parents[2]
README = f"before\n\n{report.BEGIN}\n{report.END}\n\nafter\n"


def rounds(*rates: float) -> dict[str, Any]:
    figures = {"p50_us": 1e3, "p99_us": 2.5e3, "server_cpu_us": 50, "child_cpu_us": 600}
    return {
        "about": "one | two",
        "rounds": [
            {"round": number, "requests_per_second": rate, "errors": 0, **figures}
            for number, rate in enumerate(rates)
        ],
    }


@pytest.fixture
def results() -> Results:
    levels = {"0": {"wall_us": [500.0, 510.0]}, "20000": {"wall_us": [505.0, 520.0]}}
    one = dict.fromkeys(PHASES, 1.5)
    names = {"server read": 2.5, "run read": 9.0}
    level = {"calls": one, "cpu_us": one, "switches": {"server": 2.0}, "by_name": names}
    phases = {"about": "", "rounds": [{"round": 0, "levels": {"30": level}}]}
    meta = {
        "date": "2026-01-02T03:04:05+00:00", "cpu": "a CPU", "cores": 2, "kernel": "Linux 6",
        "python": "CPython 3.13", "packages": {}, "crates": {}, "rustc": None,
        "bombardier": "1.2.6", "commit": None, "uncommitted_changes": None,
        "options": {"connections": 30, "requests": 100, "rounds": 2},
    }  # fmt: skip
    sections = {
        "http": {
            "fastspawn-direct": rounds(3000, 3300),
            "rust-tokio-hyper": rounds(2000, 2200),
            "node-single": {"about": "", "rounds": [{"round": 0, "failed": "no answer"}]},
            "deno-single": {"about": "", "rounds": [], "unavailable": "no deno"},
        },
        "growth_fds": {"engine-1": {"about": "", "rounds": [{"round": 0, "levels": levels}]}},
        "phases": {"fastspawn-direct": phases},
    }
    return Results({"schema": 1, "meta": meta, "sections": sections})


@pytest.fixture
def root(tmp_path: Path, results: Results) -> Path:
    """A checkout with a written report; matplotlib is not there, so the pictures are blank."""
    folder = tmp_path / "docs" / report.PICTURES
    folder.mkdir(parents=True)
    for name in ("README.md", "docs/strategies.md"):
        (tmp_path / name).write_text(README)
    for name in report.pictures(results):
        stamp = report.stamp(results, name)
        text = f'<?xml version="1.0"?>\n<svg width="1pt" height="1pt"><!-- {stamp} --></svg>\n'
        (folder / f"{name}.svg").write_text(text)
    for path, text in report.texts(results, tmp_path).items():
        path.write_text(text)
    return tmp_path


def check(root: Path, results: Results) -> tuple[int, str]:
    path = root / "run.json"
    path.write_text(json.dumps(results.data))
    command = [sys.executable, "-m", "bench.report", "--check", "--input", path, "--root", root]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_what_was_written_passes(root: Path, results: Results) -> None:
    assert check(root, results) == (0, "")
    readme = (root / "README.md").read_text()
    assert readme.startswith("before\n")
    assert readme.endswith("\nafter\n")


@pytest.mark.parametrize(
    "name", ["README.md", "docs/strategies.md", "docs/benchmarks.md", "docs/benchmarks.html"]
)
def test_a_figure_made_by_hand(root: Path, results: Results, name: str) -> None:
    path = root / name
    text = path.read_text()
    assert "3,150" in text
    path.write_text(text.replace("3,150", "3,950", 1))
    code, told = check(root, results)
    assert code == 1
    assert path.name in told


def test_a_picture_of_another_run(root: Path, results: Results) -> None:
    other = Results(copy.deepcopy(results.data))
    other.section("growth_fds")["engine-1"]["rounds"][0]["levels"]["0"]["wall_us"][0] = 400.0
    code, told = check(root, other)
    assert (code, "growth_fds.svg" in told, "http.svg" in told) == (1, True, False)


def test_a_picture_too_few_and_one_too_many(root: Path, results: Results) -> None:
    folder = root / "docs" / report.PICTURES
    (folder / "http.svg").rename(folder / "old.svg")
    assert sorted(report.wrong_pictures(results, folder)) == ["http.svg", "old.svg"]


def test_the_article_beside_ours(results: Results) -> None:
    lines = report.excerpt(results).splitlines()
    assert (
        "| Rust, tokio | `rust-tokio-hyper` | 2,100 | 1.00x | 2.5 | 50 | 5,466 | 1.00x |" in lines
    )
    ours = "| **fastspawn, direct** | `fastspawn-direct` | 3,150 | 1.50x | 2.5 | 50 | - | - |"
    assert ours in lines
    assert "| Node | `node-single` | **failed** |  |  |  | 651 | 0.12x |" in lines
    assert "| Deno | `deno-single` | not available |  |  |  | 2,290 | 0.42x |" in lines
    assert "| Bun | `bun-single` | not run |  |  |  | 2,208 | 0.40x |" in lines


def test_a_run_without_reset_does_not_name_it(root: Path, results: Results) -> None:
    shown = ("README.md", "docs/strategies.md", "docs/benchmarks.md")
    assert not any("fastspawn-reset" in (root / name).read_text() for name in shown)
    results.section("http")["fastspawn-reset"] = rounds(9000, 9900)
    told = report.texts(results, root)
    assert (
        "| **fastspawn, reset** | `fastspawn-reset` | 9,450 | 4.50x |" in told[root / "README.md"]
    )
    row = "| reset to before the first effect | `echo hi` | `fastspawn-reset` | 9,450 |"
    assert row in told[root / "docs/strategies.md"]


def test_what_resets_are_judged_by(results: Results) -> None:
    """Each in the rounds that both rows have; what was not measured is not there."""
    assert "What resets are judged by" not in report.render(results)
    results.section("http").update(
        {"fastspawn-effect": rounds(1000, 1000), "fastspawn-reset": rounds(2100, 2500)}
    )
    batches = {"wall_us": [60.0, 40.0, 40.0], "parent_cpu_us": [1.0], "child_cpu_us": [0.0]}
    forks = {**batches, "wall_us": [200.0, 210.0, 200.0]}
    results.data["sections"] |= {
        "library": {
            "c-template-1": {"about": "", "rounds": [{"round": 0, **forks}]},
            "c-template-reset-1": {"about": "", "rounds": [{"round": 0, **batches}]},
        },
        "memory": {
            f"memory-numpy-{way}": {
                "about": "",
                "rounds": [{"round": 0, "pss_kib": kib, "processes": 16}],
            }
            for way, kib in (("exec", 4096), ("reset", 2048))
        },
    }
    text = report.render(results)
    assert "| req/s to effect | at least 2.20x | 2.30x (2.10x to 2.50x) | yes |" in text.replace(
        "`echo` over HTTP, ", ""
    )
    assert "| all CPU of a request to effect | at most 0.50x | 1.00x" in text.replace(
        "`echo` over HTTP, ", ""
    )
    assert "| at most 0.25x | 0.50x (0.50x to 0.50x) | **no** |" in text
    assert "| at least 20,000/s | 25,000/s (25,000/s to 25,000/s) | yes |" in text
    assert "to its fork | at least 4.65x | 5.00x (5.00x to 5.00x) | yes |" in text
    assert "Python handler" not in text.partition("What resets are judged by")[2]
    assert "| `memory-numpy-reset` | 2.0 | 16 | 0.50x |" in text


def test_latency_at_a_rate_that_is_the_same_for_all(results: Results) -> None:
    def row(rate: int, p99_us: float, **common: float) -> dict[str, Any]:
        figures = {"p50_us": 900, "p99_us": p99_us, "p999_us": 2e4, "server_cpu_us": 60}
        figures |= {"child_cpu_us": 20, "load_cpu_us": 20, "rate": rate}
        return {"about": "", "rounds": [{"round": 0, **figures, **common}]}

    rows = {"fastspawn-effect": row(2000, 1e4), "fastspawn-reset": row(9000, 8e3)}
    results.data["sections"]["open-loop"] = rows
    assert "share of CPU" not in report.render(results)
    rows["fastspawn-effect"]["rounds"][0] |= {"common_rate": 2000, "common_p99_us": 1e4}
    rows["fastspawn-reset"]["rounds"][0] |= {
        "common_rate": 2000,
        "common_p50_us": 400,
        "common_p99_us": 2e3,
    }
    text = report.render(results)
    assert "| p50 ms at 2,000/s | p99 ms at 2,000/s | client's share of CPU |" in text
    assert (
        "| `fastspawn-reset` | 9,000 | 0.9 | 8.0 | 20.0 | 60 | 20 | - | 0.4 | 2.0 | 20 % |" in text
    )
    assert "70 % of its own peak, p99 to effect | at most 1.00x | 0.80x (0.80x to 0.80x)" in text
    assert "at the same rate as effect, p99 to effect | at most 1.00x | 0.20x" in text


def test_a_program_is_compared_with_itself(results: Results) -> None:
    results.data["sections"]["programs"] = {
        "sh-effect": rounds(1000),
        "sh-reset": rounds(2000),
        "jq-reset": rounds(50),
    }
    text = report.render(results)
    assert "**`sh -c echo hi` for each request**" in text
    assert "| `sh-reset` | 2,000 | 1.0 | 2.5 | 50 | - | 600 | 0 | - | 2.00x | - |" in text
    assert "| `jq-reset` | 50 | 1.0 | 2.5 | 50 | - | 600 | 0 | - | - | - |" in text


def test_where_the_time_goes(results: Results) -> None:
    lines = report.render(results).splitlines()
    figures = " | ".join(["1.5"] * len(PHASES))
    assert f"| `fastspawn-direct` | {figures} | {1.5 * len(PHASES):.1f} | 2.0 | 0.0 |" in lines
    assert "| `read` | 2.50 |" in lines


def test_a_readme_without_its_markers() -> None:
    with pytest.raises(ValueError, match="needs one line"):
        report.replaced("no markers\n", "tables\n", "README.md")


@final
class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.heads_without_scope = 0
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)
        self.heads_without_scope += tag == "th" and "scope" not in dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole(root: Path) -> None:
    tags = Tags()
    tags.feed((root / "docs" / "benchmarks.html").read_text())
    assert (tags.open, tags.heads_without_scope, tags.addresses) == ([], 0, [])


def test_cells_of_the_page() -> None:
    assert page.inline("a < `b` **c**") == "a &lt; <code>b</code> <strong>c</strong>"
    line = page._line(["`x`", "1,234.5 (1,000 to 2,000)", "-", "not available: no such thing"])
    assert '<td data-value="1234.5">' in line
    assert "<td>-</td>" in line
    assert '<td class="told">' in line


# ---- phases and growth ---------------------------------------------------------------------------

NAMES = {0: "read", 1: "write", 56: "clone", 59: "execve", 232: "epoll_wait", 288: "accept4"}
EVENTS = """\
 10/10 1.000000000:                   raw_syscalls:sys_exit: NR 232 = 1
 10/10 1.000002000:                  raw_syscalls:sys_enter: NR 288 (3, 0, 0, 0, 0, 0)
 10/10 1.000003000:                   raw_syscalls:sys_exit: NR 288 = 7
 10/10 1.000003000:                  raw_syscalls:sys_enter: NR 0 (7, 0, 0, 0, 0, 0)
 10/10 1.000004000:                   raw_syscalls:sys_exit: NR 0 = 40
 10/10 1.000004000:                  raw_syscalls:sys_enter: NR 56 (0, 0, 0, 0, 0, 0)
 20/20 1.000005000: PERF_RECORD_SWITCH IN
 20/20 1.000005000:                   raw_syscalls:sys_exit: NR 56 = 0
 20/20 1.000006000:                  raw_syscalls:sys_enter: NR 59 (0, 0, 0, 0, 0, 0)
 20/20 1.000008000:               sched:sched_process_exec: filename=/bin/echo pid=20 old_pid=20
 20/20 1.000009000:                   raw_syscalls:sys_exit: NR 59 = 0
 20/20 1.000010000:                  raw_syscalls:sys_enter: NR 1 (1, 0, 3, 0, 0, 0)
 20/20 1.000011000: PERF_RECORD_SWITCH OUT
 10/10 1.000014000:                   raw_syscalls:sys_exit: NR 56 = 20
 10/10 1.000015000:                  raw_syscalls:sys_enter: NR 0 (8, 0, 0, 0, 0, 0)
 10/10 1.000016000: PERF_RECORD_SWITCH OUT preempt
 10/10 1.000020000: PERF_RECORD_SWITCH IN
 10/10 1.000021000:                   raw_syscalls:sys_exit: NR 0 = 3
 10/10 1.000021000:                  raw_syscalls:sys_enter: NR 1 (7, 0, 0, 0, 0, 0)
 10/10 1.000024000:                   raw_syscalls:sys_exit: NR 1 = 100
"""


def test_calls_and_cpu_by_phase() -> None:
    tables = {10: {10: Table({3: "socket"})}}
    counts = Counting(tables, NAMES).count(list(parsed(EVENTS.splitlines())))
    assert counts.calls == {
        "receive": 2, "clone": 1, "exec": 1, "run": 1, "collect": 1, "respond": 1,
    }  # fmt: skip
    cpu = {phase: round(us, 3) for phase, us in counts.cpu_us.items() if us}
    assert cpu == {
        "receive": 2, "clone": 10, "exec": 4, "run": 2, "collect": 2, "respond": 3, "user": 3,
    }  # fmt: skip
    assert counts.switches == {"server": 1, "child": 1}


def test_memory_levels_that_fit() -> None:
    assert growth.fitting((0, 128, 1_024, 8_192), 9_344) == [0, 128, 1_024, 8_192]
    assert growth.fitting((0, 128, 1_024, 8_192), 9_343) == [0, 128, 1_024]
    with pytest.raises(Unavailable):
        growth.fitting((0, 128), 100)
