"""What a script's exit status is to its answer: nothing, unless the operator wants it.

The error pages of real programs, which end with all kinds of statuses, come whole.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import needs
from serve.harness import Server, longer_times, poll
from serve.test_metrics import Figures

Serve = Callable[..., Server]

FOR_EVER = "while :; do sleep 0.01; done"
WAIT = 'wait_for() { while [ ! -e "$1" ]; do sleep 0.01; done; }; '
TEXT = "Content-Type: text/plain\\n\\n"
STRICT = ("--cgi-exit", "strict")


# ---- complete answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [1, 3, 255])
def test_a_page_that_is_complete(cgi: Serve, status: int) -> None:
    server = cgi(f"printf 'Status: 404 Not here\\n{TEXT}'; echo the page; exit {status}")
    with server.connect() as client:
        for _ in range(3):
            client.get()
            answer = client.read()
            assert (answer.status, answer.body, answer.complete) == (404, b"the page\n", True)
        client.request("HEAD")
        assert client.read(head=True).status == 404
        client.get(version="1.0")
        assert client.read().body == b"the page\n"
    assert server.errors().count("\n") == 1, "what is usual is no line in the log of errors"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("length", ["", "Content-Length: 8\\n"])
def test_a_page_that_takes_its_time(cgi: Serve, tmp_path: Path, version: str, length: str) -> None:
    go = tmp_path / "go"
    server = cgi(WAIT + f"printf '{length}{TEXT}one\\n'; wait_for $1; echo two; exit 1", go)
    with server.connect() as client:
        client.get(version=version)
        head = client.read_head()
        assert head.status == 200
        assert ("content-length" in head.fields) == bool(length)
        client.read_until(b"one\n") if version == "1.0" or length else client.read_chunk()
        go.touch()
        if version == "1.1" and not length:
            assert client.read_chunk() == b"two\n"
            assert client.read_chunk() == b""
            assert client.last_seen
        elif version == "1.1":
            assert client.read_exactly(4) == b"two\n"
        else:
            assert client.read_to_end() == b"two\n"
        if version == "1.1":
            client.get()
            assert client.read().body == b"one\ntwo\n"


def test_an_nph_answer(any_way: Serve, tmp_path: Path) -> None:
    program = tmp_path / "nph-page"
    program.write_text("#!/bin/sh\nprintf 'HTTP/1.0 200 OK\\r\\n\\r\\none\\n'; exit 1\n")
    program.chmod(0o755)
    server = any_way("--mode", "cgi", command=(str(program),))
    with server.connect() as client:
        client.get()
        assert client.read_to_end() == b"HTTP/1.0 200 OK\r\n\r\none\n"


def test_the_status_is_in_the_log(any_way: Serve, script: Callable[..., tuple[str, ...]]) -> None:
    command = script(f"printf '{TEXT}page'; exit 7")
    common = any_way("--mode", "cgi", command=command)
    assert common.get().status == 200
    poll(common.log, "a line")
    assert " exit=7 " in common.log()[0]
    both = any_way("--mode", "cgi", "--log-format", "json", "--metrics-path", "/metrics",
                   command=command)  # fmt: skip
    assert both.get().status == 200
    poll(both.log, "a line")
    row = json.loads(both.log()[0])
    assert (row["status"], row["exit"], row["signal"]) == (200, 7, None)
    figures = Figures(both)
    assert figures("exits_total", route="/{...}", status="7") == 1
    assert figures("requests_total", route="/{...}", method="GET", status="200") == 1


# ---- others -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status", "why"),
    [
        ("exit 3", 500, "exited with status 3"),
        ("echo no header; exit 3", 500, "exited with status 3"),
        ("printf 'Content-Type: text/plain\\n'; exit 3", 500, "exited with status 3"),
        (f"printf 'Content-Length: 9\\n{TEXT}short'; exit 3", 500, "exited with status 3"),
        (f"printf 'Content-Length: 9\\n{TEXT}short'", 502, "malformed"),
        ("printf 'X: \\033\\n'; exit 3", 502, "malformed"),
        ("printf 'X: \\033\\n'; sleep 0.1; exit 3", 502, "malformed"),
        (f"printf '{TEXT}page'; kill -9 $$", 500, "killed by signal 9"),
    ],
)
def test_what_is_no_complete_answer(one: Serve, text: str, status: int, why: str) -> None:
    server = one(text)
    for _ in range(3):
        answer = server.get()
        if "Content-Type" in text and answer.status == 200:
            assert not answer.complete  # the head may have been sent, if all of it was slow
        else:
            assert (answer.status, why in answer.body.decode()) == (status, True)
            assert b"page" not in answer.body


def test_a_long_answer_that_is_shorter_than_it_said(cgi: Serve, tmp_path: Path) -> None:
    go = tmp_path / "go"
    server = cgi(WAIT + f"printf 'Content-Length: 9\\n{TEXT}one\\n'; wait_for $1; exit 1", go)
    with server.connect() as client:
        client.get()
        client.read_head()
        assert client.read_exactly(4) == b"one\n"
        go.touch()
        assert client.ended()
    server.says("shorter than its Content-Length")


def test_a_deadline_of_a_script_that_exits_at_term(cgi: Serve) -> None:
    script = f"trap 'echo last; exit 1' TERM; printf '{TEXT}'; echo one; {FOR_EVER}"
    for timeout in longer_times():
        answer = cgi(script, options=("--exec-timeout", timeout)).get()
        if answer.status == 200:
            break
    assert (answer.status, answer.complete) == (200, False)


# ---- strict -------------------------------------------------------------------------------------


def test_strict(cgi: Serve, tmp_path: Path) -> None:
    go = tmp_path / "go"
    server = cgi(
        WAIT + f"printf '{TEXT}'; echo one; [ $QUERY_STRING ] || wait_for $1; exit 1", go,
        options=STRICT,
    )  # fmt: skip
    with server.connect() as client:
        client.get()
        assert client.read_head().status == 200
        assert client.read_chunk() == b"one\n"
        go.touch()
        assert client.read_chunk() == b""
        assert not client.last_seen
    answer = server.get("/?quick")
    assert answer.status == 500 or not answer.complete
    server.logs(2)
    if answer.status != 200:
        server.says("it failed; output: b'Content-Type")


def test_strict_for_one_route(start: Serve, tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.write_text(f"#!/bin/sh\nprintf '{TEXT}'; echo page; exit 1\n")
    page.chmod(0o755)
    config = tmp_path / "config.toml"
    config.write_text(
        f"mode = 'cgi'\n[[route]]\npath = '/strict'\ncgi-exit = 'strict'\ncommand = ['{page}']\n"
        f"[[route]]\npath = '/lenient'\ncommand = ['{page}']\n"
    )
    server = start("--config", str(config), command=())
    assert server.get("/lenient").body == b"page\n"
    answer = server.get("/strict")
    assert answer.status == 500 or not answer.complete


def test_another_word() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastspawn.serve", "--cgi-exit", "loose", "--", "true"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "'loose' is not one of lenient, strict" in done.stderr


# ---- error pages of real programs ---------------------------------------------------------------


SH = """#!/bin/sh
set -e
failed() {
    printf 'Status: 500 It failed\\nContent-Type: text/html\\n\\n'
    echo "<h1>Software error</h1>"
}
trap 'failed' EXIT
cat /nonexistent/file
"""

PERL = """#!/usr/bin/env perl
use strict;
$SIG{__DIE__} = sub {
    $| = 1;
    print "Status: 500 It failed\\r\\nContent-type: text/html\\r\\n\\r\\n";
    print "<h1>Software error:</h1>\\n<pre>$_[0]</pre>\\n";
};
open(my $file, '<', '/nonexistent/file') or die "no file: $!";
"""

CARP = """#!/usr/bin/env perl
use CGI::Carp qw(fatalsToBrowser);
open(my $file, '<', '/nonexistent/file') or die "no file: $!";
"""


CGITB = f"""#!{sys.executable} -Wignore
import cgitb
cgitb.enable()
open("/nonexistent/file")
"""

# The same where Python has no cgitb (3.13 and later): so begins its page.
LIKE_CGITB = f"""#!{sys.executable}
import sys
def show(kind, value, trace):
    print("<!--: spam\\nContent-Type: text/html\\n")
    print('<body bgcolor="#f0f0f8"><font color="#f0f0f8" size="-5"> -->')
    print("<p>", kind.__name__, value, "</p>")
