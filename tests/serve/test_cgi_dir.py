"""--cgi-dir: a directory of scripts, in many languages, and nothing else of the file system."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.harness import Server
from support import foreign_link

Serve = Callable[..., Server]

SHOW = """#!/bin/sh
printf 'Content-Type: text/plain\\n\\n'
echo "$SCRIPT_NAME|${PATH_INFO-none}|${PATH_TRANSLATED-none}|$SCRIPT_FILENAME|$DOCUMENT_ROOT|\
$(pwd)|$0|$#"
"""


def install(path: Path, text: str = SHOW, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    install(site / "cgi-bin" / "show")
    install(site / "cgi-bin" / "sub" / "deep")
    install(site / "htbin" / "old")
    return site


@pytest.mark.parametrize("strategy", ["direct", "subprocess"])
def test_as_http_server_had_it(start: Serve, site: Path, strategy: str) -> None:
    server = start("--cgi-dir", str(site), "--strategy", strategy, command=())
    with server.connect() as client:
        for target, name, info in (
            ("/cgi-bin/show", "cgi-bin/show", "none"),
            ("/cgi-bin/show?a+b", "cgi-bin/show", "none"),
            ("/cgi-bin/show/a%20b/c", "cgi-bin/show", "/a b/c"),
            ("/cgi-bin/sub/deep/x", "cgi-bin/sub/deep", "/x"),
            ("/htbin/old/", "htbin/old", "/"),
        ):
            client.get(target)
            answer = client.read()
            file = site / name
            translated = "none" if info == "none" else f"{site}{info}"
            assert answer.body.decode() == "|".join(
                ["/" + name, info, translated, str(file), str(site), str(file.parent), str(file)]
            ) + "|0\n"  # fmt: skip


def test_directory_of_scripts_and_cwd(start: Serve, site: Path, tmp_path: Path) -> None:
    scripts = site / "cgi-bin"
    server = start("--cgi-dir", str(scripts), "--cwd", str(tmp_path), command=())
    fields = server.get("/cgi-bin/show").body.decode().split("|")
    assert fields[3:6] == [str(scripts / "show"), str(scripts), str(tmp_path)]


def test_below_a_route(start: Serve, site: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[[route]]\npath = "/app/{{...}}"\ncgi-dir = "{site}/cgi-bin"\n')
    server = start("--config", str(config), "--workers", "2", command=())
    for _ in range(4):
        fields = server.get("/app/sub/deep/x").body.decode().split("|")
        assert fields[:2] == ["/app/sub/deep", "/x"]
    for target, status in (
        ("/app/out", 404),
        ("/app/", 403),
        ("/app/sub", 403),
        ("/cgi-bin/show", 404),
    ):
        assert server.get(target).status == status


def test_beside_routes(start: Serve, site: Path) -> None:
    server = start("--cgi-dir", str(site), "--route", "/raw=echo hi", command=())
    assert server.get("/raw").body == b"hi\n"
    assert server.get("/cgi-bin/show").body.startswith(b"/cgi-bin/show|")
    assert server.get("/missing").status == 404


def test_scripts_come_and_go(start: Serve, site: Path) -> None:
    server = start("--cgi-dir", str(site), command=())
    script = site / "cgi-bin" / "new"
    with server.connect() as client:
        for prepare, status in (
            (lambda: None, 404),
            (lambda: install(script), 200),
            (lambda: script.chmod(0o644), 403),
            (script.unlink, 404),
            (lambda: install(script, "#!/nowhere/interpreter\n"), 500),
        ):
            prepare()
            client.get("/cgi-bin/new")
            assert client.read().status == status


def test_nothing_but_scripts(start: Serve, site: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    evil = f"#!/bin/sh\ntouch {ran}\n"
    install(tmp_path / "outside", evil)
    install(site / "index.cgi", evil)
    scripts = site / "cgi-bin"
    install(scripts / ".hidden", evil)
    install(scripts / "data", "data", 0o644)
    foreign_link(scripts / "out", tmp_path / "outside")
    (scripts / "up").symlink_to("..")
    (scripts / "root").symlink_to("/")
    os.mkfifo(scripts / "pipe", 0o755)
    server = start("--cgi-dir", str(site), command=())
    for target, status in (
        (b"/", 404),
        (b"/index.cgi", 404),
        (b"/cgi-bin", 404),
        (b"/cgi-bin/", 403),
        (b"/cgi-bin/sub", 403),
        (b"/cgi-bin/sub/", 403),
        (b"/cgi-bin/missing", 404),
        (b"/cgi-bin/data", 403),
        (b"/cgi-bin/pipe", 403),
        (b"/cgi-bin/.hidden", 404),
        (b"/cgi-bin/%2ehidden", 404),
        (b"/cgi-bin/out", 403),
        (b"/cgi-bin/up/index.cgi", 403),
        (b"/cgi-bin/root/bin/sh", 403),
        (b"/cgi-bin/../index.cgi", 400),
        (b"/cgi-bin/%2e%2e/index.cgi", 400),
        (b"/cgi-bin/..%2findex.cgi", 400),
        (b"/cgi-bin/sub%2fdeep", 404),
        (b"/cgi-bin/show%00.txt", 400),
        (b"/cgi-bin/./show", 400),
        (b"/cgi-bin\\..\\index.cgi", 404),
        (b"/etc/passwd", 404),
        (b"/cgi-bin/%ff", 404),
        (b"/cgi-bin/" + b"x" * 5000, 404),
        (b"/cgi-bin" + b"/sub" * 3000, 404),
    ):
        with server.connect() as client:
            client.send(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = client.read()
            assert answer.status == status, target
            assert str(site).encode() not in answer.body
    # The operator is told why of what is there and is not run.
    for name, why in (
        ("data", "is not a file that user"),
        ("pipe", "is not a file that user"),
        ("out", "is a link out of the directory, to"),
        ("up", "is a link out of the directory, to"),
    ):
        server.says(f"fastspawn: cgi: GET /cgi-bin/{name}")
        server.says(f": {scripts}/{name} {why}")
    server.says("fastspawn: cgi: ", 5)
    with server.connect() as client:
        client.request("TRACE", "/cgi-bin/show")
        assert client.read().status == 405
    assert not ran.exists()


def test_a_program_that_is_installed_as_a_link(start: Serve, site: Path, tmp_path: Path) -> None:
    """Of the link's owner; or of another, where the operator allows it."""
    program = install(tmp_path / "lib" / "program")
    scripts = site / "cgi-bin"
    (scripts / "installed").symlink_to(program)
    foreign_link(scripts / "allowed", program)
    server = start("--cgi-dir", str(site), command=())
    fields = server.get("/cgi-bin/installed/x").body.decode().split("|")
    # As if the program were there itself.
    assert fields[:2] == ["/cgi-bin/installed", "/x"]
    assert (fields[3], fields[5], fields[6]) == (
        str(scripts / "installed"), str(scripts), str(scripts / "installed")
    )  # fmt: skip
    assert server.get("/cgi-bin/allowed").status == 403
    if os.geteuid() == 0:
        server = start("--cgi-dir", str(site), "--cgi-link-dir", str(program.parent), command=())
        assert server.get("/cgi-bin/allowed").body.startswith(b"/cgi-bin/allowed|none|")


