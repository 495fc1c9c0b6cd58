from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import queues
from queues import Queue, Worker

Work = Callable[..., Worker]


@pytest.fixture(params=["nats", "redis"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    """An empty one on a server of its own; the test says how it is made."""
    queue = queues.start(request.param, tmp_path / "server")
    yield queue
    queue.server.stop()


@pytest.fixture
def work(queue: Queue, tmp_path: Path) -> Iterator[Work]:
    """Starts workers on it, which create what is missing, and stops them."""
    with ExitStack() as stack:

        def start(*options: str, command: tuple[str, ...], **more: object) -> Worker:
            log = tmp_path / f"log-{len(list(tmp_path.glob('log-*')))}"
            words = ("--create", "--graceful-timeout", "5m", *options, queue.url, "--", *command)
            return stack.enter_context(queues.working(log, *words, **more))

        yield start
