"""Routes: which command a request gets, and what of the request gets into the command."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastspawn.serve import cli
from fastspawn.serve.service import Service
from fastspawn.serve.strategies.maker import Strategies
from serve.conftest import Serve
from serve.harness import Response, Server

SHOW = "printf <%s> "
"""The beginning of a command that shows its arguments."""


def ask(server: Server, method: str, target: str, *fields: str, body: bytes = b"") -> Response:
    with server.connect() as client:
        client.request(method, target, *fields, body=body)
        return client.read(head=method == "HEAD")


def routes(*texts: str) -> list[str]:
    return [word for text in texts for word in ("--route", text)]


def test_routes(serve: Serve) -> None:
    server = serve(
        *routes(
            "/=echo root", "GET /user/{name}=echo user {name}", "POST,PUT /user/{name}=cat",
            "/files/{path...}=" + SHOW + "{path} x{path}y",
        ),
        *("--hold", "exit"),
        command=(),
    )  # fmt: skip
    server.says("4 routes")
    assert server.get("/").body == b"root\n"
    assert server.get("/?/user/x").body == b"root\n"
    assert server.get("/user/ann?x=y").body == b"user ann\n"
    assert server.get("http://other/user/bob").body == b"user bob\n"
    assert ask(server, "PUT", "/user/ann", "Content-Length: 2", body=b"hi").body == b"hi"
    assert server.get("/files/a/b%20c").body == b"<a/b c><xa/b cy>"
    assert server.get("//files//etc/passwd").body == b"<etc/passwd><xetc/passwdy>"
    assert server.get("/files/").body == b"<><xy>"
    head = ask(server, "HEAD", "/user/ann")
    assert (head.status, head.fields["content-length"]) == (200, "9")


def test_not_found_and_not_allowed(serve: Serve) -> None:
    server = serve(*routes("GET /a=echo a", "PUT,DELETE /a=echo b"), command=())
    with server.connect() as client:
        # None of these ends the connection.
        for target in ("/", "/b", "/a/", "/a/b", "*"):
            client.get(target)
            assert client.read().status == 404
        client.request("POST", "/a", "Content-Length: 0")
        refused = client.read()
        assert refused.status == 405
        assert refused.fields["allow"] == "DELETE, GET, HEAD, PUT"
        client.request("HEAD", "/b")
        assert client.read(head=True).status == 404
        client.get("/a")
        assert client.read().body == b"a\n"
    # With a body to come it does.
    for target, status in (("/b", 404), ("/a", 405)):
        with server.connect() as client:
            client.request("POST", target, "Content-Length: 5")
            assert client.read().status == status
            assert client.ended()
    server.logs(10)
    assert [line.split()[8] for line in server.log()].count("404") == 7


def test_command_for_the_rest(serve: Serve) -> None:
    server = serve(*routes("/a=echo a"), command=("echo", "{rest}"))
    assert server.get("/a").body == b"a\n"
    assert server.get("/b/c").body == b"{rest}\n"
    assert ask(server, "DELETE", "/").body == b"{rest}\n"


@pytest.mark.parametrize(
    "target",
    [
        "/f/..", "/f/../../etc/passwd", "/f/%2e%2e/etc", "/f/..%2f..%2fetc", "/f/a%2Fb",
        "/f/a%00b", "/f/%0d%0aX:y", "/f/%ff", "/f/%c0%ae%c0%ae", "/f/%zz", "/f/%", "/f/-rf",
        "/f/%2drf", "/f/.", "http://host/f/../x", "/../f/x",
    ],
)  # fmt: skip
def test_bad_path(start: Serve, target: str) -> None:
    server = start(*routes("/f/{path...}=echo started {path}"), command=())
    with server.connect() as client:
        client.get(target)
        answer = client.read()
        assert answer.status == 400
        assert b"started" not in answer.body
        client.get("/f/x")
        assert client.read().body == b"started x\n"


def test_values_reach_no_shell(serve: Serve, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    value = f"%24(touch%20{trap.name});%60touch%20{trap.name}%60'%22%7C"
    server = serve(
        *("--shell", "--cwd", str(tmp_path), "--set-env", "NAME=<{name}>"),
        *routes("""/{name}=echo "$1 $NAME" """),
        command=(),
    )
    text = f"$(touch {trap.name});`touch {trap.name}`'\"|"
    assert server.get(f"/{value}").body == f"{text} <{text}>\n".encode()
    assert not trap.exists()
    assert server.get("/-e").status == 400


def test_shell_for_the_whole_server(start: Serve) -> None:
    server = start("--shell", command=("echo $((1 + 1)) | tr 2 x",))
    assert server.get("/anything").body == b"x\n"


def test_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s")
    monkeypatch.setenv("WANTED_ONE", "1")
    monkeypatch.setenv("LC_TIME", "C")
    inherited = serve(command=("env",)).get().body.splitlines()
    assert b"SECRET=s" in inherited
    server = serve("--clear-env", "--set-env", "A=b=c", "--set-env", "LC_TIME=x", command=("env",))
    lines = server.get().body.splitlines()
    assert {b"A=b=c", b"LC_TIME=x"} <= set(lines)
    assert {line.partition(b"=")[0] for line in lines} <= {
        *(b"PATH", b"LANG", b"TZ", b"A", b"LC_TIME", b"LC_ALL", b"LC_CTYPE"),
    }  # fmt: skip
    lines = serve("--pass-env", "WANTED_*", command=("env",)).get().body.splitlines()
    assert b"WANTED_ONE=1" in lines
    assert b"SECRET=s" not in lines


def test_expectation_of_a_refused_request(start: Serve) -> None:
    server = start(*routes("GET /a=cat"), command=())
    with server.connect() as client:
        client.request("PUT", "/a", "Content-Length: 5", "Expect: 100-continue")
        assert client.read().status == 405
        assert client.ended()


@pytest.mark.parametrize(
    ("words", "sole"),
    [
        ([], True),
        (["--exec-timeout", "1", "--shell", "--set-env", "A={x}", "--", "ls"], True),
        (["--route", "/{path...}=ls"], True),
        (["--route", "/{path...}=ls {path}"], False),
        (["--route", "GET /{...}=ls"], False),
        (["--route", "/=ls"], False),
        (["--route", "/=ls", "--", "ls"], False),
        (["--mode", "cgi", "--", "ls"], False),
    ],
)
def test_one_route_for_everything_is_not_looked_for(words: list[str], sole: bool) -> None:
    async def loaded() -> bool:
        loop = asyncio.get_running_loop()
        config = cli.parse(["--no-access-log", *words], {})
        strategies = Strategies(loop, 1, print)
        service = Service(config, strategies.make, loop)
        await service.load(config)
        found = service.routing.sole
        await service.close()
        await strategies.close()
        return found is not None

    assert asyncio.run(loaded()) is sole
