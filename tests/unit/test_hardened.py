"""What the built objects say of themselves: against writes to where they should not go."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import needs
from fastspawn import _core
from support import LINUX

pytestmark = [
    pytest.mark.skipif(not LINUX, reason="of ELF"),
    needs.program("readelf"),
]
CORE = Path(_core.__file__)
PACKAGE = CORE.parents[1]
WORKER = PACKAGE / "_worker"
ENDBR64 = bytes.fromhex("f30f1efa")


def guest() -> Path:
    (path,) = PACKAGE.glob("_preload*.so")
    return path


def read(path: Path, *what: str) -> str:
    return subprocess.run(
        ["readelf", "--wide", *what, path], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("path", [CORE, WORKER], ids=["module", "worker"])
def test_tables_are_read_only_and_stacks_guarded(path: Path) -> None:
    segments = read(path, "--segments")
    assert "GNU_RELRO" in segments
    assert re.search(r"GNU_STACK .* RW +0x", segments), "its stack can be executed"
    assert re.search(r"\bBIND_NOW\b|\bFlags:.* NOW\b", read(path, "--dynamic"))
    assert "__stack_chk_fail" in read(path, "--dyn-syms")


@needs.x86_64
def test_jumps_land_where_they_may() -> None:
    """Each function that can be called by its address begins with a mark (CET)."""
    assert CORE.read_bytes().count(ENDBR64) > 100
    assert WORKER.read_bytes().count(ENDBR64) > 10


def test_the_guest_claims_nothing_of_the_program_that_it_is_in() -> None:
    """It puts stacks back, which a shadow stack would not survive, and runs where there may be no
    canary."""
    assert "SHSTK" not in read(guest(), "--notes")
    assert "__stack_chk_fail" not in read(guest(), "--symbols")
