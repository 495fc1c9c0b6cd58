"""The file, the environment variables, and which of them goes first."""

from __future__ import annotations

import math
import os
import re
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from fastspawn.serve import cli
from fastspawn.serve.config import options
from fastspawn.serve.config.model import Config, RouteConfig
from serve.conftest import Serve
from serve.test_cli import assert_refused, run

ALL = """
host = "::1"
port = 7
backlog = 9
workers = 3
loop = "asyncio"
spawners = 2
keep-alive-timeout = 2.5
header-timeout = "1m"
body-timeout = "2m"
user = "www-data"
group = "33"
subreaper = false
openfaas = false
send-timeout = "none"
tcp-keepalive = "2m"
tcp-user-timeout = "none"
max-head = "8k"
graceful-timeout = "none"
access-log = false
log-format = "json"
proxy-headers = true
ssl-certfile = "/cert"
ssl-keyfile = "/key"
ssl-keyfile-password = "x"
ssl-ca-certs = "/ca"
ssl-cert-reqs = "optional"
ssl-ciphers = "ALL"
request-id = true
forwarded-allow-ips = "10.0.0.0/8, unix"
remote-user-header = "Remote-User"
auth-type-header = "X-Auth"
max-inflight-total = 12
drain-delay = "3s"
health-path = "/-/health"
ready-path = "/-/ready"
metrics-path = "/-/metrics"
live-path = "/-/live"
agent-check = "9"

command = "cat -n"
exec-timeout = "1h30m"
max-body = "1M"
pass-env = ["HOME"]
set-env = ["A=1", "B=2"]

[[route]]
path = "/user/{name}"
methods = ["GET", "POST"]
command = ["show", "{name}"]
strategy = "snapshot"
snapshot-at = "main"
cwd = "/tmp"
pass-env = ["AWS_*"]
set-env = { B = "{name}", C = "x=y" }
stderr = "merge"
content-type = "text/html"
max-inflight = 4
queue = 0
queue-timeout = 1
exec-timeout = 30
kill-grace = 0
drain-timeout = "5ms"
max-output = 4096
max-body = "none"

[[route]]
path = "/bin/{...}"
cgi-dir = "/scripts"
cgi-link-dir = ["/programs"]
document-root = "/www"
pass-authorization = true
buffer-body = "1k"
rlimit = { nofile = 64, core = "0:unlimited" }
cgroup = "/sys/fs/cgroup/x"
no-new-privs = true
sandbox = "env -i"
stream-chunked = true
cgi-exit = "strict"

[[route]]
path = "/count"
methods = "DELETE"
command = "ls | wc -l"
shell = true
clear-env = true
request-env = true
header = ["X-A: b"]
cors = ["https://a.example"]
cors-credentials = true
cors-max-age = "1h"
status = { 1 = 404, 2 = 400 }
error-body = "output"
hold = "1s"

[[route]]
path = "/warm"
command = "cat"
strategy = "warm"
pool-size = 2
pool-max = 3
pool-age = "1m"

[[route]]
path = "/pool"
command = "cat"
strategy = "pool"
pool-size = 2
worker = "node 'a worker'"

[[route]]
path = "/auto"
command = "cat"
strategy = "auto"
allow-reset = true

[[route]]
path = "/wsgi/{...}"
wsgi = "shop:application"
strategy = "auto"

[[route]]
path = "/asgi/{...}"
asgi = "shop.web:make('x')"
strategy = "reset"

[[route]]
path = "/ws"
command = "cat"
mode = "ws"
pty = true
ws-frames = "bytes"
ws-origin = ["https://a.example", "*"]
ws-subprotocol = ["chat"]
ws-max-message = "64k"
ws-ping = "none"
"""


APPLICATION: dict[str, Any] = {
    "mode": "cgi",
    "snapshot_at": "checkpoint",
    "cgi_exit": "strict",
    "pass_authorization": True,
}
"""What ``wsgi`` and ``asgi`` make of a route."""

SESSIONS = {"session-timeout", "session-buffer", "max-message"}
"""Keys that are not with the ``workers`` above."""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "serve.toml"
    path.write_text(text)
    return str(path)


