"""ProcessApp by itself, called as a server calls it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import needs
from fastspawn import Command, Limits
from fastspawn.asgi import ProcessApp
from serve.harness import BOUND, children
from support import async_poll


async def call(
    app: ProcessApp,
    body: bytes = b"in",
    headers: Sequence[tuple[bytes, bytes]] = (),
    **more: str,
) -> tuple[object, bytes]:
    """What a server does for a request."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}, {"type": "end"}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, object]:
        return next(messages)

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    await app({**scope, "http_version": "1.1", **more}, receive, send)
    start, *bodies = sent
    return start["status"], b"".join(each["body"] for each in bodies)


@needs.residents
def test_residents_are_told_of_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """There is no timer here: when a process serves its second request, it has been said."""
    begin = "--strategy reset: residents begin at its first effect"

    async def serve() -> None:
        pids = []
        async with ProcessApp(["sh", "-c", "echo $$"], strategy="reset") as app:
            while len(pids) < 3000 and len(set(pids)) == len(pids):
                pids.append((await call(app))[1])
            assert len(set(pids)) < len(pids)
            assert caplog.messages.count(begin) == 1

    with caplog.at_level(logging.INFO, "fastspawn.asgi"):
        asyncio.run(serve())


@pytest.mark.parametrize("mode", ["raw", "cgi"])
def test_standard_error_in_the_log(caplog: pytest.LogCaptureFixture, mode: str) -> None:
    text = r"printf 'Content-Type: a/b\n\n'; printf 'one\n\033[2J' >&2; echo $$ >&2"
    app = ProcessApp(["sh", "-c", text], mode=mode, stderr="log")  # type: ignore[arg-type]

    async def serve() -> None:
        async with app:
            assert (await call(app))[0] == 200

    asyncio.run(serve())
    records = [each for each in caplog.records if each.name == "fastspawn.asgi.stderr"]
    first, second = (each.getMessage() for each in records)
    found = re.fullmatch(r"- POST / pid=(\d+): one", first)
    assert found is not None
    assert second == f"- POST / pid={found[1]}: \\x1b[2J{found[1]}"


def test_blanks_around_a_value() -> None:
    """As servers hand on what llhttp leaves there."""
    app = ProcessApp(
        ["sh", "-c", r"printf 'Content-Type: text/plain\n\n'; echo [$SERVER_NAME] [$HTTP_X_A]"],
        mode="cgi",
    )

    async def serve() -> tuple[object, bytes]:
        async with app:
            return await call(app, headers=[(b"Host", b"\texample.org \t"), (b"X-A", b" b ")])

    assert asyncio.run(serve()) == (200, b"[example.org] [b]\n")


@pytest.mark.parametrize("name", ["script", "nph-script"])
def test_the_protocol_has_a_minor_number(name: str, tmp_path: Path) -> None:
    """And a script that writes the whole answer is asked for one that can be read here."""
    whole = "HTTP/1.1 200 OK\\n" if name == "nph-script" else ""
    file = tmp_path / name
    file.write_text(
        f"#!/bin/sh\nprintf '{whole}Content-Type: text/plain\\n\\n'; echo $SERVER_PROTOCOL\n"
    )
    file.chmod(0o755)
    app = ProcessApp([str(file)], mode="cgi")

    async def serve() -> list[bytes]:
        async with app:
            return [(await call(app, http_version=v))[1] for v in ("1.1", "1", "2")]

    last = b"HTTP/1.1\n" if name == "nph-script" else b"HTTP/2.0\n"
    assert asyncio.run(serve()) == [b"HTTP/1.1\n", b"HTTP/1.0\n", last]


@pytest.mark.parametrize("mode", ["raw", "cgi"])
def test_a_tunnel_is_refused(mode: Any) -> None:
    """Also where the server has made a path of its target."""
    app = ProcessApp(["echo"], mode=mode)

    async def serve() -> tuple[object, bytes]:
        async with app:
            return await call(app, method="CONNECT", path="/apihost:80")

    assert asyncio.run(serve())[0] == 501


class TooMuch(Exception):
    """Of a middleware's."""


@pytest.mark.parametrize("mode", ["raw", "cgi"])
@pytest.mark.parametrize("length", [None, b"2"])
@pytest.mark.parametrize("more", [True, False])
def test_a_middleware_that_ends_the_call(mode: Any, length: bytes | None, more: bool) -> None:
    """What it raises where the body is read is raised, and the process does not run on."""
    app = ProcessApp(["sh", "-c", "cat; exec sleep 600"], mode=mode)
    fields = [] if length is None else [(b"content-length", length)]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/"}
    messages = [{"type": "http.request", "body": b"in", "more_body": more}]

    async def receive() -> dict[str, Any]:
        if not messages:
            raise TooMuch
        return messages.pop()

    async def send(message: Any) -> None:
        pass

    async def serve() -> None:
        async with app:
            with pytest.raises(TooMuch):
                await app({**scope, "headers": fields}, receive, send)
            await async_poll(lambda: not children(os.getpid()), "the process is gone")

    asyncio.run(asyncio.wait_for(serve(), BOUND))


def test_event_loops_that_end_without_a_word() -> None:
    """Each has an engine of its own; what one has left is ended by the next."""
    app = ProcessApp(["cat"])

    for _ in range(2):
        assert asyncio.run(call(app)) == (200, b"in")

    async def end() -> None:
        async with app:
            assert await call(app) == (200, b"in")
        await app.aclose()

    asyncio.run(end())


@pytest.mark.parametrize(
    ("command", "options", "error"),
    [
        ("echo hi", {}, TypeError),
        (None, {}, TypeError),
        (["echo"], {"port": 1}, TypeError),
        (["echo"], {"nonsense": 1}, TypeError),
        (["echo"], {"mode": "other"}, ValueError),
        (["echo"], {"status": {"1": 99}}, ValueError),
        (["echo"], {"status": "1=404", "mode": "cgi"}, ValueError),
        (["echo"], {"exec_timeout": "soon"}, ValueError),
        (["echo"], {"cgi_dir": "/"}, ValueError),
        (Command(["echo"], umask=0o77), {}, ValueError),
        (Command(["echo"], start_new_session=True), {}, ValueError),
    ],
)
def test_options_that_cannot_be(
    command: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        ProcessApp(command, **options)


def test_a_command_object(tmp_path: Path) -> None:
    app = ProcessApp(
        Command(["true"], cwd=tmp_path, env={"A": "b"}, limits=Limits(timeout=3)), max_body="1k"
    )
    config = app.config
    assert (config.command, config.cwd, config.exec_timeout) == (("true",), str(tmp_path), 3)
    assert (config.clear_env, config.set_env, config.max_body) == (True, (("A", "b"),), 1024)
