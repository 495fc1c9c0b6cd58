"""What the server says of a request: CGI's variables, in one of ours.

So nothing of a request is in ``os.environ``, and nothing of that in a request: the application has
the environment that its server has, as with any other server.
"""

from __future__ import annotations

import json
import os
from typing import Any, Final

VARIABLE: Final = b"_FASTSPAWN_REQUEST"
"""An object of JSON: bytes are characters up to U+00FF, as PEP 3333 has them."""


def hide() -> bytes | None:
    """What was said, above the checkpoint; None: nothing. From ``os.environ`` alone: what is really
    unset there is unset for all requests to come (csrc/guest/environment.c)."""
    data: Any = os.environ._data  # type: ignore[attr-defined]
    said: bytes | None = data.pop(VARIABLE, None)
    return said


def take(hidden: bytes | None) -> dict[str, str] | None:
    """The same, below it, where nobody else finds it then; None: there is no request.

    ``hidden``: what was above, which is this process's own unless it has another.
    """
    said = os.environb.pop(VARIABLE, None)
    if said is None:
        said = hidden
        os.unsetenv(VARIABLE)
    return None if said is None else json.loads(said)
