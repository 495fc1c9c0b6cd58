"""What options of other servers are here: each row of these tables is run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from documents.markdown import ROOT
from documents.session import Session, need
from documents.tables import Row, rows

PAGE = ROOT / "docs" / "migrating.md"
ROWS = rows(PAGE)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row, tmp_path: Path) -> None:
    need(f"curl {row.command}")
    if "--user" in row.command and os.geteuid() != 0:
        pytest.skip("it is root who gives rights away")
    session = Session(tmp_path)
    try:
        row.run(session)
    finally:
        session.close()


def test_rows_that_are_wrong(tmp_path: Path) -> None:
    """One that is not answered so, one that does not start, and one with nothing to run."""
    head = (
        "`fastspawn serve ...`\n\n| theirs | here | asked | answered |\n| --- | --- | --- | --- |\n"
    )
    for number, row in enumerate(
        (
            "| a | `-- echo hi` | `/` | `ho` |",
            "| a | `-- echo hi` | `/` | `404` |",
            "| a | `--no-such` | `/` | `hi` |",
            "| a | a proxy | | |",
        )
    ):
        page = tmp_path / f"{number}.md"
        page.write_text(f"{head}{row}\n")
        (tmp_path / str(number)).mkdir()
        session = Session(tmp_path / str(number))
        with pytest.raises(AssertionError):
            rows(page)[0].run(session)
        session.close()


def test_no_option_is_there_twice() -> None:
    seen = [(row.section.title, row.theirs) for row in ROWS]
    assert len(set(seen)) == len(seen) > 50
