"""Durations and sizes as people write them: ``30``, ``500ms``, ``1h30m``; ``64k``, ``1M``."""

from __future__ import annotations

import re

_NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
# A bare number, or parts with units, each at most once and the larger ones first.
_DURATION = re.compile(
    rf"({_NUMBER})|(?=.)(?:({_NUMBER})h)?(?:({_NUMBER})m)?(?:({_NUMBER})s)?(?:({_NUMBER})ms)?",
    re.ASCII,
)
_SIZE = re.compile(r"(\d+)(?:([kmgt])(?:i?b)?|b)?", re.ASCII | re.IGNORECASE)

_SECONDS = (1.0, 3600.0, 60.0, 1.0, 0.001)
_BYTES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

# A year: longer is a typing error, and would overflow a C timeout somewhere below.
_LONGEST = 365 * 86400.0


def duration(text: str) -> float:
    """Seconds. A bare number is in seconds.

    Raises ValueError.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 30, 30s, 500ms or 1h30m")
    seconds = sum(
        float(part) * unit for part, unit in zip(match.groups("0"), _SECONDS, strict=True)
    )
    if seconds > _LONGEST:
        raise ValueError(f"{text!r} is more than a year")
    return seconds


def size(text: str) -> int:
    """Bytes. ``k``, ``M``, ``G`` and ``T`` are powers of 1,024, in either case.

    Raises ValueError.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 4096, 64k or 1M")
    total = int(match[1]) * (_BYTES[match[2].lower()] if match[2] else 1)
    if total >= 1 << 63:
        raise ValueError(f"{text!r} is too large")
    return total
