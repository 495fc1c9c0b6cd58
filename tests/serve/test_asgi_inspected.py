"""--asgi by the rules of asgion, an inspector of ASGI that others have written."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.conftest import Serve
from serve.harness import Client, Server

for name in ("asgion", "fastapi"):
    pytest.importorskip(name)

TESTS = str(Path(__file__).parent.parent)


@pytest.fixture(params=["snapshot", "reset"])
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def inspected(start: Serve, application: str, strategy: str, *options: str) -> Server:
    options = ("--cwd", TESTS, "--strategy", strategy, *options)
    return start("--asgi", f"asgi.inspected:{application}", *options, command=())


def ask(client: Client, method: str, target: str, body: bytes = b"") -> int:
    client.request(method, target, f"Content-Length: {len(body)}", body=body)
    return client.read(head=method == "HEAD" or target == "/status/204").status


def test_a_plain_application(start: Serve, strategy: str, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    server = inspected(start, "plain", strategy, "--set-env", f"NOTES={tmp_path / 'notes'}")
    with server.connect() as client:
        for target in ("/", "/scope?a=%20", "/threads", "/end", f"/on?{tmp_path}", "/task"):
            assert ask(client, "GET", target) == 200
        assert ask(client, "POST", "/echo", b"x" * 200_000) == 200
        assert ask(client, "HEAD", "/") == 200
        assert ask(client, "GET", "/status/418") == 418
    server.stop()
    assert "start" in (tmp_path / "notes").read_text()
    assert "VIOLATION" not in server.errors()


def test_frameworks(start: Serve, strategy: str) -> None:
    server = inspected(start, "gallery", strategy)
    with server.connect() as client:
        for target in ("/items/1?q=a", "/depends", "/sync", "/gallery/stream", "/gallery/file"):
            assert ask(client, "GET", target) == 200
        assert ask(client, "POST", "/gallery/echo", b"x" * 200_000) == 200
        for target, status in (("/missing", 404), ("/broken", 500)):
            assert ask(client, "GET", target) == status
    assert "VIOLATION" not in server.errors()


def test_it_finds_what_is_broken(start: Serve) -> None:
    server = inspected(start, "plain", "snapshot")
    with server.connect() as client:
        assert ask(client, "GET", "/status/204") == 204
    server.says("VIOLATION HF-012")  # a body where there is none