def parse(*argv: str, **environ: str) -> Config:
    return cli.parse(argv, environ)


def test_every_key(tmp_path: Path) -> None:
    path = write(tmp_path, ALL)
    both = {"exec_timeout": 5400.0, "max_body": 1 << 20, "pass_env": ("HOME",)}
    assert parse("--config", path) == Config(
        config=path,
        host=("::1",),
        port=7,
        backlog=9,
        workers=3,
        loop="asyncio",
        spawners=2,
        keep_alive_timeout=2.5,
        header_timeout=60,
        body_timeout=120,
        user="www-data",
        group="33",
        send_timeout=None,
        tcp_keepalive=120,
        tcp_user_timeout=math.inf,
        max_head=8192,
        graceful_timeout=None,
        access_log=False,
        log_format="json",
        proxy_headers=True,
        ssl_certfile="/cert",
        ssl_keyfile="/key",
        ssl_keyfile_password="x",
        ssl_ca_certs="/ca",
        ssl_cert_reqs="optional",
        ssl_ciphers="ALL",
        request_id=True,
        forwarded_allow_ips=("10.0.0.0/8", "unix"),
        remote_user_header="remote-user",
        auth_type_header="x-auth",
        max_inflight_total=12,
        drain_delay=3,
        health_path="/-/health",
        ready_path="/-/ready",
        metrics_path="/-/metrics",
        live_path="/-/live",
        agent_check=("127.0.0.1", 9),
        routes=(
            RouteConfig(
                path="/user/{name}",
                methods=("GET", "POST"),
                command=("show", "{name}"),
                strategy="snapshot",
                snapshot_at="main",
                cwd="/tmp",
                pass_env=("HOME", "AWS_*"),
                set_env=(("A", "1"), ("B", "2"), ("B", "{name}"), ("C", "x=y")),
                stderr="merge",
                content_type="text/html",
                max_inflight=4,
                queue=0,
                queue_timeout=1,
                exec_timeout=30,
                kill_grace=0,
                drain_timeout=0.005,
                max_output=4096,
                max_body=None,
            ),
            RouteConfig(
                path="/bin/{...}",
                mode="cgi",
                cgi_dir="/scripts",
                cgi_link_dir=("/programs",),
                document_root="/www",
                pass_authorization=True,
                buffer_body=1024,
                rlimit=(("nofile", 64, 64), ("core", 0, resource.RLIM_INFINITY)),
                cgroup="/sys/fs/cgroup/x",
                no_new_privs=True,
                sandbox=("env", "-i"),
                stream_chunked=True,
                cgi_exit="strict",
                set_env=(("A", "1"), ("B", "2")),
                **both,
            ),
            RouteConfig(
                path="/count",
                methods=("DELETE",),
                command=("ls | wc -l",),
                shell=True,
                clear_env=True,
                request_env=True,
                header=(("X-A", "b"),),
                cors=("https://a.example",),
                cors_credentials=True,
                cors_max_age=3600,
                status=((1, 404), (2, 400)),
                error_body="output",
                hold=1.0,
                set_env=(("A", "1"), ("B", "2")),
                **both,
            ),
            RouteConfig(
                path="/warm",
                command=("cat",),
                strategy="warm",
                pool_size=2,
                pool_max=3,
                pool_age=60.0,
                set_env=(("A", "1"), ("B", "2")),
                **both,
            ),
            RouteConfig(
                path="/pool",
                command=("cat",),
                strategy="pool",
                pool_size=2,
                max_inflight=2,
                worker=("node", "a worker"),
                set_env=(("A", "1"), ("B", "2")),
                **both,
            ),
            RouteConfig(
                path="/auto",
                command=("cat",),
                strategy="auto",
                allow_reset=True,
                set_env=(("A", "1"), ("B", "2")),
                **both,
            ),
            RouteConfig(
                path="/wsgi/{...}",
                wsgi="shop:application",
                command=(sys.executable, "-m", "fastspawn._app", "wsgi", "shop:application"),
                strategy="auto",
                **APPLICATION,
                set_env=(("A", "1"), ("B", "2")),
                **both,
            ),
            RouteConfig(
                path="/asgi/{...}",
                asgi="shop.web:make('x')",
                command=(sys.executable, "-m", "fastspawn._app", "asgi", "shop.web:make('x')"),
                strategy="reset",
                **APPLICATION,
                set_env=(("A", "1"), ("B", "2")),
                **both,
            ),
            RouteConfig(
                path="/ws",
                command=("cat",),
                mode="ws",
                pty=True,
                ws_frames="bytes",
                ws_origin=("https://a.example", "*"),
                ws_subprotocol=("chat",),
                ws_max_message=65536,
                ws_ping=None,
                set_env=(("A", "1"), ("B", "2")),
                **both,
            ),
            RouteConfig(command=("cat", "-n"), set_env=(("A", "1"), ("B", "2")), **both),
        ),
    )
    # Nothing was forgotten above: every key there is in the file, but for those that others
    # exclude.
    keys = {line.split("=")[0].strip() for line in ALL.splitlines() if "=" in line}
    missing = options.OPTIONS.keys() - keys
    assert missing == {
        *("config", "uds", "bind", "uds-mode", "uds-owner", "uds-group", "fd", "route"),
        *SESSIONS,
    }


