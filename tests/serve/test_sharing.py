"""What routes share that have the same command, and what is said of them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import needs
from fastspawn.serve.strategies.news import Chorus, News, about
from serve.harness import Server, children, poll
from serve.test_metrics import Figures

Serve = Callable[..., Server]

ONE = ("--spawners", "1")
APP = """
[[route]]
path = "/app"
command = ["sh", "-c", "echo $PPID"]
{}

[[route]]
path = "/app/{{path...}}"
command = ["sh", "-c", "echo $PPID"]
{}
"""


def write(path: Path, *routes: str) -> str:
    path.write_text("\n".join(routes))
    return str(path)


def reload(server: Server, count: int = 1) -> None:
    server.signal(signal.SIGHUP)
    poll(lambda: server.errors().count("reloaded ") == count, "a reload")


def sources(server: Server, count: int) -> set[int]:
    """Its template processes, or spares, once there are so many."""
    poll(lambda: len(children(server.pid)) == count, f"{count} processes")
    return set(children(server.pid))


@needs.templates
@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ("", "", 1),
        ("queue = 3", "content-type = 'text/html'", 1),
        ("set-env = { A = '1' }", "set-env = { A = '1' }", 1),
        ("set-env = { A = '1' }", "set-env = { A = '2' }", 2),
        ("", "clear-env = true", 2),
        ("", "cwd = '/'", 2),
        ("", "exec-timeout = 3", 2),
        ("", "rlimit = { nofile = 50 }", 2),
        ("", "stderr = 'merge'", 2),
        ("", "snapshot-at = 'main'", 2),
        ("", "sandbox = 'env'", 2),
        ("mode = 'cgi'", "mode = 'cgi'", 1),
    ],
)
def test_templates(start: Serve, tmp_path: Path, one: str, other: str, count: int) -> None:
    """Of routes with the same command, environment and limits."""
    path = write(tmp_path / "serve.toml", APP.format(one, other))
    server = start("--strategy", "snapshot", *ONE, "--config", path, command=())
    sources(server, count)


@needs.templates
def test_each_request_has_the_command_of_its_route(start: Serve) -> None:
    routes = ("--route", "/a/{x}=echo a {x}", "--route", "/b/{x}=echo a {x}")
    server = start("--strategy", "snapshot", *ONE, *routes, command=("echo", "a", "{x}"))
    sources(server, 2)  # "{x}" is a word where the path has no such name: effect
    for target, body in (("/a/1", b"a 1\n"), ("/b/2", b"a 2\n"), ("/", b"a {x}\n")):
        assert server.get(target).body == body


@needs.templates
def test_a_template_through_reloads(start: Serve, tmp_path: Path) -> None:
    """It ends with the last route that has it, and not before."""
    path = tmp_path / "serve.toml"
    a, b = (f'[[route]]\npath = "/{name}"\ncommand = "cat"\n' for name in "ab")
    other = '[[route]]\npath = "/other"\ncommand = "true"\nstrategy = "direct"\n'
    options = ("--strategy", "snapshot", *ONE, "--config", write(path, a, b, other))
    server = start(*options, command=())
    (template,) = sources(server, 1)
    for count, routes in enumerate(((b, other), (b + "queue = 7\n", a, other), (a, other)), 1):
        write(path, *routes)
        reload(server, count)
        # What was let go of is closed within a second, and what a request needs is there.
        for _ in range(3):
            assert sources(server, 1) == {template}
            assert server.get("/b" if b in routes[0] else "/a").status == 200
    write(path, other)
    reload(server, 4)
    sources(server, 0)
    write(path, a, other)
    reload(server, 5)
    assert sources(server, 1) != {template}
    assert server.get("/a").status == 200


@needs.templates
def test_figures_of_a_template(start: Serve, tmp_path: Path) -> None:
    """What befalls it is told once, also when the route that told of it has gone."""
    path = tmp_path / "serve.toml"
    a, b = (f'[[route]]\npath = "/{name}"\ncommand = "cat"\n' for name in "ab")
    options = ("--strategy", "snapshot", *ONE, "--metrics-path", "/metrics")
    server = start(*options, "--config", write(path, a, b), command=())

    def restarts() -> list[float]:
        figures = Figures(server)
        return [
            figures("strategy_events_total", route=f"/{name}", event="template_restart")
            for name in "ab"
        ]

    def kill() -> None:
        (template,) = sources(server, 1)
        os.kill(template, signal.SIGKILL)
        poll(lambda: set(children(server.pid)) not in ({template}, set()), "another")

    assert restarts() == [0, 0]
    kill()
    assert restarts() == [1, 0]
    write(path, b)
    reload(server)
    # The route that goes is closed within a second; then the other tells.
    kills = 1
    while not restarts()[1]:
        kill()
        kills += 1
        assert sum(restarts()) == kills < 200


def test_spares(start: Serve) -> None:
    """One is for either route."""
    routes = ("--route", "/a=cat", "--route", "/b=cat", "--route", "/c=cat -n")
    server = start("--strategy", "warm", *routes, "--route", "/d/{x}=cat {x}", command=("cat",))
    sources(server, 2)
    for target in ("/a", "/b", "/c", "/"):
        assert server.get(target).status == 200


def test_workers_are_not_shared(start: Serve) -> None:
    """They are the requests that a route may have at once."""
    routes = ("--route", "/a=cat", "--route", "/b=cat")
    server = start("--strategy", "pool", "--pool-size", "2", *routes, command=("true",))
    sources(server, 6)


# ---- what is said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_is_the_same_is_said_in_one_line(start: Serve, workers: str) -> None:
    routes = [f"--route=/{name}/{{x}}=echo {{x}}" for name in "abcdef"]
    options = ("--strategy", "warm", "--workers", workers)
    server = start(*options, *routes, "--route", "PUT /g/{x}=cat {x}", command=("cat",))
    said = [line for line in server.errors().splitlines() if "is direct" in line]
    assert said == [
        (
            "fastspawn: routes /a/{x}, /b/{x}, /c/{x}, /d/{x} and 3 more: --strategy warm is "
            "direct: each request has a command line or environment of its own"
        )
    ]


def test_trouble_names_its_routes(start: Serve) -> None:
    server = start("--strategy", "warm", "--route", "/a=true", "--route", "GET /b=true")
    said = "fastspawn: routes /a, GET /b: --strategy warm: true ends without waiting for its input"
    poll(lambda: said in server.errors(), "a line about it")


def test_a_route_that_cannot_be_started_is_named(start: Serve, tmp_path: Path) -> None:
    text = '[[route]]\npath = "/a"\ncommand = "echo a"\n[[route]]\npath = "/b"\ncommand = "cat"\n'
    path = write(tmp_path / "serve.toml", text)
    server = start("--config", path, command=())
    write(tmp_path / "serve.toml", f'{text}strategy = "pool"\npool-size = 1\nworker = "true"\n')
    server.signal(signal.SIGHUP)
    said = "fastspawn: not reloaded: route /b: --strategy pool: "
    poll(lambda: said in server.errors(), "the reason")
    assert server.get("/a").body == b"a\n"


CHECKPOINT = """
import os
from fastspawn import checkpoint
checkpoint()
print(os.getpid())
"""


@needs.templates
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_checkpoint_is_told_of(start: Serve, loop: str, workers: str) -> None:
    """Once, when forks begin there: by each of the routes and workers, that would be four times."""
    command = f"{sys.executable} -c '{CHECKPOINT}'"
    routes = ("--route", f"/a={command}", "--route", f"/b/{{x...}}={command}")
    options = ("--strategy", "snapshot", *ONE, "--workers", workers, "--loop", loop)
    server = start(*options, *routes, command=("true",))
    first = "fastspawn: routes /a, /b/{x...}: --snapshot-at auto is main: it is a Python program"
    then = (
        "fastspawn: routes /a, /b/{x...}: --snapshot-at auto is checkpoint: forks begin there now\n"
    )
    server.says(first)
    assert then not in server.errors()

    def told() -> bool:
        assert server.get("/a").status == 200  # of whichever worker
        return then in server.errors()

    poll(told, "the news")
    for target in ("/a", "/b/1") * 4:
        assert server.get(target).status == 200
    server.says("is checkpoint", 1)


def test_lines() -> None:
    assert about(["/{...}"]) == ""
    assert about(["GET /{...}"]) == "route GET /{...}: "
    assert about(["/a", "/{...}"]) == "routes /a, /{...}: "
    said: list[str] = []
    news = News(said.append)
    news.tell("x", ["/a"])
    with news.gathering():
        news.tell("y", ["/a"])
        news.tell("z", ["/a"])
        news.tell("y", ["/b"])
        assert said == ["route /a: x"]
    assert said == ["route /a: x", "routes /a, /b: y", "route /a: z"]

    def fail() -> None:
        with news.gathering():
            news.tell("y", ["/a"])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    news.tell("z", ["/b"])
    assert said[3:] == ["route /b: z"]


def test_one_of_many_is_heard() -> None:
    said: list[str] = []
    chorus = Chorus(said.append)
    for worker, text in ((1, "a"), (2, "a"), (2, "b"), (1, "b"), (2, "a"), (1, "a"), (3, "a")):
        chorus.heard(worker, text)
    assert said == ["a", "b", "a"]
