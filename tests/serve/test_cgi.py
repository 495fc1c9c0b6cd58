"""Mode cgi: RFC 3875 over real sockets."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import needs
from serve.harness import (
    BOUND,
    Client,
    Server,
    alive,
    asleep,
    children,
    longer_times,
    poll,
    resident,
)

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

WAIT = 'wait_for() { while [ ! -e "$1" ]; do sleep 0.01; done; }; '
TEXT = "Content-Type: text/plain\\n\\n"
ENV = f"printf '{TEXT}'; env"


def variables(body: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in body.decode().splitlines() if "=" in line)


def env_of(server: Server, request: bytes) -> dict[str, str]:
    with server.connect() as client:
        client.send(request)
        answer = client.read()
        assert answer.status == 200, answer
        return variables(answer.body)


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n"


# ---- documents: section 6.2.1 -------------------------------------------------------------------


def test_document(cgi: Serve) -> None:
    server = cgi(
        "printf 'Status: 418 Short and stout\\r\\nContent-Type: a/b\\nSet-Cookie: a=1\\n"
        "set-cookie: b=2\\r\\nContent-Encoding: x\\nConnection: close\\n\\nbody\\n'"
    )
    with server.connect() as client:

        def lines() -> list[str]:
            client.get()
            head = client.read_until(b"\r\n\r\n").decode()
            return re.sub(r"Date: [^\r]*", "Date: -", head).split("\r\n")

        for _ in range(2):
            while "Transfer-Encoding: chunked" in (head := lines()):  # a busy machine's
                assert client.read_until(b"0\r\n\r\n") == b"5\r\nbody\n\r\n0\r\n\r\n"
            assert head == [
                "HTTP/1.1 418 Short and stout",
                "Server: fastspawn",
                "Date: -",
                "Content-Type: a/b",
                "Set-Cookie: a=1",
                "set-cookie: b=2",
                "Content-Encoding: x",
                "Content-Length: 5",
                "Keep-Alive: timeout=300",
                "",
                "",
            ]
            assert client.read_exactly(5) == b"body\n"


def test_server_and_date_may_be_the_scripts(one: Serve) -> None:
    answer = one(f"printf 'Server: mine\\nDate: then\\n{TEXT}'").get()
    assert (answer.fields["server"], answer.fields["date"]) == ("mine", "then")


def test_long_document(cgi: Serve) -> None:
    server = cgi(f"printf '{TEXT}'; head -c 3000000 /dev/zero")
    with server.connect() as client:
        client.get()
        answer = client.read()
        assert answer.complete
        assert answer.body == bytes(3000000)
        client.get(version="1.0")
        answer = client.read()
        assert answer.fields["connection"] == "close"
        assert answer.body == bytes(3000000)


def test_output_is_passed_on_as_it_comes(cgi: Serve, tmp_path: Path) -> None:
    go = tmp_path / "go"
    server = cgi(
        WAIT + "printf 'Content-Type: a/b\\nX-'; wait_for $1.1; printf 'Part: 1\\n\\n'; "
        "wait_for $1.2; echo one; wait_for $1.3; echo two", go
    )  # fmt: skip
    with server.connect() as client:
        client.get()
        Path(f"{go}.1").touch()
        head = client.read_head()
        assert (head.status, head.fields["x-part"]) == (200, "1")
        for n, line in (("2", b"one\n"), ("3", b"two\n")):
            Path(f"{go}.{n}").touch()
            assert client.read_chunk() == line
        assert client.read_chunk() == b""
        assert client.last_seen
        client.get(version="1.0")
        head = client.read_head()
        assert "transfer-encoding" not in head.fields
        assert client.read_to_end() == b"one\ntwo\n"


@needs.program("curl")
def test_curl_sees_events_as_they_are_printed(one: Serve, tmp_path: Path) -> None:
    go = tmp_path / "go"
    server = one(
        WAIT + "printf 'Content-Type: text/event-stream\\n\\n'; for i in 1 2 3; do "
        "printf 'data: %s\\n\\n' $i; wait_for $1.$i; done",
        go,
    )
    with subprocess.Popen(
        ["curl", "-sN", f"http://127.0.0.1:{server.port}/"], stdout=subprocess.PIPE
    ) as curl:
        assert curl.stdout is not None
        for i in range(1, 4):
            assert curl.stdout.readline() == b"data: %d\n" % i
            assert curl.stdout.readline() == b"\n"
            Path(f"{go}.{i}").touch()
        assert curl.stdout.read() == b""
    assert curl.returncode == 0


def test_slow_client_throttles_the_script(cgi: Serve) -> None:
    server = cgi(f"printf '{TEXT}'; exec head -c 300000000 /dev/zero")
    with server.connect() as client:
        client.get()
        client.read_head()
        client.read_exactly(100000)
        before = resident(server.pid)
        poll(lambda: asleep(server), "the script waits")
        assert resident(server.pid) - before < 20_000_000
        (pid,) = children(server.pid)
    poll(lambda: not alive(pid), "the script's end")


def test_client_that_goes_takes_the_script_with_it(cgi: Serve, tmp_path: Path) -> None:
    held = tmp_path / "pid"
    server = cgi(f"printf '{TEXT}'; echo $$ > $1.new; mv $1.new $1; echo x; exec sleep 60", held)
    with server.connect() as client:
        client.get()
        client.read_until(b"x\n")
        pid = int(held.read_text())
        client.reset()
    poll(lambda: not alive(pid), "the script's end")


# ---- redirects: sections 6.2.2 to 6.2.4 ---------------------------------------------------------

REDIRECTING = """
case $PATH_INFO in
/local) printf 'Location: /show/x%%20y?a=b\\n\\n';;
/slow) printf 'Location: /show\\n'; sleep 0.05; printf '\\n'; sleep 0.05;;
/loop) printf 'Location: /loop\\n\\n';;
/missing) printf 'Location: /%%00\\n\\n';;
/cookie) printf 'Location: /show\\nSet-Cookie: a=b\\n\\n';;
/body) printf 'Location: /show\\n\\nbody';;
/other) printf 'Location: //example.org/\\n\\n';;
/far) printf 'Location: http://example.org/\\n\\n';;
/status) printf 'Status: 303 See Other\\nLocation: /show\\n\\n';;
/fails) printf 'Location: /show\\n\\n'; exit 1;;
*) printf 'Content-Type: text/plain\\n\\n'; env; cat;;
esac
"""


@pytest.mark.parametrize("path", ["/local", "/slow"])
def test_local_redirect(cgi: Serve, path: str) -> None:
    server = cgi(REDIRECTING)
    with server.connect() as client:
        # No method but HEAD, no body and nothing about one is left.
        client.request("POST", path, "Content-Length: 4", "Content-Type: x/y", body=b"body")
        answer = client.read()
        env = variables(answer.body)
        assert answer.status == 200
        assert env["REQUEST_METHOD"] == "GET"
        assert not {"CONTENT_LENGTH", "CONTENT_TYPE"} & env.keys()
        assert not answer.body.endswith(b"body")
        if path == "/local":
            assert (env["PATH_INFO"], env["QUERY_STRING"]) == ("/show/x y", "a=b")
            assert env["REQUEST_URI"] == "/show/x%20y?a=b"
        client.request("HEAD", path)
        assert client.read(head=True).status == 200
        client.get("/show")
        assert client.read().status == 200
    server.logs(5)
    assert f'"POST {path} HTTP/1.1" 302 ' in server.log()[0]
    assert '"GET /show' in server.log()[1]


def test_local_redirect_of_a_request_that_is_still_coming(cgi: Serve) -> None:
    server = cgi(REDIRECTING)
    with server.connect() as client:
        client.request("POST", "/local", "Content-Length: 100", body=b"some")
        answer = client.read()
        assert answer.status == 200
        assert answer.fields["connection"] == "close"
        client.send(b"x" * 96)
        assert client.ended()
    with server.connect() as client:
        client.request("POST", "/local", "Content-Length: 100", body=b"some")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.ended()
    assert server.get("/show").status == 200


def test_local_redirect_to_another_mode(start: Serve, script: Script, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        """
        [[route]]
        path = "/cgi/{...}"
        mode = "cgi"
        command = ["sh", "-c", "printf 'Location: /raw\\n\\n'"]

        [[route]]
        path = "/raw"
        methods = ["GET"]
        command = ["echo", "raw"]
        """.replace("\\n", "\\\\n")
    )
    server = start("--config", str(config), command=())
    with server.connect() as client:
        for _ in range(2):
            client.request("POST", "/cgi/x", "Content-Length: 1", body=b"x")
            assert client.read().body == b"raw\n"


def test_redirects_end(cgi: Serve) -> None:
    server = cgi(REDIRECTING)
    with server.connect() as client:
        client.get("/loop")
        assert client.read().status == 502
        client.get("/missing")
        assert client.read().status == 400
        client.get("/fails")
        assert client.read().status == 200
        client.get("/show")
        assert client.read().status == 200
    server.says("too many local redirects")


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/cookie", 302, "/show"),
        ("/body", 302, "/show"),
        ("/other", 302, "//example.org/"),
        ("/far", 302, "http://example.org/"),
        ("/status", 303, "/show"),
    ],
)
def test_client_redirect(one: Serve, path: str, status: int, location: str) -> None:
    answer = one(REDIRECTING).get(path)
    assert (answer.status, answer.fields["location"]) == (status, location)
    assert answer.body == (b"body" if path == "/body" else b"")


# ---- what scripts do wrong ----------------------------------------------------------------------


def test_bad_output(cgi: Serve) -> None:
    server = cgi("exec cat")
    with server.connect() as client:
        for output in (
            b"",
            b"\n",
            b"body only\n",
            b"Content-Type: a/b",
            b"Content-Type: a/b\n",
            b"X: y\n\n",
            b"Status: 100\n\n",
            b"Status: 99999\n\n",
            b"Content-Type: a/b\nX: a\rY: b\n\n",
            b"Content-Type: a/b\nX: \0\n\n",
            b"<!DOCTYPE html>\n<p>Set-Cookie: a=b\n\nbody",
            b"Content-Type: a/b\nTransfer-Encoding: chunked\n\n0\r\n\r\n",
            b"Content-Type: a/b\nContent-Length: 3\nContent-Length: 4\n\nabc",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n",
            b"HTTP/2 200\r\nContent-Type: a/b\r\n\r\n",
        ):
            client.post(output)
            answer = client.read()
            assert (answer.status, answer.complete) == (502, True), output
            assert answer.body == b"502 Bad Gateway: the script's answer is malformed\n"
        client.request("HEAD")
        assert client.read(head=True).status == 502
        client.post(b"Status: 200\n\nfine")
        assert client.read().body == b"fine"
    server.says("fastspawn: cgi: POST /: not a Status: '99999'; output: b'Status")


def test_odd_lines_in_a_header(cgi: Serve) -> None:
    """They are left out, and the operator is told; what is left is the answer."""
    server = cgi('cat; [ "$CONTENT_TYPE" = quick ] || sleep 0.05')
    odd = (
        b"<!--: spam\n",
        b"Use of uninitialized value at x.pl line 3.\n",
        b"a\rSet-Cookie: b=c\n",
        b" Set-Cookie: b=c\n",
        b"(\n Set-Cookie: b=c\n",
        b"Content-Length: many\n",
        b"Content-Type: a/b\n",
    )
    with server.connect() as client:
        for line in odd:
            for how in ("quick", "slow"):
                client.post(line + b"Content-Type: a/b\nX-CGI-Y: z\n\nbody", f"Content-Type: {how}")
                answer = client.read()
                assert (answer.status, answer.body) == (200, b"body")
                ours = {"server", "date", "transfer-encoding", "content-length", "keep-alive",
                        "x-accel-buffering"}  # fmt: skip
                assert answer.fields.keys() - ours == {"content-type", "x-cgi-y"}
                assert (answer.fields["content-type"], answer.fields["x-cgi-y"]) == ("a/b", "z")
        client.post(b"HTTP/1.1 404 Gone fishing\r\nContent-Type : a/b\r\nX: 1\n 2\n\nbody")
        answer = client.read()
        assert (answer.status, answer.fields["x"], answer.body) == (404, "1 2", b"body")
    complaints = server.errors().splitlines()[1:]
    assert len(complaints) == 2 * len(odd)
    start = "fastspawn: cgi: POST /: dropped from the header: "
    assert complaints[0] == f"{start}'<!--: spam' (not a header field)"
    assert complaints[4] == f"{start}'a\\rSet-Cookie: b=c' (not a header field)"
    assert complaints[8] == f"{start}'(' (not a header field), and 1 more"


FRAGMENTS = st.sampled_from(
    [
        b"Content-Type: a/b\n",
        b"Status: 200 OK\r\n",
        b"Status: 204\n",
        b"Status: 101\n",
        b"Content-Length: 2\n",
        b"Location: http://a/\n",
        b"Transfer-Encoding: chunked\n",
        b"Connection: keep-alive\n",
        b"X: y\rSet-Cookie: z\n",
        b"x\rSet-Cookie: z\n",
        b" Set-Cookie: z\n",
        b"\rSet-Cookie: z\n",
        b"HTTP/1.1 200 OK\r\n",
        b"\n",
        b"\r\n",
        b"0\r\n\r\n",
        b"(b",  # no part of a name: the client here takes none twice
    ]
)


def test_whatever_a_script_writes_is_one_answer(one: Serve) -> None:
    """And the next one on the connection is the next one."""
    server = one("cat; [ $QUERY_STRING ] || sleep 0.02", options=("--no-access-log",))

    @settings(max_examples=150)
    @given(st.lists(FRAGMENTS, max_size=7).map(b"".join), st.booleans(), st.booleans())
    def check(output: bytes, head: bool, quick: bool) -> None:
        with server.connect() as client:
            client.request(
                "HEAD" if head else "POST", f"/?{'q' * quick}",
                f"Content-Length: {len(output)}", body=output,
            )  # fmt: skip
            raw = client.read_until(b"\r\n\r\n")
            assert re.fullmatch(
                rb"HTTP/1\.1 [2-5]\d\d [ -~]*\r\n([-A-Za-z]+: [ -~]+\r\n)+\r\n", raw
            )
            assert b"\nSet-Cookie" not in raw.title()
            client.buffer = raw + client.buffer
            answer = client.read(head=head or b" 204 " in raw)
            if answer.complete:
                client.request("POST", "/?q", "Content-Length: 17", body=b"Status: 299\n\nnext")
                answer = client.read()
                assert (answer.status, answer.body) == (299, b"next")

    check()


def test_bad_output_of_a_script_that_lives_on(cgi: Serve, tmp_path: Path) -> None:
    held = tmp_path / "pid"
    server = cgi("echo $$ > $1.new; mv $1.new $1; printf 'X: \\033\\n'; exec sleep 60", held)
    with server.connect() as client:
        client.get()
        assert client.read().status == 502
        pid = int(held.read_text())
        poll(lambda: not alive(pid), "the script's end")
        client.get()
        assert client.read().status == 502


def test_header_block_without_end(cgi: Serve) -> None:
    server = cgi(
        "printf 'Content-Type: a/b\\n'; exec yes 'X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy'"
    )
    assert server.get().status == 502
    poll(lambda: not children(server.pid), "no process is left")
    server.says("bytes of header fields")


def test_failure_before_the_header(cgi: Serve) -> None:
    server = cgi("echo X: secret; exit 3")
    why = "it exited with status 3: it ends within its header"
    with server.connect() as client:
        for _ in range(2):
            client.get("/a?b")
            answer = client.read()
            assert answer.status == 500
            assert b"status 3" in answer.body
            assert b"secret" not in answer.body
    server.says(f"fastspawn: cgi: GET /a?b: {why}; output: b'X: secret\\n'")


def test_death_right_after_the_header(cgi: Serve) -> None:
    server = cgi(f"printf '{TEXT}'; echo body; kill -9 $$")
    for _ in range(3):
        answer = server.get()
        # The head may have been sent, if all of it was slow. It never looks like success.
        assert answer.status == 500 or not answer.complete
        if answer.status == 500:
            assert b"body" not in answer.body


def test_body_shorter_than_its_content_length_at_once(cgi: Serve) -> None:
    server = cgi("printf 'Content-Type: a/b\\nContent-Length: 4\\n\\nabc'")
    for _ in range(3):
        answer = server.get()
        assert answer.status == 502 or not answer.complete
    server.says("shorter than its Content-Length")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_death_after_the_header(cgi: Serve, tmp_path: Path, version: str) -> None:
    go = tmp_path / "go"
    server = cgi(WAIT + f"printf '{TEXT}'; echo one; wait_for $1; echo last; kill -9 $$", go)
    with server.connect() as client:
        client.get(version=version)
        assert client.read_head().status == 200
        if version == "1.1":
            assert client.read_chunk() == b"one\n"
            go.touch()
            assert client.read_chunk() == b"last\n"
            assert client.read_chunk() == b""
            assert not client.last_seen
        else:
            client.read_until(b"one\n")
            go.touch()
            with pytest.raises(ConnectionResetError):
                client.read_to_end()


def test_deadline_before_the_header(cgi: Serve) -> None:
    server = cgi("echo Content-Type: a/b; exec sleep 60", options=("--exec-timeout", "300ms"))
    assert server.get().status == 504


def test_deadline_after_the_header(cgi: Serve) -> None:
    def begun(timeout: str) -> bool:
        options = ("--exec-timeout", timeout)
        server = cgi(f"printf '{TEXT}'; echo x; exec sleep 60", options=options)
        with server.connect() as client:
            client.get()
            if client.read_head().status != 200:
                return False
            assert client.read_chunk() == b"x\n"
            assert client.read_chunk() == b""
            return not client.last_seen

    assert any(map(begun, longer_times()))


def test_too_much_output(one: Serve) -> None:
    server = one(f"printf '{TEXT}'; head -c 100000 /dev/zero", options=("--max-output", "50k"))
    answer = server.get()
    assert answer.status == 500 or not answer.complete


# ---- lengths and bodies -------------------------------------------------------------------------


def test_content_length_of_the_script(cgi: Serve, tmp_path: Path) -> None:
    go = tmp_path / "go"
    server = cgi(
        WAIT + "printf 'Content-Type: a/b\\nContent-Length: 8\\n\\none\\n'; wait_for $1; "
        "printf 'two\\nthree\\n'",
        go,
    )
    with server.connect() as client:
        client.get()
        head = client.read_head()
        assert head.fields["content-length"] == "8"
        assert "transfer-encoding" not in head.fields
        assert client.read_exactly(4) == b"one\n"
        go.touch()
        # What is too much is cut off, and the connection is none the worse for it.
        assert client.read_exactly(4) == b"two\n"
        client.get()
        answer = client.read()
        assert answer.body == b"one\ntwo\n"
        client.get(version="1.0")
        assert client.read().body == b"one\ntwo\n"
    server.says("longer than its Content-Length")


def test_body_shorter_than_its_content_length(cgi: Serve, tmp_path: Path) -> None:
    go = tmp_path / "go"
    server = cgi(
        WAIT + "printf 'Content-Type: a/b\\nContent-Length: 8\\n\\none\\n'; wait_for $1", go
    )
    with server.connect() as client:
        client.get()
        assert client.read_head().status == 200
        assert client.read_exactly(4) == b"one\n"
        go.touch()
        assert client.ended()
    server.says("shorter than its Content-Length")


@pytest.mark.parametrize("slow", ["", "sleep 0.05; "])
def test_status_without_a_body(cgi: Serve, slow: str) -> None:
    server = cgi(
        f"printf 'Status: %s\\nContent-Length: 9\\n\\nbody' $QUERY_STRING; {slow}echo more"
    )
    with server.connect() as client:
        for status, length in ((204, None), (205, "0"), (304, "9")) * 2:
            client.get(f"/?{status}")
            head = client.read_head()
            assert head.status == status
            assert head.fields.get("content-length") == length
            assert "transfer-encoding" not in head.fields


@pytest.mark.parametrize("slow", ["", "sleep 0.05; "])
def test_head(cgi: Serve, slow: str) -> None:
    server = cgi(f'printf "${{QUERY_STRING}}{TEXT}"; echo $REQUEST_METHOD; {slow}echo more')
    with server.connect() as client:
        for length in (None, "9") * 2:
            client.request("HEAD", "/?Content-Length:9\\n" if length else "/")
            head = client.read(head=True)
            assert head.status == 200
            assert head.fields.get("content-length") == length
        client.get(version="1.0")
        assert client.read().body.startswith(b"GET\n")


# ---- NPH: section 5 -----------------------------------------------------------------------------


@pytest.fixture
def nph(tmp_path: Path) -> Callable[[str], str]:
    def nph(text: str) -> str:
        path = tmp_path / "nph-script"
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return str(path)

    return nph


@pytest.mark.parametrize("slow", ["", "sleep 0.05; "])
def test_nph(any_way: Serve, nph: Callable[[str], str], slow: str) -> None:
    program = nph(f"printf 'HTTP/1.0 299 Mine\\r\\nX: y\\n\\none\\n'; {slow}echo two")
    server = any_way("--mode", "cgi", command=(program,))
    for method in ("GET", "HEAD"):
        with server.connect() as client:
            client.request(method)
            client.get("/another, which is not answered".replace(" ", "-"))
            assert client.read_to_end() == b"HTTP/1.0 299 Mine\r\nX: y\n\none\ntwo\n"
    server.logs(2)
    assert '" 299 ' in server.log()[0]


def test_nph_that_is_not_http(any_way: Serve, nph: Callable[[str], str]) -> None:
    server = any_way("--mode", "cgi", command=(nph(f"printf '{TEXT}'; echo body"),))
    answer = server.get()
    assert answer.status == 502
    assert b"body" not in answer.body


def test_nph_that_is_killed(any_way: Serve, nph: Callable[[str], str], tmp_path: Path) -> None:
    go = tmp_path / "go"
    program = nph(WAIT + "printf 'HTTP/1.0 200 OK\\r\\n\\r\\none\\n'; wait_for $1; kill -9 $$")
    server = any_way("--mode", "cgi", command=(program, str(go)))
    with server.connect() as client:
        client.get()
        client.read_until(b"one\n")
        go.touch()
        with pytest.raises(ConnectionResetError):
            client.read_to_end()


# ---- the request: section 4 ---------------------------------------------------------------------


def test_variables(cgi: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVERS_SECRET", "x")
    monkeypatch.setenv("HTTP_X_FROM_SERVER", "x")
    server = cgi(ENV)
    env = env_of(
        server,
        b"GET /a%20b/c?d=%20e HTTP/1.1\r\nHost: example.org:99\r\nAccept: a\r\nX-y: 1\r\n"
        b"Accept: b\r\nCookie: a=1\r\nCookie: b=2\r\nProxy: evil\r\nX_y: 2\r\n"
        b"Authorization: Basic eDp5\r\nTE: x\r\nConnection: X-Hop\r\nX-Hop: x\r\n\r\n",
    )
    port = env.pop("REMOTE_PORT")
    assert 0 < int(port) < 65536
    for name in list(env):
        if name in ("PATH", "PWD", "OLDPWD", "SHLVL", "_", "LANG", "TZ") or name.startswith("LC_"):
            del env[name]
    assert env == {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "HTTP_ACCEPT": "a, b",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_HOST": "example.org:99",
        "HTTP_X_Y": "1",
        "PATH_INFO": "/a b/c",
        "QUERY_STRING": "d=%20e",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_HOST": "127.0.0.1",
        "REQUEST_METHOD": "GET",
        "REQUEST_SCHEME": "http",
        "REQUEST_URI": "/a%20b/c?d=%20e",
        "SCRIPT_FILENAME": shutil.which("sh"),
        "SCRIPT_NAME": "",
        "SERVER_ADDR": "127.0.0.1",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": str(server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "fastspawn",
    }


def test_what_a_request_does_not_have_is_not_set(
    start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it the server's own, which may have been started by a script."""
    names = "PATH_INFO", "PATH_TRANSLATED", "CONTENT_LENGTH", "CONTENT_TYPE", "HTTPS"
    for name in names:
        monkeypatch.setenv(name, "the-servers")
    text = ENV.replace("'", '"')
    server = start(
        *("--mode", "cgi", "--pass-env", "*", "--document-root", "/srv"),
        *("--route", f"/app/{{...}}=sh -c '{text}'"), command=(),
    )  # fmt: skip
    env = env_of(server, b"GET /app HTTP/1.1\r\nHost: h\r\n\r\n")
    assert not env.keys() & set(names)
    env = env_of(
        server,
        b"POST /app/ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Type: a/b\r\n\r\n",
    )
    assert [env.get(name) for name in names] == ["/", "/srv/", "0", "a/b", None]


