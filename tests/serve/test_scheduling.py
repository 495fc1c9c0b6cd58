"""SCHED_BATCH (sched(7)) is for the server's own threads, and for none of its children."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from serve.harness import Server, poll
from support import LINUX, policies


def _can_ask() -> bool:
    try:
        return LINUX and os.sched_getscheduler(0) == os.SCHED_OTHER
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not _can_ask(), reason="for Linux, and not for musl's functions")

Serve = Callable[..., Server]
OWN = ("awk", "{ print $41 }", "/proc/self/stat")
"""Tells how it is scheduled itself (proc(5)): 0 is SCHED_OTHER, 3 SCHED_BATCH."""


def own(server: Server) -> bytes:
    return server.get().body.strip()


@pytest.mark.parametrize("how", ["direct", "snapshot", "warm", "pool"])
def test_the_event_loop_waits_for_its_turn(start: Serve, loop: str, how: str) -> None:
    server = start("--strategy", how, "--loop", loop, command=OWN)
    assert policies(server.pid)[server.pid] == os.SCHED_BATCH
    for _ in range(3):
        assert own(server) == b"0"


def test_spawners_that_ask_for_forks_do_too(start: Serve) -> None:
    server = start("--strategy", "snapshot", command=OWN)
    poll(lambda: set(policies(server.pid).values()) == {os.SCHED_BATCH}, "all")
    assert own(server) == b"0"


def test_not_where_the_loop_starts_children(start: Serve, loop: str) -> None:
    server = start("--strategy", "subprocess", "--loop", loop, command=OWN)
    assert policies(server.pid)[server.pid] == os.SCHED_OTHER
    assert own(server) == b"0"


def test_what_the_operator_chose_stays(start: Serve) -> None:
    server = start("--strategy", "snapshot", command=OWN, prefix=("chrt", "--idle", "0"))
    assert set(policies(server.pid).values()) == {os.SCHED_IDLE}
    assert own(server) == b"5"
