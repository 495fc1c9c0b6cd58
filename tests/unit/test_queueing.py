"""The simulation of docs/scaling.md, by what is known of such queues. It draws the same numbers
each time."""

from __future__ import annotations

import math
import random

import pytest
from bench.queueing import POLICIES, arrivals, respond

NUMBER = 60_000


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def exponential() -> list[float]:
    chance = random.Random(5)
    return [chance.expovariate(1) for _ in range(20_000)]


def responses(machines: int, places: int, load: float, policy: str) -> list[float]:
    services = exponential()
    rate = load * machines * places / mean(services)
    moments = list(arrivals(rate, NUMBER, random.Random(6)))
    return respond(moments, services, machines, places, policy)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_one_place(load: float) -> None:
    """M/M/1: the mean time is that of the service by 1 - load."""
    assert mean(responses(1, 1, load, "random")) == pytest.approx(1 / (1 - load), rel=0.07)


def test_several_places() -> None:
    """M/M/c, by Erlang's formula C."""
    places, load = 4, 0.7
    work = places * load
    waits = work**places / math.factorial(places) / (1 - load)
    waits /= waits + sum(work**k / math.factorial(k) for k in range(places))
    expected = 1 + waits / (places * (1 - load))
    assert mean(responses(1, places, load, "random")) == pytest.approx(expected, rel=0.05)


def test_random_makes_each_a_queue_of_its_own() -> None:
    alone, many = responses(1, 1, 0.5, "random"), responses(20, 1, 0.5, "random")
    assert mean(many) == pytest.approx(mean(alone), rel=0.07)


def test_who_looks_waits_less() -> None:
    """The more, the better; all are better than chance."""
    means = {policy: mean(responses(10, 2, 0.8, policy)) for policy in POLICIES}
    assert means["least"] < means["two"] < means["random"]
    assert means["rotating"] < means["random"]


def test_nothing_waits_without_load() -> None:
    assert respond([0.0, 10.0, 20.0], [1.0], 1, 1, "least") == [1.0, 1.0, 1.0]
    assert respond([0.0, 0.0, 0.0], [1.0], 1, 1, "least") == [1.0, 2.0, 3.0]
    assert respond([0.0, 0.0, 0.0], [1.0], 3, 1, "least") == [1.0, 1.0, 1.0]
    assert respond([0.0, 0.0, 0.0], [1.0], 2, 2, "rotating") == [1.0, 1.0, 1.0]
