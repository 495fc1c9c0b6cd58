"""``fastspawn top URL``: what a server does now, as its live page shows it."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from fastspawn._stdout import printing
from fastspawn.serve.config import units
from fastspawn.serve.config.messages import shown
from fastspawn.serve.figures.look import quantile

from .looks import NoFiguresError, fetch

if TYPE_CHECKING:
    from fastspawn.serve.figures.look import Look, RouteLook

_PROG: Final = "fastspawn top"
_EPILOG: Final = """\
URL is that of serve --live-path, or of --metrics-path (which needs fastspawn[metrics] here, too);
without a path it is /metrics. P50 and P99 are of the time that processes ran; EVENTS are of the
strategy, in all. Ctrl-C ends it.
"""
_HEAD: Final = ("ROUTE", "STRATEGY", "RUN", "QUEUE", "REQ/S", "5XX/S", "P50", "P99", "KILLS",
                "EVENTS")  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Of ``fastspawn top``."""
    made = argparse.ArgumentParser(
        prog=_PROG,
        description="What a server does now: requests, processes and strategies of each route.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("url", metavar="URL", type=_url, help="of its figures")
    made.add_argument(
        "--interval", metavar="TIME", type=shown(_interval), default=2.0,
        help="between two looks (default: 2s)",
    )  # fmt: skip
    made.add_argument(
        "--once", action="store_true", help="show the first interval, as if this were no terminal"
    )
    return made


def _url(text: str) -> str:
    wrong = argparse.ArgumentTypeError(f"{text!r} is not a URL such as http://localhost:8001")
    try:
        parts = urllib.parse.urlsplit(text)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise wrong from None
    if not fits or not re.fullmatch(r"[!-~]+", text, re.ASCII):
        raise wrong
    if "@" in parts.netloc:  # and not shown: there may be a password in it
        raise argparse.ArgumentTypeError("a URL with a user cannot be asked")
    return text if parts.path else parts._replace(path="/metrics").geturl()


def _interval(text: str) -> float:
    seconds = units.duration(text)
    if seconds < 0.1:
        raise ValueError("must be at least 100ms")
    return seconds


def main(args: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 if there are no figures, 2 for wrong arguments."""
    with printing(_PROG):
        options = parser().parse_args(args)
        try:
            once = options.once or not sys.stdout.isatty()
            _watch(options.url, options.interval, once=once)
        except NoFiguresError as trouble:
            print(f"{_PROG}: {trouble}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            pass
    return 0


# ---- the page ----


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1e3:.1f}ms"
    return f"{seconds:.2f}s"


def _risen(before: Look, route: RouteLook) -> tuple[int, int, list[float]]:
    """Requests, those that failed, and processes by their run time, since then."""
    for old in before["routes"]:
        if old["route"] == route["route"]:
            run = [now - then for now, then in zip(route["run"], old["run"], strict=True)]
            return route["requests"] - old["requests"], route["failed"] - old["failed"], run
    return route["requests"], route["failed"], route["run"]


def _rows(before: Look, now: Look, seconds: float) -> Iterator[tuple[str, ...]]:
    for route in now["routes"]:
        requests, failed, run = _risen(before, route)
        events = {
            **route["events"],
            "resets": route["resets"] or 0,
            "reset_leaves": sum(route["leaves"].values()),
            "residents_retired": route["retired"],
        }
        yield (
            route["route"],
            route["strategy"] or "-",
            f"{route['running']}",
            f"{route['waiting']}",
            f"{requests / seconds:,.1f}",
            f"{failed / seconds:,.1f}",
            _time(quantile(now["moments"], run, 0.5)),
            _time(quantile(now["moments"], run, 0.99)),
            f"{sum(route['kills'].values())}",
            " ".join(f"{name}={count}" for name, count in sorted(events.items()) if count),
        )


def page(url: str, before: Look, now: Look, seconds: float) -> list[str]:
    """Its lines."""
    rows = [_HEAD, *_rows(before, now, seconds)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    about = f"workers {now['workers']}, connections {now['connections']}"
    lines = [f"{url}: {about}, {time.strftime('%X')}", ""]
    for row in rows:
        cells = (
            cell.ljust(width) if i in (0, 1, 9) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return lines


def _watch(url: str, interval: float, *, once: bool) -> None:
    before, at = fetch(url), time.monotonic()
    with _screen(plain=once):
        while True:
            time.sleep(interval)
            now, then = fetch(url), time.monotonic()
            lines = page(url, before, now, then - at)
            if once:
                print("\n".join(lines))
                return
            _draw(lines)
            before, at = now, then


@contextmanager
def _screen(*, plain: bool) -> Iterator[None]:
    """The terminal's other screen, without a cursor; and back, whatever happens."""
    if plain:
        yield
        return
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


def _draw(lines: Iterable[str]) -> None:
    width, height = shutil.get_terminal_size()
    cut = [line[: width - 1] for line in lines][: height - 1]
    sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in cut) + "\x1b[J")
    sys.stdout.flush()
