"""The command line: what is wrong is said in one line, with exit status 2."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fastspawn.serve import cli
from fastspawn.serve.config import units
from fastspawn.serve.config.model import Config, RouteConfig


def run(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fastspawn.serve", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
    )


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.startswith("fastspawn: error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--prot", "1"], ["--prot", "did you mean --port?"]),
        (["--xyzzy"], ["--xyzzy", "see --help"]),
        (["--max-inflght=3", "echo"], ["did you mean --max-inflight?"]),
        (["--port"], ["--port", "expected one argument"]),
        (["--port", "http"], ["--port", "'http' is not a number from 0 to 65535"]),
        (["--port", "65536"], ["--port"]),
        (["--workers", "0"], ["--workers", "from 1 to 1024"]),
        (["--workers", "1025"], ["--workers", "from 1 to 1024"]),
        (["--strategy", "pool", "--pool-size", "1025"], ["--pool-size", "from 0 to 1024"]),
        (["--strategy", "warm", "--pool-max", "1025"], ["--pool-max", "from 1 to 1024"]),
        (["--loop", "trio"], ["--loop", "'trio'"]),
        (["--strategy", "magic"], ["--strategy"]),
        (["--mode", "fcgi"], ["--mode"]),
        (["--exec-timeout", "soon"], ["--exec-timeout", "'soon' is not a duration"]),
        (["--exec-timeout", "0"], ["--exec-timeout", "more than 0"]),
        (["--max-body", "1X"], ["--max-body", "'1X' is not a size"]),
        (["--max-output", "0"], ["--max-output", "more than 0"]),
        (["--content-type", "a\r\nSet-Cookie: b"], ["--content-type"]),
        (["--bind", ":1", "--uds", "x"], ["--bind and --uds exclude each other"]),
        (["--bind", ":1", "--host", "x"], ["--bind and --host exclude each other"]),
        (["--bind", "8001"], ["--bind: '8001' is not HOST:PORT, [ADDRESS]:PORT, :PORT or unix:"]),
        (["--uds", "x", "--uds-owner", "no-such-user"], ["--uds-owner no-such-user: there is no"]),
        (["--uds", "x", "--uds-group", "4294967295"], ["--uds-group 4294967295: no account"]),
        (["--user", "99999999999", "--group", "0"], ["--user 99999999999: no account has such"]),
        (["--fd=3", "--uds=x"], ["--fd and --uds exclude each other"]),
        (["--fd", "1"], ["--fd 1", "standard streams"]),
        (["--fd", "987"], ["file descriptor 987", "Bad file descriptor"]),
        (["--host", "no.such.host.invalid"], ["cannot listen on no.such.host.invalid:8001"]),
        (["--host", "a b"], ["--host: 'a b' is not a host"]),
        (["--uds", "/no/such/directory/socket"], ["/no/such/directory/socket"]),
        (["--uds", "/" + "x" * 200], ["cannot listen on"]),
        (["--cwd", "/no/such/directory"], ["--cwd /no/such/directory", "No such file"]),
        (["--cwd", "/etc/passwd"], ["--cwd /etc/passwd", "Not a directory"]),
        (["no-such-command"], ["cannot run no-such-command", "No such file"]),
        (["--", "./no-such-command"], ["./no-such-command", "No such file"]),
        (["/etc/passwd"], ["cannot run /etc/passwd", "Permission denied"]),
        (["/"], ["cannot run /", "Permission denied"]),
        ([""], ["cannot run"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value[0], str) else None,
)
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one", "workers"])
def test_refused(args: list[str], words: list[str], workers: list[str]) -> None:
    assert_refused(run(*workers, *args), *words)


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one", "workers"])
def test_port_in_use(workers: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(
            run("--port", str(port), *workers),
            f"cannot listen on 127.0.0.1:{port}",
            "Address already in use",
        )


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one", "workers"])
def test_port_in_use_by_another_one_with_workers(workers: list[str]) -> None:
    """SO_REUSEPORT must not let two servers share a port unawares."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert_refused(run("--port", str(port), *workers), "Address already in use")