def test_every_key_of_sessions(tmp_path: Path) -> None:
    """They are in one process, so they are not with --workers."""
    text = """
mode = "jsonrpc"
session-timeout = "1h"
session-buffer = "1M"
max-message = "none"
max-body = "1k"
"""
    config = parse("--config", write(tmp_path, text), "--", "cat")
    route = RouteConfig(
        command=("cat",),
        mode="jsonrpc",
        session_timeout=3600.0,
        session_buffer=1 << 20,
        max_message=None,
        max_body=1024,
        exec_timeout=None,
    )
    assert config.routes == (route,)
    assert route.body_limit == 1024
    keys = {line.split("=")[0].strip() for line in text.splitlines() if "=" in line}
    assert keys >= SESSIONS
    for less, limit in (("3", 3), ("1k", 1024)):
        found = parse("--mode", "jsonrpc", "--max-message", less, "--max-body", "1k").routes[0]
        assert found.body_limit == limit
    with pytest.raises(cli.UsageError, match="--mode jsonrpc can't be with --workers"):
        parse("--mode", "jsonrpc", "--workers", "2")
    parse("--mode", "jsonrpc", "--workers", "1")


def test_flag_before_variable_before_file(tmp_path: Path) -> None:
    path = write(tmp_path, "port = 1\nbacklog = 1\nqueue = 1\nset-env = ['A=1', 'B=1']\n")
    config = parse(
        *("--config", path, "--port", "3"),
        FASTSPAWN_PORT="2", FASTSPAWN_BACKLOG="2", FASTSPAWN_SET_ENV="A=2\nC=a b",
    )  # fmt: skip
    assert (config.port, config.backlog, config.routes[0].queue) == (3, 2, 1)
    assert config.routes[0].set_env == (("A", "2"), ("C", "a b"))
    config = parse(FASTSPAWN_CONFIG=path, FASTSPAWN_ACCESS_LOG="off", FASTSPAWN_SHELL="1")
    assert (config.port, config.access_log, config.routes[0].shell) == (1, False, True)
    assert parse("--access-log", FASTSPAWN_ACCESS_LOG="no").access_log
    config = parse(FASTSPAWN_ROUTE="/a=echo a\nGET /b=echo b")
    assert [route.path for route in config.routes] == ["/a", "/b"]
    assert parse("--route", "/c=x", FASTSPAWN_ROUTE="/a=echo a").routes[0].path == "/c"


