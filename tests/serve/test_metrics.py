"""--metrics-path, read as Prometheus's own parser does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import needs
from serve.conftest import Serve
from serve.harness import Server, children, longer_times, poll, routes_file

Script = Callable[..., tuple[str, ...]]

PATH = ("--metrics-path", "/metrics")
HOLD = 'echo $$ > "$1.new"; mv "$1.new" "$1"; exec sleep 60'
ANY = "/{...}"


class Figures:
    """One look at a server's."""

    def __init__(self, server: Server) -> None:
        answer = server.get("/metrics")
        assert answer.status == 200, answer
        assert answer.fields["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        self._values = {
            (sample.name.removeprefix("fastspawn_"), frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.body.decode())
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self._values[name, frozenset(labels.items())]

    def all(self, name: str) -> float:
        return sum(value for key, value in self._values.items() if key[0] == name)


def test_requests_and_processes(serve: Serve, strategy: str) -> None:
    server = serve(
        *PATH,
        *("--route", "GET /exit/{n}=sh -c 'exit $1' sh {n}", "--route", "/cat=cat"),
        *("--route", "/die=sh -c 'kill -KILL $$'", "--max-body", "10"),
    )
    with server.connect() as client:
        for target, status in (
            ("/", 200), ("/a?b", 200), ("/exit/0", 200), ("/exit/3", 500), ("/die", 500),
            ("/%zz", 400),
        ):  # fmt: skip
            client.get(target)
            assert client.read().status == status
        client.request("POST", "/cat", "Content-Length: 5", body=b"abcde")
        assert client.read().body == b"abcde"
        client.request("PROPFIND", "/")
        assert client.read().status == 200
    figures = Figures(server)
    assert figures("requests_total", route=ANY, method="GET", status="200") == 2
    assert figures("requests_total", route=ANY, method="other", status="200") == 1
    assert figures("requests_total", route="GET /exit/{n}", method="GET", status="500") == 1
    assert figures("requests_total", route="(none)", method="GET", status="400") == 1
    assert figures.all("requests_total") == 8
    assert figures("exits_total", route="GET /exit/{n}", status="0") == 1
    assert figures("exits_total", route="GET /exit/{n}", status="3") == 1
    assert figures("signals_total", route="/die", signal="SIGKILL") == 1
    assert figures("request_body_bytes_total", route="/cat") == 5
    assert figures("response_body_bytes_total", route="/cat") == 5
    for name in ("queue_seconds", "spawn_seconds", "run_seconds"):
        assert figures(f"{name}_count", route=ANY) == 3
        assert figures(f"{name}_bucket", route=ANY, le="+Inf") == 3
        assert figures(f"{name}_sum", route=ANY) >= 0
    assert figures("run_seconds_sum", route=ANY) > 0
    assert figures("route_info", route="/cat", strategy=strategy, snapshot_at="") == 1
    assert figures("requests_in_flight", route=ANY) == 0
    assert figures("connections") == 1
    assert (figures("workers"), figures("workers_replaced_total")) == (1, 0)


def test_kills_and_rejections(serve: Serve, script: Script, tmp_path: Path) -> None:
    held = tmp_path / "held"
    config = routes_file(
        tmp_path / "serve.toml",
        late="command = 'sleep 60'\nexec-timeout = '200ms'",
        hold="command = 'sleep 60'",
        much="command = ['echo', '0123456789ab']",
    )
    server = serve(
        *PATH,
        *("--config", config, "--max-output", "10", "--max-inflight", "1", "--queue", "0"),
        *("--max-body", "3"),
        command=script(HOLD, held),
    )
    assert server.get("/late").status == 504
    much = server.get("/much")
    assert much.status == 500 or not much.complete  # if the head was sent before the limit was seen
    with server.connect() as client:
        client.get()
        poll(held.exists, "a process's start")
        assert server.get().status == 503
        figures = Figures(server)
        assert figures("requests_in_flight", route=ANY) == 1
        assert figures("requests_rejected_total", route=ANY) == 1
    poll(lambda: Figures(server)("requests_in_flight", route=ANY) == 0, "the process's end")
    with server.connect() as client:
        client.send(
            b"POST /hold HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        poll(lambda: Figures(server)("requests_in_flight", route="/hold") == 1, "a process's start")
        client.send(b"1\r\na\r\n")
        assert client.read().status == 413
    poll(lambda: Figures(server)("requests_in_flight", route="/hold") == 0, "the process's end")
    figures = Figures(server)
    assert figures("kills_total", route="/late", reason="deadline") == 1
    assert figures("kills_total", route="/much", reason="output") == 1
    assert figures("kills_total", route="/hold", reason="refused") == 1
    assert figures.all("kills_total") >= 3
    assert figures("requests_total", route="/hold", method="POST", status="413") == 1


def test_client_that_leaves(serve: Serve, script: Script, tmp_path: Path) -> None:
    held = tmp_path / "held"
    server = serve(*PATH, command=script(HOLD, held))
    with server.connect() as client:
        client.get()
        poll(held.exists, "a process's start")
        client.reset()
    poll(lambda: Figures(server).all("kills_total") == 1, "the kill")
    figures = Figures(server)
    assert figures("kills_total", route=ANY, reason="disconnect") == 1
    assert figures("requests_total", route=ANY, method="GET", status="499") == 1


@pytest.mark.parametrize("sent", [b"some", b""])
def test_client_that_stops_sending(
    serve: Serve, script: Script, tmp_path: Path, sent: bytes
) -> None:
    held = tmp_path / "held"
    for timeout in longer_times():
        server = serve(*PATH, "--body-timeout", timeout, command=script(HOLD, held))
        with server.connect() as client:
            client.request("POST", "/", "Content-Length: 9", body=sent)
            assert client.read().status == 408
        if held.exists():
            break
    poll(lambda: Figures(server).all("kills_total") == 1, "the kill")
    figures = Figures(server)
    assert figures("kills_total", route=ANY, reason="stalled") == 1
    assert figures("requests_total", route=ANY, method="POST", status="408") == 1


def test_client_that_stops_reading(serve: Serve) -> None:
    server = serve(*PATH, "--send-timeout", "1s", command=("cat", "/dev/zero"))
    with server.connect() as client:
        client.get()
        poll(lambda: Figures(server).all("kills_total") == 1, "the kill")
    figures = Figures(server)
    assert figures("kills_total", route=ANY, reason="stalled") == 1
    assert figures("requests_total", route=ANY, method="GET", status="499") == 1


def test_command_that_is_gone(serve: Serve, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    server = serve(*PATH, command=(str(program),))
    program.unlink()
    assert server.get().status == 500
    assert Figures(server)("spawn_errors_total", route=ANY, error="ENOENT") == 1


def workers(server: Server) -> list[int]:
    return [pid for pid, state in children(server.pid).items() if not state.startswith("Z")]


def test_right_across_workers(serve: Serve) -> None:
    """Each request is counted once, whichever worker answers and whichever is asked."""
    server = serve(*PATH, "--workers", "3")
    for _ in range(30):
        assert server.get().body == b"hi\n"
    for _ in range(8):
        figures = Figures(server)
        assert figures("requests_total", route=ANY, method="GET", status="200") == 30
        assert figures("workers") == 3
        assert figures("exits_total", route=ANY, status="0") == 30


def test_counts_of_workers_that_are_gone(serve: Serve) -> None:
    server = serve(*PATH, "--workers", "2")
    for _ in range(20):
        assert server.get().body == b"hi\n"
    server.signal(signal.SIGUSR2)
    poll(lambda: "restarted the workers" in server.errors(), "a restart", 60)
    poll(lambda: len(workers(server)) == 2, "the old ones' end")
    assert Figures(server)("requests_total", route=ANY, method="GET", status="200") == 20
    # What the supervisor has been told is kept after a kill, too: by now that is all.
    os.kill(workers(server)[0], signal.SIGKILL)
    poll(lambda: "starting another" in server.errors(), "word of it")
    poll(lambda: Figures(server)("workers") == 2, "another worker")
    figures = Figures(server)
    assert figures("requests_total", route=ANY, method="GET", status="200") == 20
    assert figures("workers_replaced_total") == 1


def test_worker_that_hangs(serve: Serve, script: Script) -> None:
    """What it told last has to do."""
    server = serve(*PATH, "--workers", "2", command=script("echo $PPID"))
    with server.connect() as client:
        # The one that has this connection is to answer.
        client.get()
        mine = int(client.read().body)
        Figures(server)  # the other has told, too
        (other,) = set(workers(server)) - {mine}
        os.kill(other, signal.SIGSTOP)
        try:
            client.get("/metrics")
            answer = client.read()
        finally:
            os.kill(other, signal.SIGCONT)
    assert answer.status == 200
    assert b"fastspawn_workers 2.0\n" in answer.body


def test_supervisor_that_hangs(serve: Serve) -> None:
    """Workers serve on, whatever they would tell it, and tell it when it goes on."""
    server = serve(*PATH, "--workers", "2")
    server.signal(signal.SIGSTOP)
    try:
        with ExitStack() as asking:
            for _ in range(800):  # a socket takes some hundred such messages
                asking.enter_context(server.connect()).get("/metrics")
        for _ in range(20):
            assert server.get().body == b"hi\n"
    finally:
        server.signal(signal.SIGCONT)
    figures = Figures(server)
    assert figures("requests_total", route=ANY, method="GET", status="200") == 20
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_through_a_reload(serve: Serve, tmp_path: Path) -> None:
    """A route's counts go on when its configuration changes."""
    config = tmp_path / "serve.toml"
    config.write_text('[[route]]\npath = "/a"\ncommand = "echo a"\n')
    server = serve(*PATH, "--config", str(config), command=())
    assert server.get("/a").body == b"a\n"
    config.write_text('[[route]]\npath = "/a"\ncommand = "echo b"\n')
    server.signal(signal.SIGHUP)
    poll(lambda: "reloaded" in server.errors(), "a reload")
    assert server.get("/a").body == b"b\n"
    assert Figures(server)("requests_total", route="/a", method="GET", status="200") == 2


@needs.templates
def test_template(start: Serve) -> None:
    server = start(*PATH, "--strategy", "snapshot", "--snapshot-at", "main")
    assert server.get().body == b"hi\n"
    figures = Figures(server)
    assert figures("route_info", route=ANY, strategy="snapshot", snapshot_at="main") == 1
    assert figures("strategy_events_total", route=ANY, event="template_restart") == 0
    assert figures("strategy_events_total", route=ANY, event="template_miss") == 0


@needs.x86_64
def test_a_template_of_no_use(start: Serve, tmp_path: Path) -> None:
    """What the program looks at changes all the time, so requests start by exec."""
    data = tmp_path / "data"
    data.write_text("0\n")
    options = ("--strategy", "snapshot", "--snapshot-at", "effect", "--spawners", "1")
    server = start(*PATH, *options, command=("sort", str(data)))

    def is_told() -> bool:
        """Some requests at once, each time that the first of them looks at what has changed."""
        due = time.monotonic() + 0.2
        poll(lambda: time.monotonic() > due, "a look is due")
        data.write_text(f"{due}\n")
        list(pool.map(lambda _: server.get(), range(8)))
        return "effect is exec: more than half" in server.errors()

    with ThreadPoolExecutor(8) as pool:
        poll(is_told, "it is told")
    assert Figures(server)("route_info", route=ANY, strategy="snapshot", snapshot_at="exec") == 1
    server.says(f"start so: {data} changed, the last of ")
    assert Figures(server)("strategy_events_total", route=ANY, event="template_stale") > 0


def test_warm(start: Serve) -> None:
    server = start(*PATH, "--strategy", "warm", command=("cat",))
    for _ in range(3):
        assert server.get().status == 200
    figures = Figures(server)
    assert figures("strategy_events_total", route=ANY, event="warm_miss") >= 0
    assert figures("route_info", route=ANY, strategy="warm", snapshot_at="") == 1


def test_without_the_library() -> None:
    hidden = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'prometheus_client'"
        " else real(name, *rest)\n"
        "from fastspawn.serve.cli import main; sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden, *PATH, "--port", "0"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    needs = "--metrics-path needs prometheus-client: pip install 'fastspawn[metrics]'"
    assert done.stderr == f"fastspawn: error: {needs}\n"
