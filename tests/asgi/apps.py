"""Applications for the servers under test, made of what the environment says."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.routing import Mount

from fastspawn.asgi import ProcessApp

options = json.loads(os.environ["APP_OPTIONS"])
app = ProcessApp(options.pop("command", None), **options)


@contextlib.asynccontextmanager
async def lifespan(outer: Starlette) -> AsyncIterator[None]:
    async with app:
        yield


mounted = Starlette(routes=[Mount("/sub/dir", app)], lifespan=lifespan)
"""Starlette does not tell what it mounts of its lifespan."""
lazy = Starlette(routes=[Mount("/sub/dir", app)])
