"""The command line of a Python script that begins to serve where its own imports have run.

Python runs the launcher (``_launch``) in its place, with the same options and arguments.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Final

_LAUNCHER: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_launch/__main__.py")
_LOOK: Final = "--look"
_PYTHON: Final = re.compile(r"python[0-9.]*[a-z]?")
_SAID: Final = 3
"""Its status when it has said why there is no such place."""
_TIMEOUT: Final = 60.0
"""Seconds to read a script, and to import the packages that a module is in."""

_VALUED: Final = "WX"
_NO_SCRIPT: Final = {
    "c": "-c is no script",
    "x": "-x skips a line of the script",
    "h": "-h runs no script",
    "?": "-? runs no script",
    "V": "-V runs no script",
}


def launched(argv: Sequence[Any]) -> tuple[Any, ...]:
    """This command line with the launcher in it, once. Raises ValueError if it runs no script."""
    words = [os.fsdecode(word) for word in argv]
    if _LAUNCHER in words:
        return tuple(argv)
    if not words or not _PYTHON.fullmatch(os.path.basename(words[0])):
        name = words[0] if words else ""
        raise ValueError(f"{name} is not Python: name it, as in: python3 SCRIPT [ARG...]")
    options, script, rest = _split(words)
    return (argv[0], *options, _LAUNCHER, *script, *argv[rest:])


def _split(words: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Python's options; the script, or -m and the module; where its arguments begin."""
    options: list[str] = []
    at = 1
    while at < len(words) and words[at].startswith("-"):
        word = words[at]
        at += 1
        if word == "--":
            break
        if word == "-":
            raise ValueError("Python reads its program from standard input: it has no script")
        if word.startswith("--"):
            if word != "--check-hash-based-pycs":
                raise ValueError(f"{word} runs no script")
            taken = 1
        else:
            taken, module = _of_cluster(word)
            if module is not None:
                options += [word[: module - 1]] if module > 2 else []
                name = word[module:] or "".join(words[at : at + 1])
                if not name:
                    break
                return options, ["-m", name], at + (not word[module:])
        options += [word, *words[at : at + taken]]
        at += taken
    if at >= len(words):
        raise ValueError("Python is given no script")
    return options, [words[at]], at + 1


def _of_cluster(word: str) -> tuple[int, int | None]:
    """How many words belong to these options (``-OOW``) besides; where in it a module's name
    begins, behind ``-m``."""
    for i, letter in enumerate(word[1:], 2):
        if letter in _NO_SCRIPT:
            raise ValueError(_NO_SCRIPT[letter])
        if letter == "m":
            return 0, i
        if letter in _VALUED:
            return int(i == len(word)), None
    return 0, None


def why_no_point(
    argv: Sequence[Any],
    cwd: Any = None,
    env: Mapping[Any, Any] | None = None,
    executable: Any = None,
) -> str | None:
    """Why there is no such place in the script of this command line (of ``launched``, perhaps with
    more before it), in a line; None: there is one. Asks its Python. Raises OSError."""
    at = [os.fsdecode(word) for word in argv].index(_LAUNCHER) + 1
    end = at + (2 if argv[at] == "-m" else 1)
    try:
        done = subprocess.run(
            [*argv[:at], _LOOK, *argv[at:end]],
            executable=executable,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"its Python did not say within {_TIMEOUT:g} s where its imports end"
    if done.returncode == 0:
        return None
    said = _last(done.stdout) if done.returncode == _SAID else ""
    return said or _last(done.stderr) or f"its Python ended with status {done.returncode}"


def _last(text: bytes) -> str:
    return text.decode(errors="backslashreplace").rstrip("\n").rpartition("\n")[2]
