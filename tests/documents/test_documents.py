"""Every block of code in the documentation is run as it is printed."""

from __future__ import annotations

import inspect
import re
import subprocess
from pathlib import Path

import pytest

import fastspawn
import fastspawn.asgi
from documents.markdown import ROOT, Section, alike, entries, sections
from documents.session import Session, elsewhere

PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if page.stem != "index")
DOCUMENTS = [ROOT / "README.md", *PAGES]
SECTIONS = [section for document in DOCUMENTS for section in sections(document)]
KINDS = {
    *("caddy", "console", "dockerfile", "haproxy", "ini", "js", "nginx", "python", "sh", "text"),
    "toml",
}
NOT_RUN = 1
"""Blocks that are not run.  Not to grow."""


@pytest.mark.parametrize("section", SECTIONS, ids=str)
def test_section(section: Section, tmp_path: Path) -> None:
    if why := elsewhere(section):
        pytest.skip(why)
    session = Session(tmp_path)
    try:
        session.follow(section)
    finally:
        session.close()


def test_each_block_says_what_it_is() -> None:
    odd = [
        f"{section.document.relative_to(ROOT)}:{block.line}: {block.kind or 'nothing'}"
        for section in SECTIONS
        for block in section.blocks
        if block.kind not in KINDS or (block.kind == "text" and not block.not_run)
    ]
    assert odd == []


def test_few_blocks_are_not_run() -> None:
    assert sum(bool(block.not_run) for one in SECTIONS for block in one.blocks) <= NOT_RUN


def test_each_file_is_used() -> None:
    """A block with a name is a file, which is not run by itself."""
    for section in SECTIONS:
        commands = [block.text for block in section.blocks if block.kind == "console"]
        for block in section.blocks:
            if block.name and block.kind in ("python", "js", "sh"):
                stem = block.name.partition(".")[0]
                assert any(stem in text for text in commands), f"{section}: {block.name}"


def follow(text: str, directory: Path) -> None:
    """A document that says just this."""
    document = directory / "document.md"
    document.write_text(text)
    (section,) = sections(document)
    session = Session(directory)
    try:
        session.follow(section)
    finally:
        session.close()


@pytest.mark.parametrize(
    "text",
    [
        "```console\n$ echo hi\nho\n```\n",
        "```console\n$ echo hi\n```\n",
        "```console\n$ echo hi; false\nhi\n```\n",
        "```console\n$ python -m fastspawn.serve\n$ curl -s localhost:8001\nho\n```\n",
        "```console\n$ pip install 'fastspawn[nothing]'\n```\n",
        "```python\nprint(1)\n```\n",
        "```python\nundefined\n```\n",
        "```python\nimport asyncio\n\nawait asyncio.sleep(0)\nprint(1)  # -> 2\n```\n",
        "```toml\nexec-timeout = 'soon'\n```\n",
        "```nginx\nserver { listen nowhere at all; }\n```\n",
        "```haproxy\nfrontend web\n    bind nowhere\n```\n",
        "```ini\n# a.service\n[Service]\nType=none\n```\n",
    ],
)
def test_a_document_that_is_wrong(text: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, ValueError)):
        follow(text, tmp_path)


def test_what_is_alike() -> None:
    assert alike(["a...c", "...", "d"], ["abc", "d"])
    assert alike(["a...c", "...", "d"], ["ac", "x", "y", "d"])
    assert not alike(["a...c", "d"], ["abc", "x", "d"])
    assert not alike(["a.c"], ["abc"])


def test_commands_of_more_lines() -> None:
    text = "$ a \\\n    b\nc\n$ cat <<END\n> d\n> END\nd\n"
    assert [(one.command, one.shown) for one in entries(text)] == [
        ("a \\\n    b", ["c"]),
        ("cat <<END\nd\nEND", ["d"]),
    ]


def test_all_of_the_package_is_in_the_reference() -> None:
    """What is the standard library's is named only."""
    page = (ROOT / "docs" / "api.rst").read_text()
    described = set(re.findall(r"^\.\. auto\w+:: (\w+)$", page, re.MULTILINE))
    ours = {
        name
        for name in fastspawn.__all__
        if name not in ("__version__", "aio")
        and getattr(fastspawn, name) is not getattr(subprocess, name, None)
    }
    assert described == ours


def test_what_is_in_the_reference_says_what_it_is() -> None:
    """Where it is written, or on the page: what Cython makes an attribute of can have no words."""
    page = (ROOT / "docs" / "api.rst").read_text()
    silent = []
    for name in fastspawn.__all__:
        one = getattr(fastspawn, name)
        if isinstance(one, type) and one.__module__.startswith("fastspawn"):
            members = {key: value for key, value in vars(one).items() if key[0] != "_"}
            silent += [
                f"{name}.{key}"
                for key, value in members.items()
                if (callable(value) or inspect.isdatadescriptor(value))
                and not (inspect.ismemberdescriptor(value) or value.__doc__)
                and f".. py:attribute:: {key}\n" not in page
            ]
    assert silent == []


def test_what_is_beside_the_package_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "api.rst").read_text()
    for module in (fastspawn.aio, fastspawn.asgi):
        found = re.search(rf"automodule:: {module.__name__}\n +:members: (.*)", page)
        assert found is not None
        theirs = {"Process"}  # asyncio's
        assert set(found[1].split(", ")) == set(module.__all__) - theirs


def test_each_page_is_on_the_site() -> None:
    listed = (ROOT / "docs" / "index.md").read_text().split()
    for page in (ROOT / "docs").glob("*.[mr][ds]*"):
        assert page.stem in (*listed, "index")
