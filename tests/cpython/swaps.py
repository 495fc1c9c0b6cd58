"""What is put in the standard library's place before a suite of CPython's is imported."""

from __future__ import annotations


def nothing() -> None:
    """The standard library as it is: what ours is compared with."""


def synchronous() -> None:
    """All that subprocess exports, ours."""
    import subprocess

    import fastspawn

    for name in (*subprocess.__all__, "list2cmdline"):
        setattr(subprocess, name, getattr(fastspawn, name))


def asyncio() -> None:
    """What asyncio's loops do to start a process, and what that builds on."""
    import fastspawn

    fastspawn.install()


PAIRS: list[tuple[str, str]] = [
    ("test.test_subprocess", "synchronous"),
    ("test.test_asyncio.test_subprocess", "asyncio"),
]
"""Each suite, and the swap under which it has to pass."""
