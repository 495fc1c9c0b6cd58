"""What a program file is: can its processes be stopped before main by a preloaded object?

Read from the file alone, before anything is run: a program that does not load the object would
run for good where only a template was meant to start.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import subprocess
from typing import Final

from fastspawn._executable import shebang

_PT_LOAD: Final = 1
_PT_DYNAMIC: Final = 2
_PT_INTERP: Final = 3
_DT_STRTAB: Final = 5
_DT_STRSZ: Final = 10
_MACHINE: Final = 18
"""Where e_machine is."""
_MAX_SCRIPTS: Final = 4
"""Scripts whose interpreter is a script (the kernel's own limit, BINPRM_MAX_RECURSION)."""


class _Elf:
    """The few parts of a 64-bit little-endian ELF file that matter (elf(5))."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.machine: int = struct.unpack_from("<H", data, _MACHINE)[0]
        (offset,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        # type, flags, offset, vaddr, paddr, filesz, memsz, align
        self._segments = [
            struct.unpack_from("<IIQQQQQQ", data, offset + i * size) for i in range(count)
        ]

    def _segment(self, kind: int) -> bytes | None:
        for segment in self._segments:
            if segment[0] == kind:
                return self._data[segment[2] : segment[2] + segment[5]]
        return None

    @property
    def interpreter(self) -> bytes | None:
        """The dynamic linker that it asks for; None: it is statically linked."""
        segment = self._segment(_PT_INTERP)
        return None if segment is None else segment.rstrip(b"\0")

    def names(self) -> bytes:
        """The names of its dynamic symbols and libraries, NUL after each."""
        dynamic = self._segment(_PT_DYNAMIC) or b""
        tags = dict(struct.iter_unpack("<QQ", dynamic[: len(dynamic) // 16 * 16]))
        address, size = tags.get(_DT_STRTAB, 0), tags.get(_DT_STRSZ, 0)
        for kind, _, offset, start, _, filesz, _, _ in self._segments:
            if kind == _PT_LOAD and start <= address < start + filesz:
                at = offset + address - start
                return self._data[at : at + size]
        return b""


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _has_capabilities(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def _own_machine() -> int:
    """That of this very program, whose file may be where we cannot go any more."""
    with open("/proc/self/exe", "rb") as file:
        machine: int = struct.unpack_from("<H", file.read(64), _MACHINE)[0]
    return machine


def _why_not_elf(path: str, data: bytes) -> str | None:
    try:
        elf = _Elf(data)
        names = elf.names()
    except struct.error:
        return f"{path} is a damaged program"
    if not os.path.exists("/proc/self/exe"):
        return f"{path} could not look at itself: /proc is not mounted"
    if data[4:6] != b"\x02\x01" or elf.machine != _own_machine():
        return f"{path} is a program for another machine"
    if elf.interpreter is None:
        return f"{path} is statically linked: it loads no preloaded object"
    if b"\0__libc_start_main\0" not in names:
        return f"{path} does not start by libc's __libc_start_main"
    return None


def why_not_template(path: str) -> str | None:
    """Why this program cannot be a template, in words for its user; None if it can.

    Raises OSError if it is not there.
    """
    try:
        return _why_not(path)
    except PermissionError as error:
        return f"{error.filename} cannot be read: {error.strerror}"


def _why_not(path: str) -> str | None:
    for _ in range(_MAX_SCRIPTS + 1):
        mode = os.stat(path).st_mode
        if mode & (stat.S_ISUID | stat.S_ISGID):
            return f"{path} is setuid or setgid: it loads no preloaded object"
        if _has_capabilities(path):
            return f"{path} has file capabilities: it loads no preloaded object"
        data = _read(path)
        if data[:4] == b"\x7fELF":
            return _why_not_elf(path, data)
        if data[:2] != b"#!":
            return f"{path} is neither an ELF program nor a script"
        found = shebang(data[:256])
        if found is None:
            return f"{path} names no interpreter"
        path = os.fsdecode(found[0])
    return f"{path} is a script of too many scripts"


def why_no_checkpoint(path: str, search: str | None = None) -> str | None:
    """Why this program can never ask for a checkpoint; None: perhaps it can.

    The function is in the preloaded object, and found there by name: by a program, or a library of
    it, that calls dlsym(3), or loads what does (dlopen(3)), as the interpreters of Python, Ruby,
    Perl and Node do. ``search``: the PATH for a script's ``#!/usr/bin/env NAME``. Runs the dynamic
    linker, to learn which libraries there are.
    """
    try:
        path, data = _behind_scripts(path, search)
        if data[:4] != b"\x7fELF" or _may_look_up(path, _Elf(data)):
            return None
    except (OSError, struct.error, subprocess.SubprocessError):
        return None
    return f"{path} cannot call it: neither it nor a library of it looks up functions by name"


def _behind_scripts(path: str, search: str | None) -> tuple[str, bytes]:
    """The program that runs a script, and what is in its file."""
    data = _read(path)
    for _ in range(_MAX_SCRIPTS):
        found = shebang(data[:256])
        if found is None:
            break
        name = interpreter_by_env(path)
        path = os.fsdecode(found[0]) if name is None else shutil.which(name, path=search) or path
        data = _read(path)
    return path, data


def _may_look_up(path: str, elf: _Elf) -> bool:
    if elf.interpreter is None:
        return True  # no template at all, for which there is another message
    libraries = map(_names, _libraries(elf.interpreter, path))
    return any(each in names for names in (elf.names(), *libraries) for each in _REACH)


_REACH: Final = (b"dlsym\0", b"dlopen\0", b"fastspawn_checkpoint\0")
"""Ends of names: a linker lets a string share the end of a longer one (uv_dlsym)."""
_LIBC: Final = re.compile(r"(ld-linux.*|lib(c|m|dl|pthread|rt|resolv|util|anl|mvec))\.so\b.*")
"""glibc's own, which have these functions for others."""


def _names(path: str) -> bytes:
    return _Elf(_read(path)).names()


def _libraries(linker: bytes, path: str) -> list[str]:
    done = subprocess.run(
        [linker, "--list", path], stdin=subprocess.DEVNULL, capture_output=True, check=True,
        text=True, timeout=10,
    )  # fmt: skip
    files = re.findall(r" => (/.*) \(0x", done.stdout)
    return [file for file in files if not _LIBC.fullmatch(os.path.basename(file))]


def interpreter_by_env(path: str) -> str | None:
    """The program that a script with the line ``#!/usr/bin/env NAME`` is for; else None.

    The kernel starts env(1), and there a template would stop.
    """
    try:
        with open(path, "rb") as file:
            found = shebang(file.read(256))
    except PermissionError:
        return None  # it can be executed all the same
    if found is None or os.path.basename(found[0]) != b"env" or len(found[1].split()) != 1:
        return None
    name = found[1]
    return None if name.startswith(b"-") or b"=" in name else os.fsdecode(name)
