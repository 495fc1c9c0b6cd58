"""``make check-page``: docs/benchmarks.html in a real browser, driven over its DevTools pipe.

Loads the page, sorts columns of every table with the keyboard and compares the order with the
cells, looks at it in light and in dark, and sees that nothing was fetched and nothing went wrong.
Needs Chromium (a Debian package of some 100 MB), so it is not part of `make test`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.browser import Browser, PageError, find
from bench.harness.tools import ROOT

PAGE = ROOT / "docs" / "benchmarks.html"


COLUMN = """(() => {
  const table = document.querySelectorAll("table")[%d];
  return [...table.tBodies[0].rows].map((row) => {
    const cell = row.cells[%d];
    return cell === undefined || cell.dataset.value === undefined ? null
      : Number(cell.dataset.value);
  });
})()"""
HEAD = 'document.querySelectorAll("table")[%d].tHead.rows[0].cells[%d]'


def check_column(browser: Browser, table: int, column: int) -> None:
    """Sort by it twice, with the Enter key, and compare."""
    head, cells = HEAD % (table, column), COLUMN % (table, column)
    before = browser.evaluate(cells)
    figures = sorted(value for value in before if value is not None)
    without = [None] * (len(before) - len(figures))
    for order, wanted in (("ascending", figures), ("descending", figures[::-1])):
        browser.evaluate(f"{head}.querySelector('button').focus()")
        browser.press_enter()
        told, after = browser.evaluate(f"{head}.getAttribute('aria-sort')"), browser.evaluate(cells)
        if told != order or after != [*wanted, *without]:
            raise PageError(f"table {table}, column {column}: {told}, {after} from {before}")


def check_tables(browser: Browser) -> int:
    """The last column of each table, and the one after the name; how many tables there are."""
    tables: int = browser.evaluate("document.querySelectorAll('table').length")
    for table in range(tables):
        if browser.evaluate(f"document.querySelectorAll('table')[{table}].tBodies[0].rows.length"):
            last = browser.evaluate(f"{HEAD % (table, 0)}.parentNode.cells.length") - 1
            for column in sorted({1, last}):
                check_column(browser, table, column)
    scoped = "[...document.querySelectorAll('th')].every((th) => th.hasAttribute('scope'))"
    if not tables or not browser.evaluate(scoped):
        raise PageError("no tables, or heads without a scope")
    return tables


def check_colours(browser: Browser) -> None:
    """Light text on dark ground, or dark on light, as it is asked for."""
    style = "getComputedStyle(document.body)"
    brightness = f"{style}.%s.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)"
    for scheme, sign in (("light", 1), ("dark", -1)):
        browser.prefer(scheme)
        ground = browser.evaluate(brightness % "backgroundColor")
        text = browser.evaluate(brightness % "color")
        if sign * (ground - text) < 300:
            raise PageError(f"{scheme}: ground {ground} and text {text} of 765 are too close")


def check_silence(browser: Browser, url: str) -> None:
    """Nothing was fetched but the page, and nothing was complained of."""
    for event in browser.events:
        method, told = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent" and told["request"]["url"] != url:
            raise PageError(f"the page asked for {told['request']['url'][:200]}")
        if method in ("Runtime.exceptionThrown", "Log.entryAdded"):
            raise PageError(json.dumps(told)[:400])


def run(program: str, page: Path, pictures: Path | None) -> int:
    url = page.resolve().as_uri()
    with Browser(program) as browser:
        browser.call("Page.navigate", url=url)
        browser.wait_for("Page.loadEventFired")
        tables = check_tables(browser)
        check_colours(browser)
        for scheme in ("light", "dark") if pictures else ():
            browser.prefer(scheme)
            assert pictures is not None
            browser.evaluate("scrollTo(0, 0)")
            browser.picture(pictures / f"{scheme}.png")
        browser.evaluate("0")  # what was said until now has been read with the answer
        check_silence(browser, url)
    return tables


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.check_page", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("page", nargs="?", type=Path, default=PAGE)
    parser.add_argument("--pictures", type=Path, help="a folder for light.png and dark.png")
    options = parser.parse_args()
    program = find()
    if program is None:
        print("check-page: no browser (Debian: chromium)", file=sys.stderr)
        return 2
    try:
        tables = run(program, options.page, options.pictures)
    except PageError as error:
        print(f"check-page: {error}", file=sys.stderr)
        return 1
    print(f"check-page: {tables} tables sort, in light and dark, with nothing fetched")
    return 0


if __name__ == "__main__":
    sys.exit(main())
