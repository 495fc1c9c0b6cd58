"""The tables of the web rows: one for each application, and what they are judged by."""

from __future__ import annotations

from bench.resets import Wanted, judgement, ratio_of
from bench.tables import Row, Table, http_table
from bench.web import APPLICATIONS

RATE = ("requests_per_second",)
BASES = {
    "gunicorn": "gunicorn",
    "max-requests 1": "gunicorn-fresh",
    "uvicorn": "uvicorn",
    "php-fpm": "fpm",
}
"""What a column is called, and the row of the same application that it is taken to."""


def _wanted(application: str, called: str, server: str, base: str, least: float) -> Wanted:
    about = f"{APPLICATIONS[application]}: {called}, req/s"
    row, other = f"{application}-{server}", f"{application}-{base}"
    return Wanted(about, "web", row, other, RATE, least)


WANTED = (
    *(
        _wanted(f"{name}-hello", "forked, to gunicorn with `--max-requests 1`", "fork",
                "gunicorn-fresh", 40)
        for name in ("flask", "django")
    ),
    *(
        _wanted(f"{name}-{page}", "reset, to gunicorn's sync workers", "reset", "gunicorn", 0.5)
        for name in ("flask", "django")
        for page in ("hello", "page")
    ),
)  # fmt: skip


def web_tables(found: dict[str, Row]) -> list[Table]:
    tables = []
    for application, about in APPLICATIONS.items():
        rows = {name: row for name, row in found.items() if name.startswith(f"{application}-")}
        bases = {
            called: name
            for called, server in BASES.items()
            if (name := f"{application}-{server}") in rows
        }
        if rows:
            tables.append(http_table(rows, f"A web application: {about}", bases))
    lines = [
        judgement(wanted.about, measured, wanted.bound, wanted.least, 2)
        for wanted in WANTED
        if (measured := ratio_of(found, wanted)) is not None
    ]
    head = ["web application: what, to what", "wanted", "measured", "met"]
    return [*tables, Table("What web applications are judged by", head, lines)] if lines else tables
