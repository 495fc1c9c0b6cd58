"""The freeze rows: how many processes of common programs a second, by where they begin.

Each launch is a process of its own (cases/freeze_host.py), with an engine and templates in it and
without HTTP.

    python -m bench.freeze [--count N] [NAME...]

prints for a longer list of real command lines where each stops at the effect, what for, and how
many times as fast as by exec it begins at main and there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

from bench.cases.freeze_host import BATCHES
from bench.harness.server import environment
from bench.harness.tools import ROOT, Unavailable
from bench.library import WorkerError
from bench.row import Record

PROGRAMS: dict[str, tuple[str, ...]] = {
    "echo": ("echo", "hi"),
    "true": ("true",),
    "date": ("date", "+%Y"),
    "cat": ("cat", "/etc/passwd"),
    "sort": ("sort", "/etc/passwd"),
    "head": ("head", "-1", "/etc/passwd"),
    "sha256sum": ("sha256sum", "/etc/passwd"),
    "ls": ("ls", "/"),
    "id": ("id",),
    "env": ("env",),
    "seq": ("seq", "10"),
    "grep": ("grep", "root", "/etc/passwd"),
    "sed": ("sed", "-n", "1p", "/etc/passwd"),
    "awk": ("awk", "BEGIN{print 1}"),
    "sh": ("sh", "-c", "echo hi"),
    "bash": ("bash", "-c", "echo hi"),
    "perl": ("perl", "-e", "print 1"),
    "git": ("git", "--version"),
    "jq": ("jq", "-n", "1"),
    "sqlite3": ("sqlite3", ":memory:", "select 1"),
    "openssl": ("openssl", "version"),
    "ruby": ("ruby", "-e", "puts 1"),
    "python3": ("python3", "-c", "print(1)"),
    "node": ("node", "-e", "console.log(1)"),
}
COUNTS = {"python3": 150, "node": 60, "ruby": 150}
"""For the slow ones; else as many as are asked for."""


def about(name: str) -> str:
    return f"`{' '.join(PROGRAMS[name])}`"


def measure(name: str, count: int) -> Record:
    """One launch. Raises WorkerError if it fails."""
    return launch(name, (str(min(count, COUNTS.get(name, count))), *PROGRAMS[name]), "")


def launch(name: str, args: tuple[str, ...], input: str) -> Record:
    """The host with these arguments. Raises WorkerError if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.cases.freeze_host", *args],
        cwd=ROOT,
        env=environment(),
        input=input,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise WorkerError(f"{name}: status {done.returncode}: {done.stderr.strip()[-200:]}")
    told: Record = json.loads(done.stdout)
    if "unavailable" in told:
        raise Unavailable(str(told["unavailable"]))
    if told["statuses"] != [0]:
        raise WorkerError(f"{name}: exit statuses {told['statuses']}")
    if told["wrong"]:
        raise WorkerError(f"{name}: {told['wrong']} outputs were wrong")
    return told


# ---- where they stop ----

JSON = '{"a": [1, 2, {"b": null}]}\n'
XML = "<a><b>text</b></a>\n"
TEXT = "the first line\nand a second one\n"


@dataclass(frozen=True)
class Line:
    """A command line, as somebody would serve it."""

    argv: tuple[str, ...]
    input: str = ""


def _plain(text: str) -> dict[str, Line]:
    """One a line, the name before the colon; no argument has a space."""
    found = {}
    for line in text.strip().splitlines():
        name, _, argv = line.partition(": ")
        found[name.strip()] = Line(tuple(argv.split()))
    return found


