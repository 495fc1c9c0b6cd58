"""--remote-user-header: who a proxy says the client is, and who is not believed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import needs
from fastspawn.serve.cli import parse
from fastspawn.serve.http.about import Reader
from serve.conftest import Serve
from serve.harness import Server, poll
from serve.test_cgi_git import BACKEND, Git
from serve.test_cli import assert_refused, run
from serve.test_gone import NGINX
from serve.test_listen import free_port
from support import LINUX

SHOW = r"""printf 'Content-Type: text/plain\n\n'
env | grep -E '^(AUTH_TYPE|(HTTP_.*)?REMOTE_?USER|HTTP_.*AUTH.*)=' | sort"""
COMMAND = ("sh", "-c", SHOW)
NAMED = ("--proxy-headers", "--remote-user-header", "X-Remote-User")
BASIC = "Authorization: Basic YTpi"


def told(server: Server, *fields: str) -> dict[str, str]:
    answer = server.get("/", *fields)
    assert answer.status == 200, answer
    body = answer.body.decode().removeprefix("Content-Type: text/plain\n\n")
    return dict(line.split("=", 1) for line in body.splitlines())


@pytest.mark.parametrize("mode", [("--mode", "cgi"), ("--request-env",)], ids=lambda mode: mode[-1])
def test_what_counts(start: Serve, mode: tuple[str, ...]) -> None:
    server = start(*mode, *NAMED, "--auth-type-header", "X-Auth", command=COMMAND)
    alice = {"REMOTE_USER": "alice", "HTTP_X_REMOTE_USER": "alice"}
    for fields, expected in (
        ((), {}),
        (("X-Remote-User: alice",), alice),
        (("x-remote-user: alice", "X-Auth: Negotiate"),
         {**alice, "AUTH_TYPE": "Negotiate", "HTTP_X_AUTH": "Negotiate"}),
        (("X-Remote-User: J\xf6rg M", "Connection: X-Remote-User"), {"REMOTE_USER": "J\xf6rg M"}),
        # One of them may be the client's own.
        (("X-Remote-User: alice", "X-Remote-User: root"), {}),
        (("X-Remote-User: alice", "X-Remote-User: alice"), {}),
        # To a script "_" would be "-".
        (("X_Remote_User: root",), {}),
        (("X-Remote_User: root", "X-Remote-User: alice"), alice),
        (("X-Remote-User: ",), {}),
        (("X-Remote-User: " + "x" * 257,), {}),
        # How nobody was authenticated is nothing.
        (("X-Auth: Basic",), {}),
        (("X-Remote-User: alice", "X-Auth: Ba sic"), alice),
        (("X-Remote-User: alice", BASIC), alice),
        (("Remote-User: root", "Remote_User: x"), {"HTTP_REMOTE_USER": "root"}),
    ):  # fmt: skip
        assert told(server, *fields) == expected, fields


def test_what_no_reader_of_the_fields_finds() -> None:
    """Not even one that does not look at the names as CGI does."""
    fields = [(b"x_remote-user", b"root"), (b"x-remote_user", b"root"), (b"a_b", b"c")]
    for peer, left in ((b"127.0.0.1", [(b"x-remote-user", b"alice")]), (b"192.0.2.1", [])):
        given = [*fields, (b"x-remote-user", b"alice")]
        about = Reader(parse(NAMED)).read(peer, given)
        assert given == [(b"a_b", b"c"), *left]
        assert about.user == (b"alice" if left else b"")


def test_the_scheme_of_authorization(start: Serve) -> None:
    """RFC 3875 section 4.1.1, where no field tells it; a script does not see the password."""
    server = start("--mode", "cgi", *NAMED, command=COMMAND)
    alice = {"REMOTE_USER": "alice", "HTTP_X_REMOTE_USER": "alice"}
    assert told(server, "X-Remote-User: alice", BASIC) == {**alice, "AUTH_TYPE": "Basic"}
    assert told(server, "X-Remote-User: alice", "Authorization: ") == alice
    assert told(server, BASIC) == {}


@pytest.mark.parametrize(
    ("options", "believed"),
    [
        (NAMED, True),
        ((*NAMED, "--forwarded-allow-ips", "10.0.0.0/8"), False),
        ((*NAMED, "--forwarded-allow-ips", "*"), True),
        ((*NAMED, "--forwarded-allow-ips", "10.0.0.0/8", "--request-id"), False),
    ],
)
def test_who_is_believed(any_way: Serve, options: tuple[str, ...], believed: bool) -> None:
    server = any_way("--mode", "cgi", *options, command=COMMAND)
    alice = {"REMOTE_USER": "alice", "HTTP_X_REMOTE_USER": "alice"} if believed else {}
    with server.connect() as client:
        for fields, expected in ((("X-Remote-User: alice",), alice), ((), {})):
            client.get("/", *fields)
            body = client.read().body.decode()
            assert dict(line.split("=", 1) for line in body.splitlines()) == expected


def test_it_is_no_ones_word_without_the_option(start: Serve) -> None:
    server = start("--mode", "cgi", "--proxy-headers", command=COMMAND)
    assert told(server, "X-Remote-User: alice") == {"HTTP_X_REMOTE_USER": "alice"}


def test_the_operators_word_is_the_last(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_USER", "whoever-started-it")
    monkeypatch.setenv("AUTH_TYPE", "x")
    server = start(
        *("--mode", "cgi", *NAMED, "--pass-env", "*"),
        *("--route", "/me=sh -c 'echo Content-Type: a/b; echo; echo $REMOTE_USER'"),
        command=COMMAND,
    )
    assert told(server) == {}
    config = start("--mode", "cgi", *NAMED, "--set-env", "REMOTE_USER=me", command=COMMAND)
    assert told(config, "X-Remote-User: root")["REMOTE_USER"] == "me"


def test_the_log(start: Serve) -> None:
    """Where common logs have the user."""
    for style in ("common", "combined", "json"):
        server = start(*NAMED, "--log-format", style)
        server.get("/", 'X-Remote-User: a "b] \xf6')
        server.get("/")
        first, second = server.logs(2)
        if style == "json":
            assert json.loads(first)["remote_user"] == 'a "b] \xf6'
            assert "remote_user" not in json.loads(second)
        else:
            assert first.startswith(r"127.0.0.1 - a\x20\x22b]\x20\xc3\xb6 [")
            assert second.startswith("127.0.0.1 - - [")


def test_mistakes() -> None:
    proxied = ("--proxy-headers",)
    for words, text in (
        (("--remote-user-header", "X-User"), "--remote-user-header needs --proxy-headers"),
        ((*proxied, "--auth-type-header", "X-A"), "--auth-type-header needs --remote-user-header"),
        ((*proxied, "--remote-user-header", "X_User"), "'X_User' is not a field's name"),
        ((*proxied, "--remote-user-header", "Cookie"), "Cookie means something else"),
        ((*NAMED, "--auth-type-header", "x-remote-user"), "--auth-type-header are the same"),
    ):
        assert_refused(run(*words), text)


# ---- nginx, and git

CONF = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/t1;
    proxy_temp_path {directory}/t2;
    fastcgi_temp_path {directory}/t3;
    uwsgi_temp_path {directory}/t4;
    scgi_temp_path {directory}/t5;
    underscores_in_headers on;
    server {{
        listen 127.0.0.1:{front};
        location / {{
            auth_basic git;
            auth_basic_user_file {directory}/users;
            proxy_pass http://127.0.0.1:{port};
            proxy_bind 127.0.0.2;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Remote-User $remote_user;
        }}
    }}
}}
"""