def test_unix_socket_in_use(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        assert_refused(run("--uds", str(path)), str(path), "Address already in use")
    assert path.exists()


def test_where_links_may_lead_is_there(tmp_path: Path) -> None:
    """A name that was mistyped would refuse what it is to allow."""
    (tmp_path / "file").touch()
    for name, why in (("none", "No such file or directory"), ("file", "Not a directory")):
        link = str(tmp_path / name)
        result = run("--port", "0", "--cgi-dir", str(tmp_path), "--cgi-link-dir", link)
        assert_refused(result, f"--cgi-link-dir {link}: {why}")


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "workers"])
def test_unix_socket_of_a_server_that_could_not_start(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    """What can be found only when the socket is there: a pool's worker that dies."""
    path = tmp_path / "socket"
    pool = ("--strategy", "pool", "--worker", "false")
    assert_refused(run("--uds", str(path), *pool, *workers), "the worker has died")
    assert not path.exists()


def test_unix_socket_that_is_something_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    assert_refused(run("--uds", str(path)), str(path))
    assert path.read_text() == "precious"


def test_socket_that_does_not_listen() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        result = subprocess.run(
            [sys.executable, "-m", "fastspawn.serve", "--fd", str(sock.fileno())],
            pass_fds=[sock.fileno()],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert_refused(result, "not a stream socket")


def test_command_that_is_not_executable(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    assert_refused(run("--", str(program)), "Permission denied")
    assert_refused(run("--cwd", str(tmp_path), "--", "./program"), "Permission denied")


STRATEGIES = ("direct", "snapshot", "warm", "pool", "auto", "subprocess")

SCRIPTS = {
    "no-line": ("echo hi\n", ["script that names no interpreter", "#!/bin/sh", "run sh "]),
    "empty": ("", ["script that names no interpreter"]),
    "blank-line": ("#! \t\necho hi\n", ["script that names no interpreter"]),
    "missing": ("#!/no/such/sh -e\n", ["its interpreter /no/such/sh: No such file or directory"]),
    "relative": ("#!no/such/sh\n", ["its interpreter no/such/sh: No such file"]),
    "not-executable": ("#!/etc/passwd\n", ["its interpreter /etc/passwd: Permission denied"]),
    "crlf": ("#!/bin/sh\r\necho hi\r\n", ["its interpreter '/bin/sh\\r'", "save it with LF"]),
    "env": ("#!/usr/bin/env no-such\n", ["env finds no no-such on its PATH"]),
    "env-split": ("#!/usr/bin/env -S no-such -u\n", ["env finds no no-such on its PATH"]),
    "env-words": ("#!/usr/bin/env sh -e\n", ["env finds no sh -e on its PATH", "env -S"]),
    "env-crlf": ("#!/usr/bin/env sh\r\n", ["env finds no 'sh\\r'", "save it with LF"]),
}


def make_script(directory: Path, text: str | bytes, name: str = "program") -> str:
    program = directory / name
    program.write_bytes(text.encode() if isinstance(text, str) else text)
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_script_that_names_no_interpreter(strategy: str, tmp_path: Path) -> None:
    """ENOEXEC: each request would be a 500."""
    program = make_script(tmp_path, "echo hi\n")
    assert_refused(
        run("--port", "0", "--strategy", strategy, "--", program),
        f"cannot run {program}: it is a script that names no interpreter",
        f"run sh {program}",
    )


@pytest.mark.parametrize("kind", SCRIPTS)
def test_scripts_that_cannot_be_executed(kind: str, tmp_path: Path) -> None:
    """Each is refused for the reason for which the kernel, or env(1), does not run it."""
    text, words = SCRIPTS[kind]
    program = make_script(tmp_path, text)
    try:
        done = subprocess.run([program], capture_output=True, check=False, cwd="/")
    except OSError:
        pass
    else:
        assert done.returncode == 127
    assert_refused(run("--port", "0", "--", program), f"cannot run {program}: ", *words)


def test_script_of_a_script_whose_interpreter_is_missing(tmp_path: Path) -> None:
    inner = make_script(tmp_path, "#!/no/such/sh\n", "inner")
    outer = make_script(tmp_path, f"#!{inner}\n")
    assert_refused(run("--port", "0", "--", outer), "its interpreter /no/such/sh: No such file")


def test_scripts_that_can_be_executed(tmp_path: Path) -> None:
    """Blanks, arguments, a relative interpreter below --cwd, env's PATH."""
    make_script(tmp_path, "#!/bin/sh\n", "sh-here")
    for text, *options in (
        ("#! \t/bin/sh \t-e\t \n",),
        ("#!/usr/bin/env -S sh -e\n",),
        ("#!/usr/bin/env sh-here\n", "--set-env", f"PATH={tmp_path}:/bin:/usr/bin"),
        ("#!./sh-here\n", "--cwd", str(tmp_path)),
    ):
        program = make_script(tmp_path, text)
        subprocess.run([program], check=True, cwd=tmp_path, env={"PATH": f"{tmp_path}:/bin"})
        cli.check(cli.parse([*options, "--", program]))


if sys.platform == "linux":

    def test_program_whose_dynamic_linker_is_missing(tmp_path: Path) -> None:
        """As one that is for musl is where there is glibc only."""
        data = Path("/bin/echo").read_bytes()
        linker = re.search(rb"/lib[\w/.-]*/ld-[\w.-]+\0", data)
        assert linker is not None
        missing = b"/no/such".ljust(len(linker[0]) - 1, b"/") + b"\0"
        program = make_script(tmp_path, data.replace(linker[0], missing))
        with pytest.raises(FileNotFoundError):
            subprocess.run([program], check=False)
        assert_refused(run("--port", "0", "--", program), "its dynamic linker /no/such")


# No directory for temporary files: none that Python looks at can be written a byte into.
NO_ROOM = ("sh", "-c", 'ulimit -f 0; trap "" XFSZ; exec "$@"', "sh")


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one", "workers"])
def test_chunked_bodies_that_could_not_be_kept(workers: list[str]) -> None:
    args = ["--port", "0", *workers, "--mode", "cgi", "--", "echo"]
    done = subprocess.run(
        [*NO_ROOM, sys.executable, "-m", "fastspawn.serve", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert_refused(done, "--mode cgi keeps chunked bodies in a temporary file: ", "TMPDIR")


@pytest.mark.parametrize("option", ["--stream-chunked", "--buffer-body=256k", "--mode=raw"])
def test_chunked_bodies_that_need_no_file(option: str, tmp_path: Path) -> None:
    mode = () if option == "--mode=raw" else ("--mode", "cgi")
    args = ["--port", "0", *mode, option, "--", "echo"]
    read, write = os.pipe()
    with subprocess.Popen(
        [*NO_ROOM, sys.executable, "-m", "fastspawn.serve", *args], stderr=write
    ) as server:
        os.close(write)
        with open(read, encoding="utf-8") as errors:
            line = errors.readline()
            server.terminate()
    assert " serving `echo` on " in line


def test_help_and_version() -> None:
    assert run("-h").stdout == run("--help").stdout
    result = run("--help-all")
    assert result.returncode == 0
    assert result.stderr == ""
    for option in ("--port", "--exec-timeout", "--no-access-log"):
        assert option in result.stdout
    assert "--from-supervisor" not in result.stdout
    result = run("--version")
    assert result.returncode == 0
    assert re.fullmatch(r"fastspawn \d+\.\d+\S*\n", result.stdout)


def only(*argv: str) -> RouteConfig:
    (route,) = cli.parse(argv).routes
    return route


def test_defaults() -> None:
    config = cli.parse([])
    assert config == Config(loop=config.loop)
    assert config.places == ((("127.0.0.1",), 8001),)
    assert config.routes == (RouteConfig(),)
    assert (only().command, only().strategy) == (("echo", "hi"), "direct")
    cli.check(config)


def test_command_begins_at_the_first_word_that_is_no_option() -> None:
    words = ["--port", "9", "--no-access-log", "ls", "-l", "--port", "7", "--"]
    config = cli.parse(words)
    assert only(*words).command == ("ls", "-l", "--port", "7", "--")
    assert (config.port, config.access_log) == (9, False)
    assert only("--", "--odd", "x").command == ("--odd", "x")
    assert only("--port=9", "--", "ls").command == ("ls",)
    assert only("-").command == ("-",)


def test_values() -> None:
    words = (
        "--exec-timeout 500ms --queue-timeout none --kill-grace 0 --max-body 64k --max-output 1M "
        "--keep-alive-timeout 2m --graceful-timeout 0 --max-inflight 7 --queue 0"
    ).split()
    route, config = only(*words), cli.parse(words)
    assert route.exec_timeout == 0.5
    assert route.queue_timeout is None
    assert route.kill_grace == 0
    assert route.max_body == 65536
    assert route.max_output == 1 << 20
    assert config.keep_alive_timeout == 120
    assert config.graceful_timeout == 0
    assert (route.max_inflight, route.queue) == (7, 0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("30s", 30),
        ("500ms", 0.5),
        ("5m", 300),
        ("1h", 3600),
        ("0.5", 0.5),
        (".5s", 0.5),
        ("1h30m", 5400),
        ("1m0.5s", 60.5),
        ("1h1m1s500ms", 3661.5),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert units.duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "-1",
        "1 s",
        "1d",
        "1e3",
        "nan",
        "30m1h",
        "1m30",
        "1m1m",
        "inf",
        "9999999h",
        "\u0661",
    ],
)
def test_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|more than a year"):
        units.duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("4096", 4096), ("64k", 65536), ("64K", 65536), ("64KiB", 65536), ("1M", 1 << 20),
     ("2g", 2 << 30), ("10b", 10)],
)  # fmt: skip
def test_size(text: str, count: int) -> None:
    assert units.size(text) == count


@pytest.mark.parametrize("text", ["", "k", "-1", "1.5M", "1 M", "1X", "9" * 30, "\u0663"])
def test_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size|too large"):
        units.size(text)


def test_relative_working_directory(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    program = tmp_path / "inner" / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        cli.check(cli.parse(["--cwd", "inner", "./program"]))
        with pytest.raises(cli.UsageError):
            cli.check(cli.parse(["./program"]))
    finally:
        os.chdir(before)
