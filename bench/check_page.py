"""``make check-page``: docs/benchmarks.html in a real browser, driven over its DevTools pipe.

Loads the page, sorts columns of every table with the keyboard and compares the order with the
cells, looks at it in light and in dark, and sees that nothing was fetched and nothing went wrong.
Needs Chromium (a Debian package of some 100 MB), so it is not part of `make test`.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, final

from bench.harness.tools import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PAGE = ROOT / "docs" / "benchmarks.html"


LAUNCH = """
import fcntl, os, sys
orders, answers = (fcntl.fcntl(int(end), fcntl.F_DUPFD_CLOEXEC, 10) for end in sys.argv[1:3])
os.dup2(orders, 3)
os.dup2(answers, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
PATIENCE = 60  # seconds for an answer of the browser


class PageError(Exception):
    """What is wrong with the page, or with the browser."""


@final
class Browser:
    """Chromium without a window. Messages are JSON, each ended by a NUL, on descriptors 3 and 4."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._stack = ExitStack()
        self._number = 0
        self._session: str | None = None
        self._unread = b""
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        profile = self._stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        command = [self._program, "--headless", "--remote-debugging-pipe", "--disable-gpu"]
        command += [f"--user-data-dir={profile}", "--no-first-run", "--disable-dev-shm-usage"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses to be root with one
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(orders), str(answers), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(orders, answers),
        )
        os.close(orders)
        os.close(answers)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._orders)  # which it takes for the order to end
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)
        self._stack.close()

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send an order and wait for its answer; events that come before it are kept."""
        self._number += 1
        message: dict[str, object] = {
            "id": self._number, "method": method, "params": parameters,
        }  # fmt: skip
        if self._session:
            message["sessionId"] = self._session
        os.write(self._orders, json.dumps(message).encode() + b"\0")
        while True:
            told = self._read()
            if told.get("id") == self._number:
                break
            self.events.append(told)
        if "error" in told:
            raise PageError(f"{method}: {told['error']['message']}")
        result: dict[str, Any] = told["result"]
        return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers], [], [], PATIENCE)
            piece = os.read(self._answers, 1 << 20) if ready else b""
            if not piece:
                raise PageError(f"{self._program} {'ended' if ready else 'does not answer'}")
            self._unread += piece
        message, _, self._unread = self._unread.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told

    def wait_for(self, method: str) -> None:
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._read())

    def evaluate(self, expression: str) -> Any:
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in told:
            raise PageError(f"{expression}: {told['exceptionDetails']['text']}")
        return told["result"].get("value")

    def press_enter(self) -> None:
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self.call("Input.dispatchKeyEvent", type="keyDown", **key)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def prefer(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path, width: int = 1200, height: int = 2400) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


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
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
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