def test_a_platforms_port(tmp_path: Path) -> None:
    """PORT counts where nothing of ours says where to listen, and is not looked at elsewhere."""
    assert (parse(PORT="8080").host, parse(PORT="8080").port) == (("127.0.0.1",), 8080)
    assert parse("--host", "::", PORT="8080").port == 8080
    assert parse("--host", "::", "--uds", "x", PORT="8080").places == ((("::",), 8080), "x")
    assert parse(PORT="").port == 8001
    path = write(tmp_path, "port = 1\n")
    assert parse("--config", path, PORT="8080").port == 1
    for said in ({"FASTSPAWN_PORT": "2"}, {"FASTSPAWN_FD": "3"}, {"FASTSPAWN_UDS": "x"},
                 {"FASTSPAWN_BIND": ":1"}):  # fmt: skip
        assert parse(PORT="tcp://10.0.0.7:80", **said) == parse(**said)
    assert parse("--port", "3", PORT="x").port == 3
    for text in ("x", "65536", "-1"):
        with pytest.raises(
            cli.UsageError, match=f"^PORT: '{text}' is not a number from 0 to 65535"
        ):
            parse(PORT=text)


@pytest.mark.parametrize("option", options.OPTIONS.values(), ids=lambda option: option.name)
def test_every_option_is_a_variable(option: options.Option, tmp_path: Path) -> None:
    texts = {
        "config": write(tmp_path, "port = 77\n"), "loop": "asyncio", "host": "h", "mode": "raw",
        "strategy": "subprocess", "snapshot-at": "main", "stderr": "merge",
        "route": "/a=b", "set-env": "A=1", "pass-env": "A", "fd": "9",
        "uds-mode": "660", "bind": "unix:/x", "health-path": "/a", "ready-path": "/a",
        "metrics-path": "/a", "live-path": "/a", "rlimit": "core=0",
        "ws-frames": "bytes", "ws-origin": "*",
        "max-head": "8k", "cgi-exit": "strict",
        "log-format": "json", "forwarded-allow-ips": "unix", "ssl-cert-reqs": "optional",
        "subreaper": "1", "header": "A: b", "cors": "https://a.example",
        "status": "1=404", "error-body": "output",
        "wsgi": "a:b", "asgi": "a:b", "remote-user-header": "X-User",
    }  # fmt: skip
    number = "1" if option.kind == "flag" else "3"
    text = texts.get(option.name, number)
    flag = f"--{option.name}" if option.kind == "flag" else f"--{option.name}={text}"
    more: tuple[str, ...] = ()
    need = option.need
    while need is not None:
        needed = options.OPTIONS[need.options[0]]
        first = need.values[0] if need.values else texts.get(needed.name, "3")
        more += (f"--{needed.name}",) if needed.kind == "flag" else (f"--{needed.name}", first)
        need = needed.need
    # An application is instead of a command.
    function = {} if option.name in ("wsgi", "asgi") else {"fprocess": "cat"}
    assert parse(*more, **function, **{option.variable: text}) == parse(*more, flag, **function)


NEEDS = [option for option in options.OPTIONS.values() if option.need is not None]
VALUES = {"uds-mode": "660", "snapshot-at": "main", "cgi-exit": "strict",
          "ws-frames": "bytes", "ws-origin": "*",
          "forwarded-allow-ips": "unix", "ssl-cert-reqs": "optional",
          "cors": "https://a.example", "status": "1=404",
          "error-body": "output"}  # fmt: skip


@pytest.mark.parametrize("option", NEEDS, ids=lambda option: option.name)
def test_an_option_of_which_nothing_would_come(option: options.Option, tmp_path: Path) -> None:
    """As a flag, a variable, a key of the file and of a route."""
    assert option.need is not None
    text = VALUES.get(option.name, "1")
    flag = f"--{option.name}" if option.kind == "flag" else f"--{option.name}={text}"
    said = rf"--{option.name} needs --{option.need.options[0]}"
    # Mode raw is what there is unless another is said.
    mode = {"mode": "ws"} if "raw" in (option.need.values or ()) else {}
    more = [f"--{name}={value}" for name, value in mode.items()]
    with pytest.raises(cli.UsageError, match=said):
        parse(flag, *more)
    with pytest.raises(cli.UsageError, match=said):
        parse(*more, **{option.variable: text})
    value = {"flag": "true", "list": f'["{text}"]'}.get(option.kind, f'"{text}"')
    value = "1" if option.kind == "number" else value
    lines = "".join(f'{name} = "{value}"\n' for name, value in mode.items())
    lines += f"{option.name} = {value}\n"
    with pytest.raises(cli.UsageError, match=said):
        parse("--config", write(tmp_path, lines))
    if option.of_route:
        path = write(tmp_path, f'[[route]]\npath = "/a"\ncommand = "x"\n{lines}')
        with pytest.raises(cli.UsageError, match=rf"serve.toml:1: route 1: {said}"):
            parse("--config", path)
    if option.kind == "flag":
        parse(f"--no-{option.name}")


