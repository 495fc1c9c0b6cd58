"""What an application of --asgi sends and receives, message by message (ASGI, "HTTP")."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from fastspawn._app.asgi.answer import Answer
from fastspawn._app.asgi.body import Body
from fastspawn._app.asgi.lifespan import Lifespan
from fastspawn._app.asgi.loop import Loop
from fastspawn._app.asgi.scope import scope_of
from fastspawn._app.load import LoadError

START = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
DISCONNECT = {"type": "http.disconnect"}


def started(status: Any = 200, *headers: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: Any = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


class Pipe:
    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self._open = {self.read, self.write}

    def close(self, fd: int) -> None:
        os.close(fd)
        self._open.remove(fd)

    def whole(self) -> bytes:
        """What was written; nobody writes any more."""
        if self.write in self._open:
            self.close(self.write)
        with open(self.read, "rb", closefd=False) as file:
            return file.read()

    def is_empty(self) -> bool:
        os.set_blocking(self.read, False)
        try:
            os.read(self.read, 1)
        except BlockingIOError:
            return True
        return False

    def is_closed_by_its_writer(self) -> None:
        self._open.remove(self.write)

    def end(self) -> None:
        for fd in self._open:
            os.close(fd)


@pytest.fixture
def out() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.end()


@pytest.fixture
def stdin() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.end()


def bounded(loop: Loop, call: Coroutine[Any, Any, Any]) -> Any:
    return loop.run_until_complete(asyncio.wait_for(call, 60))


def sent(loop: Loop, out: Pipe, *messages: dict[str, Any], method: str = "GET") -> bytes:
    """What is written of them."""
    answer = Answer(loop, out.write, method)

    async def send() -> None:
        for message in messages:
            await answer.send(message)
        answer.close()

    bounded(loop, send())
    return out.whole()


@pytest.mark.parametrize(
    ("messages", "written"),
    [
        ([started(), body()], b"Status: 200 OK\r\n\r\n"),
        ([{"type": "http.response.start", "status": 404}, {"type": "http.response.body"}],
         b"Status: 404 Not Found\r\n\r\n"),
        ([started(299, (b"X-A", b"1"), [b"x-a", b"2"]), body(b"hi")],
         b"Status: 299 \r\nX-A: 1\r\nx-a: 2\r\n\r\nhi"),
        ([started(), body(b"a", True), body(b"", True), body(b"b")],
         b"Status: 200 OK\r\n\r\nab"),
        ([started(), body(bytearray(b"a"), True), body(memoryview(b"b"))],
         b"Status: 200 OK\r\n\r\nab"),
        ([started(200, (b"content-length", b"2")), body(b"h", True), body(b"i")],
         b"Status: 200 OK\r\ncontent-length: 2\r\n\r\nhi"),
        ([started(204), body(b"none")], b"Status: 204 No Content\r\n\r\n"),
        ([started(304, (b"content-length", b"9")), body()],
         b"Status: 304 Not Modified\r\ncontent-length: 9\r\n\r\n"),
        ([started(200, (b"Status", b"500")), body()], b"Status: 200 OK\r\n\r\n"),
        ([started(200, (b"Transfer-Encoding", b"chunked")), body(b"hi")],
         b"Status: 200 OK\r\n\r\nhi"),
        ([started(200, (b"a", b"")), body()], b"Status: 200 OK\r\na: \r\n\r\n"),
    ],
)  # fmt: skip
def test_valid_messages_are_a_cgi_answer(
    loop: Loop, out: Pipe, messages: list[dict[str, Any]], written: bytes
) -> None:
    assert sent(loop, out, *messages) == written


def test_the_answer_to_a_head_has_the_length_and_no_body(loop: Loop, out: Pipe) -> None:
    messages = started(200, (b"content-length", b"2")), body(b"hi")
    written = sent(loop, out, *messages, method="HEAD")
    assert written == b"Status: 200 OK\r\ncontent-length: 2\r\n\r\n"


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([body()], RuntimeError),
        ([{"type": "http.disconnect"}], RuntimeError),
        ([{"type": "websocket.accept"}], RuntimeError),
        ([{}], KeyError),
        ([{"type": "http.response.start"}], KeyError),
        ([started("200")], TypeError),
        ([started(True)], TypeError),
        ([started(None)], TypeError),
        ([started(100)], ValueError),
        ([started(600)], ValueError),
        ([started(200, ("a", "b"))], TypeError),
        ([started(200, (b"a", 1))], TypeError),
        ([started(200, (b"a",))], ValueError),
        ([started(200, (b"a b", b"c"))], ValueError),
        ([started(200, (b"", b"c"))], ValueError),
        ([started(200, (b"a", b"b\r\nc: d"))], ValueError),
        ([started(200, (b"a", b"b\0"))], ValueError),
        ([started(200, (b"content-length", b"x"))], ValueError),
        ([START, START], RuntimeError),
        ([START, body("text")], TypeError),
        ([START, body(None)], TypeError),
        ([START, body(), body()], RuntimeError),
        ([START, body(), START], RuntimeError),
        ([started(200, (b"content-length", b"2")), body(b"abc")], RuntimeError),
        ([started(200, (b"content-length", b"2")), body(b"a")], RuntimeError),
    ],
)
def test_what_is_no_message_or_not_its_turn_raises(
    loop: Loop, out: Pipe, messages: list[dict[str, Any]], error: type[Exception]
) -> None:
    answer = Answer(loop, out.write, "GET")

    async def send() -> None:
        for message in messages[:-1]:
            await answer.send(message)
        with pytest.raises(error):
            await answer.send(messages[-1])
        answer.close()

    bounded(loop, send())


def test_a_head_waits_for_the_body(loop: Loop, out: Pipe) -> None:
    async def send() -> None:
        answer = Answer(loop, out.write, "GET")
        await answer.send(START)
        assert out.is_empty()
        await answer.send(body(b"a", True))
        assert os.read(out.read, 100) == b"Status: 200 OK\r\na: b\r\n\r\na"

    bounded(loop, send())


def test_an_error_takes_the_place_of_a_head_that_was_not_sent(loop: Loop, out: Pipe) -> None:
    async def send() -> None:
        answer = Answer(loop, out.write, "GET")
        await answer.send(started(200, (b"content-length", b"2")))
        await answer.fail()
        answer.close()

    bounded(loop, send())
    assert out.whole().startswith(b"Status: 500 Internal Server Error\r\n")


def test_a_reader_that_is_slow_holds_up_its_sender_and_nobody_else(loop: Loop, out: Pipe) -> None:
    data = bytes(1_000_000)

    async def send() -> None:
        answer = Answer(loop, out.write, "GET")
        await answer.send(started())
        sending = asyncio.ensure_future(answer.send(body(data)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not sending.done()
        reader = threading.Thread(target=read)
        reader.start()
        await sending
        await loop.run_in_executor(None, reader.join)
        out.is_closed_by_its_writer()

    def read() -> None:
        while len(found) < len(data):
            found.extend(os.read(out.read, 65536))

    found = bytearray()
    bounded(loop, send())
    loop.rest()
    assert found.endswith(data[:1000])
    assert found[:19] == b"Status: 200 OK\r\n\r\n\0"


def test_the_output_ends_with_the_answer_though_the_application_goes_on(
    loop: Loop, out: Pipe
) -> None:
    async def send() -> None:
        answer = Answer(loop, out.write, "GET")
        await answer.send(started())
        await answer.send(body(b"hi"))
        await asyncio.sleep(0)
        out.is_closed_by_its_writer()
        assert out.whole() == b"Status: 200 OK\r\n\r\nhi"
        answer.close()

    bounded(loop, send())


# ---- what it receives


def test_a_body_comes_as_it_is_sent(loop: Loop, out: Pipe, stdin: Pipe) -> None:
    async def receive() -> None:
        answer = Answer(loop, out.write, "POST")
        request = Body(loop, answer, 6, stdin.read)
        os.write(stdin.write, b"abc")
        assert await request.receive() == {
            "type": "http.request",
            "body": b"abc",
            "more_body": True,
        }
        more = asyncio.ensure_future(request.receive())
        await asyncio.sleep(0)
        assert not more.done()
        os.write(stdin.write, b"defghi")  # more than was announced is nobody's
        assert await more == {"type": "http.request", "body": b"def", "more_body": False}

    bounded(loop, receive())


def test_a_body_without_a_length_ends_with_the_input(loop: Loop, out: Pipe, stdin: Pipe) -> None:
    async def receive() -> None:
        request = Body(loop, Answer(loop, out.write, "POST"), None, stdin.read)
        os.write(stdin.write, b"abc")
        assert (await request.receive())["more_body"] is True
        stdin.close(stdin.write)
        assert await request.receive() == {"type": "http.request", "body": b"", "more_body": False}

    bounded(loop, receive())


def test_no_body_is_an_empty_one_at_once(loop: Loop, out: Pipe, stdin: Pipe) -> None:
    request = Body(loop, Answer(loop, out.write, "POST"), 0, stdin.read)
    found = bounded(loop, request.receive())
    assert found == {"type": "http.request", "body": b"", "more_body": False}


def test_a_body_that_breaks_off_is_a_client_that_has_gone(
    loop: Loop, out: Pipe, stdin: Pipe
) -> None:
    async def receive() -> None:
        answer = Answer(loop, out.write, "POST")
        request = Body(loop, answer, 6, stdin.read)
        os.write(stdin.write, b"abc")
        await request.receive()
        stdin.close(stdin.write)
        assert await request.receive() == DISCONNECT
        with pytest.raises(OSError, match="gone"):
            await answer.send(START)

    bounded(loop, receive())


@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
def test_whoever_waits_hears_that_the_client_goes(
    loop: Loop, out: Pipe, stdin: Pipe, read: bool
) -> None:
    async def receive() -> None:
        answer = Answer(loop, out.write, "POST")
        request = Body(loop, answer, 0 if read else 5, stdin.read)
        if read:
            await request.receive()
        waiting = asyncio.ensure_future(request.receive())
        await asyncio.sleep(0)
        assert not waiting.done()
        out.close(out.read)
        assert await waiting == DISCONNECT
        assert answer.gone

    bounded(loop, receive())


def test_whoever_waits_hears_that_the_answer_is_complete(
    loop: Loop, out: Pipe, stdin: Pipe
) -> None:
    async def receive() -> None:
        answer = Answer(loop, out.write, "POST")
        request = Body(loop, answer, 0, stdin.read)
        await request.receive()
        waiting = asyncio.ensure_future(request.receive())
        await answer.send(START)
        await answer.send(body())
        assert await waiting == DISCONNECT
        assert await request.receive() == DISCONNECT
        out.is_closed_by_its_writer()

    bounded(loop, receive())


def test_to_send_to_nobody_is_an_oserror(loop: Loop, out: Pipe) -> None:
    async def send() -> None:
        answer = Answer(loop, out.write, "GET")
        await answer.send(START)
        out.close(out.read)
        for _ in range(2):
            with pytest.raises(BrokenPipeError):
                await answer.send(body(b"a", True))
        assert answer.gone

    bounded(loop, send())


# ---- the scope

REQUEST = {
    "REQUEST_METHOD": "POST",
    "REQUEST_SCHEME": "https",
    "REQUEST_URI": "/shop/caf%C3%A9%2F?q=%20",
    "SCRIPT_NAME": "/shop",
    "PATH_INFO": "/caf\xc3\xa9/",
    "QUERY_STRING": "q=%20",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_NAME": "example.org",
    "SERVER_ADDR": "192.0.2.1",
    "SERVER_PORT": "8443",
    "REMOTE_ADDR": "::1",
    "REMOTE_PORT": "1234",
    "CONTENT_TYPE": "text/plain",
    "CONTENT_LENGTH": "3",
    "HTTP_HOST": "example.org",
    "HTTP_X_NAME": "caf\xe9",
}


def test_a_scope_has_all_that_the_server_says() -> None:
    state = {"a": 1}
    scope = scope_of(REQUEST, state)
    assert scope.pop("state") is not state
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "https",
        "path": "/shop/café/",
        "raw_path": b"/shop/caf%C3%A9%2F",
        "query_string": b"q=%20",
        "root_path": "/shop",
        "headers": [
            (b"content-type", b"text/plain"),
            (b"content-length", b"3"),
            (b"host", b"example.org"),
            (b"x-name", b"caf\xe9"),
        ],
        "client": ("::1", 1234),
        "server": ("192.0.2.1", 8443),
        "extensions": {},
    }


@pytest.mark.parametrize(
    ("said", "name", "value"),
    [
        ({"REMOTE_ADDR": ""}, "client", None),
        ({"SERVER_ADDR": ""}, "server", ("example.org", 8443)),
        ({"REMOTE_PORT": ""}, "client", ("::1", 0)),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, "http_version", "1.0"),
        ({"SERVER_PROTOCOL": "HTTP/2.0"}, "http_version", "2"),
        ({"REQUEST_METHOD": "patch"}, "method", "PATCH"),
        ({"REQUEST_SCHEME": "", "HTTPS": "on"}, "scheme", "https"),
        ({"REQUEST_SCHEME": "", "HTTPS": ""}, "scheme", "http"),
        ({"SCRIPT_NAME": "", "PATH_INFO": ""}, "path", "/"),
        ({"PATH_INFO": "/\xff"}, "path", "/shop/\ufffd"),
        ({"REQUEST_URI": ""}, "raw_path", b"/shop/caf%C3%A9/"),
    ],
)
def test_what_is_missing_or_odd(said: dict[str, str], name: str, value: object) -> None:
    assert scope_of({**REQUEST, **said}, {})[name] == value


# ---- the loop, and what is done once


def open_fds() -> int:
    return len(os.listdir("/dev/fd"))


def test_a_loop_has_no_descriptor_before_it_sleeps(loop: Loop) -> None:
    before = open_fds()
    other = Loop()
    other.run_until_complete(asyncio.sleep(0))
    assert open_fds() == before
    other.run_until_complete(asyncio.sleep(0.001))
    assert open_fds() == before + 2
    other.rest()
    assert open_fds() == before
    other.close()


def test_another_thread_wakes_it(loop: Loop) -> None:
    async def wait() -> None:
        for _ in range(100):
            future = loop.create_future()
            thread = threading.Thread(
                target=loop.call_soon_threadsafe, args=(future.set_result, None)
            )
            thread.start()
            await future
            thread.join()

    bounded(loop, wait())
    loop.rest()
    bounded(loop, wait())


async def lives(scope: Any, receive: Any, send: Any) -> None:
    scope["state"]["a"] = 1
    assert await receive() == {"type": "lifespan.startup"}
    await send({"type": "lifespan.startup.complete"})
    assert await receive() == {"type": "lifespan.shutdown"}
    scope["state"]["stopped"] = True
    await send({"type": "lifespan.shutdown.complete"})


@pytest.fixture
def stdout_kept() -> Iterator[None]:
    """A lifespan's end takes it for the log."""
    kept = os.dup(1)
    yield
    os.dup2(kept, 1)
    os.close(kept)