GITWEB = Path("/usr/lib/cgi-bin/gitweb.cgi")


@pytest.mark.skipif(not GITWEB.is_symlink(), reason="no gitweb: apt-get install gitweb")
def test_where_debian_installs_links(start: Serve) -> None:
    server = start("--cgi-dir", str(GITWEB.parent), command=())
    answer = server.get("/cgi-bin/gitweb.cgi")
    assert b"<!-- git web interface version" in answer.body, server.errors()


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("crlf", "#!/bin/sh\r\necho\r\n", (r"its interpreter '/bin/sh\r': No such file or "
         "directory (its lines end with CR LF: save it with LF)")),
        ("missing", "#!/nowhere/to/be found\n", ("its interpreter /nowhere/to/be: No such file or "
         "directory")),
        ("none", "echo hi\n", "it is a script that names no interpreter: begin it with"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("strategy", ["direct", "subprocess"])
def test_a_script_that_is_there_and_cannot_be_run(
    start: Serve, site: Path, strategy: str, name: str, text: str, why: str
) -> None:
    """The kernel says "No such file or directory" of it."""
    script = site / "cgi-bin" / name
    script.write_bytes(text.encode())
    script.chmod(0o755)
    # Not on uvloop: its libuv runs what names no interpreter by /bin/sh.
    server = start(
        *("--cgi-dir", str(site), "--strategy", strategy, "--loop", "asyncio"), command=()
    )
    with server.connect() as client:
        for _ in range(2):
            client.get(f"/cgi-bin/{name}")
            answer = client.read()
            assert (answer.status, b"could not be executed" in answer.body) == (500, True)
            assert not any(word in answer.body for word in (b"No such file", b"/sh", b"nowhere"))
    start_of = f"fastspawn: cgi: GET /cgi-bin/{name}: cannot start {script}: "
    server.says(start_of + why, 2)


def test_slashes_in_a_row_count_as_one(start: Serve, site: Path) -> None:
    server = start("--cgi-dir", str(site), command=())
    fields = server.get("//cgi-bin///show//a").body.decode().split("|")
    assert fields[:2] == ["/cgi-bin/show", "/a"]


@pytest.mark.parametrize("what", ["missing", "file", "link", "both", "workers", "snapshot"])
def test_start_errors(site: Path, tmp_path: Path, what: str) -> None:
    command: tuple[str, ...] = ()
    directory = tmp_path / "x"
    if what == "file":
        directory.touch()
    elif what == "link":
        directory.mkdir()
        (directory / "cgi-bin").symlink_to("/bin")
    elif what == "both":
        directory, command = site, ("echo", "hi")
    elif what == "workers":
        command = ("--workers", "2")
    elif what == "snapshot":
        directory, command = site, ("--strategy", "snapshot")
    done = subprocess.run(
        [sys.executable, "-m", "fastspawn.serve", "--port", "0", "--cgi-dir", directory, *command],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("fastspawn: error: ")
    assert "cgi-dir" in done.stderr
    assert done.stderr.count("\n") == 1


# ---- languages ----------------------------------------------------------------------------------

SH = """#!/bin/sh
printf 'Content-Type: text/plain\\nX-Language: sh\\n\\n'
printf '%s %s %s\\n' "$REQUEST_METHOD" "$QUERY_STRING" "$CONTENT_LENGTH"
cat
"""

PYTHON = f"""#!{sys.executable}
import os, sys
env = os.environ
print("Content-Type: text/plain\\nX-Language: python\\n")
print(env["REQUEST_METHOD"], env["QUERY_STRING"], env.get("CONTENT_LENGTH", ""))
print(sys.stdin.buffer.read(int(env.get("CONTENT_LENGTH", 0))).decode(), end="")
"""

C = r"""
#include <stdio.h>
#include <stdlib.h>
int main(void)
{
    const char *length = getenv("CONTENT_LENGTH");
    printf("Content-Type: text/plain\r\nX-Language: c\r\n\r\n%s %s %s\n",
           getenv("REQUEST_METHOD"), getenv("QUERY_STRING"), length ? length : "");
    for (long left = length ? atol(length) : 0; left > 0; left--) putchar(getchar());
    return 0;
}
"""

PERL = """#!/usr/bin/perl
use CGI;
my $q = CGI->new;
print $q->header(-type => 'text/plain', -X_Language => 'perl',
                 -cookie => $q->cookie(-name => 'c', -value => 'v'));
printf "%s %s %s\\n", $q->request_method, $ENV{QUERY_STRING}, $ENV{CONTENT_LENGTH} // '';
print $q->param('POSTDATA') // '';
"""

PHP = """#!/usr/bin/env php-cgi
<?php
header('Content-Type: text/plain');
header('X-Language: php');
printf("%s %s %s\\n", $_SERVER['REQUEST_METHOD'], $_SERVER['QUERY_STRING'],
       $_SERVER['CONTENT_LENGTH'] ?? '');
echo file_get_contents('php://input');
"""

RUBY = """#!/usr/bin/env ruby
print "Content-Type: text/plain\\nX-Language: ruby\\n\\n"
puts "#{ENV['REQUEST_METHOD']} #{ENV['QUERY_STRING']} #{ENV['CONTENT_LENGTH']}"
print STDIN.read
"""


def has_cgi_pm() -> bool:
    perl = shutil.which("perl")
    if perl is None:
        return False
    return subprocess.run([perl, "-MCGI", "-e", "1"], capture_output=True).returncode == 0


LANGUAGES = {"sh": SH, "python": PYTHON, "c": C}
# And those that are installed.
if has_cgi_pm():
    LANGUAGES["perl"] = PERL
if shutil.which("php-cgi"):
    LANGUAGES["php"] = PHP
if shutil.which("ruby"):
    LANGUAGES["ruby"] = RUBY


@pytest.mark.parametrize("language", LANGUAGES)
def test_language(start: Serve, tmp_path: Path, language: str) -> None:
    program = tmp_path / "cgi-bin" / "program"
    if language == "c":
        source = install(tmp_path / "program.c", C)
        compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
        program.parent.mkdir()
        subprocess.run([*compiler.split(), "-o", program, source], check=True)
    else:
        install(program, LANGUAGES[language])
    # PHP asks for it: docs/cgi.md.
    server = start("--cgi-dir", str(tmp_path), "--set-env", "REDIRECT_STATUS=200", command=())
    with server.connect() as client:
        client.get("/cgi-bin/program?a=b%20c")
        head = client.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f"\r\nX-Language: {language}\r\n".lower() in head.decode().lower()
        assert (b"\r\nSet-Cookie: c=v; path=/\r\n" in head) == (language == "perl")
    body = b"some \xe4 bytes\n".decode("latin-1").encode()
    with server.connect() as client:
        for chunked in (False, True):
            fields = ["Transfer-Encoding: chunked"] if chunked else [f"Content-Length: {len(body)}"]
            sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
            client.request("POST", "/cgi-bin/program?q", "Content-Type: a/b", *fields, body=sent)
            head = client.read_until(b"\r\n\r\n")
            expected = b"POST q %d\n" % len(body) + body
            if b"\r\nContent-Length: " in head:
                assert client.read_exactly(len(expected)) == expected
            else:
                received = b""
                while chunk := client.read_chunk():
                    received += chunk
                assert received == expected
