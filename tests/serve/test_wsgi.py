"""--wsgi: applications of PEP 3333 over real sockets, a process for each request, or one that puts
itself back. Flask, Django and Bottle are in test_frameworks.py."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

import needs
from serve.conftest import Serve
from serve.harness import Response, Server, longer_times, poll
from serve.test_cli import assert_refused, run
from support import LINUX

APPLICATIONS = Path(__file__).parents[1] / "applications"


def plain(start: Serve, strategy: str, *options: str, **more: object) -> Server:
    where = ("--cwd", str(APPLICATIONS), "--strategy", strategy)
    return start("--wsgi", "plain", *where, *options, command=(), **more)


def serve_text(start: Serve, folder: Path, text: str, *options: str) -> Server:
    """An application that is given as text."""
    (folder / "shop.py").write_text(text)
    return start("--wsgi", "shop", "--cwd", str(folder), *options, command=())


STRATEGIES = [
    pytest.param("snapshot", marks=needs.templates),
    pytest.param("reset", marks=needs.residents),
    "direct",
]


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(start: Serve, strategy: str) -> Server:
    """Of tests/applications/plain.py."""
    return plain(start, strategy)


def ask(
    server: Server, path: str, *fields: str, method: str = "GET", body: bytes = b""
) -> Response:
    with server.connect() as client:
        client.request(method, path, *fields, body=body)
        return client.read(head=method == "HEAD")


# ---- a request -----------------------------------------------------------------------------------


def test_each_request_is_the_first(server: Server, strategy: str) -> None:
    with server.connect() as client:
        for i in range(10):
            client.post(b"x" * i)
            assert client.read().body == f"POST 1 {i}\n".encode()
    if strategy == "reset":
        server.says("--strategy reset: residents begin at its checkpoint")


def values(answer: Response) -> dict[str, object]:
    """What can be written as a literal."""
    found = dict(line.split("=", 1) for line in answer.body.decode().splitlines())
    return {
        name: text if text.startswith("<") else ast.literal_eval(text)
        for name, text in found.items()
    }


def test_its_environ(server: Server) -> None:
    fields = ("X-Token: a", "x-token: b", "Authorization: Basic eA==", "Proxy: http://bad")
    target = "/variables?q=%20&r"
    environ = values(ask(server, target, *fields))
    wanted = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/variables",
        "QUERY_STRING": "q=%20&r",
        "REQUEST_URI": target,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "test",
        "SERVER_PORT": str(server.port),
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_X_TOKEN": "a, b",
        "HTTP_AUTHORIZATION": "Basic eA==",
        "HTTP_HOST": "test",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": True,
        "wsgi.input_terminated": True,
    }
    assert environ | wanted == environ
    # Nothing of the server's environment, of CGI's programs, or what means another thing there.
    assert not {"PATH", "HOME", "SCRIPT_FILENAME", "GATEWAY_INTERFACE", "HTTP_PROXY"} & set(environ)
    assert not {"CONTENT_LENGTH", "CONTENT_TYPE"} & set(environ)


def test_what_a_proxy_says(start: Serve) -> None:
    fields = ("X-Forwarded-Proto: https", "X-Forwarded-For: 192.0.2.7")
    believed = values(ask(plain(start, "direct", "--proxy-headers"), "/variables", *fields))
    assert (believed["wsgi.url_scheme"], believed["REMOTE_ADDR"]) == ("https", "192.0.2.7")
    own = values(ask(plain(start, "direct"), "/variables", *fields))
    assert (own["wsgi.url_scheme"], own["REMOTE_ADDR"]) == ("http", "127.0.0.1")


def test_a_path_is_bytes(start: Serve, tmp_path: Path) -> None:
    text = "def application(environ, start):\n"
    text += "    start('200 OK', [])\n    return [environ['PATH_INFO'].encode('latin-1')]\n"
    server = serve_text(start, tmp_path, text)
    assert ask(server, "/%C3%A9%FF%2F%25").body == b"/\xc3\xa9\xff/%"


def test_its_own_environment(start: Serve, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is the server's, also where that has the names of CGI, and nothing of a request's."""
    said = {"HTTP_PROXY": "http://proxy", "SERVER_NAME": "ours", "SHOP_KEY": "é"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    server = plain(start, strategy, "--set-env", "MORE=1")
    for i in range(3):
        found = values(ask(server, "/own", f"X-Number: {i}", f"X-Of-{i}: x"))
        assert found | said | {"MORE": "1"} == found
        assert not {name for name in found.keys() - os.environ.keys() if "REQUEST" in name}
        assert not {"HTTP_X_NUMBER", f"HTTP_X_OF_{i}", "PATH_INFO"} & found.keys()
        environ = values(ask(server, "/variables"))
        assert environ["SERVER_NAME"] == "test"
        assert "HTTP_PROXY" not in environ


def test_a_body_without_a_length(server: Server) -> None:
    chunks = b"".join(b"8000\r\n%b\r\n" % (b"x" * 0x8000) for _ in range(64)) + b"0\r\n\r\n"
    with server.connect() as client:
        client.request("POST", "/", "Transfer-Encoding: chunked", body=chunks)
        assert client.read().body == b"POST 1 %d\n" % (64 * 0x8000)


def test_a_body_without_a_length_as_it_comes(start: Serve, tmp_path: Path) -> None:
    text = "def application(environ, start):\n    start('200 OK', [])\n"
    text += "    assert 'CONTENT_LENGTH' not in environ and environ['wsgi.input_terminated']\n"
    text += "    yield from environ['wsgi.input']\n"
    server = serve_text(start, tmp_path, text, "--stream-chunked")
    with server.connect() as client:
        client.request("POST", "/", "Transfer-Encoding: chunked", body=b"2\r\na\n\r\n")
        client.read_head()
        assert client.read_chunk() == b"a\n"
        client.send(b"2\r\nb\n\r\n0\r\n\r\n")
        assert client.read_chunk() == b"b\n"
        assert client.read_chunk() == b""


def test_mounted_at_a_path(start: Serve, tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(
        f"cwd = '{APPLICATIONS}'\n[[route]]\npath = '/shop/{{...}}'\nwsgi = 'plain'\n"
        "[[route]]\npath = '/rest'\ncommand = 'echo rest'\n"
    )
    server = start("--config", str(file), "--strategy", "direct", command=())
    environ = values(ask(server, "/shop/variables"))
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/shop", "/variables")
    assert ask(server, "/rest").body == b"rest\n"


# ---- an answer -----------------------------------------------------------------------------------


def test_an_item_is_sent_when_it_is_there(server: Server, tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    with server.connect() as client:
        client.get(f"/stream?{sign}")
        client.read_head()
        assert client.read_chunk() == b"first"
        sign.touch()
        assert client.read_chunk() == b"second"
        assert client.read_chunk() == b""


def test_answers(server: Server) -> None:
    assert ask(server, "/writes").body == b"written and returned"
    assert ask(server, "/file").body == b"x" * 300_000
    with server.connect() as client:  # which goes on after what has no body
        client.get("/nothing")
        assert client.read(head=True).status == 204
        client.get("/unchanged")
        answer = client.read(head=True)
        assert (answer.status, answer.fields["etag"]) == (304, '"a"')
        client.get("/writes")
        assert client.read().body == b"written and returned"
    answer = ask(server, "/elsewhere")
    assert (answer.status, answer.fields["location"]) == (302, "/hello")
    assert ask(server, "/closes").body == b"closed"
    server.says("close() was called")
    with server.connect() as client:
        client.get("/cookies")
        client.read_until(b"\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 1\r\n")
    answer = ask(server, "/hops")
    assert (answer.status, answer.body) == (200, b"hops")
    assert answer.fields.keys().isdisjoint({"connection", "status"})


def test_head(server: Server) -> None:
    with server.connect() as client:
        for path in ("/file", "/writes", "/variables"):
            client.request("HEAD", path)
            assert client.read(head=True).status == 200
        client.get("/writes")
        assert client.read().body == b"written and returned"


def test_what_it_prints_is_for_the_log(server: Server) -> None:
    assert ask(server, "/prints").body == b"not printed"
    for text in ("printed by the application", "printed by its child", "for the log"):
        server.says(text)


# ---- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("raises", "LookupError: before the head"),
        ("raises_empty", "LookupError: before the first byte"),
        ("leaves", "SystemExit: 3"),
        ("forgets", "RuntimeError: some of the body comes before start_response()"),
        ("injects", "ValueError: 'X-A': 'b\\r\\nX-C: d' is not a header field"),
    ],
)
def test_an_exception_before_the_first_byte(start: Serve, path: str, why: str) -> None:
    server = plain(start, "snapshot" if LINUX else "direct")
    with server.connect() as client:
        client.get(f"/{path}")
        answer = client.read()
        assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
        client.request("HEAD", f"/{path}")
        assert client.read(head=True).status == 500
        client.get("/replaces")
        assert (answer := client.read()).status == 503, answer
    server.says(f"fastspawn: error in 'GET /{path}'\nTraceback (most recent call last):\n")
    server.says(why)


@pytest.mark.parametrize("path", ["raises_late", "replaces_late"])
def test_an_exception_after_the_first_byte(server: Server, path: str) -> None:
    """The answer is no complete one."""
    with server.connect() as client:
        client.get(f"/{path}")
        answer = client.read()
    # What ends at once has answered nothing yet.
    assert answer.status == 500 or (answer.status, answer.complete) == (200, False)
    assert b"never" not in answer.body
    server.says("LookupError: ")
    assert ask(server, "/writes").status == 200


def test_limits_end_one_request(start: Serve, strategy: str) -> None:
    """Of time, of CPU time and of memory; and a crash."""
    for timeout in longer_times():
        server = plain(start, strategy, "--exec-timeout", timeout)
        assert ask(server, "/spins").status == 504
        if ask(server, "/writes").status == 200:
            break
        server.stop()
    server = plain(start, strategy, "--rlimit", "as=2G", "--rlimit", "cpu=1")
    with server.connect() as waits:
        waits.get("/spins")
        assert ask(server, "/grows").status == 500
        server.says("MemoryError")
        assert ask(server, "/dies").status == 500
        assert ask(server, "/writes").status == 200
        assert waits.read().status == 500
    assert ask(server, "/writes").status == 200


# ---- its source ----------------------------------------------------------------------------------

ANSWERS = "def application(environ, start):\n    start('200 OK', [])\n    return [b'{}']\n"


def test_a_change_of_its_source(start: Serve, tmp_path: Path, strategy: str) -> None:
    """Shows in answers; while it is broken they are 500, however often somebody asks."""
    source = tmp_path / "shop.py"
    source.write_text(ANSWERS.format("one"))
    server = start("--wsgi", "shop", "--cwd", str(tmp_path), "--strategy", strategy, command=())

    def until(status: int, body: bytes) -> None:
        def answers() -> bool:
            answer = ask(server, "/")
            return (answer.status, answer.body) == (status, body)

        poll(answers, f"{status} {body!r}")

    until(200, b"one")
    source.write_text(ANSWERS.format("another"))
    until(200, b"another")
    source.write_text("def broken(:\n")
    until(500, b"the application cannot be loaded: the log says why\n")
    server.says("SyntaxError")
    for _ in range(20):
        assert ask(server, "/").status == 500
    source.unlink()
    missing = "--wsgi shop: no module shop in"
    poll(lambda: ask(server, "/").status == 500 and missing in server.errors(), missing)
    for _ in range(20):
        assert ask(server, "/").status == 500
    source.write_text(ANSWERS.format("mended"))
    until(200, b"mended")
    if strategy == "snapshot":
        assert "start so" not in server.errors()


@needs.templates
def test_more_files_than_can_be_watched(start: Serve, tmp_path: Path) -> None:
    """Of a package that was installed its first file is; all of the application's own are."""
    package = tmp_path / "lib" / "site-packages" / "large"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("version = 1\n")
    for i in range(800):
        (package / f"part{i}.py").touch()
    (tmp_path / "own.py").write_text("said = 'a'\n")
    server = serve_text(
        start,
        tmp_path,
        f"import sys, importlib\nsys.path.append({str(package.parent)!r})\n"
        "import own, large\n"
        "for i in range(800):\n    importlib.import_module(f'large.part{i}')\n"
        "def application(environ, start):\n    start('200 OK', [])\n"
        "    return [f'{large.version} {own.said}'.encode()]\n",
    )
    assert ask(server, "/").body == b"1 a"
    assert "no template at checkpoint" not in server.errors()
    (tmp_path / "own.py").write_text("said = 'another'\n")
    poll(lambda: ask(server, "/").body == b"1 another", "the application's own change")
    (package / "__init__.py").write_text("version = 20\n")
    poll(lambda: ask(server, "/").body == b"20 another", "another version")


@needs.templates
def test_it_is_imported_before_the_first_request(start: Serve, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import os\nimported = os.getpid()\nprint('imported')\n"
        "def application(environ, start):\n    start('200 OK', [])\n"
        "    return [str(imported != os.getpid()).encode()]\n"
    )
    server = start("--wsgi", "shop", "--cwd", str(tmp_path), "--spawners", "1", command=())
    for _ in range(3):
        assert ask(server, "/").body == b"True"
    server.says("imported", 1)


def test_a_factory(start: Serve, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "class Shop:\n    @staticmethod\n    def make(text, *, end):\n"
        "        def application(environ, start):\n            start('200 OK', [])\n"
        "            return [(text + end).encode()]\n        return application\n"
    )
    named = "shop:Shop.make('hi', end='!')"
    server = start("--wsgi", named, "--cwd", str(tmp_path), command=())
    assert ask(server, "/").body == b"hi!"


BROKEN = """
count = 0
def fails():
    return 1
"""


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("nope", "no module nope in "),
        ("shop.nope", "no module shop.nope in "),
        ("shop", "module shop has no attribute application"),
        ("shop:nope", "module shop has no attribute nope"),
        ("shop:count", "count is no application: a int can't be called"),
        ("shop:count()", "count is no function that makes an application, but a int"),
        ("shop:fails()", "what fails() returns is no application: a int can't be called"),
        ("shop:fails(count)", "'fails(count)' is neither a name nor a call with literal arguments"),
        ("shop:1", "'1' is neither a name nor a call with literal arguments"),
        ("shop:", "'shop:' is not MODULE:APP"),
        ("a/b:c", "'a/b:c' is not MODULE:APP"),
    ],
)
def test_no_application(tmp_path: Path, named: str, why: str) -> None:
    (tmp_path / "shop.py").write_text(BROKEN)
    assert_refused(run("--port", "0", "--cwd", str(tmp_path), "--wsgi", named), why)


