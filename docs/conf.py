"""The site: `make docs`.  The pages are the Markdown files beside this one, as they are."""

import re
import shutil
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.highlighting import lexers
from sphinx.pycode import ModuleAnalyzer

import fastspawn

project = "fastspawn"
author = "fastspawn contributors"
version = release = fastspawn.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["benchmarks"]

html_theme = "furo"
html_title = f"fastspawn {version}"

myst_heading_anchors = 4
lexers["haproxy"] = TextLexer()
lexers["dockerfile"] = TextLexer()  # its own does not know [ -e FILE ]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "exclude-members": "__init__, __new__"}

ROOT = Path(__file__).parents[1]
SOURCE = "https://github.com/fastspawn/fastspawn/blob/main/"
LINK = re.compile(r"(?<=\]\()([\w./-]+)(?=[)#])")


def links(text: str, folder: str) -> str:
    """Those of a page in a folder of the checkout, for one in docs/."""

    def link(found: re.Match[str]) -> str:
        parts: list[str] = []
        for part in (folder + found[1]).split("/"):
            parts[-1:] = [] if part == ".." else [*parts[-1:], part]
        where = "/".join(parts)
        return where[5:] if where.startswith("docs/") else SOURCE + where

    return LINK.sub(link, text)


def read(app: Sphinx, name: str, content: list[str]) -> None:
    """The first page is the README, with the list of the others."""
    content[0] = links(content[0], "docs/")
    if name == "index":
        content[0] = links((ROOT / "README.md").read_text(), "") + content[0]


def copy_pictures(app: Sphinx, error: Exception | None) -> None:
    """Those that a page names in HTML of its own."""
    if error is None:
        shutil.copytree(ROOT / "docs" / "images", app.outdir / "images", dirs_exist_ok=True)


def find_attributes() -> None:
    """Classes say that they are of ``fastspawn``, where what stands below an attribute is looked
    for; it is in the file that they are written in."""
    package = Path(fastspawn.__file__).parent
    whole = ModuleAnalyzer.for_module("fastspawn")
    whole.analyze()
    for file in (*package.glob("_[!_]*.py"), *package.glob("_[!_]*/[!_]*.py")):
        name = ".".join(file.relative_to(package.parent).with_suffix("").parts)
        part = ModuleAnalyzer.for_module(name)
        part.analyze()
        whole.attr_docs.update(part.attr_docs)
        whole.annotations.update(part.annotations)
        whole.tagorder.update(part.tagorder)


def setup(app: Sphinx) -> None:
    find_attributes()
    app.connect("source-read", read)
    app.connect("build-finished", copy_pictures)
