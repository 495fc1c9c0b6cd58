"""The blocks of code of a document, section by section.

A block is fenced, and the word behind the fence says what becomes of it (``session.py``).  One that
cannot be run has, on the line before it, ``<!-- not run: why -->``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"( *)```(.*)")
_NOT_RUN = re.compile(r"\s*<!-- not run: (.+) -->")
_NAME = re.compile(r"(?:#!.*\n)?(?:#|//) ([\w.-]+\.\w+)(?::|\n)")


@dataclass(frozen=True)
class Block:
    kind: str
    """The word behind the fence; ``indented`` for one without a fence."""
    text: str
    line: int
    not_run: str
    """Why, or nothing."""

    @property
    def name(self) -> str:
        """Of the file that it is: its first comment, if that begins with such a name."""
        found = _NAME.match(self.text)
        return found[1] if found else ""


@dataclass
class Section:
    document: Path
    title: str
    blocks: list[Block] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}::{self.title}"


def sections(document: Path) -> list[Section]:
    """Those that have a block.  A section ends at the next heading, of whatever level."""
    found = [Section(document, "")]
    lines = enumerate(document.read_text().splitlines(), 1)
    before, in_list = "", False
    for number, line in lines:
        if fence := _FENCE.fullmatch(line):
            not_run = _NOT_RUN.fullmatch(before)
            text = _fenced(lines, len(fence[1]))
            block = Block(fence[2], text, number, not_run[1] if not_run else "")
            found[-1].blocks.append(block)
        elif line.startswith("#"):
            found.append(Section(document, line.lstrip("# ")))
        elif line.startswith("    ") and not before.strip() and not in_list:
            found[-1].blocks.append(Block("indented", line, number, ""))
        if line.strip() and not line.startswith(" "):
            in_list = bool(re.match(r"[-*] |\d+\. ", line))
        before = line
    return [section for section in found if section.blocks]


def _fenced(lines: Iterator[tuple[int, str]], indent: int) -> str:
    text = []
    for _, line in lines:
        if line.strip() == "```":
            break
        text.append(line[indent:] + "\n")
    return "".join(text)


@dataclass(frozen=True)
class Entry:
    """A command of a ``console`` block, and what it is shown to print."""

    command: str
    shown: list[str]


def entries(text: str) -> list[Entry]:
    found: list[Entry] = []
    goes_on = False
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Entry(line[2:], []))
        elif goes_on or line.startswith("> "):
            before = found.pop()
            found.append(Entry(f"{before.command}\n{line.removeprefix('> ')}", []))
        else:
            found[-1].shown.append(line)
        goes_on = line.endswith("\\") and not found[-1].shown
    return found


def shown_by_comments(text: str) -> list[str]:
    """What a Python block prints: what stands behind each ``# ->``."""
    return re.findall(r"# -> (.*)", text)


def alike(shown: list[str], printed: list[str]) -> bool:
    """Line by line; ``...`` stands for whatever is in its place, a line of it for any lines."""
    wanted = "".join(
        r"(?:.*\n)*"
        if line.strip() == "..."
        else ".*".join(map(re.escape, line.split("..."))) + "\n"
        for line in shown
    )
    return re.fullmatch(wanted, "".join(f"{line}\n" for line in printed)) is not None
