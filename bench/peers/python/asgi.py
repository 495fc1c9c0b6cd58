"""Peer: an ASGI application under uvicorn, one ``create_subprocess_exec`` per request.

uvicorn takes uvloop and httptools by itself where they are installed. Its access log is off, as
everyone's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from bench.peers.python.http_side import option_parser

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def application(argv: list[str]) -> Callable[[dict[str, Any], Receive, Send], Awaitable[None]]:
    async def answer(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        await send(
            {
                "type": "http.response.start",
                "status": 200 if process.returncode == 0 else 500,
                "headers": [
                    (b"content-type", b"text/plain"),
                    (b"content-length", b"%d" % len(output)),
                ],
            }
        )
        await send({"type": "http.response.body", "body": output})

    return answer


def main() -> None:
    options = option_parser(__doc__).parse_args()
    uvicorn.run(
        application(options.argv),
        host="127.0.0.1",
        port=options.port,
        lifespan="off",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