def test_an_option_of_some_routes_may_be_said_for_all(tmp_path: Path) -> None:
    text = 'pool-size = 3\n[[route]]\npath = "/a"\ncommand = "x"\nstrategy = "warm"\n'
    config = parse("--config", write(tmp_path, text), "--", "echo")
    assert [route.strategy for route in config.routes] == ["warm", "direct"]
    with pytest.raises(cli.UsageError, match=r"--pool-max needs --strategy warm \(it is direct"):
        parse("--pool-max", "3", "--", "echo")


def test_what_a_directory_of_scripts_can_not_be() -> None:
    for option in (("--mode", "raw"), ("--mode", "ws"), ("--shell",)):
        with pytest.raises(cli.UsageError, match="--cgi-dir"):
            parse("--cgi-dir", "/tmp", *option)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("MAX_INFLIHT", "did you mean FASTSPAWN_MAX_INFLIGHT"), ("XYZZY", "--help"),
     ("BACKENDS", "did you mean FASTSPAWN_BACKEND"), ("", "--help")],
)  # fmt: skip
def test_a_variable_that_is_none_of_ours(name: str, hint: str) -> None:
    with pytest.raises(cli.UsageError, match=f"FASTSPAWN_{name}: no such variable: .*{hint}"):
        parse(**{f"FASTSPAWN_{name}": "3"})


def test_a_variable_that_is_none_of_ours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSPAWN_MAX_INFLIHT", "3")
    assert_refused(run("--port", "0"), "FASTSPAWN_MAX_INFLIHT: no such variable")


def test_variables_that_others_read() -> None:
    """The C core's, the build's, and those that Kubernetes sets for services called so."""
    service = "FASTSPAWN_WEB"
    for prefix in ("FASTSPAWN", service):
        assert parse(**{
            f"{prefix}_SERVICE_HOST": "10.0.0.7",
            f"{prefix}_SERVICE_PORT": "80",
            f"{prefix}_SERVICE_PORT_HTTP": "80",
            f"{prefix}_PORT": "tcp://10.0.0.7:80",
            f"{prefix}_PORT_80_TCP": "tcp://10.0.0.7:80",
            f"{prefix}_PORT_80_TCP_PROTO": "tcp",
            f"{prefix}_PORT_80_TCP_PORT": "80",
            f"{prefix}_PORT_80_TCP_ADDR": "10.0.0.7",
            "FASTSPAWN_BACKEND": "fork",
            "FASTSPAWN_DEBUG": "1",
        }) == parse()  # fmt: skip


