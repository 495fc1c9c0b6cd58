"""--asgi: FastAPI and Starlette as they are, a process for each request."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve.conftest import Serve
from serve.harness import Server, poll

pytest.importorskip("fastapi")

TESTS = Path(__file__).parent.parent
ITEM = {"name": "thing", "price": 1.5}


@pytest.fixture(params=["snapshot", "reset"])
def server(request: pytest.FixtureRequest, start: Serve) -> Server:
    options = ("--cwd", str(TESTS), "--strategy", str(request.param))
    return start("--asgi", "asgi.gallery", *options, command=())


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        yield client


def test_routes_and_bodies(client: httpx.Client) -> None:
    for number in range(5):
        found = client.get(f"/items/{number}", params={"q": "é"}).json()
        assert found == {"number": number, "q": "é", "seen": [str(number)]}
        assert client.get("/depends").json() == {
            "used": "session",
            "table": {"a": 2},
            "seen": ["opened"],
        }
    assert client.get("/items/x").status_code == 422
    assert client.post("/items", json=ITEM).json() == ITEM
    assert client.put("/items", json=ITEM).status_code == 405
    assert client.get("/openapi.json").json()["paths"].keys() >= {"/items", "/form"}
    upload = {"file": ("a.bin", b"x" * 3_000_000)}  # more than is kept in memory
    told = client.post("/form", data={"name": "n"}, files=upload).json()
    assert told == {"name": "n", "file": "a.bin", "size": 3_000_000, "same": True}


def test_functions_that_are_not_coroutines(client: httpx.Client) -> None:
    for _ in range(4):
        assert client.get("/sync").json() == {"used": "sync"}


def test_what_goes_wrong(client: httpx.Client, server: Server) -> None:
    missing = client.get("/missing")
    assert (missing.status_code, missing.json()) == (404, {"detail": "no such thing"})
    assert missing.headers["x-reason"] == "none"
    assert client.get("/nowhere").status_code == 404
    assert client.get("/refused").json() == {"refused": "by hand"}
    broken = client.get("/broken")
    assert (broken.status_code, broken.text) == (500, "Internal Server Error")
    server.says("ZeroDivisionError: in a handler")
    assert client.get("/items/1").json()["seen"] == ["1"]


def test_what_comes_after_the_answer(client: httpx.Client, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "later"
    assert client.get("/later", params={"file": str(file)}).json() == {"told": str(file)}
    poll(file.exists, "a background task")
    assert client.get("/depends").status_code == 200
    server.says("session closed")


def test_starlettes_answers(client: httpx.Client) -> None:
    numbers = "".join(f"{number}\n" for number in range(1000))
    streamed = client.get("/gallery/stream")
    assert (streamed.text, streamed.headers["x-stamp"]) == (numbers, "yes")
    assert streamed.headers["content-encoding"] == "gzip"
    file = client.get("/gallery/file", headers={"Accept-Encoding": "identity"})
    assert file.content == (TESTS / "asgi" / "gallery.py").read_bytes()
    assert file.headers["content-disposition"] == 'attachment; filename="gallery.py"'
    part = client.get(
        "/gallery/file", headers={"Range": "bytes=4-9", "Accept-Encoding": "identity"}
    )
    assert (part.status_code, part.content) == (206, file.content[4:10])
    assert client.head("/gallery/file").status_code == 200
    whole = gzip.compress(b"x" * 100_000)
    assert client.post("/gallery/echo", content=whole).text == str(len(whole))
    assert client.post("/gallery/echo", content=iter([b"a" * 9000, b"b"])).text == "9001"
    cookies = client.get("/gallery/cookie")
    assert cookies.status_code == 307
    assert cookies.headers.get_list("set-cookie") == [
        "a=1; Path=/; SameSite=lax",
        "b=2; Path=/; SameSite=lax",
    ]
