"""Random state that forks would share: of what has no handler for forks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from fastspawn import _core


def keep() -> None:
    """Once, above a checkpoint: look for what each fork shall draw anew."""
    sqlite: Any = sys.modules.get("_sqlite3")
    if sqlite is not None:
        _core._find_sqlite(getattr(sqlite, "__file__", None))


def renew() -> None:
    """In each fork. ``random`` has a handler of its own, and so has what asks the kernel each time
    (``secrets``, ``uuid.uuid4``) or knows its pid (``ssl``, ``tempfile``)."""
    _core._reseed_sqlite()
    for name, renew_it in _RENEW.items():
        module: Any = sys.modules.get(name)
        if module is not None:
            renew_it(module)


class _OwnClock:
    """libuuid keeps its clock sequence where no one can set it: another takes its place, so that
    two forks in the same moment differ (RFC 9562, section 6.1). No uniqueness is vouched for."""

    def __init__(self, generate: Any) -> None:
        self.generate = generate
        self.sequence = 0x8000 | int.from_bytes(os.urandom(2), "big") & 0x3FFF

    def __call__(self) -> tuple[bytes, int]:
        value, _ = self.generate()
        return value[:8] + self.sequence.to_bytes(2, "big") + value[10:], -1


def _renew_uuid(uuid: Any) -> None:
    for name in ("_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7"):
        if hasattr(uuid, name):
            setattr(uuid, name, None)
    generate = getattr(uuid, "_generate_time_safe", None)
    if generate is not None:
        uuid._generate_time_safe = _OwnClock(generate)


_RENEW: dict[str, Callable[[Any], object]] = {
    "apsw": lambda apsw: apsw.randomness(0),  # it may have an SQLite of its own
    "numpy.random": lambda random: random.seed(),
    "uuid": _renew_uuid,
}
