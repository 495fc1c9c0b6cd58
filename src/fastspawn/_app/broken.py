"""An application that cannot be loaded when a request is there: its source has been changed, and
something is wrong with it now.

Its requests are answered with 500, at once and from the checkpoint: so the files that it came from
are watched as those of any application, and when one of them changes it is loaded again.
"""

from __future__ import annotations

import os
import sys
import traceback
from types import ModuleType

from .load import LoadError
from .log import tell_failure
from .output import Output

_TEXT = b"the application cannot be loaded: the log says why\n"


def tell(error: BaseException, said: str) -> None:
    """In the log. ``said``: what the server was asked to serve."""
    if isinstance(error, LoadError):
        print(f"{said}: {error}", file=sys.stderr)  # noqa: T201
    else:
        tell_failure(error)


def watch(error: BaseException) -> None:
    """Let what has to do with ``error`` count as imported, which a module that failed does not."""
    files = {frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)}
    if isinstance(error, SyntaxError) and error.filename is not None:
        files.add(error.filename)
    files.add(os.getcwd())  # where a module may turn up that is missing
    for file in files:
        if os.path.isabs(file):
            stands_in = ModuleType(f"{__name__} {file}")
            stands_in.__file__ = file
            sys.modules[stands_in.__name__] = stands_in


def answer(request: dict[str, str], output: Output) -> bool:
    """500."""
    fields = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(_TEXT))),
    ]
    head_only = request["REQUEST_METHOD"] == "HEAD"
    output.write_head("500 Internal Server Error", fields, b"" if head_only else _TEXT)
    return True
