#!/bin/sh
# websockets 17.4 (Python): close() with more unread messages than its queue holds waits for the whole
# of close_timeout and is an abnormal closure (1006), while the server says that it was a normal one.
#
# Expected: close() is for who reads no more. What is unread is thrown away, or kept for later, and
# the server's Close, which comes at once, ends it with 1000, as it does while fewer than max_queue (16)
# messages wait.
# Seen: from the 17th on reading stops until somebody takes a message, which nobody does who is in
# close(); so the Close that lies behind them is never read. The clients for asyncio and for threads alike.
# Leaving a subscription that has gone on meanwhile takes ten seconds by default, and 1006 looks like
# a broken connection in whatever counts those. max_queue=None ends at once, and so does close_timeout=0,
# with 1006; reading on in another task or thread until the end is what gives 1000.
#
# Needs Python 3.10 or newer and the package index. Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >leave.py <<'END'
import asyncio
import time
from typing import Any

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_sync

TIMEOUT = 3.0
"""What close() may take."""


async def tell(websocket: Any, ended: list[int]) -> None:
    """Sends as many messages as the path says, and waits for the end."""
    for i in range(int(websocket.request.path[1:])):
        await websocket.send(str(i))
    try:
        async for _ in websocket:
            pass
    except ConnectionClosed:
        pass
    ended.append(websocket.close_code)


async def leave(uri: str, **options: Any) -> tuple[int, bool]:
    async with connect(uri, close_timeout=TIMEOUT, **options) as websocket:
        await asyncio.sleep(0.5)  # all has come that is read
        begun = time.monotonic()
        await websocket.close()
        return websocket.close_code, time.monotonic() - begun >= TIMEOUT


def leave_sync(uri: str, **options: Any) -> tuple[int, bool]:
    with connect_sync(uri, close_timeout=TIMEOUT, **options) as websocket:
        time.sleep(0.5)
        begun = time.monotonic()
        websocket.close()
        return websocket.close_code, time.monotonic() - begun >= TIMEOUT


async def main() -> None:
    ended: list[int] = []
    async with serve(lambda websocket: tell(websocket, ended), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for count in (16, 40):
            for options in ({}, {"max_queue": None}):
                uri = f"ws://127.0.0.1:{port}/{count}"
                one = await leave(uri, **options)
                other = await asyncio.to_thread(leave_sync, uri, **options)
                while len(ended) < 2:
                    await asyncio.sleep(0.01)
                print(count, options or "as it is", "asyncio:", *one, "threads:", *other, "server:", *ended)
                ended.clear()


asyncio.run(main())
END

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check websockets==17.4
seen=$(venv/bin/python leave.py)
echo "unread, options; its code, and whether it took all of close_timeout; the server's codes"
echo "$seen"
test "$seen" = "16 as it is asyncio: 1000 False threads: 1000 False server: 1000 1000
16 {'max_queue': None} asyncio: 1000 False threads: 1000 False server: 1000 1000
40 as it is asyncio: 1006 True threads: 1006 True server: 1000 1000
40 {'max_queue': None} asyncio: 1000 False threads: 1000 False server: 1000 1000" || {
    echo "changed"
    exit 1
}
