"""A Bottle application."""

from __future__ import annotations

from collections.abc import Iterator

import bottle

served = 0
app = bottle.Bottle()


@app.get("/")
def hello() -> str:
    global served
    served += 1
    return f"hello {served}"


@app.post("/upload")
def upload() -> dict[str, object]:
    file = bottle.request.files["file"]
    return {"name": file.filename, "size": len(file.file.read())}


@app.get("/stream")
def stream() -> Iterator[str]:
    yield from (f"{i}\n" for i in range(3))
