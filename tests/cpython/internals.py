"""Cases of CPython's suites that look at its own internals, each with the reason.

    suite -> case -> reason

They may fail with our names in the standard library's place; no other may that passes without.
"""

from __future__ import annotations

INTERNALS: dict[str, dict[str, str]] = {}

MOST = 0.02
"""The part of a suite that may be listed."""
