"""docs/benchmarks.html: all tables and pictures of a run in one file that needs nothing else.

Each column has a button that sorts by it, with the keyboard, too; ``aria-sort`` tells the order.
The page follows the reader's choice of light or dark. ``make check-page`` tries it in a browser.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.sections import all_tables
from bench.store import Results
from bench.tables import GREY, Table, preamble

TEMPLATE = Path(__file__).with_name("page.html")


def render(results: Results, pictures: Mapping[str, str]) -> str:
    """The page; *pictures* are the SVG texts of the sections that have one."""
    sections = "\n".join(_sections(results, pictures))
    page = TEMPLATE.read_text(encoding="utf-8")
    return page.replace("{{about}}", inline(preamble(results.meta))).replace("{{body}}", sections)


def _sections(results: Results, pictures: Mapping[str, str]) -> Iterator[str]:
    for section, tables in all_tables(results):
        title = tables[0].title.partition(":")[0]
        yield f'<section aria-labelledby="{section}">'
        yield f'<h2 id="{section}">{inline(title)}</h2>'
        if section in pictures:
            yield f"<figure>{inlined(pictures[section], title)}</figure>"
        for table in tables:
            yield _table(table)
        yield "</section>"


def inline(text: str) -> str:
    """The Markdown that cells and notes have: `code` and **strong**."""
    text = html.escape(text, quote=False)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)


def inlined(svg: str, title: str) -> str:
    """A picture as part of the page: in the colour of its text, as wide as there is room."""
    start = svg.index("<svg")
    body = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", svg[start:], count=1)
    # Its Title and Description are for the file; in the page the label says the same.
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<title>.*?</title>", "", body, count=1, flags=re.DOTALL)
    body = body.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)
    return body.replace(GREY, "currentColor").strip()


def _table(table: Table) -> str:
    head = "".join(
        f'<th scope="col"><button type="button">{inline(name)}</button></th>' for name in table.head
    )
    lines = "\n".join(_line(line) for line in table.lines)
    notes = "".join(f"<li>{inline(note)}</li>" for note in table.notes)
    name = html.escape(table.title.replace("`", ""))
    return (
        (f"<p>{inline(table.about)}</p>\n" if table.about else "")
        + f'<div class="scroll" role="region" tabindex="0" aria-label="{name}"><table>\n'
        f"<caption>{inline(table.title)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{lines}\n</tbody></table></div>"
        + (f"\n<details><summary>The rows</summary><ul>{notes}</ul></details>" if notes else "")
    )


NUMBER = re.compile(r"-?[\d,]+(?:\.\d+)?")


def _line(cells: Sequence[str]) -> str:
    """The first cell names the row. A figure sorts by its value, which stands first in its cell."""
    name, *others = cells
    made = [f'<th scope="row">{inline(name)}</th>']
    for cell in others:
        found = NUMBER.match(cell)
        value = f' data-value="{found[0].replace(",", "")}"' if found else ""
        # What is long and no figure is a reason, which may take several lines.
        told = "" if found or " " not in cell or len(cell) < 16 else ' class="told"'
        made.append(f"<td{value}{told}>{inline(cell)}</td>")
    return f"<tr>{''.join(made)}</tr>"
