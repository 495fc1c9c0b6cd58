"""``python -m bench.crowd overload|idle``: what very many connections do to the server.

* ``overload``: 2,000 connections ask without a pause for places that 8 processes and a queue of
  64 do not have, for 30 s. Every answer is a 200 or a 503, none comes later than the queue's
  deadline and a command's run allow, and the 200s keep the rate they have without the crowd.
* ``idle``: 10,000 kept-alive connections stay open after a request each. What one of them costs
  the server, and whether a request takes longer beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.harness import tools
from bench.harness.server import Server
from bench.harness.stats import quantile

PLACES = 8
QUEUE = 64
QUEUE_TIMEOUT = 2
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def serving(command: Sequence[str], *options: str) -> Callable[[int], list[str]]:
    """Our server's command line, without an access log."""

    def argv(port: int) -> list[str]:
        server = [sys.executable, "-m", "fastspawn.serve", "--port", str(port), "--no-access-log"]
        return [*server, *options, "--", *command]

    return argv


def resident(pid: int) -> int:
    """KiB of memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no memory")


# ---- overload ------------------------------------------------------------------------------------


def bombard(port: int, connections: int, seconds: int) -> dict[str, Any]:
    """bombardier for a time instead of a number, and with all statuses allowed."""
    program = str(tools.bombardier())
    command = [program, "-c", str(connections), "-d", f"{seconds}s", "-t", "60s", "-l"]
    url = f"http://localhost:{port}"
    done = subprocess.run(
        [*command, "-p", "r", "-o", "json", url], capture_output=True, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout)["result"]
    return result


@contextmanager
def watching(pid: int) -> Iterator[list[int]]:
    """The server's memory, each half second."""
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            seen.append(resident(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def overload(args: argparse.Namespace) -> None:
    options = ["--max-inflight", str(PLACES), "--queue", str(QUEUE)]
    options += ["--queue-timeout", f"{QUEUE_TIMEOUT}s"]
    with Server(serving(args.command, *options)) as server:
        alone = bombard(server.port, PLACES, args.seconds // 3)
        with watching(server.pid) as memory:
            crowded = bombard(server.port, args.connections, args.seconds)
    # By the time in which they asked: the last answers of the crowd come after it.
    for name, result, seconds in (
        ("alone", alone, args.seconds // 3),
        ("crowd", crowded, args.seconds),
    ):
        rate = result["req2xx"] / seconds
        others = result["req1xx"] + result["req3xx"] + result["req4xx"] + result["others"]
        latency = result["latency"]
        print(
            f"{name}: {result['req2xx']} x 200 ({rate:,.0f}/s), {result['req5xx']} x 5xx, "
            f"{others} others, errors {result.get('errors') or 'none'}; "
            f"p50 {latency['percentiles']['50'] / 1e3:,.1f} ms, "
            f"p99 {latency['percentiles']['99'] / 1e3:,.1f} ms, max {latency['max'] / 1e3:,.0f} ms"
        )
    ratio = crowded["req2xx"] / args.seconds / (alone["req2xx"] / (args.seconds // 3))
    third = len(memory) // 3
    print(f"200s of the crowd: {ratio:.2f}x those alone")
    print(
        f"memory: {max(memory[:third])} KiB in the first third, {max(memory[-third:])} in the last"
    )


# ---- idle ----------------------------------------------------------------------------------------


def ask(connection: socket.socket) -> None:
    """One request and its whole answer, which has to be right."""
    connection.sendall(REQUEST)
    answer = b""
    while not answer.endswith((b"\r\n\r\nhi\n", b"0\r\n\r\n")):
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionError("the server closed a connection that asked for an answer")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ValueError(f"instead of 200: {answer[:80]!r}")


def latency(port: int, requests: int) -> list[float]:
    """Milliseconds of requests one after the other, on a connection of their own."""
    taken = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(requests):
            start = time.perf_counter()
            ask(connection)
            taken.append((time.perf_counter() - start) * 1e3)
    return taken


def idle(args: argparse.Namespace) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < args.connections + 100:
        raise SystemExit(f"{args.connections} connections need a higher limit than `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients: list[socket.socket] = []
    with Server(serving(("echo", "hi"), "--keep-alive-timeout", "1h")) as server:
        latency(server.port, 500)
        before, without = resident(server.pid), latency(server.port, 1000)
        try:
            for _ in range(args.connections):
                clients.append(socket.create_connection(("127.0.0.1", server.port)))
                ask(clients[-1])
            after, beside = resident(server.pid), latency(server.port, 1000)
            ask(clients[0])
        finally:
            for client in clients:
                client.close()
    print(f"{args.connections} connections: {(after - before) / args.connections:.2f} KiB each")
    for name, taken in (("without", without), ("beside", beside)):
        print(f"{name}: p50 {quantile(taken, 0.5):.3f} ms, p99 {quantile(taken, 0.99):.3f} ms")
    print(f"p50 beside them: {quantile(beside, 0.5) / quantile(without, 0.5):.3f}x")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.crowd", description=(__doc__ or "").partition("\n")[0]
    )
    cases = parser.add_subparsers(required=True)
    case = cases.add_parser("overload", help="more clients than there are places")
    case.add_argument("--connections", type=int, default=2000)
    case.add_argument("--seconds", type=int, default=30)
    case.add_argument("command", nargs="*", default=["sleep", "0.01"], help="default: sleep 0.01")
    case.set_defaults(run=overload)
    case = cases.add_parser("idle", help="connections that do nothing")
    case.add_argument("--connections", type=int, default=10_000)
    case.set_defaults(run=idle)
    args = parser.parse_args()
    os.environ.pop("FASTSPAWN_ACCESS_LOG", None)
    args.run(args)


if __name__ == "__main__":
    main()
