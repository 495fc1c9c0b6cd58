"""Commands as ASGI applications (ASGI 3.0): what ``fastspawn.serve`` does, under any server.

    app = ProcessApp(["sort"])                              # uvicorn module:app
    routes = [Mount("/git", ProcessApp(["git", "http-backend"], mode="cgi"))]

Needs an asyncio (or uvloop) event loop. What ASGI can't do is in docs/asgi.md.
"""

from __future__ import annotations

from fastspawn import _core  # noqa: F401 - as in aio

from ._app import ProcessApp
from ._exchange import Aborted

__all__ = ["Aborted", "ProcessApp"]
