"""Templates that come from more files than fit a message: each of them is watched."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import needs
from fastspawn import Command, Limits, Template, TemplateError
from support import async_poll

pytestmark = needs.x86_64

FILES = 1000
PADDING = "x" * 200
"""Of each name, so that their records are 300 KB."""
READS = """
    #include <fcntl.h>
    #include <stdio.h>
    #include <unistd.h>
    int main(int argc, char **argv) {
        char name[500], byte;
        int sum = 0;
        for (int i = 0; i < %d; i++) {
            sprintf(name, "%%d-%s", i);
            int fd = open(name, O_RDONLY);
            if (read(fd, &byte, 1) == 1) sum += byte - '0';
            close(fd);
        }
        dprintf(1, "%%d", sum);
    }
"""
IMPORTS = """
import sys, types
from fastspawn import checkpoint
for i in range({files}):
    module = sys.modules[f"m{{i}}"] = types.ModuleType(f"m{{i}}")
    module.__file__ = f"{folder}/{{i}}-{padding}"
with open(module.__file__) as file:
    said = file.read()
checkpoint()
print(said)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As packages are installed in, at the checkpoint."""
    folder = tmp_path / "lib" / "site-packages" / "many"
    folder.mkdir(parents=True)
    for i in range(FILES):
        (folder / f"{i}-{PADDING}").write_text("0")
    return folder


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    (tmp_path / "program.c").write_text(READS % (FILES, PADDING))
    subprocess.run(["cc", "-O1", "-w", "program.c", "-o", "program"], cwd=tmp_path, check=True)
    return tmp_path / "program"


def rewrite(path: Path, text: str) -> None:
    """In its place: nothing of the directory changes."""
    with path.open("r+") as file:
        file.write(text)


async def seen(template: Template, text: bytes) -> None:
    async def is_seen() -> bool:
        return (await template.run()).stdout.strip() == text

    await async_poll(is_seen, f"{text!r}")


def test_each_is_watched(folder: Path, reader: Path) -> None:
    async def main() -> None:
        command = Command([reader], cwd=folder)
        async with Template(command, size=1, at="effect", start_timeout=60) as template:
            assert (await template.run()).stdout == b"0"
            assert (template.stats["forked"], template.stats["direct"]) == (1, 0)
            for n, i in enumerate((0, FILES // 2, FILES - 1), 1):
                stale = template.stats["stale"]
                rewrite(folder / f"{i}-{PADDING}", "1")
                await seen(template, b"%d" % n)
                assert template.stats["stale"] > stale
                await async_poll(lambda: template.stats["ready"], "another template")

    asyncio.run(main())


def test_no_room_is_the_reason(folder: Path, reader: Path) -> None:
    """A program may write no file, and memory with a name counts as one."""

    limits = Limits(rlimits={resource.RLIMIT_FSIZE: (1000, 1000)})

    async def main() -> None:
        command = Command([reader], cwd=folder, limits=limits)
        with pytest.raises(TemplateError, match="more files than can be watched"):
            async with Template(command, size=1, at="effect", start_timeout=60):
                pass
        async with Template(command, size=1, at="fixed", start_timeout=60) as template:
            assert (await template.run()).stdout == b"0"
            assert template.kind == "main"

    asyncio.run(main())


def test_all_that_was_imported(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(IMPORTS.format(files=FILES, folder=folder, padding=PADDING))

    async def main() -> None:
        async with Template([sys.executable, script], size=1, start_timeout=60) as template:

            async def is_at_checkpoint() -> bool:
                assert (await template.run()).stdout == b"0\n"
                return template.kind == "checkpoint"

            await async_poll(is_at_checkpoint, "a checkpoint")
            rewrite(folder / f"{FILES - 1}-{PADDING}", "1")
            await seen(template, b"1")
            assert template.no_checkpoint is None

    asyncio.run(main())