def test_a_place_to_listen_replaces_the_others_below(tmp_path: Path) -> None:
    path = write(tmp_path, 'uds = "/s"\n')
    assert parse("--config", path).uds == "/s"
    config = parse("--config", path, "--port", "1")
    assert (config.uds, config.port) == (None, 1)
    assert parse("--uds", "/x", FASTSPAWN_PORT="1").uds == "/x"
    config = parse("--port", "2", FASTSPAWN_HOST="h")
    assert (config.host, config.port) == (("h",), 2)
    config = parse("--bind", "unix:/x", "--bind", ":3", FASTSPAWN_PORT="1", FASTSPAWN_HOST="h")
    assert config.places == ("/x", (("",), 3))
    assert parse("--uds", "/x", FASTSPAWN_BIND=":3").places == ("/x",)
    text = 'bind = ["unix:/x"]\nuds-mode = "660"\nuds-owner = "a"\n'
    config = parse("--config", write(tmp_path, text), "--host", "a", "--host", "b", "--uds", "/y")
    assert config.places == ((("a", "b"), 8001), "/y")
    assert (config.uds_mode, config.uds_owner) == (0o660, "a")
    config = parse("--uds", "/x", "--host", "a", FASTSPAWN_PORT="1", FASTSPAWN_HOST="h")
    assert config.places == ((("a",), 1), "/x")
    config = parse("--config", write(tmp_path, text), "--port", "1")
    assert (config.places, config.uds_mode) == (((("127.0.0.1",), 1),), None)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a:1", ("a", 1)), ("[::]:80", ("::", 80)), (":80", ("", 80)), ("*:80", ("", 80)),
        ("unix:a:b", "a:b"), ("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:8001", ("::1", 8001)),
        ("8001", None), ("a", None), ("a:", None), ("a:b", None), ("::1:80", None), ("::1", None),
        ("[::1]", None), ("[]:1", None), ("unix:", None), ("a:70000", None), ("a b:1", None),
        ("tcp://a:1", None), ("[a]b:1", None),
    ],
)  # fmt: skip
def test_places(text: str, found: str | tuple[str, int] | None) -> None:
    if found is not None:
        assert parse("--bind", text).bind == (found,)
        return
    with pytest.raises(cli.UsageError, match=r"^--bind: .* is not ") as caught:
        parse("--bind", text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port = 1\nprot = 2\n", [":2: prot: unknown key: did you mean port?"]),
        ("max_inflight = 2\n", [":1: max_inflight: unknown key: did you mean max-inflight?"]),
        ("config = 'x'\n", [":1: config: unknown key"]),
        ("[limits]\nqueue = 1\n", ["limits: unknown key"]),
        ("\nport = '80'\n", [":2: port: '80' is text, not a number"]),
        ("port = 80.5\n", [":1: port: 80.5 is not a whole number"]),
        ("port = true\n", ["port: True is not a number"]),
        ("port = 70000\n", ["port: '70000' is not a number from 0 to 65535"]),
        ("exec-timeout = 'soon'\n", [":1: exec-timeout: 'soon' is not a duration"]),
        ("exec-timeout = -1\n", [":1: exec-timeout: '-1' is not a duration"]),
        ("exec-timeout = nan\n", ["'nan' is not a duration"]),
        ("exec-timeout = 2026-01-01\n", ["is not a duration"]),
        ("max-body = '1X'\n", ["max-body: '1X' is not a size"]),
        ("max-body = [1]\n", ["max-body: [1] is not a size"]),
        ("access-log = 'no'\n", ["access-log: 'no' is neither true nor false"]),
        ("host = 1\n", ["host: 1 is not an array of text"]),
        ("mode = 'magic'\n", ["mode: 'magic' is not one of raw, cgi"]),
        ("pass-env = [1]\n", ["pass-env: 1 is not text"]),
        ("pass-env = ['A B']\n", ["pass-env: 'A B' is not a variable's name"]),
        ("set-env = ['A']\n", ["set-env: 'A' is not NAME=VALUE"]),
        ("set-env = {'A-B' = 'x'}\n", ["set-env: 'A-B=x' is not NAME=VALUE"]),
        ("command = []\n", [":1: command: nothing to run"]),
        ('command = "a \'b"\n', ["command: No closing quotation"]),
        ("command = ['no-such-command']\n", ["cannot run no-such-command"]),
        ("port = 1\nport = 2\n", [":2"]),
        ("port 1\n", [":1: Expected '=' after a key"]),
        ("port = \n", [":1"]),
        ("uds = 'x'\nfd = 3\n", ["fd and uds exclude each other"]),
        ("uds = 'x'\nbind = ':3'\n", ["bind and uds exclude each other"]),
        ("host = []\n", ["host: nowhere to listen"]),
        ("bind = ':1'\nuds-owner = 'root'\n", ["--uds-owner needs --uds or --bind unix:PATH"]),
        ("fd = 1\n", ["fd 1", "standard streams"]),
        ("route = 1\n", [":1: route: must be written as [[route]]"]),
        ("[route]\npath = '/a'\n", ["route: must be written as [[route]]"]),
        ("[[route]]\npath = '/a'\n", [":1: route 1: a route without a command"]),
        ("[[route]]\ncommand = 'x'\n", [":1: route 1: a route without a path"]),
        (
            "port = 1\n[[route]]\npath = '/a'\ncommand = 'ls'\n\n[[route]]\nport = 1\n",
            [":7: route 2: port: unknown key"],
        ),
        (
            "queue = 1\n[[route]]\nqueue = 2\npath = '/'\ncommand = 'ls'\n[[route]]\nqueue = -3\n",
            [":7: route 2: queue: '-3' is not a number"],
        ),
        (
            "[[route]]\npath = '/{a}'\ncommand = ['{a}']\n",
            [":1: route 1: a request can't choose the program"],
        ),
        ("[[route]]\npath = 'a'\ncommand = 'ls'\n", [":2: route 1: path: 'a' does not begin"]),
        ("[[route]]\npath = '/a'\ncommand = 'ls'\nmethods = 'GTE'\n", [":4:", "'GTE' is not a"]),
        ("[[route]]\npath = '/a'\ncommand = 'ls'\nmethods = []\n", [":4:", "not a method"]),
        (
            "[[route]]\npath = '/a'\ncommand = 'ls'\n[[route]]\npath = '/a'\ncommand = 'ls'\n",
            ["two routes for /a"],
        ),
        (
            "[[route]]\npath = '/{a}'\nshell = true\ncommand = 'echo {a}'\n",
            ["route 1: with a shell"],
        ),
        ("\xff", ["not UTF-8"]),
    ],
)
def test_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "serve.toml"
    path.write_bytes(text.encode("latin-1"))
    assert_refused(run("--config", str(path)), str(path) if words[0][0] == ":" else "", *words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("set-env = {'A=B' = 'x'}", "1: set-env: 'A=B' is not a name"),
        ("header = {'X: y' = 'x'}", "1: header: 'X: y' is not a name"),
        ("rlimit = {'nofile=1:' = 'x'}", "1: rlimit: 'nofile=1:' is not a name"),
        ("status = {'1=404,2' = 400}", "1: status: '1=404,2' is not a name"),
        ('"a\\nb" = 1', " 'a\\nb': unknown key"),
        ("port = " + "9" * 5000, " Exceeds the limit"),
        ("a = " + "[" * 20_000, " nested too deeply"),
    ],
    ids=range(7),
)
def test_refused_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(text)
    with pytest.raises(cli.UsageError) as found:
        cli.parse(["--config", str(path)], {})
    assert str(found.value).startswith(f"{path}:{said}"), found.value


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(cli.UsageError, match=r"--cwd: 'here': the working directory: No such file"):
        cli.parse(["--cwd", "here"], {})


