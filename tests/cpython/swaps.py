"""What is put in the standard library's place before a suite of CPython's is imported."""

from __future__ import annotations


def nothing() -> None:
    """The standard library as it is: what ours is compared with."""


PAIRS: list[tuple[str, str]] = []
"""Each suite, and the swap under which it has to pass."""
