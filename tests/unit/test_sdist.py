"""What pip says where the source distribution cannot be built: one line of ours."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from email import message_from_string
from pathlib import Path

import pytest

import fastspawn
import needs

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("setuptools", "Cython", "pip")),
    reason="nothing to build with",
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """As an unpacked sdist."""
    copy = tmp_path / "fastspawn"
    copy.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, copy)
    (copy / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "fastspawn.1", copy / "docs")
    for folder in ("csrc", "src"):
        shutil.copytree(
            ROOT / folder,
            copy / folder,
            ignore=shutil.ignore_patterns("*.so", "__pycache__", "_worker", "*.egg-info"),
        )
    return copy


def build(source: Path, *prefix: str, **variables: str) -> str:
    """What the build says of its failure."""
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel"),
        *("--no-build-isolation", "--no-deps", "--wheel-dir", str(source / "out"), str(source)),
    ]
    done = subprocess.run(
        [*prefix, *command], capture_output=True, text=True, env={**os.environ, **variables}
    )
    assert done.returncode == 1, done.stdout
    said = re.search(r"\[(\d+) lines of output\]\n(.*)\n", done.stderr)
    assert said is not None, done.stderr
    assert said[1] == "1", done.stderr
    return said[2].strip()


def test_no_compiler(source: Path) -> None:
    said = build(source, CC="no-such-cc")
    assert "needs a C compiler, and no-such-cc is not there: " in said


@needs.compiler
def test_no_headers_of_libc(source: Path) -> None:
    assert "needs the C library's headers, which cc does not find: " in build(
        source, CC="cc -nostdinc"
    )


HIDDEN = 'mount -t tmpfs none "$0" && exec "$@"'


@needs.compiler
def test_no_headers_of_python(source: Path) -> None:
    headers = sysconfig.get_path("include")
    hide = ("unshare", "--mount", "sh", "-c", HIDDEN, headers)
    try:
        subprocess.run([*hide, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can hide a directory")
    said = build(source, *hide)
    assert f"needs the headers of {sys.executable} (Python " in said


def test_metadata_need_no_compiler(source: Path) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", "out"],
        cwd=source, capture_output=True, text=True, env={**os.environ, "CC": "no-such-cc"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_what_the_index_shows_has_no_relative_links(source: Path) -> None:
    """There is nothing beside it there, and it is of one version for ever."""
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", "."]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    metadata = message_from_string((source / "fastspawn.egg-info" / "PKG-INFO").read_text())
    assert metadata["Description-Content-Type"].startswith("text/markdown")
    page = metadata.get_payload()
    assert isinstance(page, str)
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", page)
    assert len(links) == len(re.findall(r"\]\(", (ROOT / "README.md").read_text()))
    tag = "/v" + fastspawn.__version__ + "/"
    for picture, link in links:
        assert link.startswith("https://"), link
        if tag in link:
            assert ("raw." in link) == bool(picture), link
            assert (ROOT / link.partition(tag)[2].partition("#")[0]).is_file(), link
    assert sum(tag in link for _, link in links) > 10
    assert "src=" not in page


ASKS = """\
import runpy, sys
from setuptools import Distribution
sys.argv = ["setup.py", "--quiet", "--name"]
setup = runpy.run_path("setup.py")
build = setup["BuildExt"](Distribution())
from setuptools._distutils.ccompiler import new_compiler
from setuptools._distutils.sysconfig import customize_compiler
build.compiler = new_compiler()
customize_compiler(build.compiler)
print(setup["what_is_missing"](), [build.takes(flag) for flag in setup["ONE_SEGMENT"]])
"""


@needs.compiler
@pytest.mark.skipif(sys.platform != "linux", reason="for its linkers")
def test_a_compiler_that_takes_less_than_others(source: Path) -> None:
    """zig's reads no standard input, checks no syntax alone, knows few options of the linker."""
    cc = source / "cc.sh"
    refused = "-|-fsyntax-only|*noseparate-code"
    cc.write_text(
        f'#!/bin/sh\nfor arg; do case $arg in {refused}) exit 1;; esac; done\nexec cc "$@"\n'
    )
    cc.chmod(0o755)
    command = [sys.executable, "-W", "ignore", "-c", ASKS]
    for compiler, takes in (("cc", True), (str(cc), False)):
        done = subprocess.run(
            command, cwd=source, capture_output=True, text=True, env={**os.environ, "CC": compiler}
        )
        assert done.stdout.splitlines()[-1] == f"None [{takes}]", done.stdout + done.stderr
