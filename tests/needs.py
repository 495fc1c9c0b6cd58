"""What not every machine has, and the marks of the tests that need it.

``pytestmark = needs.templates`` of a file, ``@needs.program("curl")`` of a test.
"""

from __future__ import annotations

import os
import platform
import shutil
from importlib.util import find_spec

import pytest

from support import LINUX

X86_64 = LINUX and platform.machine() == "x86_64"
"""What the core knows by their numbers are its system calls."""

ROOT = os.geteuid() == 0


def which(name: str) -> str | None:
    """Debian keeps servers where only root looks."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


CC = which("cc") or which("gcc") or which("clang")
CXX = which("c++") or which("g++") or which("clang++")


def have(found: object, otherwise: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not found, reason=otherwise)


def program(name: str) -> pytest.MarkDecorator:
    return have(which(name), f"no {name}")


def module(name: str) -> pytest.MarkDecorator:
    return have(find_spec(name), f"no {name}")


linux = have(LINUX, "of Linux")
proc = have(LINUX, "reads /proc")
templates = have(LINUX, "templates are for Linux")
x86_64 = have(X86_64, "for Linux on x86-64")
effects = have(X86_64, "a first effect is watched for by Linux on x86-64")
residents = have(X86_64, "residents are for Linux on x86-64")
filters = have(X86_64, "the filters are for Linux on x86-64")
compiler = have(CC, "no C compiler")
compiler_of_cxx = have(CXX, "no C++ compiler")
glibc = have(platform.libc_ver()[0] == "glibc", "for glibc")
musl = have(which("musl-gcc"), "no musl")
root = have(ROOT, "it is root who gives rights away")
