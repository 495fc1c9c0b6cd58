"""Servers behind HAProxy, as docs/fleet.md has it; a minute of it is ``make fleet``."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from signal import SIGTERM

import pytest

import needs
from fleet.fleet import behind_haproxy, check
from fleet.haproxy import PROGRAM, HAProxy, weighted
from fleet.load import Load, steady, under_load
from support import LINUX, poll

pytestmark = [
    needs.have(PROGRAM, "no haproxy"),
    pytest.mark.skipif(not LINUX, reason="each server has a loopback address of its own"),
]


def test_killed_and_drained(tmp_path: Path) -> None:
    """At once, twice: no GET fails, and no POST is done twice."""
    with behind_haproxy(tmp_path, delay="2s") as (ours, _):
        load = Load(ours.where, steady(30), connections=32, posts=5)
        outcome = asyncio.run(under_load(load, lambda: ours.chaos(iter(range(2)))))
        check(outcome, ours.noted(), killed=True)
        assert outcome.sent["GET"]


def test_rolling_restart(tmp_path: Path) -> None:
    """Nothing fails, and no POST is done twice."""
    with behind_haproxy(tmp_path, 2, "2s") as (ours, _):
        load = Load(ours.where, steady(30), connections=32, posts=3)
        outcome = asyncio.run(under_load(load, ours.roll))
        check(outcome, ours.noted(), killed=False)
        assert outcome.sent["POST"]


def weights(front: HAProxy) -> list[int]:
    return [int(each["weight"]) for each in front.servers()]


def test_weight_by_what_is_taken(tmp_path: Path) -> None:
    """A server whose places are taken by somebody else is sent less."""
    options = ("--max-inflight-total", "4", "--exec-timeout", "5m")
    with behind_haproxy(tmp_path, 2, "0", *options, edit=weighted) as (ours, front):
        poll(lambda: weights(front) == [100, 100], "both weights")
        one = ours.members[0].server
        with socket.create_connection((ours.members[0].host, one.port)) as sock:
            # It holds a place until its body comes.
            sock.sendall(b"POST /note HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
            poll(lambda: weights(front) == [80, 100], "less weight")
        poll(lambda: weights(front) == [100, 100], "all of it again")


def test_drain_is_taken_back(tmp_path: Path) -> None:
    """HAProxy remembers that a server said so; the next one at its place says it is ready."""
    with behind_haproxy(tmp_path, 2, "1m", edit=weighted) as (ours, front):
        one = ours.members[0]
        one.server.signal(SIGTERM)
        poll(lambda: front.up() == 1, "one that is drained")
        assert "agent" in front.servers()[0]["status"].lower(), front.servers()[0]
        one.server.signal(SIGTERM)
        assert one.server.wait() == 0
        one.restart()
        ours.settled()
