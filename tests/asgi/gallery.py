"""An application of FastAPI, mounted beside one of Starlette: what their tutorials show."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, File, Form, HTTPException, UploadFile
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from starlette.routing import Mount, Route

from asgi.validator import validated

seen: list[str] = []


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    yield {"table": {"a": 1}}


class Item(BaseModel):
    name: str
    price: float


class Refusal(Exception):
    pass


shop = FastAPI(lifespan=lifespan)


async def session() -> AsyncIterator[str]:
    seen.append("opened")
    yield "session"
    print("session closed")


def sync_session() -> Iterator[str]:
    yield "sync"


@shop.exception_handler(Refusal)
async def refused(request: Request, error: Refusal) -> JSONResponse:
    return JSONResponse({"refused": str(error)}, 418)


@shop.get("/items/{number}")
async def item(number: int, q: str = "") -> dict[str, Any]:
    seen.append(str(number))
    return {"number": number, "q": q, "seen": seen}


@shop.get("/sync")
def sync(used: Annotated[str, Depends(sync_session)]) -> dict[str, str]:
    return {"used": used}


@shop.get("/depends")
async def depends(used: Annotated[str, Depends(session)], request: Request) -> dict[str, Any]:
    request.state.table["a"] += 1
    return {"used": used, "table": request.state.table, "seen": seen}


@shop.post("/items")
async def create(item: Item) -> Item:
    return item


@shop.post("/form")
async def form(name: Annotated[str, Form()], file: Annotated[UploadFile, File()]) -> dict[str, Any]:
    data = await file.read()
    return {"name": name, "file": file.filename, "size": len(data), "same": len(set(data)) == 1}


@shop.get("/missing")
async def missing() -> None:
    raise HTTPException(404, "no such thing", {"X-Reason": "none"})


@shop.get("/refused")
async def refuses() -> None:
    raise Refusal("by hand")


@shop.get("/broken")
async def broken() -> None:
    raise ZeroDivisionError("in a handler")


def write(file: str) -> None:
    Path(file).write_text("written afterwards")


@shop.get("/later")
async def later(file: str, tasks: BackgroundTasks) -> dict[str, str]:
    tasks.add_task(write, file)
    return {"told": file}


async def stream(request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        for number in range(1000):
            yield f"{number}\n"

    return StreamingResponse(pieces(), media_type="text/plain")


async def file(request: Request) -> FileResponse:
    return FileResponse(__file__, filename="gallery.py")


async def echo(request: Request) -> PlainTextResponse:
    size = 0
    async for data in request.stream():
        size += len(data)
    return PlainTextResponse(f"{size}")


async def cookie(request: Request) -> RedirectResponse:
    answer = RedirectResponse("/gallery/stream")
    answer.set_cookie("a", "1")
    answer.set_cookie("b", "2")
    return answer


class Stamp(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        answer = await call_next(request)
        answer.headers["X-Stamp"] = "yes"
        return answer


gallery = Starlette(
    routes=[
        Route("/stream", stream),
        Route("/file", file),
        Route("/echo", echo, methods=["POST"]),
        Route("/cookie", cookie),
    ],
    middleware=[Middleware(GZipMiddleware, minimum_size=100), Middleware(Stamp)],
)
shop.router.routes.append(Mount("/gallery", gallery))
app = validated(shop)
