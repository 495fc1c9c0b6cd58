"""ProcessApp under real servers: uvicorn and granian."""

from __future__ import annotations

import re
import select
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import httpx_sse
import pytest

from asgi.harness import AsgiServer
from serve.harness import BOUND, Client, Response, alive, children, in_one_piece, poll, settled

Serve = Callable[..., AsgiServer]

HOLD = 'echo $$ > "$0.new"; mv "$0.new" "$0"; exec sleep 60'

WAYS = r"""
wait_for() { while [ ! -e "$1" ]; do sleep 0.01; done; }
case $PATH_INFO in
*/whole) printf 'Content-Type: text/x-a\nSet-Cookie: a=1\nSet-Cookie: b=2\n\nall of it';;
*/status) printf 'Status: 418 Short and stout\nContent-Type: text/plain\n\nno coffee';;
*/moved) printf 'Location: http://example.org/\n\n';;
*/local) printf 'Location: /sub/dir/whole\n\n';;
*/elsewhere) printf 'Location: /other\n\n';;
*/around) printf 'Location: /sub/dir/around\n\n';;
*/bad) echo 'no header';;
*/odd) printf '<!--: spam\nContent-Type: text/x-a\nX-CGI-A: b\n\nall of it';;
*/short) printf 'Content-Type: text/plain\nContent-Length: 100\n\nshort';;
*/fail) exit 3;;
*/killed) kill -9 $$;;
*/late) sleep 60;;
*/length) printf 'Content-Type: text/plain\n\n%s:' "$CONTENT_LENGTH"; wc -c;;
*/env) printf 'Content-Type: text/plain\n\n'; env;;
*/breaks) printf 'Content-Type: text/plain\n\nbegun'; wait_for "$1"; kill -9 $$;;
*/pauses) printf 'Content-Type: text/plain\n\nbegun'; wait_for "$1"; echo ' and done'; exit 1;;
*/page) printf 'Status: 404\nContent-Type: text/plain\n\nno such page'; exit 1;;
esac
"""