LINES: dict[str, Line] = {
    **{name: Line(argv) for name, argv in PROGRAMS.items()},
    **_plain("""
        wc: wc -l /etc/passwd
        cut: cut -d: -f1 /etc/passwd
        tac: tac /etc/passwd
        base64: base64 /etc/passwd
        md5sum: md5sum /etc/passwd
        stat: stat -c %s /etc/passwd
        basename: basename /a/b
        expr: expr 1 + 1
        printf: printf %s a
        uname: uname
        whoami: whoami
        find: find /etc/passwd
        xargs: xargs echo
        diff: diff /etc/passwd /etc/passwd
        dash: dash -c :
        gawk: gawk BEGIN{print(1)}
        mawk: mawk BEGIN{print(1)}
        perl -v: perl -v
        php: php -r echo(1);
        php -n: php -n -r echo(1);
        lua: lua5.4 -e print(1)
        guile: guile -c (display(quote(a)))
        node -v: node --version
        ffmpeg: ffmpeg -version
        ffprobe: ffprobe -version
        convert: convert -version
        gm: gm version
        vips: vips --version
        gs: gs --version
        pdftotext: pdftotext -v
        pdftoppm: pdftoppm -v
        qpdf: qpdf --version
        mutool: mutool -v
        tesseract: tesseract --version
        dot: dot -V
        gnuplot: gnuplot --version
        exiftool: exiftool -ver
        file: file /etc/passwd
        git log: git log -1 --format=%H
        git status: git status --short
        git rev-parse: git rev-parse --git-dir
        openssl dgst: openssl dgst /etc/passwd
        openssl base64: openssl base64 -in /etc/passwd
        gpg: gpg --version
        curl: curl -s file:///etc/passwd
        dig: dig -v
        xsltproc: xsltproc --version
        rg: rg root /etc/passwd
        fd: fdfind --version
        xz: xz -c /etc/passwd
        zstd: zstd -c /etc/passwd
        gzip: gzip -nc /etc/passwd
        bzip2: bzip2 -c /etc/passwd
        tar: tar -cf - /etc/passwd
        unzip: unzip -v
        sox: sox --version
        espeak-ng: espeak-ng --version
        psql: psql --version
        java: java -version
        pandoc: pandoc --version
        rsvg-convert: rsvg-convert --version
        mediainfo: mediainfo --Help
    """),
    "jq .": Line(("jq", "-c", "."), JSON),
    "sqlite3 -json": Line(("sqlite3", "-json", ":memory:", "select 1 as a")),
    "tclsh": Line(("tclsh",), "puts 1\n"),
    "xmllint": Line(("xmllint", "-"), XML),
    "tidy": Line(("tidy", "-q", "-xml"), XML),
    "hunspell": Line(("hunspell", "-l"), TEXT),
    "tr": Line(("tr", "a-z", "A-Z"), TEXT),
}
"""By name; those that are not installed are told as absent."""
FEW = 1.1
"""What begins at the effect gains something if it is so many times as fast as from main."""


def speeds(found: Record) -> tuple[float | None, float | None]:
    """How many times as fast as by exec it begins at main, and at the effect; None: it cannot."""
    ways: dict[str, dict[str, float]] = cast("Any", found["ways"])
    rates = [ways[way]["per_second"] if way in ways else None for way in ("main", "effect")]
    main, effect = (rate and rate / ways["exec"]["per_second"] for rate in rates)
    return main, effect


def told(stop: dict[str, str] | str) -> str:
    """Where it stops, in a line."""
    if isinstance(stop, str):
        return f"no stop: {stop}"
    of = f" of {stop['of']}" if stop["of"] else ""
    return f"{stop['calls']} calls, then {stop['before']}{of}"


def summary(found: list[tuple[float | None, float | None]]) -> str:
    """Of the speeds of all that can be templates.  What has no effect begins at main."""
    both = [(main, effect or main) for main, effect in found if main]
    if not both:
        return "none can be a template"
    gained = sum(effect / main >= FEW for main, effect in both)
    return (
        f"{len(both)} of {len(found)} can be templates: median {median(m for m, _ in both):.2f}x at"
        f" main, {median(e for _, e in both):.2f}x at the effect; {len(both) - gained} gain less"
        " than a tenth there"
    )


def explain(names: list[str], count: int) -> int:
    """The exit status: 1 if one could not be measured, or answered otherwise than by exec."""
    found, failed = [], False
    for name in names:
        line = LINES[name]
        try:
            if shutil.which(line.argv[0], path=environment()["PATH"]) is None:
                raise Unavailable(f"{line.argv[0]} is not installed")
            record = launch(name, ("--forks", str(count), *line.argv), line.input)
        except Unavailable as error:
            print(f"{name:16} absent: {error}")
            continue
        except WorkerError as error:
            failed = True
            print(f"{name:16} failed: {error}", flush=True)
            continue
        found.append(speeds(record))
        ratios = " ".join(f"{ratio:5.2f}x" if ratio else "     -" for ratio in found[-1])
        print(f"{name:16} {ratios}  {told(cast('Any', record['stop']))}", flush=True)
    print(summary(found))
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.freeze", description="Where they stop.")
    parser.add_argument(
        "--count", type=int, default=300, help="processes of each way (default 300)"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(LINES))
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in LINES]:
        parser.error(f"no such line: {', '.join(unknown)}")
    if options.count < BATCHES:
        parser.error(f"--count must be at least {BATCHES}")
    return explain(options.names or list(LINES), options.count)


if __name__ == "__main__":
    sys.exit(main())