sys.excepthook = show
open("/nonexistent/file")
"""


def install(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def has_carp() -> bool:
    perl = shutil.which("perl")
    if perl is None:
        return False
    return subprocess.run([perl, "-MCGI::Carp", "-e", "1"], capture_output=True).returncode == 0


def whole(server: Server, target: str, status: int, *texts: bytes) -> None:
    """The page came whole, by a program that ended with a failure, on a connection that goes
    on."""
    with server.connect() as client:
        for _ in range(2):
            client.get(target)
            answer = client.read()
            assert (answer.status, answer.complete) == (status, True), answer
            for text in texts:
                assert text in answer.body
    assert all(re.search(r" exit=[1-9]\d* ", line) for line in server.logs(2)), server.log()


def test_sh(any_way: Serve, tmp_path: Path) -> None:
    server = any_way("--mode", "cgi", command=(install(tmp_path / "page", SH),))
    whole(server, "/", 500, b"<h1>Software error</h1>\n")


@needs.program("perl")
def test_perl(any_way: Serve, tmp_path: Path) -> None:
    server = any_way("--mode", "cgi", command=(install(tmp_path / "page", PERL),))
    whole(server, "/", 500, b"<pre>no file: No such file", b"</pre>\n")


@pytest.mark.skipif(not has_carp(), reason="no CGI::Carp: apt-get install libcgi-pm-perl")
def test_cgi_carp(any_way: Serve, tmp_path: Path) -> None:
    server = any_way("--mode", "cgi", command=(install(tmp_path / "page", CARP),))
    whole(server, "/", 500, b"<h1>Software error:</h1>", b"no file: No such file", b"</p>\n")


@needs.module("cgitb")
def test_cgitb(any_way: Serve, tmp_path: Path) -> None:
    server = any_way("--mode", "cgi", command=(install(tmp_path / "page", CGITB),))
    whole(server, "/", 200, b"FileNotFoundError", b"/nonexistent/file", b"\n</pre>\n")
    server.says("dropped from the header: '<!--: spam'", 2)


def test_like_cgitb(any_way: Serve, tmp_path: Path) -> None:
    server = any_way("--mode", "cgi", command=(install(tmp_path / "page", LIKE_CGITB),))
    whole(server, "/", 200, b"FileNotFoundError", b"/nonexistent/file", b"</p>\n")
    server.says("dropped from the header: '<!--: spam'", 2)


GITWEB = Path("/usr/share/gitweb/gitweb.cgi")


@pytest.mark.skipif(
    not (GITWEB.exists() and has_carp()), reason="no gitweb, or no CGI.pm: apt-get install gitweb"
)
def test_gitweb(any_way: Serve, tmp_path: Path) -> None:
    config = tmp_path / "gitweb.conf"
    config.write_text("die 'not configured yet';\n")
    server = any_way(
        *("--mode", "cgi", "--set-env", f"GITWEB_CONFIG={config}"), command=(str(GITWEB),)
    )
    whole(server, "/", 200, b"<!DOCTYPE html", b"not configured yet", b"</html>")


MAN2HTML = Path("/usr/lib/cgi-bin/man/man2html")


@pytest.mark.skipif(not MAN2HTML.exists(), reason="no man2html: apt-get install man2html")
def test_man2html(any_way: Serve) -> None:
    server = any_way("--mode", "cgi", command=(str(MAN2HTML),))
    whole(server, "/?no+such", 403, b"<!DOCTYPE HTML", b"</BODY></HTML>")
