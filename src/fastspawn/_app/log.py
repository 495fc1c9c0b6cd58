"""What is said on standard error, which is the server's log or goes there: other requests, and the
server itself, say something at the same time. So whatever belongs together is one write(2), and
Python's own printing of an exception is one for each line."""

from __future__ import annotations

import sys
import traceback


def tell(what: str) -> None:
    _write(f"fastspawn: {what}\n")


def tell_exception(what: str) -> None:
    """The one that is being handled."""
    _write(f"fastspawn: {what}\n{traceback.format_exc()}")


def tell_failure(error: BaseException) -> None:
    """As the interpreter would say it at its end."""
    _write("".join(traceback.format_exception(error)))


def _write(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)  # noqa: T201
