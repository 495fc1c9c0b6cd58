"""Queues of real servers, for tests and the soak: NATS JetStream and Redis streams, each on a port
of its own below a temporary directory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from bench.harness import tools

from support import BOUND, poll

T = TypeVar("T")

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
WORK = (sys.executable, "-m", "fastspawn", "work")


def nats_program() -> str | None:
    """Debian's, or what ``make peers`` has built."""
    if found := shutil.which("nats-server", path=PATH):
        return found
    with contextlib.suppress(tools.Unavailable), tools.without_building():
        return str(tools.nats_server())
    return None


def redis_program() -> str | None:
    return shutil.which("redis-server", path=PATH) or shutil.which("valkey-server", path=PATH)


def with_program(command: str) -> str:
    """The command line of a server, as it can be run here."""
    if not command.startswith("nats-server"):
        return command
    program = nats_program()
    if program is None:
        pytest.skip("no nats-server (`make peers` builds it)")
    return command.replace("nats-server", program, 1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


class Server:
    """A process that listens on ``port``, which it keeps when it is started once more."""

    def __init__(self, name: str, program: str, folder: Path) -> None:
        self.name, self.program, self.folder = name, program, folder
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    def words(self) -> list[str]:
        if self.name == "nats":
            return [self.program, "-a", "127.0.0.1", "-p", str(self.port), "-js",
                    "-sd", str(self.folder)]  # fmt: skip
        return [self.program, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "",
                "--appendonly", "yes", "--dir", str(self.folder)]  # fmt: skip

    def start(self) -> None:
        fixed = self.port
        for _ in range(10):
            self.port = fixed or free_port()
            with (self.folder / "log").open("ab") as log:
                self.process = subprocess.Popen(self.words(), stdout=log, stderr=log)
            poll(lambda: self.answers() or self._ended(), f"{self.name} answers")
            if not self._ended():
                return
        raise AssertionError((self.folder / "log").read_text())

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def answers(self) -> bool:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", self.port)) != 0:
                return False
        return self.name != "redis" or b"Ready to accept" in (self.folder / "log").read_bytes()

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(BOUND)
            self.process = None


class Queue:
    """One stream and its consumer, on a server: what a test does to it."""

    def __init__(self, server: Server, stream: str = "JOBS") -> None:
        self.server, self.stream, self.dead_name = server, stream, f"{stream}_DEAD"

    @property
    def url(self) -> str:
        database = "" if self.server.name == "nats" else "/0"
        return f"{self.root}{database}/{self.stream}/workers"

    @property
    def root(self) -> str:
        return f"{self.server.name}://127.0.0.1:{self.server.port}"

    def make(self) -> None:
        """The stream."""

    def put(self, bodies: Sequence[bytes], **fields: str) -> None:
        raise NotImplementedError

    def left(self) -> int:
        """Messages that are not settled."""
        raise NotImplementedError

    def letters(self, name: str | None = None) -> list[dict[str, str]]:
        """All of another stream: fields in lower case, and the body as ``body``."""
        raise NotImplementedError


class Nats(Queue):
    def _do(self, what: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        import nats

        async def all_of_it() -> T:
            client = await nats.connect(self.root)
            try:
                return await what(client.jetstream(timeout=BOUND))
            finally:
                await client.close()

        return asyncio.run(all_of_it())

    def make(self, ack_wait: float = 30.0, **consumer: Any) -> None:
        from nats.js import api

        async def made(js: Any) -> None:
            await js.add_stream(name=self.stream, subjects=[f"{self.stream}.>"],
                                retention=api.RetentionPolicy.WORK_QUEUE)  # fmt: skip
            config = api.ConsumerConfig(
                **{
                    "durable_name": "workers",
                    "ack_wait": ack_wait,
                    "max_ack_pending": -1,
                    **consumer,
                }
            )
            await js.add_consumer(self.stream, config)

        self._do(made)

    def put(self, bodies: Sequence[bytes], **fields: str) -> None:
        async def published(js: Any) -> None:
            for start in range(0, len(bodies), 500):
                some = bodies[start : start + 500]
                await asyncio.gather(
                    *(js.publish(f"{self.stream}.new", each, headers=fields) for each in some)
                )

        self._do(published)

    def left(self) -> int:
        async def asked(js: Any) -> int:
            info = await js.consumer_info(self.stream, "workers")
            return int(info.num_pending + info.num_ack_pending)

        return self._do(asked)

    def letters(self, name: str | None = None) -> list[dict[str, str]]:
        async def read(js: Any) -> list[dict[str, str]]:
            info = await js.stream_info(name or self.dead_name)
            found = [
                await js.get_msg(name or self.dead_name, number)
                for number in range(info.state.first_seq, info.state.last_seq + 1)
            ]
            return [
                {**{key.lower(): text for key, text in (one.headers or {}).items()},
                 "body": (one.data or b"").decode(), "subject": one.subject}
                for one in found
            ]  # fmt: skip

        return self._do(read)


class Redis(Queue):
    def __init__(self, server: Server, stream: str = "JOBS") -> None:
        super().__init__(server, stream)
        self.dead_name = f"{stream}:dead"

    def _client(self) -> Any:
        import redis

        return redis.Redis(port=self.server.port, protocol=2)

    def make(self, ack_wait: float = 30.0, **consumer: Any) -> None:
        with self._client() as client:
            client.xgroup_create(self.stream, "workers", "0", mkstream=True)

    def put(self, bodies: Sequence[bytes], **fields: str) -> None:
        with self._client() as client, client.pipeline(transaction=False) as pipe:
            for each in bodies:
                pipe.xadd(self.stream, {"body": each, **fields})
            pipe.execute()

    def other_kind(self) -> str:
        """The name of what is no stream."""
        with self._client() as client:
            client.set("OTHER", "text")
        return "OTHER"

    def full(self, body: bytes | None = None) -> None:
        """It takes this one message and has no room for more; None: it has again."""
        with self._client() as client, client.pipeline(transaction=True) as pipe:
            if body is None:
                client.config_set("maxmemory", 0)
            else:
                pipe.xadd(self.stream, {"body": body})
                pipe.config_set("maxmemory", 1)
                pipe.execute()

    def left(self) -> int:
        with self._client() as client:
            (group,) = client.xinfo_groups(self.stream)
            return int(group["pending"] + (group["lag"] or 0))

    def letters(self, name: str | None = None) -> list[dict[str, str]]:
        with self._client() as client:
            return [
                {key.decode().lower(): text.decode() for key, text in fields.items()}
                for _, fields in client.xrange(name or self.dead_name)
            ]


def start(name: str, folder: Path) -> Queue:
    """Skips the test where its server, or the client for it, cannot be had."""
    program = nats_program() if name == "nats" else redis_program()
    if program is None:
        pytest.skip(f"no {name}-server" + (" (`make peers` builds it)" * (name == "nats")))
    pytest.importorskip(name)
    folder.mkdir()
    server = Server(name, program, folder)
    server.start()
    return Nats(server) if name == "nats" else Redis(server)


class Worker:
    """``fastspawn work``, and what it says."""

    def __init__(self, log: Path, *words: str, **options: Any) -> None:
        self.log = log
        with log.open("ab") as told:
            self.process = subprocess.Popen(
                [*WORK, *words], stdout=told, stderr=told, stdin=subprocess.DEVNULL, **options
            )

    @property
    def told(self) -> str:
        return self.log.read_text(errors="backslashreplace")

    def says(self, text: str) -> None:
        """Wait for it."""
        try:
            poll(lambda: text in self.told or self.process.poll() is not None, repr(text))
            assert text in self.told
        except AssertionError:
            raise AssertionError(f"it does not say {text!r} but:\n{self.told}") from None

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(BOUND)


@contextlib.contextmanager
def working(log: Path, *words: str, **options: Any) -> Iterator[Worker]:
    """One that is ready, until it has drained."""
    worker = Worker(log, *words, **options)
    try:
        worker.says("working on")
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.stop()
    assert "Traceback" not in worker.told, worker.told
