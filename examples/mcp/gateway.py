"""An MCP server for standard input and output, by Streamable HTTP: a process for each session."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shlex
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastspawn import Command, Engine

COMMAND = Command(shlex.split(os.environ["MCP_COMMAND"]), stderr=None)
IDLE = 600.0
MOST_SESSIONS = 100
MOST_BYTES = 1 << 20  # of a message, either way

engine = Engine()
sessions: dict[str, Session] = {}


class Session:
    """A process, and who waits for which of its answers."""

    def __init__(self) -> None:
        self.id = secrets.token_urlsafe()
        self.waiting: dict[object, asyncio.Future[bytes]] = {}

    async def start(self) -> None:
        self.process = await engine.open(COMMAND)
        self.reader = asyncio.create_task(self.read())
        self.idle = asyncio.get_running_loop().call_later(IDLE, self.reader.cancel)
        sessions[self.id] = self

    async def read(self) -> None:
        """Until the process ends, or is to: when this is cancelled."""
        async with self.process:
            try:
                async for line in self.lines():
                    if (waiter := self.waiting.get(answered(line))) and not waiter.done():
                        waiter.set_result(line)
            finally:
                sessions.pop(self.id, None)
                self.idle.cancel()
                for waiter in self.waiting.values():
                    if not waiter.done():
                        waiter.set_exception(HTTPException(502, "the server has ended"))

    async def lines(self) -> AsyncIterator[bytes]:
        assert self.process.stdout is not None
        rest = b""
        while len(rest) <= MOST_BYTES and (data := await self.process.stdout.read(65536)):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line

    async def tell(self, message: dict[str, Any]) -> None:
        self.idle.cancel()
        self.idle = asyncio.get_running_loop().call_later(IDLE, self.reader.cancel)
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        await self.process.stdin.drain()

    async def ask(self, message: dict[str, Any]) -> bytes:
        number = message["id"]
        if not isinstance(number, int | str) or number in self.waiting:
            raise HTTPException(400, "an id that is none, or is used")
        waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.waiting[number] = waiter
        try:
            await self.tell(message)
            return await waiter
        finally:
            self.waiting.pop(number, None)


def answered(line: bytes) -> object:
    """The id of the request that it answers; None for all that is no answer."""
    with contextlib.suppress(ValueError):
        said = json.loads(line)
        if (
            isinstance(said, dict)
            and "method" not in said
            and isinstance(said.get("id"), int | str)
        ):
            return said["id"]
    return None


def find(request: Request) -> Session:
    if session := sessions.get(request.headers.get("mcp-session-id", "")):
        return session
    raise HTTPException(404, "no such session")


async def message_of(request: Request) -> dict[str, Any]:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise HTTPException(413)
    with contextlib.suppress(ValueError):
        message = json.loads(body)
        if isinstance(message, dict):
            return message
    raise HTTPException(400, "not a message")


async def post(request: Request) -> Response:
    message = await message_of(request)
    if message.get("method") == "initialize":
        if len(sessions) >= MOST_SESSIONS:
            raise HTTPException(503, "too many sessions")
        session = Session()
        await session.start()
    else:
        session = find(request)
    if "method" in message and "id" in message:
        answer = await session.ask(message)
        fields = {"Mcp-Session-Id": session.id}
        return Response(answer, media_type="application/json", headers=fields)
    await session.tell(message)
    return Response(status_code=202)


async def delete(request: Request) -> Response:
    find(request).reader.cancel()
    return Response(status_code=204)


async def mcp(request: Request) -> Response:
    """A page of another site has no business here, wherever the name of its host leads."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "a page of another site")
    return await (post if request.method == "POST" else delete)(request)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with engine:
        yield


app = Starlette(
    routes=[Route("/mcp", mcp, methods=["POST", "DELETE"])],
    middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1"])],
    lifespan=lifespan,
)
