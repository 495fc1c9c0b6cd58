"""Writes what people read from a run's JSON: ``make report``, ``python -m bench.report``.

* README.md, between two marker lines: the article's table beside ours, and a picture;
* docs/strategies.md, between the same lines: what each strategy costs;
* docs/benchmarks.md: every table and picture;
* docs/benchmarks.html: the same as one page, with tables that sort;
* docs/benchmarks/*.svg: the pictures, which need matplotlib.

``--check`` writes nothing, needs no matplotlib and exits 1 when one of them is not what the JSON
says: the tables are compared as text, and each picture tells from which figures it was drawn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import page
from bench.harness.tools import ROOT
from bench.sections import all_tables, strategies_table
from bench.store import Results
from bench.tables import Table, preamble

LATEST = ROOT / "bench" / "results" / "latest.json"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
PICTURES = "benchmarks"  # the folder beside docs/benchmarks.md
DRAWN = (
    *("article", "http", "open-loop", "handlers"),
    *("library", "phases", "loop_stall", "loop_lag"),
)
"""Sections that have a picture; the growth curves all have one."""


# ---- Markdown ------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    rule = ["---", *("---:" for _ in table.head[1:])]
    lines = ["| " + " | ".join(cells) + " |" for cells in (table.head, rule, *table.lines)]
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def pictures(results: Results) -> dict[str, str]:
    """The names of a run's pictures and what each shows."""
    return {
        section: tables[0].title.partition(":")[0]
        for section, tables in all_tables(results)
        if section in DRAWN or section.startswith("growth_")
    }


def render(results: Results, folder: str | None = None) -> str:
    """All tables a run has figures for, as Markdown; with the pictures in *folder*."""
    drawn = pictures(results)
    blocks = [preamble(results.meta)]
    for section, tables in all_tables(results):
        if folder is not None and section in drawn:
            blocks.append(f"![{drawn[section]}]({folder}/{section}.svg)")
        for table in tables:
            about = [table.about] if table.about else []
            blocks += [f"**{table.title}**", *about, markdown(table)]
    return "\n\n".join(blocks) + "\n"


def document(results: Results) -> str:
    """docs/benchmarks.md."""
    head = (
        "# Benchmarks\n\nWritten by `make report` from bench/results/latest.json; "
        "[bench/README.md](../bench/README.md) says how it was measured. "
        "[The same as one page](benchmarks.html), with tables that sort.\n\n"
    )
    return head + render(results, PICTURES)


def excerpt(results: Results) -> str:
    """What the README shows."""
    meta, found = results.meta, dict(all_tables(results))
    blocks = []
    for table in found.get("article", ()):
        blocks += [f"![{table.title}](docs/{PICTURES}/article.svg)", markdown(table), table.about]
    blocks.append(
        f"Measured {meta['date'][:10]} on {meta['cpu']}, {meta['cores']} cores, {meta['kernel']}: "
        f"`echo hi` for each request, {meta['options']['connections']} connections, the load "
        "generator on the same machine. [All servers and calls, how each grows, and where the time "
        "goes](docs/benchmarks.md)."
    )
    return "\n\n".join(blocks) + "\n"


def replaced(text: str, tables: str, name: str) -> str:
    """*text* of the file *name* with *tables* between its markers.

    ValueError when they are not there once each.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.find(BEGIN) > text.find(END):
        raise ValueError(f"{name} needs one line {BEGIN} and, below it, one line {END}")
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{tables}\n{END}{rest.partition(END)[2]}"


# ---- files ---------------------------------------------------------------------------------------


def stamp(results: Results, picture: str) -> str:
    """What a picture says it was drawn from."""
    section = results.section("http" if picture == "article" else picture)
    figures = [(name, row["rounds"]) for name, row in section.items()]
    digest = hashlib.sha256(json.dumps(figures, sort_keys=True).encode()).hexdigest()
    return f"figures {digest[:16]}"


def draw(results: Results, folder: Path) -> None:
    """Write the pictures, and remove those of which the run has no figures."""
    try:
        from bench import charts
    except ModuleNotFoundError as error:
        raise ValueError(f"{error}; `make report` installs it") from None
    folder.mkdir(parents=True, exist_ok=True)
    titles = pictures(results)
    for old in folder.glob("*.svg"):
        if old.stem not in titles:
            old.unlink()
    for name, title in titles.items():
        charts.draw(results, name, title, stamp(results, name), folder / f"{name}.svg")


def wrong_pictures(results: Results, folder: Path) -> list[str]:
    """Those that are missing, that are of other figures, or that should not be there."""
    titles = pictures(results)
    wrong = [path.name for path in folder.glob("*.svg") if path.stem not in titles]
    for name in titles:
        path = folder / f"{name}.svg"
        if not path.exists() or stamp(results, name) not in path.read_text(encoding="utf-8"):
            wrong.append(path.name)
    return wrong


def texts(results: Results, root: Path) -> dict[Path, str]:
    """What each file under *root* is to say; the pictures are there already."""
    docs = root / "docs"
    shown = {
        root / "README.md": excerpt(results),
        docs / "strategies.md": markdown(strategies_table(results)) + "\n",
    }
    drawn = {
        name: (docs / PICTURES / f"{name}.svg").read_text(encoding="utf-8")
        for name in pictures(results)
    }
    return {
        **{
            path: replaced(path.read_text(encoding="utf-8"), tables, path.name)
            for path, tables in shown.items()
        },
        docs / "benchmarks.md": document(results),
        docs / "benchmarks.html": page.render(results, drawn),
    }


def check(results: Results, root: Path) -> list[str]:
    """The files that are not what *results* say."""
    if wrong := wrong_pictures(results, root / "docs" / PICTURES):
        return wrong
    return [
        path.name
        for path, text in texts(results, root).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def write(results: Results, root: Path) -> None:
    draw(results, root / "docs" / PICTURES)
    for path, text in texts(results, root).items():
        path.write_text(text, encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.report", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--input", type=Path, default=LATEST, help="default: bench/results/latest.json")
    add("--root", type=Path, default=ROOT, help="where README.md and docs/ are (default: here)")
    add("--check", action="store_true", help="compare, do not write")
    add("--print", action="store_true", help="print the tables, touch no file")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse(None)
    try:
        results = Results.load(options.input)
        if options.print:
            print(render(results), end="")
        elif options.check:
            wrong = check(results, options.root)
            for name in wrong:
                print(
                    f"bench.report: {name} is not what {options.input.name} says (`make report`)",
                    file=sys.stderr,
                )
            return 1 if wrong else 0
        else:
            write(results, options.root)
    except OSError as error:
        print(f"bench.report: {error.strerror}: {error.filename}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"bench.report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
