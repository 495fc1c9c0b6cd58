"""One worker of a supervisor, from both ends: its process, and what that does."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from fastspawn import Popen

from . import link, listen, server

if TYPE_CHECKING:
    from fastspawn.serve.config.model import Config
    from fastspawn.serve.routes.taken import Taken

FLAG: Final = "--from-supervisor"
"""The supervisor's word to a worker, followed by the descriptors of its sockets."""

_STEADY: Final = 5.0
"""Seconds after which a worker that ends has not failed to start."""
_BACKOFF: Final = 0.1
_BACKOFF_MOST: Final = 5.0


def work(fds: Sequence[str]) -> int:
    """Be a worker. The exit status."""
    try:
        upstream = link.Upstream(socket.socket(fileno=os.dup(0)))
    except OSError as error:
        raise listen.ListenError(f"{FLAG} is between a supervisor and its workers") from error
    config = upstream.first_config()
    if config is None:
        return 1
    try:
        server.serve(
            config,
            [listen.adopt(int(fd), config.backlog) for fd in fds],
            ready=lambda: upstream.send(link.READY),
            stopping=lambda: None,
            upstream=upstream,
        )
    except server.StartError as error:
        # What keeps one from starting keeps all: the supervisor says it once.
        upstream.send_json(link.NEWS, f"error: {error}")
        return 2
    return 0


class Worker:
    """One place among N: a process, or the time at which to start the next."""

    def __init__(self, number: int, sockets: list[socket.socket]) -> None:
        self.number = number
        self.sockets = sockets
        self.process: Popen[bytes] | None = None
        self.link: socket.socket | None = None
        self.inbox = link.Inbox()
        self.outbox = b""
        self.blocked = False
        """It does not take more of the outbox now."""
        self.ready = False
        self.taken: Taken | None = None
        """How much of it was, when it last told."""
        self.started = 0.0
        self.failures = 0
        self.due = 0.0

    def start(self, config: Config) -> None:
        """Raises OSError: then there is no process."""
        fds = [sock.fileno() for sock in self.sockets]
        mine, theirs = socket.socketpair()
        self.ready = False
        self.taken = None
        self.started = time.monotonic()
        with theirs, contextlib.ExitStack() as undo:
            undo.enter_context(mine)
            # Ours, with which what the supervisor was told to ignore is ignored by workers, too.
            self.process = Popen(
                [sys.executable, "-m", "fastspawn.serve", FLAG, *map(str, fds)],
                stdin=theirs.fileno(),
                pass_fds=fds,
                # A Ctrl-C in the terminal is the supervisor's to pass on, once.
                start_new_session=True,
            )
            undo.pop_all()
        mine.setblocking(False)
        self.link = mine
        self.inbox = link.Inbox()
        self.outbox = link.config_message(config)
        self.blocked = False

    def send(self, kind: bytes, number: int) -> None:
        self.outbox += link.message(kind, number)

    def send_json(self, kind: bytes, value: object) -> None:
        self.outbox += link.json_message(kind, value)

    def flush(self) -> None:
        """Send what there is to be sent, as far as the worker takes it."""
        assert self.link is not None
        try:
            while self.outbox:
                self.outbox = self.outbox[self.link.send(self.outbox) :]
        except BlockingIOError:
            pass
        except OSError:  # it has gone, as the link's end will say
            self.outbox = b""

    def ended(self) -> int:
        """Reap it; when to start the next; the exit status."""
        assert self.process is not None
        assert self.link is not None
        self.link.close()
        status = self.process.wait()
        self.process = self.link = None
        now = time.monotonic()
        if self.ready and now - self.started > _STEADY:
            self.failures = 0
            self.due = now
        else:
            self.put_off()
        return status

    def put_off(self) -> None:
        """Let it be started some time later, and later still if that fails, too."""
        self.due = time.monotonic() + min(_BACKOFF * 2 ** min(self.failures, 20), _BACKOFF_MOST)
        self.failures += 1
