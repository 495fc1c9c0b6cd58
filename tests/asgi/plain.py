"""An application without a framework; what it does is in the path."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from asgi.validator import validated

count = 0
print("imported")


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    notes = os.environ.get("NOTES")
    if notes is None:
        raise RuntimeError("no lifespan")
    await receive()
    scope["state"]["calls"] = []
    await asyncio.to_thread(note, notes, "start")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    note(notes, "stop")
    await send({"type": "lifespan.shutdown.complete"})


def note(file: str, what: str) -> None:
    with open(file, "a") as notes:
        notes.write(f"{what} {os.getpid()}\n")


async def answer(send: Any, text: str, status: int = 200, *fields: tuple[bytes, bytes]) -> None:
    data = text.encode()
    head = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(data)), *fields]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": data})


async def counts(scope: Any, receive: Any, send: Any) -> None:
    global count
    count += 1
    calls = scope["state"].setdefault("calls", [])
    calls.append(count)
    await answer(send, f"{count} {calls} {asyncio.all_tasks().__len__()}")


async def echoes(scope: Any, receive: Any, send: Any) -> None:
    """Each piece as it comes."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        piece = {"type": "http.response.body", "body": message["body"], "more_body": more}
        await send(piece)


async def fails(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("of the application's own")


async def fails_late(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})
    raise ValueError("of the application's own")


async def says_nothing(scope: Any, receive: Any, send: Any) -> None:
    pass


async def stops_short(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})


async def prints(scope: Any, receive: Any, send: Any) -> None:
    print("of the application")
    subprocess.run([sys.executable, "-c", "print('of its child')"], check=True)
    await answer(send, "answer")


async def goes_on(scope: Any, receive: Any, send: Any) -> None:
    folder = Path(scope["query_string"].decode())
    await answer(send, "answer")
    while not (folder / "go").exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)
    (folder / "went").write_text("on")


async def leaves_a_task(scope: Any, receive: Any, send: Any) -> None:
    async def works() -> None:
        await asyncio.sleep(0.01)
        print("task has ended")

    async def generates() -> Any:
        try:
            yield 1
            yield 2
        finally:
            print("generator has ended")

    task = asyncio.ensure_future(works())
    generator = generates()
    await generator.__anext__()
    await answer(send, f"{task.done()}")


async def threads(scope: Any, receive: Any, send: Any) -> None:
    pieces = [asyncio.to_thread(lambda number=number: number * 2) for number in range(5)]
    await answer(send, str(await asyncio.gather(*pieces)))


async def waits_for_the_end(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    listener = asyncio.ensure_future(receive())
    await answer(send, "answer")
    print((await listener)["type"])


PATHS = {
    "/": counts,
    "/echo": echoes,
    "/fail": fails,
    "/late": fails_late,
    "/nothing": says_nothing,
    "/short": stops_short,
    "/print": prints,
    "/on": goes_on,
    "/task": leaves_a_task,
    "/threads": threads,
    "/end": waits_for_the_end,
}


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["path"] == "/scope":
        keys = "method path raw_path query_string root_path headers client server http_version"
        await answer(send, repr({key: scope[key] for key in keys.split()}))
    elif scope["path"].startswith("/status"):
        await answer(send, "x" * 10, int(scope["path"].removeprefix("/status/")))
    else:
        await PATHS[scope["path"]](scope, receive, send)


app = validated(application)
