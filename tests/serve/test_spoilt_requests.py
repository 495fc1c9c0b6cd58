"""Bytes that are nearly requests. ``make fuzz SECS=600`` goes on for longer, with others each time.

A failure names its seed: ``FUZZ_SEED=... pytest tests/serve/test_spoilt_requests.py``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from random import Random, randrange
from typing import Final

import h11
import pytest

from serve.conftest import Serve
from serve.harness import children, fds, poll, settled
from serve.spoilt import request
from unit.test_parser import Recorder

SECONDS: Final = float(os.environ.get("FUZZ_SECS", "0"))
"""For each test; 0: as many as are named in it, and the same each time."""
SEED: Final = int(os.environ.get("FUZZ_SEED", randrange(1 << 32) if SECONDS else 1))


def seeds(count: int) -> Iterator[int]:
    end = time.monotonic() + SECONDS
    seed = SEED
    while time.monotonic() < end if SECONDS else seed < SEED + count:
        yield seed
        seed += 1


# ---- nobody reads them in another way


def read_by_us(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """The requests that are whole, and not refused."""
    recorder = Recorder(max_head=2000, max_body=10_000)
    recorder.parser.feed(data)
    recorder.parser.close()
    return [
        (each.method, each.target, b"".join(each.body or ()))
        for each in recorder.found
        if each.complete and not each.refusal
    ]


def read_by_h11(data: bytes) -> tuple[list[tuple[bytes, bytes, bytes]], bool]:
    """The requests, and whether it refused what comes then."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    found: list[tuple[bytes, bytes, bytes]] = []
    method = target = body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                method, target, body = event.method, event.target, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append((method, target, body))
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
            elif event is h11.PAUSED and connection.their_state is h11.DONE:
                if connection.our_state is not h11.DONE:
                    return found, True
                connection.start_next_cycle()
            else:
                return found, event is h11.PAUSED
    except h11.ProtocolError:
        return found, True


def test_a_strict_reader_sees_the_same_requests() -> None:
    """Where two on the way disagree about where a request ends, one is smuggled."""
    accepted = 0
    for seed in seeds(5_000):
        data = request(Random(seed))
        ours = read_by_us(data)
        theirs, refused = read_by_h11(data)
        same = ours == theirs[: len(ours)] or (refused and ours[: len(theirs)] == theirs)
        assert same, (seed, data, ours, theirs)
        accepted += len(ours)
    assert accepted > 1000


# ---- a server lives on

CGI = ("sh", "-c", "printf 'Content-Type: text/plain\\n\\n'; exec cat")
SERVERS = {
    "raw": (("--max-body", "10k"), ("cat",)),
    "cgi": (("--mode", "cgi", "--max-body", "10k"), CGI),
    "ws": (("--mode", "ws"), ("cat",)),
    "pty": (("--mode", "ws", "--pty"), ("cat",)),
    "jsonrpc": (("--mode", "jsonrpc"), ("cat",)),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_lives_on(start: Serve, kind: str) -> None:
    """Each connection ends, no answer is of a fault within, and nothing is left."""
    options, command = SERVERS[kind]
    server = start(*options, "--health-path", "/healthz", command=command)
    assert server.get("/healthz").status == 200
    before = settled(lambda: fds(server.pid))
    for seed in seeds(60):
        data = request(Random(seed))
        with server.connect() as client:
            with contextlib.suppress(ConnectionError):  # it need not read all of it
                client.send(data)
                client.sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                answers = client.read_to_end()
                assert b"HTTP/1.1 500 " not in answers, (seed, data, answers)
    assert server.get("/healthz").status == 200
    poll(lambda: not children(server.pid), "that nothing is left")
    poll(lambda: fds(server.pid) <= before, "that nothing is open")
    assert "Traceback" not in server.errors()
