"""Why execve(2) refuses a file that is there and may be executed, in words for its owner.

The kernel says "No such file or directory" of a script that is there when its interpreter is not,
and "Exec format error" of one that names none. Read from the files alone: nothing is run.
"""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import sys
from typing import BinaryIO, Final

_HEAD: Final = 256
"""Bytes of a file that the kernel looks at (BINPRM_BUF_SIZE, Linux 5.1)."""
_MAX_SCRIPTS: Final = 5
"""Scripts whose interpreter is a script, before execve says ELOOP (exec_binprm of fs/exec.c)."""
_FORMATS: Final = "/proc/sys/fs/binfmt_misc"
_PT_INTERP: Final = 3


def shebang(head: bytes) -> tuple[bytes, bytes] | None:
    """The interpreter that a script's first line names, and its argument (empty: none), as
    load_script of Linux's fs/binfmt_script.c reads them; None: it names none.

    Only blanks and tabs end a name: a carriage return is a part of it.
    """
    if head[:2] != b"#!":
        return None
    name, _, argument = (
        head[2:].split(b"\n", 1)[0].strip(b" \t").replace(b"\t", b" ").partition(b" ")
    )
    return (name, argument.strip(b" ")) if name else None


def why_not_executed(
    path: str | bytes, cwd: str | bytes | None = None, search: str | None = None
) -> str | None:
    """Why ``path`` cannot be executed though it is there; None: no reason is known.

    ``cwd``: the working directory that it would have (an interpreter may be named relative to it),
    ``search``: its PATH, where env(1) looks. What cannot be read is not judged.
    """
    where = _below(cwd, os.fsencode(path))
    try:
        for _ in range(_MAX_SCRIPTS + 1):
            with open(where, "rb") as file:
                head = file.read(_HEAD)
                linker = _linker(file, head) if head[:4] == b"\x7fELF" else None
            if linker is not None:
                return _missing("dynamic linker", linker, cwd)
            found = shebang(head)
            if found is None:
                return _why_no_script(where, head)
            name, argument = found
            why = _missing("interpreter", name, cwd) or _why_not_env(name, argument, search)
            if why is not None:
                return why
            where = _below(cwd, name)
    except (OSError, ValueError):
        pass
    return None


def _below(cwd: str | bytes | None, name: bytes) -> str:
    return os.fsdecode(os.path.join(os.fsencode(cwd or ""), name))


def _missing(what: str, name: bytes | None, cwd: str | bytes | None) -> str | None:
    if name is None:
        return None
    file = _below(cwd, name)
    text = os.fsdecode(name)
    try:
        os.stat(file)
    except OSError as error:
        return f"its {what} {_shown(text)}: {error.strerror}{_line_ends(text)}"
    if not os.path.isfile(file) or not os.access(file, os.X_OK, effective_ids=_EFFECTIVE):
        return f"its {what} {_shown(text)}: Permission denied"
    return None


_EFFECTIVE: Final = os.access in os.supports_effective_ids


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _line_ends(name: str) -> str:
    return " (its lines end with CR LF: save it with LF)" if name.endswith("\r") else ""


def _why_not_env(interpreter: bytes, argument: bytes, search: str | None) -> str | None:
    """What env(1) would not find."""
    if os.path.basename(interpreter) != b"env":
        return None
    name = os.fsdecode(argument)
    if name.startswith("-S"):
        # "-S python3 -u": split as env does, where that is certain.
        words = shlex.split(name[2:])
        name = words[0] if words and "$" not in words[0] else ""
    if not name or name.startswith("-") or "=" in name:
        return None
    if sys.platform != "linux":
        name = name.split()[0]  # words are words there
    if shutil.which(name, path=search) is not None:
        return None
    several = " (for more than one word: env -S)" if " " in name else ""
    return f"env finds no {_shown(name)} on its PATH{several}{_line_ends(name)}"


def _why_no_script(path: str, head: bytes) -> str | None:
    """Of a file that is neither a program nor names an interpreter."""
    if b"\0" in head or _is_registered(path, head):
        return None
    return (
        "it is a script that names no interpreter: begin it with a line such as #!/bin/sh, "
        f"or run sh {shlex.quote(path)}"
    )


def _is_registered(path: str, head: bytes) -> bool:
    """Whether binfmt_misc knows the format (Documentation/admin-guide/binfmt-misc.rst)."""
    try:
        names = os.listdir(_FORMATS)
    except OSError:
        return False
    return any(
        _fits(os.path.join(_FORMATS, name), path, head)
        for name in names
        if name not in ("register", "status")
    )


def _fits(entry: str, path: str, head: bytes) -> bool:
    with open(entry, encoding="ascii", errors="replace") as file:
        lines = [line.split() for line in file]
    found = {line[0]: line[-1] for line in lines if line}
    if "enabled" not in found:
        return False
    if "extension" in found:
        return path.endswith(found["extension"])
    magic = bytes.fromhex(found.get("magic", ""))
    mask = bytes.fromhex(found["mask"]) if "mask" in found else b"\xff" * len(magic)
    start = int(found.get("offset", "0"))
    there = head[start : start + len(magic)].ljust(len(magic), b"\0")
    return bool(magic) and all(
        (a ^ b) & bits == 0 for a, b, bits in zip(there, magic, mask, strict=False)
    )


def _linker(file: BinaryIO, head: bytes) -> bytes | None:
    """The dynamic linker that a 64-bit ELF program asks for (elf(5)); None: none is known."""
    if head[4:6] != (b"\x02\x01" if sys.byteorder == "little" else b"\x02\x02"):
        return None
    try:
        (table,) = struct.unpack_from("=Q", head, 32)
        size, count = struct.unpack_from("=HH", head, 54)
        file.seek(table)
        headers = file.read(size * count)
        for i in range(count):
            kind, _, offset, _, _, length = struct.unpack_from("=IIQQQQ", headers, i * size)
            if kind == _PT_INTERP:
                file.seek(offset)
                return file.read(length).rstrip(b"\0") or None
    except struct.error:
        pass
    return None