@pytest.mark.usefixtures("stdout_kept")
def test_a_lifespan_begins_and_ends(loop: Loop) -> None:
    lifespan = Lifespan(lives, loop)
    lifespan.start()
    assert (lifespan.supported, lifespan.state) == (True, {"a": 1})
    lifespan.stop()
    assert lifespan.state["stopped"] is True


async def knows_none(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"


async def ends(scope: Any, receive: Any, send: Any) -> None:
    scope["state"]["a"] = 1


@pytest.mark.parametrize("application", [knows_none, ends])
def test_an_application_without_one_is_served(loop: Loop, application: Any) -> None:
    lifespan = Lifespan(application, loop)
    lifespan.start()
    assert (lifespan.supported, lifespan.state) == (False, {})


def test_one_that_does_not_start_says_why(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(LoadError, match="startup failed"):
        Lifespan(fails, loop).start()
    assert capsys.readouterr().err == "no database\n"


def test_other_messages_than_a_lifespans_raise(loop: Loop) -> None:
    raised = []

    async def confuses(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await send({"type": "http.response.start"})
        except RuntimeError as error:
            raised.append(error)
        await send({"type": "lifespan.startup.complete"})
        await receive()

    lifespan = Lifespan(confuses, loop)
    lifespan.start()
    assert raised
    lifespan._task.cancel()  # type: ignore[union-attr]
    loop.run_until_complete(asyncio.sleep(0))