@contextmanager
def nginx(directory: Path, server: Server) -> Iterator[int]:
    """Its port; it lets in alice, with her password, and comes from 127.0.0.2."""
    assert NGINX is not None
    front = free_port()
    (directory / "users").write_text("alice:{PLAIN}secret\n")
    (directory / "users").chmod(0o644)
    config = directory / "nginx.conf"
    config.write_text(CONF.format(directory=directory, front=front, port=server.port))
    command = [NGINX, "-p", str(directory), "-c", str(config), "-g", "user root;"]
    with subprocess.Popen(command) as process:
        try:
            log = directory / "nginx.pid"
            poll(lambda: log.exists() or process.poll() is not None, "nginx")
            assert process.poll() is None
            yield front
        finally:
            process.terminate()


@needs.program("nginx")
@needs.have(BACKEND, "no git-http-backend")
@pytest.mark.skipif(not LINUX, reason="127.0.0.2 has to be configured elsewhere")
def test_git_push_behind_nginx(start: Serve, tmp_path: Path) -> None:
    """git-http-backend takes a push of whoever has been let in by a proxy, and of nobody else."""
    git = Git(tmp_path, 2)
    repository = tmp_path / "root" / "project.git"
    git("init", "-q", "--bare", "-b", "main", repository)
    hook, seen = repository / "hooks" / "post-receive", tmp_path / "seen"
    hook.write_text(f'#!/bin/sh\necho "$REMOTE_USER $AUTH_TYPE $REMOTE_ADDR" >> {seen}\n')
    hook.chmod(0o755)
    work = tmp_path / "work"
    git("init", "-q", "-b", "main", work)
    commit = git.commit(work, "file", b"text")
    assert BACKEND is not None
    server = start(
        *("--mode", "cgi", *NAMED, "--forwarded-allow-ips", "127.0.0.2"),
        *("--set-env", f"GIT_PROJECT_ROOT={repository.parent}"),
        *("--set-env", "GIT_HTTP_EXPORT_ALL=1"),
        command=(BACKEND,),
    )
    forged = ("-c", "http.extraHeader=X-Remote-User: alice",
              "-c", "http.extraHeader=X_Remote_User: mallory")  # fmt: skip
    with nginx(tmp_path, server) as port:
        direct = f"http://127.0.0.1:{server.port}/project.git"
        with pytest.raises(AssertionError, match="403"):
            git(*forged, "push", "-q", direct, "main", cwd=work)
        with pytest.raises(AssertionError, match=r"Authentication failed|could not read Username"):
            git(*forged, "push", "-q", f"http://127.0.0.1:{port}/project.git", "main", cwd=work)
        assert not seen.exists()
        url = f"http://alice:secret@127.0.0.1:{port}/project.git"
        git(*forged, "push", "-q", url, "main", cwd=work)
        assert git("rev-parse", "main", cwd=repository) == commit
        assert seen.read_text() == "alice Basic 127.0.0.1\n"
        git("clone", "-q", url, "clone")
        assert (tmp_path / "clone" / "file").read_text() == "text"
