"""Peer: a pool of long-lived Python workers, each of which spawns the command as its child.

The server never spawns per request. It hands a request to an idle worker over a socket pair; the
worker runs the command with the worker's own stdio, so the child writes straight into the pipe
that the server reads, and the worker reports the exit status when the child is gone. By then all
of the output is in the pipe, which is how the server knows where an answer ends. A worker runs
one command at a time; requests beyond the pool's size wait in order of arrival.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import deque

from bench.peers.python.http_side import Run, option_parser, serve

MODULE = "bench.peers.python.warm_pool"
WORKER_FLAG = "--as-worker"


def work(control_fd: int, argv: list[str]) -> None:
    """A worker's whole life: one byte in, one child, one status out; EOF ends it."""
    with socket.socket(fileno=control_fd) as control:
        while control.recv(1):
            status = subprocess.call(argv)
            control.send((b"%d" % status).ljust(4))


class Worker:
    """The server's end of one worker."""

    def __init__(self, pool: Pool, argv: list[str]) -> None:
        self._pool = pool
        self._future: asyncio.Future[bytes] | None = None
        self._chunks: list[bytes] = []
        self._control, theirs = socket.socketpair()
        command = [sys.executable, "-m", MODULE, WORKER_FLAG, str(theirs.fileno()), *argv]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        assert self._process.stdout is not None
        self._out = self._process.stdout.fileno()
        self._control.setblocking(False)
        os.set_blocking(self._out, False)
        pool.loop.add_reader(self._control.fileno(), self._finished)
        pool.loop.add_reader(self._out, self._drain)

    def start(self, future: asyncio.Future[bytes]) -> None:
        self._future = future
        self._control.send(b"r")

    def _drain(self) -> None:
        try:
            while chunk := os.read(self._out, 65536):
                self._chunks.append(chunk)
        except BlockingIOError:
            return
        self._pool.loop.remove_reader(self._out)

    def _finished(self) -> None:
        status = self._control.recv(4)
        if not status:
            self._pool.loop.remove_reader(self._control.fileno())
        self._drain()
        body = b"".join(self._chunks)
        self._chunks.clear()
        future, self._future = self._future, None
        if future is not None:
            if status.strip() == b"0":
                future.set_result(body)
            else:
                future.set_exception(RuntimeError(f"worker answered {status!r}"))
        if status:
            self._pool.release(self)

    def close(self) -> None:
        self._control.close()
        self._process.wait()


class Pool:
    """Idle workers and the requests that wait for one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.workers: list[Worker] = []
        self._idle: list[Worker] = []
        self._waiting: deque[asyncio.Future[bytes]] = deque()

    def add(self, worker: Worker) -> None:
        self.workers.append(worker)
        self.release(worker)

    def run(self) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = self.loop.create_future()
        if self._idle:
            self._idle.pop().start(future)
        else:
            self._waiting.append(future)
        return future

    def release(self, worker: Worker) -> None:
        if self._waiting:
            worker.start(self._waiting.popleft())
        else:
            self._idle.append(worker)


def main() -> None:
    if sys.argv[1:2] == [WORKER_FLAG]:
        work(int(sys.argv[2]), sys.argv[3:])
        return
    options = option_parser(__doc__).parse_args()
    workers: list[Worker] = []

    def start(loop: asyncio.AbstractEventLoop) -> Run:
        pool = Pool(loop)
        for _ in range(options.size or 4):
            pool.add(Worker(pool, options.argv))
        workers.extend(pool.workers)
        return pool.run

    try:
        serve(options.port, start)
    finally:
        for worker in workers:
            worker.close()


if __name__ == "__main__":
    main()