def test_environment_that_was_asked_for(cgi: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED", "s")
    server = cgi(
        ENV,
        options=(
            *("--pass-env", "SHARED", "--set-env", "MINE=m", "--set-env", "SERVER_NAME=fixed"),
            *("--set-env", "HTTP_FORGED=no", "--pass-authorization"),
            *("--document-root", "/srv"),
        ),
    )
    env = env_of(
        server,
        b"GET /x HTTP/1.1\r\nHost: h\r\nForged: yes\r\nAuthorization: Bearer t\r\n\r\n",
    )
    assert env["SHARED"] == "s"
    assert env["MINE"] == "m"
    assert env["SERVER_NAME"] == "fixed"
    assert env["HTTP_FORGED"] == "no"
    assert env["HTTP_AUTHORIZATION"] == "Bearer t"
    assert not {"AUTH_TYPE", "REMOTE_USER"} & env.keys()
    assert (env["DOCUMENT_ROOT"], env["PATH_TRANSLATED"]) == ("/srv", "/srv/x")


def test_http10_and_absolute_targets(one: Serve) -> None:
    server = one(ENV)
    env = env_of(server, b"GET / HTTP/1.0\r\n\r\n")
    assert (env["SERVER_PROTOCOL"], env["SERVER_NAME"]) == ("HTTP/1.0", "127.0.0.1")
    env = env_of(server, b"GET http://example.org/p?q HTTP/1.1\r\nHost: other\r\n\r\n")
    assert (env["SERVER_NAME"], env["HTTP_HOST"]) == ("example.org", "example.org")
    assert (env["PATH_INFO"], env["REQUEST_URI"]) == ("/p", "/p?q")


def test_blanks_around_a_value(one: Serve) -> None:
    """RFC 9112 section 5.1: they are none of it."""
    env = env_of(
        one(ENV),
        b"GET / HTTP/1.1\r\nHost: \t example.org:80 \t\r\nContent-Type:  a/b \r\n"
        b"X-A: c \td\t\r\nX-B: \t \r\n\r\n",
    )
    assert (env["SERVER_NAME"], env["HTTP_HOST"]) == ("example.org", "example.org:80")
    assert (env["CONTENT_TYPE"], env["HTTP_X_A"], env["HTTP_X_B"]) == ("a/b", "c \td", "")


def test_refused(one: Serve, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    server = one(f"touch $1; printf '{TEXT}'", ran)
    for head, status in (
        (b"GET / HTTP/1.1\r\nHost: a b\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: <script>\r\n", 400),
        (b"GET http://user@host/ HTTP/1.1\r\nHost: h\r\n", 400),
        (b"GET /a%00b HTTP/1.1\r\nHost: h\r\n", 400),
        (b"GET /a%0d%0ab HTTP/1.1\r\nHost: h\r\n", 400),
        (b"GET /a%2f..%2fb HTTP/1.1\r\nHost: h\r\n", 400),
        (b"GET /../a HTTP/1.1\r\nHost: h\r\n", 400),
        (b"GET /a/%2e%2e/b HTTP/1.1\r\nHost: h\r\n", 400),
        (b"TRACE / HTTP/1.1\r\nHost: h\r\n", 405),
        (b"POST / HTTP/1.1\r\nHost: a b\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"POST /..  HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc", 400),
    ):
        with server.connect() as client:
            client.send(head if b"\r\n\r\n" in head else head + b"\r\n")
            answer = client.read()
            assert answer.status == status, head
            if status == 405:
                assert "POST" in answer.fields["allow"]
            if not head.startswith(b"POST"):
                client.send(head + b"Connection: close\r\n\r\n")
                assert client.read().status == status
                assert client.ended()
    assert not ran.exists()
    assert server.get().status == 200
    assert ran.exists()


def test_query_is_never_an_argument(one: Serve) -> None:
    server = one(f"printf '{TEXT}'; echo $# $*; echo $QUERY_STRING", "fixed")
    for query in ("-rf+x", "a+b", "--help", "$(id)", "`id`"):
        assert server.get(f"/?{query}").body.decode() == f"1 fixed\n{query}\n"


def test_script_name_of_a_route(start: Serve, script: Script) -> None:
    text = ENV.replace("'", '"')
    server = start(
        *("--mode", "cgi", "--route", f"/git/{{path...}}=sh -c '{text}'"),
        *("--route", f"/one/{{name}}=sh -c '{text}'"),
        command=script(f"printf '{TEXT}'; env"),
    )
    for target, name, info in (
        ("/git", "/git", None),
        ("/git/", "/git", "/"),
        ("/git/a/b%20c", "/git", "/a/b c"),
        ("/one/x", "/one/x", None),
        ("/other/x", "", "/other/x"),
    ):
        env = env_of(server, f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert (env["SCRIPT_NAME"], env.get("PATH_INFO")) == (name, info), target


def test_a_path_that_only_the_script_looks_at(start: Serve, tmp_path: Path) -> None:
    """Encoded slashes, and bytes that are not UTF-8: decoded, like everything in PATH_INFO."""
    show = tmp_path / "show"
    show.write_text(
        f'#!/bin/sh\nprintf \'{TEXT}%s|%s|%s|%s\' "$SCRIPT_NAME" "$PATH_INFO" '
        '"$PATH_TRANSLATED" "$REQUEST_URI"\n'
    )
    show.chmod(0o755)
    config = tmp_path / "config.toml"
    config.write_text(
        f"""
        mode = "cgi"
        document-root = "/srv"
        command = ["{show}"]
        [[route]]
        path = "/app/{{...}}"
        command = ["{show}"]
        [[route]]
        path = "/dir/{{...}}"
        cgi-dir = "{tmp_path}"
        [[route]]
        path = "/set/{{path...}}"
        command = ["{show}"]
        set-env = {{ P = "{{path}}" }}
        [[route]]
        path = "/raw/{{path...}}"
        mode = "raw"
        command = ["echo", "{{path}}"]
        """
    )
    server = start("--config", str(config), command=())
    with server.connect() as client:
        for target, name, info in (
            (b"/a%2Fb", b"", b"/a/b"),
            (b"/caf%E9", b"", b"/caf\xe9"),
            (b"/app/caf%C3%A9%2f/%ff%2F", b"/app", b"/caf\xc3\xa9//\xff/"),
            (b"/dir/show/a%2fb/%E9", b"/dir/show", b"/a/b/\xe9"),
        ):
            client.send(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = client.read()
            assert answer.body == b"|".join([name, info, b"/srv" + info, target])
        for target, status in (
            ("/a%2F..%2Fb", 400), ("/%2e%2e%2fb", 400), ("/a%00%2f", 400),
            ("/dir%2fshow", 200), ("/dir/%2e%2fshow", 400), ("/dir/x%2f..%2fshow", 400),
            ("/dir/show%2fa", 404), ("/dir/%2fshow", 404), ("/dir/%ff", 404),
            ("/set/a%2fb", 400), ("/set/%ff", 400), ("/raw/a%2fb", 400), ("/raw/%ff", 400),
        ):  # fmt: skip
            client.get(target)
            assert client.read().status == status, target


def test_unix_socket(start: Serve, script: Script, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = start("--mode", "cgi", command=script(ENV), where=("--uds", path))
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    with Client(sock) as client:
        client.get()
        env = variables(client.read().body)
    assert (env["REMOTE_ADDR"], env["SERVER_NAME"], env["SERVER_PORT"]) == ("", "test", "80")
    assert server.process.poll() is None


# ---- bodies of requests -------------------------------------------------------------------------

COUNT = f"printf '{TEXT}'; echo ${{CONTENT_LENGTH-none}}; cat | wc -c"


def test_body_with_a_length(cgi: Serve) -> None:
    server = cgi(f"printf '{TEXT}'; echo $CONTENT_LENGTH $CONTENT_TYPE; cat")
    with server.connect() as client:
        for body in (b"", b"x", b"y" * 100000):
            # What follows is no part of it.
            client.post(body, "Content-Type: a/b")
            client.get()
            assert client.read().body == b"%d a/b\n" % len(body) + body
            assert client.read().body == b"\n"


def test_chunked_body_is_given_a_length(cgi: Serve) -> None:
    server = cgi(COUNT)
    with server.connect() as client:
        for chunks in ([], [b"abc"], [b"abc", b"defg"], [bytes(50000)] * 4, [bytes(300000)] * 10):
            client.send(CHUNKED_POST + b"\r\n" + chunked(*chunks, b""))
            length = sum(map(len, chunks))
            assert client.read().body.split() == [b"%d" % length] * 2
        client.send(CHUNKED_POST + b"Expect: 100-continue\r\n\r\n")
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(chunked(b"abc"))
        client.send(chunked(b"de", b""))
        assert client.read().body.split() == [b"5", b"5"]
        client.get()
        assert client.read().body.split() == [b"none", b"0"]


def test_chunked_body_that_the_script_reads_slowly_or_not_at_all(cgi: Serve) -> None:
    server = cgi(f"printf '{TEXT}'; echo $CONTENT_LENGTH; head -c 5; sleep 0.05")
    with server.connect() as client:
        for _ in range(2):
            client.send(CHUNKED_POST + b"\r\n" + chunked(*[b"x" * 100000] * 20, b""))
            assert client.read().body == b"2000000\nxxxxx"


@pytest.mark.parametrize("at_once", [True, False])
def test_chunked_body_that_is_too_large(one: Serve, at_once: bool) -> None:
    server = one(COUNT, options=("--buffer-body", "10000", "--max-inflight", "1"))
    with server.connect() as client:
        client.send(CHUNKED_POST + b"\r\n" + chunked(bytes(10000), b""))
        assert client.read().body.split() == [b"10000"] * 2
        client.send(CHUNKED_POST + b"\r\n" + (b"" if at_once else chunked(bytes(10000))))
        client.send(chunked(bytes(10001) if at_once else b"x"))
        assert client.read().status == 413
        assert client.ended()
    # Its place is free again.
    with server.connect() as client:
        client.post(bytes(20000))
        assert client.read().body.split() == [b"20000"] * 2


def test_chunked_body_that_is_too_large_in_the_queue(one: Serve, tmp_path: Path) -> None:
    go = tmp_path / "go"
    server = one(
        WAIT + f"wait_for $1; {COUNT}", go,
        options=("--buffer-body", "1000", "--max-inflight", "1"),
    )  # fmt: skip
    with server.connect() as first, server.connect() as second:
        first.get()
        poll(lambda: children(server.pid), "the first request's process")
        second.send(CHUNKED_POST + b"\r\n" + chunked(bytes(1001)))
        assert second.read().status == 413
        go.touch()
        assert first.read().status == 200


def test_chunked_body_that_does_not_come(cgi: Serve) -> None:
    for timeout in longer_times():
        server = cgi(COUNT, options=("--exec-timeout", timeout, "--max-inflight", "1"))
        with server.connect() as client:
            client.send(CHUNKED_POST + b"\r\n" + chunked(b"abc"))
            assert client.read().status == 408
            assert client.ended()
        status = server.get().status
        if status != 504:
            break
    assert status == 200


def test_chunked_body_that_cannot_be_kept(start: Serve, script: Script) -> None:
    # A file may have 600 * 512 bytes: the log has room, the body has not.
    prefix = ("sh", "-c", 'ulimit -f 600; exec "$@"', "sh")
    server = start("--mode", "cgi", "--max-inflight", "1", command=script(COUNT), prefix=prefix)
    for _ in range(2):
        with server.connect() as client:
            client.send(CHUNKED_POST + b"\r\n" + chunked(bytes(270000), bytes(100000)))
            answer = client.read()
            assert answer.status == 500
            assert b"could not be kept" in answer.body
            assert client.ended()
    with server.connect() as client:
        client.send(CHUNKED_POST + b"\r\n" + chunked(bytes(270000), b""))
        assert client.read().body.split() == [b"270000"] * 2
    server.says("cannot keep the body: File too large")


def test_client_that_goes_within_a_chunked_body(cgi: Serve) -> None:
    server = cgi(COUNT, options=("--max-inflight", "1"))
    for body in (b"abc", bytes(300000)):
        with server.connect() as client:
            client.send(CHUNKED_POST + b"Expect: 100-continue\r\n\r\n")
            client.read_until(b"\r\n\r\n")
            client.send(chunked(body))
            client.reset()
        assert server.get().body.split() == [b"none", b"0"]


def test_chunked_body_as_it_comes(cgi: Serve) -> None:
    server = cgi(
        f"printf '{TEXT}'; echo ${{CONTENT_LENGTH-none}}; cat", options=("--stream-chunked",)
    )
    with server.connect() as client:
        client.send(CHUNKED_POST + b"\r\n" + chunked(b"abc"))
        client.read_head()
        received = b""
        while len(received) < 8:
            received += client.read_chunk()
        assert received == b"none\nabc"
        client.send(chunked(b"def", b""))
        assert client.read_chunk() == b"def"
        assert client.read_chunk() == b""


def test_many_at_once(cgi: Serve) -> None:
    server = cgi(COUNT, options=("--max-inflight", "4"))
    clients = [server.connect() for _ in range(30)]
    try:
        for n, client in enumerate(clients):
            client.send(CHUNKED_POST + b"\r\n" + chunked(bytes(n * 20000 + 1)))
        for n, client in reversed(list(enumerate(clients))):
            if n % 3 == 0:
                client.reset()
            else:
                client.send(chunked(b"") if n % 2 else chunked(b"x", b""))
        for n, client in enumerate(clients):
            if n % 3:
                length = n * 20000 + 1 + (n % 2 == 0)
                assert client.read().body.split() == [b"%d" % length] * 2
    finally:
        for client in clients:
            client.sock.close()
    poll(lambda: not children(server.pid), "no process is left", BOUND)