def test_no_file(tmp_path: Path) -> None:
    assert_refused(run("--config", str(tmp_path / "none")), "none: No such file")
    assert_refused(run("--config", str(tmp_path)), "Is a directory")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--route", "a=b"], ["--route", "'a=b' is not [METHOD[,METHOD] ]/path=CMD"]),
        (["--route", "/a"], ["--route", "'/a' is not"]),
        (["--route", "GTE /a=ls"], ["--route", "'GTE' is not a method"]),
        (["--route", "CONNECT /a=ls"], ["'CONNECT' is not a method"]),
        (["--route", "GET,GET /a=ls"], ["a method occurs twice"]),
        (["--route", "/a="], ["route /a: command: nothing to run"]),
        (["--route", "/a='"], ["route /a: command: No closing quotation"]),
        (["--route", "/{a=ls"], ["--route", "a placeholder is a whole segment"]),
        (["--route", "/a/../b=ls"], ["never comes in a request"]),
        (["--route", "/a=ls", "--route", "/a=ls"], ["two routes for /a"]),
        (["--route", "/a=ls", "--route", "/b=no-such"], ["route /b: cannot run no-such"]),
        (["--route", "/{a}={a}"], ["route /{a}: a request can't choose the program"]),
        (["--route", "/{a}=ls -{a}"], ["route /{a}: a request can't choose an option"]),
        (["--shell", "--", "echo", "hi"], ["one word"]),
        (["--set-env", "A"], ["--set-env", "'A' is not NAME=VALUE"]),
        (["--set-env", "=x"], ["--set-env"]),
        (["--pass-env", "A=B"], ["--pass-env"]),
        (["--from-supervisor", "3"], ["--from-supervisor is between a supervisor and its workers"]),
        (["--max-inflight-total", "0"], ["--max-inflight-total", "of at least 1"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_refused_flags(args: list[str], words: list[str]) -> None:
    assert_refused(run(*args), *words)


def test_refused_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSPAWN_PORT", "http")
    assert_refused(run(), "FASTSPAWN_PORT: 'http' is not a number from 0 to 65535")


def test_help_names_what_most_need() -> None:
    text = run("--help").stdout
    found = set(re.findall(r"^  (?:-h, )?--([a-z-]+)", text, re.MULTILINE))
    assert found == {*options.COMMON, "help", "help-all", "version"}
    assert f"These are {len(options.COMMON)} of {len(options.OPTIONS)} options" in text


def test_help_all_names_every_option() -> None:
    text = run("--help-all").stdout
    for name in options.OPTIONS:
        assert f"--{name}" in text
    for title in options.GROUPS:
        assert f"\n{title}:\n" in text
    assert max(map(len, text.splitlines())) < 110


def test_served(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path = write(
        tmp_path,
        f"""
        access-log = false
        [[route]]
        path = "/where/{{name}}"
        command = 'echo "$1 $NAME" && pwd'
        shell = true
        cwd = {str(tmp_path / "there")!r}
        set-env = {{ NAME = "is {{name}}" }}
        content-type = "text/x"
        [[route]]
        path = "/slow"
        command = ["sleep", "60"]
        exec-timeout = "50ms"
        kill-grace = 0
        [[route]]
        path = "/body"
        command = ["cat"]
        max-body = 3
        """,
    )
    server = serve("--config", path, command=())
    answer = server.get("/where/it")
    assert answer.body.decode() == f"it is it\n{tmp_path / 'there'}\n"
    assert answer.fields["content-type"] == "text/x"
    assert server.get("/slow").status == 504
    with server.connect() as client:
        client.request("POST", "/body", "Content-Length: 3", body=b"abc")
        assert client.read().body == b"abc"
        client.request("POST", "/body", "Content-Length: 4", body=b"abcd")
        assert client.read().status == 413
    assert os.path.getsize(server.stdout) == 0


def test_each_route_has_a_queue_of_its_own(serve: Serve, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        max-inflight = 1
        queue = 0
        [[route]]
        path = "/held"
        command = ["sleep", "60"]
        [[route]]
        path = "/free"
        command = ["echo", "free"]
        """,
    )
    server = serve("--config", path, "--graceful-timeout", "0", "--kill-grace", "0", command=())
    with server.connect() as held:
        held.get("/held")
        with server.connect() as other:
            while True:  # until the first has its place
                other.get("/free")
                assert other.read().body == b"free\n"
                with server.connect() as third:
                    third.sock.settimeout(0.2)
                    third.get("/held")
                    try:
                        assert third.read().status == 503
                    except TimeoutError:
                        continue
                break


def test_documentation(tmp_path: Path) -> None:
    """Its example is right, and no option is missing."""
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    example = text.partition("```toml\n")[2].partition("```")[0]
    config = parse("--config", write(tmp_path, example))
    assert [route.path for route in config.routes] == [
        *("/user/{name}", "/gzip", "/notes/{file...}"),
    ]  # fmt: skip
    assert config.max_inflight_total == 32
    missing = {
        name for name, option in options.OPTIONS.items()
        if f"`{name}`" not in text and option.kind != "list"
    }  # fmt: skip
    assert not missing
