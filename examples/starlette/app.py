"""A Starlette application, parts of which are other programs."""

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from fastspawn.asgi import ProcessApp

sort = ProcessApp(["sort", "-u"], exec_timeout="10s", max_body="10M", max_inflight=16)
report = ProcessApp(["./report.sh"], mode="cgi")


async def index(request: Request) -> PlainTextResponse:
    return PlainTextResponse("try /sort and /report\n")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with sort, report:
        yield


routes = [Route("/", index), Mount("/sort", sort), Mount("/report", report)]
app = Starlette(routes=routes, lifespan=lifespan)
