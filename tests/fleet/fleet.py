"""Servers behind HAProxy that are killed, drained and restarted.

A GET never fails, whatever happens to a server; a POST only on one that is killed while it has it,
and it is never done twice.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGKILL, SIGTERM

from fleet.haproxy import HAProxy, haproxy
from fleet.load import Outcome
from serve.harness import Server
from support import poll

BREATH = 0.05
"""Seconds that a request takes, at least: some are under way whenever a server is killed."""


class Member:
    """A server that can be started again where it was."""

    def __init__(self, folder: Path, host: str, number: int, options: tuple[str, ...]) -> None:
        self.host = host
        self.name = f"server{number}"
        self._options = (*options, "--ready-path", "/-/ready", "--keep-alive-timeout", "130s")
        self._folder = folder / self.name
        self._folder.mkdir()
        self.server = self._start("0", "0")
        self.port, self.agent = self.server.port, self.server.agent()

    @property
    def address(self) -> tuple[str, int, int]:
        return self.host, self.port, self.agent

    def _start(self, port: str, agent: str) -> Server:
        notes = self._folder.parent / "notes"
        routes = (
            f"GET /who=echo {self.name}",
            f"GET /fetch=sh -c 'sleep {BREATH}; echo done'",
            f'POST /note=sh -c "cat >> {notes}; sleep {BREATH}; echo done"',
        )
        return Server(
            self._folder,
            (
                *("--agent-check", f"{self.host}:{agent}", "--no-access-log", *self._options),
                *(word for route in routes for word in ("--route", route)),
            ),
            (),
            where=("--host", self.host, "--port", port),
        )

    def restart(self) -> None:
        self.server = self._start(str(self.port), str(self.agent))

    def kill(self) -> None:
        self.server.signal(SIGKILL)
        self.server.wait()

    def drain(self) -> None:
        """To its end."""
        self.server.signal(SIGTERM)
        assert self.server.wait() == 0


class Fleet:
    """``members`` behind something that listens ``where``. ``settled``: waits until it has heard of
    all that are there."""

    def __init__(
        self,
        members: list[Member],
        where: tuple[str, int],
        notes: Path,
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        self.members = members
        self.where = where
        self.settled = settled
        self._notes = notes

    def chaos(self, times: Iterator[object]) -> None:
        """At each of ``times``, one is killed while another one is drained: both come back."""
        for turn, _ in enumerate(times):
            killed = self.members[turn % len(self.members)]
            drained = self.members[(turn + 2) % len(self.members)]
            drained.server.signal(SIGTERM)
            killed.kill()
            killed.restart()
            assert drained.server.wait() == 0
            drained.restart()
            self.settled()

    def roll(self) -> None:
        """Restart all, one after the other."""
        for member in self.members:
            member.drain()
            member.restart()
            self.settled()

    def noted(self) -> Counter[str]:
        """How often each POST was done."""
        return Counter(self._notes.read_text().split()) if self._notes.exists() else Counter()


def block() -> str:
    """Loopback addresses of our own, but for the last number: a port that was ours there is
    nobody else's until we are back."""
    return f"127.{os.getpid() // 250 % 250 + 1}.{os.getpid() % 250}"


@contextmanager
def started(folder: Path, count: int, delay: str, *options: str) -> Iterator[list[Member]]:
    """``count`` servers. ``delay``: --drain-delay."""
    options = ("--drain-delay", delay, "--graceful-timeout", "30s", *options)
    with ExitStack() as stack:
        members = []
        for number in range(count):
            members.append(Member(folder, f"{block()}.{number + 1}", number, options))
            stack.callback(lambda member=members[-1]: member.server.stop())
        yield members


@contextmanager
def behind_haproxy(
    folder: Path,
    count: int = 4,
    delay: str = "4s",
    *options: str,
    edit: Callable[[str], str] = lambda text: text,
) -> Iterator[tuple[Fleet, HAProxy]]:
    with (
        started(folder, count, delay, *options) as members,
        haproxy(folder, [member.address for member in members], edit) as front,
    ):

        def settled() -> None:
            poll(lambda: front.up() == count, "HAProxy's trust in all servers")

        yield Fleet(members, front.where, folder / "notes", settled), front


def check(outcome: Outcome, done: Counter[str], killed: bool, *, undelayed: bool = False) -> None:
    """That nothing has failed that must not. ``undelayed``: a server that is stopped without a
    drain delay refuses those that wait to be accepted, and nobody may send a POST again."""
    excused = ["502", "IncompleteReadError", "ConnectionResetError"] if killed else []
    excused += ["503"] if undelayed else []
    assert set(outcome.failed) <= {f"POST {how}" for how in excused}, outcome.failed
    assert max(done.values(), default=1) == 1, "a POST was done twice"
    assert set(outcome.noted) <= set(done), "a POST was said to be done"
    assert set(done) <= {*outcome.noted, *outcome.unsure}
