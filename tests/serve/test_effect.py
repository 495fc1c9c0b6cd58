"""--snapshot-at effect and auto over HTTP: where forks begin, and that nothing is stale."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import needs
from serve.harness import Server, poll
from serve.test_config import assert_refused, run
from support import script

pytestmark = needs.effects

Serve = Callable[..., Server]
DISPATCH = "157/0/59"
CHECKPOINT = """
import os
from fastspawn import checkpoint
above = os.getpid()
checkpoint()
print(above == os.getpid())
"""


@pytest.fixture
def snapshot(start: Serve, loop: str) -> Serve:
    return lambda *options, **more: start(
        "--strategy", "snapshot", "--spawners", "1", "--loop", loop, *options, **more
    )


def bodies(server: Server, target: str = "/", n: int = 3) -> list[bytes]:
    with server.connect() as client:
        found = []
        for _ in range(n):
            client.get(target)
            found.append(client.read().body)
    return found


@pytest.mark.parametrize("place", ["effect", "auto"])
def test_a_fixed_command_begins_at_its_first_effect(snapshot: Serve, place: str) -> None:
    server = snapshot("--snapshot-at", place)
    assert bodies(server) == [b"hi\n"] * 3
    server.says(f"--snapshot-at {place} is effect: forks begin before ")


def test_as_a_variable_and_in_the_file(
    snapshot: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSPAWN_SNAPSHOT_AT", "effect")
    file = tmp_path / "serve.toml"
    file.write_text(
        "[[route]]\npath = '/main'\ncommand = 'echo main'\nsnapshot-at = 'main'\n"
        "[[route]]\npath = '/effect'\ncommand = 'echo effect'\n"
        "[[route]]\npath = '/auto/{name}'\ncommand = 'echo {name}'\nsnapshot-at = 'auto'\n"
    )
    server = snapshot("--config", str(file))
    for target, body in (
        ("/main", b"main"),
        ("/effect", b"effect"),
        ("/auto/x", b"x"),
        ("/", b"hi"),
    ):
        assert bodies(server, target) == [body + b"\n"] * 3
    said = server.errors()
    assert "route /main" not in said
    assert "fastspawn: routes /effect, /{...}: --snapshot-at effect is effect: " in said
    assert (
        "route /auto/{name}: --snapshot-at auto is main: values of the request are in the command"
        in said
    )


def test_auto_leaves_python_to_its_checkpoint(snapshot: Serve) -> None:
    server = snapshot(command=(sys.executable, "-c", CHECKPOINT))
    assert bodies(server) == [b"False\n"] * 3
    server.says("--snapshot-at auto is main: it is a Python program, which may come")


def test_effect_takes_python_too(snapshot: Serve) -> None:
    server = snapshot("--snapshot-at", "effect", command=(sys.executable, "-c", CHECKPOINT))
    assert bodies(server) == [b"True\n"] * 3
    server.says("--snapshot-at effect is effect: ")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--mode", "cgi"), "mode cgi gives each an environment of its own"),
        (
            ("--route", "/{a}=echo {a}"),
            "values of the request are in the command or its environment",
        ),
        (
            ("--route", "/{a}=env", "--set-env", "A={a}"),
            "values of the request are in the command or its env",
        ),
    ],
    ids=["cgi", "argument", "variable"],
)
@pytest.mark.parametrize("strategy", ["snapshot", "auto"])
def test_refused_where_requests_differ(options: tuple[str, ...], why: str, strategy: str) -> None:
    result = run("--strategy", strategy, "--snapshot-at", "effect", *options)
    assert_refused(result, "--snapshot-at effect is for requests that are alike: ", why)


def test_auto_in_mode_cgi_is_main(snapshot: Serve) -> None:
    server = snapshot(
        "--mode",
        "cgi",
        command=("sh", "-c", 'echo "Content-Type: a/b"; echo; echo "$QUERY_STRING"'),
    )
    assert bodies(server, "/?a") + bodies(server, "/?b") == [b"a\n"] * 3 + [b"b\n"] * 3
    server.says("--snapshot-at auto is main: mode cgi gives each an environment")


@pytest.mark.parametrize("place", ["effect", "auto"])
def test_a_kernel_without_dispatch_says_so_once(snapshot: Serve, place: str) -> None:
    server = snapshot("--snapshot-at", place, prefix=script("refuse_call.py", DISPATCH))
    assert bodies(server) == [b"hi\n"] * 3
    said = f"--snapshot-at {place} is main: the kernel has no Syscall User Dispatch"
    server.says(said, 1)


def test_strategy_auto_with_effect(start: Serve, loop: str) -> None:
    server = start("--strategy", "auto", "--loop", loop)
    assert bodies(server) == [b"hi\n"] * 3
    server.says("--snapshot-at auto is effect: ")
    server.says("--strategy auto is snapshot\n")


def test_no_request_sees_an_old_file_for_long(snapshot: Serve, tmp_path: Path) -> None:
    """30 clients, all asking for a file's content, which sed has read before it writes."""
    data = tmp_path / "data"
    data.write_text("0\n")
    server = snapshot("--snapshot-at", "effect", command=("sort", str(data)))
    with ThreadPoolExecutor(30) as pool:
        for i in range(1, 4):
            data.write_text(f"{i}\n")
            new = b"%d\n" % i
            poll(lambda new=new: bodies(server, n=1) == [new], "the new content")
            assert set(pool.map(lambda _: bodies(server, n=2)[1], range(60))) == {new}


def test_each_request_has_its_own_world(snapshot: Serve) -> None:
    text = 'cat; echo " $$ $(date +%N)"'
    server = snapshot("--snapshot-at", "effect", command=("sh", "-c", text))

    def one(i: int) -> bytes:
        with server.connect() as client:
            client.post(b"%d" % i)
            body = client.read().body
        assert body.startswith(b"%d " % i)
        return body.partition(b" ")[2]

    with ThreadPoolExecutor(30) as pool:
        assert len(set(pool.map(one, range(90)))) == 90
