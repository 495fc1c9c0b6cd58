"""The examples, by what their READMEs say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from documents import checks
from documents.markdown import ROOT, Section, sections
from documents.session import Session, elsewhere, need

READMES = sorted((ROOT / "examples").glob("*/README.md"))
NOT_RUN = 1
"""Blocks that are not run.  Not to grow."""


def whole(readme: Path) -> Section:
    return Section(readme, "", [block for one in sections(readme) for block in one.blocks])


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.parent.name)
def test_example(readme: Path, tmp_path: Path) -> None:
    if why := elsewhere(whole(readme)):
        pytest.skip(why)
    for file in readme.parent.glob("*.toml"):
        need(file.read_text())
    shutil.copytree(readme.parent, tmp_path, dirs_exist_ok=True)
    session = Session(tmp_path)
    try:
        session.follow(whole(readme))
    finally:
        session.close()


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.parent.name)
def test_configuration(readme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(readme.parent)
    for file in readme.parent.glob("*.toml"):
        checks.ours(file, tmp_path)


def test_each_is_shown() -> None:
    """In its own folder, and in the list of them."""
    listed = (ROOT / "examples" / "README.md").read_text()
    for folder in (ROOT / "examples").iterdir():
        if folder.is_dir():
            assert f"({folder.name}" in listed


def test_few_blocks_are_not_run() -> None:
    blocks = [block for readme in READMES for block in whole(readme).blocks]
    assert sum(bool(block.not_run) for block in blocks) <= NOT_RUN