@pytest.fixture(params=["uvicorn", "granian"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def written(path: Path) -> str:
    poll(path.exists, "what a process writes")
    return path.read_text()


def body_after(client: Client, head: bytes) -> bytes:
    """Of an answer whose head was read as it is."""
    lines = head.decode().lower().split("\r\n")[1:-2]
    fields = dict(line.split(": ", 1) for line in lines)
    return client.read_body(Response(200, "HTTP/1.1", fields, b"", True)).body


def test_raw(serve: Serve, kind: str) -> None:
    server = serve(kind, command=["cat"], content_type="text/x-cat", max_body=100_000)
    with server.connect() as client:

        def hello() -> Response:
            client.post(b"hello")
            return client.read()

        answer = in_one_piece(hello)
        assert (answer.status, answer.body) == (200, b"hello")
        assert answer.fields["content-type"] == "text/x-cat"
        assert answer.fields["content-length"] == "5"
        client.get()
        assert client.read().body == b""
        client.request("HEAD", "/")
        assert client.read(head=True).fields["content-type"] == "text/x-cat"
        client.request(
            "POST", "/", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
        )
        assert client.read().body == b"abcdef"
    with server.connect() as client:
        client.request("POST", "/", "Content-Length: 100001")
        assert client.read().status == 413
    # One that says nothing while it reads: an answer that has begun cannot be a 413.
    quiet = serve(kind, command=["wc", "-c"], max_body=100_000)
    with quiet.connect() as client:
        client.request("POST", "/", "Transfer-Encoding: chunked")
        client.send(b"c350\r\n" + b"x" * 50_000 + b"\r\n")
        client.send(b"c351\r\n" + b"x" * 50_001 + b"\r\n")
        assert client.read_head().status == 413
    assert server.get("/a/../b").status == 400
    assert server.get("/a%2fb").status == 400
    server.stop()
    assert "Traceback" not in server.errors()


@pytest.mark.parametrize("mode", ["raw", "cgi"])
def test_endless_output_for_a_head(serve: Serve, kind: str, mode: str, tmp_path: Path) -> None:
    """The head is the answer: the process is ended, though the client is still there."""
    held = tmp_path / "pid"
    page = "printf 'Content-Type: text/plain\\n\\none\\n'"
    text = HOLD.replace("exec", f"{page}; exec")
    server = serve(kind, command=["sh", "-c", text, str(held)], mode=mode, exec_timeout=None)
    with server.connect() as client:
        client.request("HEAD", "/")
        assert client.read(head=True).status == 200
        pid = int(written(held))
        poll(lambda: not alive(pid), "the process's end")


def test_cgi(serve: Serve, kind: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    ways = ["sh", "-c", WAYS, "sh", str(go)]
    server = serve(kind, app="mounted", mode="cgi", command=ways)
    with server.connect() as client:
        client.get("/sub/dir/whole")
        head = client.read_until(b"\r\n\r\n")
        assert re.findall(rb"(?i)set-cookie: (...)", head) == [b"a=1", b"b=2"]
        assert body_after(client, head) == b"all of it"
        client.request("HEAD", "/sub/dir/status")
        assert client.read(head=True).status == 418

    statuses = {
        "status": 418,
        "moved": 302,
        "elsewhere": 302,
        "around": 502,
        "bad": 502,
        "fail": 500,
        "killed": 500,
        "late": 504,
    }
    hurried = serve(kind, app="mounted", mode="cgi", command=ways, exec_timeout=0.3)
    found = {
        name: (hurried if name == "late" else server).get(f"/sub/dir/{name}") for name in statuses
    }
    assert {name: answer.status for name, answer in found.items()} == statuses
    short = server.get("/sub/dir/short")
    assert short.status == 502 or not short.complete  # if all of it was slow
    assert found["moved"].fields["location"] == "http://example.org/"
    assert found["elsewhere"].fields["location"] == "/other"
    assert b"status 3" in found["fail"].body
    assert b"signal 9" in found["killed"].body

    path = server.get("/sub/dir/x%2Fy/env").body.decode().splitlines()
    assert "PATH_INFO=/x/y/env" in path
    assert "REQUEST_URI=/sub/dir/x%2Fy/env" in path
    assert server.get("/sub/dir/x%2F..%2Fenv").status == 400
    odd = server.get("/sub/dir/odd")
    assert (odd.status, odd.fields["x-cgi-a"], odd.body) == (200, "b", b"all of it")

    env = dict(
        line.split("=", 1)
        for line in server.get("/sub/dir/x%20y/env?a=b&c", "X-Test: 1", "Proxy: no")
        .body.decode()
        .splitlines()
    )
    assert env["SCRIPT_NAME"] == "/sub/dir"
    assert env["PATH_INFO"] == "/x y/env"
    assert env["QUERY_STRING"] == "a=b&c"
    assert env["REQUEST_URI"] == "/sub/dir/x%20y/env?a=b&c"
    assert env["REMOTE_ADDR"] == env["SERVER_ADDR"] == "127.0.0.1"
    assert env["SERVER_PORT"] == str(server.port)
    assert env["SERVER_NAME"] == env["HTTP_HOST"] == "test"
    assert env["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert env["HTTP_X_TEST"] == "1"
    assert "HTTP_PROXY" not in env
    assert "APP_OPTIONS" not in env

    with server.connect() as client:
        client.get("/sub/dir/breaks")
        answer = client.read_head()
        assert (answer.status, client.read_chunk()) == (200, b"begun")
        go.touch()
        assert (client.read_chunk(), client.last_seen) == (b"", False)


@pytest.mark.parametrize("how", ["lenient", "strict"])
def test_the_exit_status_of_a_script(serve: Serve, kind: str, how: str, tmp_path: Path) -> None:
    """It is no part of a complete answer, unless that is asked for."""
    go = tmp_path / "go"
    server = serve(kind, mode="cgi", command=["sh", "-c", WAYS, "sh", str(go)], cgi_exit=how)
    strict = how == "strict"
    page, fail = (server.get(f"/{way}") for way in ("page", "fail"))
    if strict:  # its head may have been sent, if the page came slowly
        assert page.status == 500 or not page.complete
    else:
        assert (page.status, page.body, page.complete) == (404, b"no such page", True)
    with server.connect() as client:
        client.get("/pauses")
        pauses = client.read_head()
        assert (pauses.status, client.read_chunk()) == (200, b"begun")
        go.touch()
        assert client.read_body(pauses).complete != strict
    assert strict or pauses.body == b" and done\n"
    assert (fail.status, b"status 3" in fail.body) == (500, True)
    server.stop()
    if kind == "uvicorn" and not strict:
        server.says("GET /page: it exited with status 1")


def test_exit_statuses_in_http(serve: Serve, kind: str) -> None:
    command = ["sh", "-c", 'echo said; exit "$(cat)"']
    server = serve(kind, command=command, status={"1": 404, "2": 205, "3": 206})
    outputs = serve(kind, command=command, status="1=404", error_body="output")

    def post(server: AsgiServer, body: bytes) -> tuple[int, bytes]:
        with server.connect() as client:
            client.post(body)
            answer = client.read()
            assert answer.complete
            return answer.status, answer.body

    assert post(server, b"1") == (404, b"404 Not Found: the command exited with status 1\n")
    assert post(server, b"2") == (205, b"")
    assert post(server, b"3") == (206, b"said\n")
    assert post(server, b"4")[0] == 500
    assert post(outputs, b"1") == (404, b"said\n")
    assert post(outputs, b"5") == (500, b"said\n")
    assert post(outputs, b"0") == (200, b"said\n")
    for each in (server, outputs):
        each.stop()
        assert "Traceback" not in each.errors()
    if kind == "uvicorn":
        server.says("POST /: it exited with status 4; output: b'said\\n'")


def test_fields_of_answers(serve: Serve, kind: str) -> None:
    command = ["sh", "-c", 'exit "$(cat)"']
    header = {"X-Frame-Options": "DENY", "ETag": "1"}
    sites = ["https://a.example", "http://b.example"]
    server = serve(kind, command=command, header=header, cors=sites, cors_credentials=True)
    with server.connect() as client:
        for status, tagged in ((0, True), (1, False)):
            client.post(b"%d" % status, "Origin: http://b.example")
            answer = client.read()
            assert answer.status == (500 if status else 200)
            assert answer.fields["x-frame-options"] == "DENY"
            assert ("etag" in answer.fields) == tagged
            assert answer.fields["access-control-allow-origin"] == "http://b.example"
            assert answer.fields["access-control-allow-credentials"] == "true"
            assert answer.fields["vary"] == "Origin"
        client.post(b"0", "Origin: http://c.example")
        assert "access-control-allow-origin" not in client.read().fields
        asks = "Access-Control-Request-Method: PUT"
        client.request("OPTIONS", "/", "Origin: http://c.example", asks)
        assert client.read().status == 403
        client.request("OPTIONS", "/", "Origin: https://a.example", asks)
        answer = client.read_head()
        assert answer.status == 204
        assert answer.fields["access-control-allow-origin"] == "https://a.example"
        assert answer.fields["access-control-allow-methods"] == "PUT"
    script = ["printf", "Content-Type: a/b\\nX-Frame-Options: SAMEORIGIN\\n\\n"]
    cgi = serve(kind, command=script, mode="cgi", header=["x-frame-options: DENY", "X-B: c"])
    answer = cgi.get("/")
    assert (answer.fields["x-frame-options"], answer.fields["x-b"]) == ("SAMEORIGIN", "c")
    for each in (server, cgi):
        each.stop()
        assert "Traceback" not in each.errors()


def test_what_a_raw_command_knows(serve: Serve, kind: str) -> None:
    show = 'echo "$REQUEST_METHOD $PATH_INFO $QUERY_STRING $HTTP_X_ONE ${HTTP_PROXY-none} $1"'
    command = ["sh", "-c", show, "sh", "{query:q=none}"]
    server = serve(kind, command=command, request_env=True)
    answer = server.get("/a/b?q=c%20d", "X-One: 1", "Proxy: evil")
    assert answer.body == b"GET /a/b q=c%20d 1 none c d\n"
    assert server.get("/").body.endswith(b" none\n")
    for target in ("/?q=-x", "/?q=1&q=2", "/?q=%00"):
        assert server.get(target).status == 400
    plain = serve(kind, command=["echo", "{query:q}"])
    assert plain.get("/?q=1").body == b"1\n"
    assert plain.get("/").status == 400
    for each in (server, plain):
        each.stop()
        assert "Traceback" not in each.errors()


def test_values_of_a_form(serve: Serve, kind: str) -> None:
    """In the command, in each mode; and the body is standard input all the same."""
    form = "Content-Type: application/x-www-form-urlencoded"
    show = 'printf "Content-Type: text/plain\\n\\n%s<%s>" "$CONTENT_LENGTH" "$1"; cat'
    command = ["sh", "-c", show, "sh", "{form:a}"]
    whole = {"raw": b"Content-Type: text/plain\n\n<1>a=1", "cgi": b"3<1>a=1"}
    for mode, wanted in whole.items():
        server = serve(kind, command=command, mode=mode, max_body="1M")
        with server.connect() as client:
            client.post(b"a=1", form)
            assert client.read().body == wanted
            client.request("POST", "/", form, "Transfer-Encoding: chunked", body=b"2\r\na=\r\n")
            client.send(b"1\r\n1\r\n0\r\n\r\n")
            assert client.read().body == wanted
            for body, status in ((b"b=1", 400), (b"a=1&a=2", 400), (b"a=" + bytes(65535), 413)):
                client.post(body, form)
                assert client.read().status == status
        with server.connect() as client:
            client.post(b"{}", "Content-Type: application/json")
            answer = client.read()
            assert (answer.status, "accept" in answer.fields) == (415, True)
        assert server.get("/").status == 400
        server.stop()
        assert "Traceback" not in server.errors()
    told = serve(kind, command=["sh", "-c", "echo $REQUEST_METHOD $1", "sh", "{form:a=none}"],
                 request_env=True)  # fmt: skip
    assert told.get("/").body == b"GET none\n"
    with told.connect() as client:
        client.post(b"a=1", form)
        assert client.read().body == b"POST 1\n"


def test_a_directory_of_scripts(serve: Serve, kind: str, tmp_path: Path) -> None:
    for name, text, mode in (
        ("page", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s' $PATH_INFO\n", 0o755),
        ("crlf", "#!/bin/sh\r\n", 0o755),
        ("data", "", 0o644),
    ):
        (tmp_path / name).write_bytes(text.encode())
        (tmp_path / name).chmod(mode)
    server = serve(kind, app="mounted", cgi_dir=str(tmp_path))
    page, crlf, data = (
        server.get(f"/sub/dir/cgi-bin/{name}") for name in ("page/x", "crlf", "data")
    )
    assert (page.status, page.body) == (200, b"/x")
    assert (crlf.status, b"could not be executed" in crlf.body) == (500, True)
    assert data.status == 403
    server.stop()
    if kind == "uvicorn":
        server.says(f"cannot start {tmp_path}/crlf: its interpreter '/bin/sh\\r'")
        server.says(f"{tmp_path}/data is not a file that user")


def test_a_local_redirect(serve: Serve, kind: str) -> None:
    server = serve(kind, app="mounted", mode="cgi", command=["sh", "-c", WAYS], max_inflight=1)
    with server.connect() as client:
        client.request("POST", "/sub/dir/local", "Content-Length: 4", body=b"body")
        head = client.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert body_after(client, head) == b"all of it"
    assert server.get("/sub/dir/status").status == 418


def test_a_body_without_a_length(serve: Serve, kind: str) -> None:
    """It is kept to its end, in a file where it is long, so that CONTENT_LENGTH is right."""
    server = serve(kind, app="mounted", mode="cgi", command=["sh", "-c", WAYS], buffer_body="1M")
    for size in (5, 1_000_000):
        with server.connect() as client:
            client.request("POST", "/sub/dir/length", "Transfer-Encoding: chunked")
            data = b"x" * size
            client.send(b"%x\r\n%b\r\n" % (size, data))
            client.send(b"0\r\n\r\n")
            assert client.read().body.split() == [b"%d:%d" % (size, size)]
    with server.connect() as client:
        client.request("POST", "/sub/dir/length", "Content-Length: 7", body=b"1234567")
        assert client.read().body.split() == [b"7:7"]
        client.get("/sub/dir/length")
        assert client.read().body.split() == [b":0"]
    with server.connect() as client:
        client.request("POST", "/sub/dir/length", "Transfer-Encoding: chunked")
        client.send(b"%x\r\n%b\r\n" % (1 << 20, b"x" * (1 << 20)) + b"1\r\nx\r\n")
        assert client.read_head().status == 413


def test_streams_both_ways(serve: Serve, kind: str) -> None:
    """Each line comes back while the request is still being sent."""
    server = serve(
        kind, command=["sh", "-c", 'echo begin; while read line; do echo "<$line>"; done']
    )
    with server.connect() as client:
        client.request("POST", "/", "Transfer-Encoding: chunked")
        client.send(b"2\r\n0\n\r\n")
        assert client.read_head().status == 200
        assert client.read_until(b"<0>\n")
        for i in range(1, 5):
            client.send(b"2\r\n%d\n\r\n" % i)
            assert client.read_until(b"<%d>\n" % i)
        client.send(b"0\r\n\r\n")
        assert client.read_until(b"\r\n0\r\n\r\n")


def test_a_client_that_leaves(serve: Serve, kind: str, tmp_path: Path) -> None:
    """The process is ended, also one that waits, and its place is free again."""
    pid = tmp_path / "pid"
    server = serve(kind, command=["sh", "-c", HOLD, str(pid)], max_inflight=1)
    held: list[int] = []
    for _ in range(2):
        with server.connect() as client:
            client.get()
            held.append(int(written(pid)))
        poll(lambda: not alive(held[-1]), "the process's end")
        pid.unlink()


def test_overload(serve: Serve, kind: str, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    server = serve(
        kind,
        command=["sh", "-c", f'test -e "$0" && exec echo hi; {HOLD}', str(pid)],
        max_inflight=1,
        queue=1,
        queue_timeout="60s",
    )
    with server.connect() as first, server.connect() as second, server.connect() as third:
        first.get()
        held = int(written(pid))
        second.get()
        third.get()
        # Which of the two is refused is up to the server's order.
        (answered,) = select.select([second.sock, third.sock], [], [], BOUND)[0]
        client, waiting = (second, third) if answered is second.sock else (third, second)
        refused = client.read()
        assert refused.status == 503
        assert refused.fields["retry-after"] == "1"
        first.sock.close()
        assert waiting.read().body == b"hi\n"
    poll(lambda: not alive(held), "the process's end")


def test_a_queue_that_moves_too_slowly(serve: Serve, kind: str, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    server = serve(kind, command=["sh", "-c", HOLD, str(pid)], max_inflight=1, queue_timeout=0.2)
    with server.connect() as first:
        first.get()
        held = int(written(pid))
        assert server.get().status == 503
    poll(lambda: not alive(held), "the process's end")


COUNTS = """
import os, sys
block = b"x" * 65536
for i in range(1024):
    sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
    with open(sys.argv[1], "ab") as file: file.write(b".")
"""


def test_a_slow_client(serve: Serve, kind: str, tmp_path: Path) -> None:
    """It throttles the process: of 64 MiB only what buffers hold is written; then all is."""
    count = tmp_path / "count"
    count.touch()
    server = serve(kind, command=[sys.executable, "-c", COUNTS, str(count)])
    with server.connect() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.get()
        poll(lambda: count.stat().st_size, "a first block")
        assert settled(lambda: count.stat().st_size) < 512
        client.read_head()
        received = 0
        while chunk := client.read_chunk():
            received += len(chunk)
        assert (received, client.last_seen) == (1024 * 65536, True)


def test_a_process_that_does_not_read(serve: Serve, kind: str, tmp_path: Path) -> None:
    """It throttles the client. While nothing is read from that, no server of ASGI can see it
    leave: the time limit ends the process."""
    pid = tmp_path / "pid"
    server = serve(kind, command=["sh", "-c", HOLD, str(pid)], exec_timeout=10)
    with server.connect() as client:
        client.request("POST", "/", "Transfer-Encoding: chunked")
        client.send(b"1\r\nx\r\n")
        held = int(written(pid))
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        client.sock.settimeout(1)

        def send() -> None:
            for _ in range(4096):
                client.send(chunk)

        with pytest.raises(TimeoutError):
            send()
    poll(lambda: not alive(held), "the process's end")


def test_server_sent_events(serve: Serve, kind: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = (
        "for i in 1 2 3; do "
        "printf 'id: %s\\nevent: tick\\ndata: one\\ndata: two %s\\n\\n' $i $i; "
        'while ! test -e "$0.$i"; do sleep 0.02; done; done'
    )
    server = serve(kind, command=["sh", "-c", script, str(go)], content_type="text/event-stream")
    url = f"http://127.0.0.1:{server.port}/"
    with (
        httpx.Client(timeout=BOUND, trust_env=False) as client,
        httpx_sse.connect_sse(client, "GET", url) as source,
    ):
        seen = []
        for event in source.iter_sse():
            seen.append((event.event, event.id, event.data))
            go.with_name(f"go.{len(seen)}").touch()  # only now does the next one come
    assert seen == [("tick", str(i), f"one\ntwo {i}") for i in (1, 2, 3)]


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("uvicorn", ("--lifespan", "off", "--timeout-graceful-shutdown", "1")),
        ("granian", ("--workers-kill-timeout", "1")),
    ],
)
def test_without_a_lifespan(serve: Serve, kind: str, flags: tuple[str, ...]) -> None:
    """The first request starts what is needed; a server that ends leaves no process."""
    server = serve(kind, app="lazy", flags=flags, command=["sh", "-c", "echo $$; exec sleep 60"])
    with server.connect() as client:
        client.get("/sub/dir/")
        client.read_head()
        pid = int(client.read_chunk())
        assert alive(pid)
        server.stop()
    poll(lambda: not alive(pid), "the process's end")


def test_a_start_that_fails(tmp_path: Path) -> None:
    """The server says why, and does not start."""
    with pytest.raises(AssertionError, match="snapshot"):
        AsgiServer(tmp_path, "uvicorn", {"command": ["sh", "-c", "x"], "strategy": "nosnapshot"})


def test_snapshot(serve: Serve, kind: str) -> None:
    """Templates start and end with the server's lifespan."""
    server = serve(
        kind, app="mounted", strategy="snapshot", command=["sh", "-c", "echo $$ $PPID"]
    )  # fmt: skip
    answers = [server.get("/sub/dir/").body.split() for _ in range(3)]
    assert len({pid for pid, _ in answers}) == 3
    (parent,) = {int(parent) for _, parent in answers}  # also that of the template
    family = children(parent)
    assert family
    server.stop()
    poll(lambda: not any(alive(pid) for pid in family), "the template's end")


def test_output_cap(serve: Serve, kind: str, tmp_path: Path) -> None:
    """500 where nothing was sent yet, else an answer that is visibly not whole."""
    ways = "case $PATH_INFO in /a) head -c 3000 /dev/zero;; *) head -c 300000 /dev/zero;; esac"
    head = 'printf "Content-Type: text/plain\\n\\n"; '
    server = serve(kind, mode="cgi", command=["sh", "-c", head + ways], max_output="2k")
    answer = server.get("/a")
    assert answer.status == 500 or not answer.complete
    go = tmp_path / "go"
    script = 'echo begun; while ! test -e "$0"; do sleep 0.02; done; yes'
    server = serve(kind, command=["sh", "-c", script, str(go)], max_output="64k")
    with server.connect() as client:
        client.get()
        answer = client.read_head()
        go.touch()
        client.read_body(answer)
    assert (answer.status, answer.complete) == (200, False)
    assert answer.body.startswith(b"begun\ny\n")
