"""Tables whose rows are run: what an option of another server is here, what is asked, and what is
answered.

Such a table has four columns. The second begins with a piece of a command, to be put where the text
above the table has ``...`` in a command; the third is what ``curl`` is given, with a path for an
address; the fourth has what is to be seen in the answer, each in a piece of code: a status (200 if
there is none), a field, or a line of the body.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from documents.markdown import Entry, Section, alike, entries, sections
from documents.session import SERVES, Session
from support import BOUND

_CODE = re.compile(r"`([^`]+)`")
_CELLS = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class Row:
    section: Section
    line: int
    theirs: str
    command: str
    """Ours, whole."""
    asked: list[str]
    """curl's arguments."""
    status: str
    answered: list[str]
    """Lines of the answer."""

    def __str__(self) -> str:
        return f"{self.section.document.name}:{self.line}"

    def run(self, session: Session) -> None:
        """Serve, ask, and look at the answer."""
        prepare(self.section, session)
        session.serve(Entry(self.command, []))
        assert session.servers, f"it does not serve: {self.command}"
        curl = session.here(shlex.join(["curl", "-s", "-i", *self.asked]))
        running = session.start(["sh", "-c", curl], [])
        running.process.wait(BOUND)
        status_line, *lines = session.there(running.printed()) or [""]
        told = "\n".join([self.command, curl, status_line, *lines])
        assert status_line.split(" ")[1:2] == [self.status], told
        for wanted in self.answered:
            assert any(alike([wanted], [line]) for line in lines), f"no {wanted!r}:\n{told}"


def prepare(section: Section, session: Session) -> None:
    """The section's files, and what it does before it serves anything."""
    for block in section.blocks:
        if block.name:
            session.write(block)
        elif block.kind == "console" and not re.search(rf"{SERVES.pattern}|\bcurl\b", block.text):
            for entry in entries(block.text):
                session.command(entry)


def rows(document: Path) -> list[Row]:
    named = {section.title: section for section in sections(document)}
    return list(_rows(document, named))


def _rows(document: Path, named: dict[str, Section]) -> Iterator[Row]:
    section, whole, fenced = Section(document, ""), "", False
    for number, line in enumerate(document.read_text().splitlines(), 1):
        fenced ^= line.startswith("```")
        if fenced:
            continue
        if line.startswith("#"):
            title = line.lstrip("# ")
            section, whole = named.get(title, Section(document, title)), ""
        cells = [cell.strip().replace(r"\|", "|") for cell in _CELLS.split(line)[1:-1]]
        if not cells:
            spans = [code for code in _CODE.findall(line) if "..." in code]
            whole = next((code for code in spans if "fastspawn serve" in code), whole)
        elif len(cells) == 4 and cells[2] != "asked" and not set(line) <= set("|- "):
            yield _row(section, number, cells, whole)


def _row(section: Section, number: int, cells: list[str], whole: str) -> Row:
    theirs, here, asked, answered = cells
    where = f"{section.document.name}:{number}"
    commands, asks = _CODE.findall(here), _CODE.findall(asked)
    assert here.startswith("`"), f"{where}: nothing to run"
    assert len(asks) == 1, f"{where}: nothing to ask"
    command = commands[0] if "fastspawn serve" in commands[0] else whole.replace("...", commands[0])
    assert "fastspawn serve" in command, f"{where}: no command"
    port = re.search(r"--port (\d+)", command)
    words = shlex.split(asks[0])
    if words[-1].startswith("/"):
        words[-1] = f"http://localhost:{port[1] if port else 8001}{words[-1]}"
    seen = _CODE.findall(answered)
    status = seen.pop(0) if re.fullmatch(r"[2-5]\d\d", seen[0]) else "200"
    return Row(section, number, theirs, command, words, status, seen)