@pytest.mark.parametrize("text", ["1 / 0\n", "import nowhere\n", "x = = 1\n"])
def test_an_application_that_fails(tmp_path: Path, text: str) -> None:
    (tmp_path / "shop.py").write_text(text)
    done = run("--port", "0", "--cwd", str(tmp_path), "--wsgi", "shop")
    assert done.returncode == 2
    assert "shop.py" in done.stderr
    assert "Error: " in done.stderr
    last = done.stderr.splitlines()[-1]
    assert (
        last
        == "fastspawn: error: --wsgi shop: it cannot be loaded: its process ended with status 1"
    )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--strategy", "pool"), "--wsgi has no --strategy pool"),
        (("--mode", "raw"), "--wsgi has no --mode raw"),
        (("--shell",), "--shell is for a command, not --wsgi"),
        (("--snapshot-at", "main", "--strategy", "reset"), "--wsgi has no --snapshot-at main"),
        (("--stderr", "merge"), "--wsgi has no --stderr merge"),
        (("--asgi", "shop"), "--wsgi and --asgi exclude each other"),
        (("--cgi-dir", "/"), "--cgi-dir and --wsgi exclude each other"),
        (("--", "echo"), "a command and --wsgi exclude each other"),
    ],
)
def test_what_an_application_can_not_be(options: tuple[str, ...], why: str) -> None:
    assert_refused(run("--wsgi", "shop", *options), why)
