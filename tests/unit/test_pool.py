"""The places that all workers share: every one is used, none is lost, nobody starves."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

import pytest

from fastspawn.serve.host.lending import Broker, LentPool
from fastspawn.serve.routes.quota import Pool, PooledAdmission


class Entrant:
    def __init__(self, world: World, admission: PooledAdmission) -> None:
        self.world = world
        self.admission = admission
        self.state = "new"

    def enter(self) -> Entrant:
        self.admission.enter(self)
        if self.state == "new":
            self.state = "waits"
        return self

    def start(self) -> None:
        self.state = "runs"
        self.world.running += 1
        assert self.world.running <= self.world.total

    def overloaded(self) -> None:
        self.state = "refused"

    def end(self) -> None:
        assert self.state == "runs"
        self.state = "ended"
        self.world.running -= 1
        self.admission.leave()


class Member:
    """A worker: messages travel when the world says so."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pool = LentPool(lambda kind, number: world.mail.append((self, True, kind, number)))

    def send(self, kind: bytes, number: int) -> None:
        self.world.mail.append((self, False, kind, number))


class World:
    def __init__(self, total: int) -> None:
        self.total = total
        self.running = 0
        self.mail: deque[tuple[Member, bool, bytes, int]] = deque()
        self.broker = Broker(total)
        self.loop = asyncio.new_event_loop()

    def member(self) -> Member:
        member = Member(self)
        self.broker.join(member)
        return member

    def admission(self, pool: Pool, places: int = 99, queue: int = 99) -> PooledAdmission:
        return PooledAdmission(pool, self.loop, places, queue, None)

    def enter(self, admission: PooledAdmission) -> Entrant:
        return Entrant(self, admission).enter()

    def deliver(self) -> int:
        """All messages. How many."""
        count = 0
        while self.mail:
            member, up, kind, number = self.mail.popleft()
            if up:
                self.broker.heard(member, kind, number)
            else:
                member.pool.heard(kind, number)
            count += 1
            assert count < 1000
        return count


@pytest.fixture
def world() -> Iterator[World]:
    made = World(3)
    yield made
    made.loop.close()  # which never ran: only its clock is needed


def states(entrants: list[Entrant]) -> list[str]:
    return [entrant.state for entrant in entrants]


def test_one_server(world: World) -> None:
    pool = Pool(3)
    a, b = world.admission(pool), world.admission(pool, places=1)
    first = [world.enter(a) for _ in range(4)]
    second = [world.enter(b) for _ in range(2)]
    assert states(first + second) == ["runs"] * 3 + ["waits"] * 3
    first[0].end()
    assert states([first[3], *second]) == ["runs", "waits", "waits"]
    first[1].end()  # the other's turn
    assert states(second) == ["runs", "waits"]
    first[2].end()  # no place in b for another
    third = world.enter(a)
    assert (third.state, states(second)) == ("runs", ["runs", "waits"])
    second[0].end()
    assert second[1].state == "runs"


def test_withdrawn(world: World) -> None:
    pool = Pool(1)
    a, b = world.admission(pool), world.admission(pool)
    runs, gone, waits = world.enter(a), world.enter(a), world.enter(b)
    a.withdraw(gone)
    runs.end()
    assert waits.state == "runs"
    waits.end()
    assert world.enter(a).state == "runs"


def test_queue_is_full(world: World) -> None:
    pool = Pool(1)
    a = world.admission(pool, queue=1)
    entrants = [world.enter(a) for _ in range(3)]
    assert states(entrants) == ["runs", "waits", "refused"]


def test_lent(world: World) -> None:
    one, two = world.member(), world.member()
    a, b = world.admission(one.pool), world.admission(two.pool)
    first = world.enter(a)
    assert first.state == "waits"
    world.deliver()
    assert first.state == "runs"
    first.end()
    # What has been lent is kept, and used without asking.
    assert world.enter(a).state == "runs"
    assert world.deliver() == 0
    rest = [world.enter(b) for _ in range(3)]
    world.deliver()
    assert states(rest) == ["runs", "runs", "waits"]


def test_unused_ones_come_back_when_another_is_short(world: World) -> None:
    one, two = world.member(), world.member()
    a, b = world.admission(one.pool), world.admission(two.pool, queue=0)
    for entrant in [world.enter(a) for _ in range(3)] + [world.enter(b)]:
        world.deliver()
        if entrant.state == "runs":
            entrant.end()
    world.deliver()
    # All are with the first, idle. Without a queue the other gets them nevertheless.
    entrants = [world.enter(b) for _ in range(5)]
    world.deliver()
    assert states(entrants) == ["runs"] * 3 + ["refused"] * 2
    # Nor does the first keep what it does not need now.
    entrants[0].end()
    world.deliver()
    assert world.enter(a).state == "waits"
    world.deliver()
    assert world.running == 3


def test_nobody_starves(world: World) -> None:
    members = [world.member() for _ in range(3)]
    admissions = [world.admission(member.pool, queue=1000) for member in members]
    waiting = [[world.enter(admission) for _ in range(60)] for admission in admissions]
    world.deliver()
    for _ in range(60):
        assert world.running == 3
        for entrants in waiting:
            for entrant in entrants:
                if entrant.state == "runs":
                    entrant.end()
                    world.deliver()
                    break
    ended = [states(entrants).count("ended") for entrants in waiting]
    assert sum(ended) >= 60
    assert max(ended) - min(ended) <= 3


def test_killed_worker_holds_nothing(world: World) -> None:
    one, two = world.member(), world.member()
    a, b = world.admission(one.pool), world.admission(two.pool)
    lost = [world.enter(a) for _ in range(5)]
    world.deliver()
    rest = [world.enter(b) for _ in range(4)]
    world.deliver()
    assert states(lost + rest) == ["runs"] * 3 + ["waits"] * 6
    world.running -= 3
    world.broker.leave(one)
    world.deliver()
    assert states(rest) == ["runs"] * 3 + ["waits"]
    # Another in its place starts with nothing, and gets its share.
    three = world.member()
    c = world.admission(three.pool)
    late = world.enter(c)
    world.deliver()
    rest[0].end()
    world.deliver()
    rest[1].end()
    world.deliver()
    assert states([rest[3], late]) == ["runs", "runs"]


def test_killed_while_a_recall_is_on_its_way(world: World) -> None:
    one, two = world.member(), world.member()
    a, b = world.admission(one.pool), world.admission(two.pool, queue=0)
    idle = [world.enter(a) for _ in range(3)]
    world.deliver()
    for entrant in idle:
        entrant.end()
    assert world.enter(b).state == "waits"
    late = world.enter(b)
    # The recall never reaches the first.
    world.mail = deque(mail for mail in world.mail if mail[0] is two)
    while world.mail:
        member, _, kind, number = world.mail.popleft()
        world.broker.heard(member, kind, number)
        world.mail = deque(mail for mail in world.mail if mail[0] is two and mail[1])
    world.broker.leave(one)
    world.deliver()
    assert late.state == "runs"
