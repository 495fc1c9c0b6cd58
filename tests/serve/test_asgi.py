"""--asgi: applications of ASGI 3.0 over real sockets, a process for each request. All of them are
behind ``asgi/validator.py``, which answers 500 to what its server does wrong."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import needs
from serve.conftest import Serve
from serve.harness import Server, poll

TESTS = str(Path(__file__).parent.parent)


@pytest.fixture(params=["snapshot", "reset", "direct"])
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def plain(start: Serve, strategy: str) -> Server:
    return start("--asgi", "asgi.plain", "--cwd", TESTS, "--strategy", strategy, command=())


def test_each_request_is_the_first(plain: Server) -> None:
    with plain.connect() as client:
        for _ in range(6):
            client.get()
            answer = client.read()
            assert (answer.status, answer.body) == (200, b"1 [1] 1"), plain.errors()


def test_a_scope_is_that_of_the_request(plain: Server) -> None:
    with plain.connect() as client:
        client.get(
            "/sc%6fpe?a=%20b", "X-A: 1", "X-A: 2", "Authorization: Basic YTpi", "Cookie: c=d"
        )
        told = ast.literal_eval(client.read().body.decode())
        peer, port = client.sock.getsockname()
    fields = dict(told.pop("headers"))
    assert told.pop("server") == ("127.0.0.1", plain.port)
    assert told == {
        "method": "GET",
        "path": "/scope",
        "raw_path": b"/sc%6fpe",
        "query_string": b"a=%20b",
        "root_path": "",
        "client": (peer, port),
        "http_version": "1.1",
    }
    assert fields == {
        b"host": b"test",
        b"x-a": b"1, 2",
        b"authorization": b"Basic YTpi",
        b"cookie": b"c=d",
    }


def test_body_and_answer_stream_at_the_same_time(plain: Server) -> None:
    pieces = [b"a", b"bc", b"d" * 100_000]
    with plain.connect() as client:
        client.request("POST", "/echo", f"Content-Length: {sum(map(len, pieces))}")
        client.send(pieces[0])
        answer = client.read_head()
        assert answer.status == 200
        assert client.read_chunk() == b"a"
        client.send(pieces[1])
        assert client.read_chunk() == b"bc"
        client.send(pieces[2])
        assert client.read_body(answer).body == pieces[2]
        assert answer.complete


def test_a_body_in_chunks(plain: Server) -> None:
    with plain.connect() as client:
        client.request("POST", "/echo", "Transfer-Encoding: chunked")
        client.send(b"3\r\nabc\r\n0\r\n\r\n")
        assert client.read().body == b"abc"


@pytest.mark.parametrize(
    ("path", "said"), [("/fail", "of the application's own"), ("/nothing", "without starting")]
)
def test_an_application_that_does_not_answer_is_500_and_in_the_log(
    plain: Server, path: str, said: str
) -> None:
    answer = plain.get(path)
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    plain.says(said)
    assert plain.get().body == b"1 [1] 1"


@pytest.mark.parametrize("path", ["/late", "/short"])
def test_an_answer_that_stops_is_broken_off(plain: Server, path: str) -> None:
    with plain.connect() as client:
        client.get(path)
        answer = client.read_head()
        if answer.status == 500:  # it has ended while nothing was sent yet
            assert client.read_body(answer).complete
            return
        assert answer.status == 200
        assert not client.read_to_end().endswith(b"0\r\n\r\n")


def test_answers_without_a_body(plain: Server) -> None:
    with plain.connect() as client:
        client.request("HEAD")
        assert client.read(head=True).fields["content-length"] == "7"
        for status in (204, 304):
            client.get(f"/status/{status}")
            assert client.read(head=True).status == status
        client.get("/status/418")
        answer = client.read()
        assert (answer.status, answer.body) == (418, b"x" * 10)


def test_what_is_printed_is_no_part_of_the_answer(plain: Server) -> None:
    assert plain.get("/print").body == b"answer"
    for text in ("imported", "of the application", "of its child"):
        plain.says(text)


def test_an_answer_is_there_before_the_application_has_ended(plain: Server, tmp_path: Path) -> None:
    assert plain.get(f"/on?{tmp_path}").body == b"answer"
    assert not (tmp_path / "went").exists()
    (tmp_path / "go").touch()
    poll((tmp_path / "went").exists, "what comes after the answer")


def test_what_is_left_to_do_is_done_after_the_answer(plain: Server) -> None:
    assert plain.get("/task").body == b"False"
    plain.says("task has ended")
    plain.says("generator has ended")


def test_threads_are_waited_for(plain: Server) -> None:
    for _ in range(3):
        assert plain.get("/threads").body == b"[0, 2, 4, 6, 8]"


def test_whoever_listens_hears_of_the_end_of_the_answer(plain: Server) -> None:
    assert plain.get("/end").body == b"answer"
    plain.says("http.disconnect")


# ---- the lifespan


@needs.templates
@pytest.mark.parametrize("strategy", ["snapshot", "reset"], indirect=True)
def test_a_lifespan_is_once_for_all_requests(start: Serve, strategy: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    options = ("--strategy", strategy, "--spawners", "1", "--set-env", f"NOTES={notes}")
    server = start("--asgi", "asgi.plain", "--cwd", TESTS, *options, command=())
    with server.connect() as client:
        for _ in range(5):
            client.get()
            assert client.read().body == b"1 [1] 2"
    server.says("what it connects to belongs below, into each request")
    (started,) = set(notes.read_text().split()[1::2]) & {notes.read_text().split()[-1]}
    server.stop()
    assert notes.read_text().splitlines()[-2:] == [f"start {started}", f"stop {started}"]
