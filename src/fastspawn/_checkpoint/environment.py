"""os.environ follows the one that C sees, which csrc/guest/environment.c makes for each fork."""

from __future__ import annotations

import os
import time
from typing import Any

from fastspawn import _core


def _environment() -> dict[bytes, bytes]:
    entries = (entry.partition(b"=") for entry in _core._environment())
    return {name: value for name, equals, value in entries if equals}


class Environment:
    def __init__(self) -> None:
        self._seen = _environment()

    def follow(self) -> None:
        """Only by differences: what the program has in os.environ alone, or in C alone, stays."""
        new, old = _environment(), self._seen
        self._seen = new
        for name in old.keys() - new.keys():
            _set(name, None)
        for name, value in new.items():
            if old.get(name) != value:
                _set(name, value)
        if old.get(b"TZ") != new.get(b"TZ"):
            time.tzset()  # C has done so; the module's variables have not


def _set(name: bytes, value: bytes | None) -> None:
    environ: Any = os.environ
    data = getattr(environ, "_data", None)
    if data is not None:  # C has it already
        key: Any = name
        to: Any = value
    else:  # the program has put a dict there
        data, key, to = environ, os.fsdecode(name), None if value is None else os.fsdecode(value)
    if to is None:
        data.pop(key, None)
    else:
        data[key] = to
