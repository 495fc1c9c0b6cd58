"""Applications of Flask, Django and Bottle run unchanged, and no request sees what another left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import needs
from serve.conftest import Serve
from serve.harness import Server

APPLICATIONS = Path(__file__).parents[1] / "applications"
MANY = 12
"""Requests, so that residents have served some before."""

for framework in ("flask", "bottle", "django"):
    pytest.importorskip(framework)


@pytest.fixture(
    params=[
        pytest.param("snapshot", marks=needs.templates),
        pytest.param(
            "reset",
            marks=needs.residents,
        ),
    ]
)
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def client_of(server: Server) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60, trust_env=False)


def file(size: int) -> dict[str, tuple[str, bytes]]:
    return {"file": ("a note.bin", bytes(size))}


def check_strategy(server: Server, strategy: str) -> None:
    """Requests are forks at the checkpoint, or residents of it, and go on to be."""
    if strategy == "reset":
        server.says("residents begin at its checkpoint")
    errors = server.errors()
    assert "is snapshot" not in errors
    assert "start so" not in errors


def test_flask(start: Serve, strategy: str) -> None:
    where = ("--cwd", str(APPLICATIONS), "--strategy", strategy, "--spawners", "1")
    server = start("--wsgi", "flaskshop:create_app('hi')", *where, command=())
    with client_of(server) as client:
        for i in range(1, MANY):
            assert client.get("/").text == "hi 1"
            assert client.get("/cart").json() == {"things": i, "served": 1}
        for size in (10, 3_000_000):
            answer = client.post("/upload", files=file(size))
            assert answer.json() == {"name": "a note.bin", "size": size, "served": 1}
        assert client.get("/away").headers["location"] == "/"
        assert client.get("/stream").text == "0\n1\n2\n"
        assert client.get("/nowhere").status_code == 404
        answer = client.get("/fails")
        assert (answer.status_code, "LookupError" in answer.text) == (500, False)
        assert client.get("/").text == "hi 1"
    server.says("LookupError: in Flask")
    check_strategy(server, strategy)


IMPORTING = """
import sys

from flask import Flask, Response

app = Flask("app")


@app.route("/")
def say():
    return Response("hi", mimetype="text/plain")


def application(environ, start_response):
    before = set(sys.modules)
    answer = app(environ, lambda status, fields: None)
    assert b"".join(answer) == b"hi"
    answer.close()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr(sorted(set(sys.modules) - before)).encode()]
"""


def test_a_request_imports_nothing(start: Serve, strategy: str, tmp_path: Path) -> None:
    """What it would import, each would import anew: of an answer of Flask's that is most."""
    (tmp_path / "app.py").write_text(IMPORTING)
    server = start("--wsgi", "app", "--cwd", str(tmp_path), "--strategy", strategy, command=())
    with client_of(server) as client:
        for _ in range(MANY):
            assert client.get("/").text == "[]"
    check_strategy(server, strategy)


def test_bottle(start: Serve, strategy: str) -> None:
    where = ("--cwd", str(APPLICATIONS), "--strategy", strategy, "--spawners", "1")
    server = start("--wsgi", "bottleshop:app", *where, command=())
    with client_of(server) as client:
        for _ in range(MANY):
            assert client.get("/").text == "hello 1"
        for size in (10, 3_000_000):
            answer = client.post("/upload", files=file(size))
            assert answer.json() == {"name": "a-note.bin", "size": size}
        assert client.get("/stream").text == "0\n1\n2\n"
        assert client.get("/nowhere").status_code == 404
    check_strategy(server, strategy)


def test_django(
    start: Serve, strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sessions in sqlite, its files, its forms."""
    project = APPLICATIONS / "djangoproject"
    monkeypatch.setenv("NOTES_PLACE", str(tmp_path))
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v", "0"], cwd=project, env=os.environ, check=True
    )
    where = ("--cwd", str(project), "--strategy", strategy, "--spawners", "1")
    server = start("--wsgi", "notes.wsgi", *where, command=())
    with client_of(server) as client, client_of(server) as other:
        for i in range(1, MANY):
            assert client.get("/").json() == {"visits": i, "served": 1}
        assert other.get("/").json() == {"visits": 1, "served": 1}
        token = client.get("/token").text
        fields = {"X-CSRFToken": token}
        assert client.post("/users", data={"name": "ada"}).status_code == 403
        for name in ("ada", "grace"):
            answer = client.post("/users", data={"name": name}, headers=fields)
        assert answer.json() == {"users": ["ada", "grace"]}
        for size in (10, 3_000_000):  # in memory, and in a temporary file
            answer = client.post("/upload", files=file(size), headers=fields).json()
            assert (answer["size"], answer["served"]) == (size, 1)
            assert (tmp_path / "media" / answer["name"]).read_bytes() == bytes(size)
        assert client.get("/nowhere").status_code == 404
        assert client.get("/fails").status_code == 500
        assert client.get("/").json() == {"visits": MANY, "served": 1}
    server.says("LookupError: in Django")
    assert not re.findall("database is locked", server.errors())
    check_strategy(server, strategy)
