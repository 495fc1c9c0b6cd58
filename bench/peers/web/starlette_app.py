"""A Starlette application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from bench.peers.web.page import HELLO


async def say(request: Request) -> PlainTextResponse:
    return PlainTextResponse(HELLO)


hello = Starlette(routes=[Route("/", say)])
