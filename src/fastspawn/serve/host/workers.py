"""``--workers N``: a supervisor and N servers on one port.

The supervisor has bound and checked everything before the first worker starts. Each worker is a
fresh interpreter (no fork of a process with threads and an event loop) that is given its
listening socket, and at descriptor 0 a link to the supervisor (``link.py``), by which it gets its
configuration.
"""

from __future__ import annotations

import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from fastspawn.serve.config import settings
from fastspawn.serve.figures.tally import Tally
from fastspawn.serve.routes.taken import Taken, weight
from fastspawn.serve.strategies.news import Chorus

from . import link, orphans, outlets, server
from .agent import DRAIN, Agent, ready
from .lending import Broker
from .outlets import say
from .reload import why_not
from .systemd import Notifier
from .worker import Worker

if TYPE_CHECKING:
    from fastspawn.serve.config.model import Config

_PATIENCE: Final = 10.0
"""Seconds for a worker to leave after all its own time limits have passed."""

_LOOK: Final = 1.0
"""Seconds between looks at lines that were lost: whether others are taken by now."""


class Supervisor:
    """Starts ``len(shares)`` workers, each on its own list of sockets.

    ``ready`` is called once, when all serve for the first time; ``stopping`` when no new
    connection is to come; ``reread``, if there is one, at SIGHUP for a new configuration.
    """

    def __init__(
        self,
        config: Config,
        shares: list[list[socket.socket]],
        *,
        ready: Callable[[], None],
        stopping: Callable[[], None],
        reread: Callable[[], Config] | None = None,
        notifier: Notifier | None = None,
        agent: Sequence[socket.socket] = (),
    ) -> None:
        self._config = config
        self._reread = reread
        self._ready = ready
        self._stopping = stopping
        self._workers = [Worker(number, share) for number, share in enumerate(shares, 1)]
        total = config.max_inflight_total
        self._broker = None if total is None else Broker(total)
        self._lines = outlets.Outlets()
        self._tally = Tally(self._lines.dropped) if config.counts else None
        self._chorus = Chorus(say)
        self._selector = selectors.DefaultSelector()
        self._notifier = notifier or Notifier({})
        self._agent = Agent(agent, self._taken)
        self._sign_at: float | None = None
        """When the next sign of life is due."""
        self._serving = False
        self._to_replace: list[int] = []
        """Places whose workers are to be replaced, the next one last."""
        self._replace_again = False
        """They are asked for once more, while some were starting."""
        self._fresh: Worker | None = None
        """The one that will take the next place, once it serves."""
        self._retired: list[Worker] = []
        """Those whose places others have."""
        self._signals = 0
        self._close_at: float | None = None
        """When accepting is to end."""
        self._give_up_at: float | None = None
        self._status = 0

    def run(self) -> int:
        """Until a signal. The exit status: 0, or that of a worker that could not be started."""
        wake, woken = socket.socketpair()
        for sock in (wake, woken):
            sock.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2]
        if self._reread is not None:
            numbers.append(signal.SIGHUP)
        if orphans.come_here(subreaper=self._config.subreaper):
            # Those of workers that have ended.
            numbers.append(signal.SIGCHLD)
        for number in numbers:
            signal.signal(number, lambda *_: None)
        if self._config.subreaper:
            try:
                orphans.become_subreaper()
            except OSError as error:
                raise server.StartError(f"--subreaper: {error.strerror}") from error
        self._selector.register(wake, selectors.EVENT_READ)
        self._lines.take_stderr()
        for sock in self._agent.sockets:
            self._selector.register(sock, selectors.EVENT_READ, self._agent)
        try:
            self._loop(wake)
        finally:
            signal.set_wakeup_fd(-1)
            self._kill()
            self._lines.close()
            self._agent.close()
            self._selector.close()
            wake.close()
            woken.close()
        return self._status

    def _loop(self, wake: socket.socket) -> None:
        while True:
            if not self._signals:
                self._start_due()
            elif not any(worker.process for worker in self._all()):
                return
            for key, _ in self._selector.select(self._next_due()):
                if key.fileobj is wake:
                    for number in wake.recv(64):
                        if number == signal.SIGHUP:
                            self._reload()
                        elif number == signal.SIGCHLD:
                            orphans.reap({each.process.pid for each in self._all() if each.process})
                        elif number == signal.SIGUSR2:
                            self._replace()
                        else:
                            self._signalled()
                elif key.data is self._agent:
                    assert isinstance(key.fileobj, socket.socket)
                    self._agent.answer(key.fileobj)
                else:
                    self._linked(key.data)
            self._flush()
            self._lines.look()
            now = time.monotonic()
            if self._tally is not None:
                self._tally.expire(now)
            if self._sign_at is not None and now >= self._sign_at:
                self._sign()
            if self._close_at is not None and now >= self._close_at:
                self._close()
            if self._give_up_at is not None and now >= self._give_up_at:
                return

    def _start_due(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if worker.process is None and worker.due <= now:
                self._start(worker)
        self._flush()

    def _start(self, worker: Worker) -> None:
        try:
            worker.start(self._config)
        except OSError as error:
            self._not_started(worker, f"cannot start worker {worker.number}: {error.strerror}")
            return
        assert worker.link is not None
        self._selector.register(worker.link, selectors.EVENT_READ, worker)
        if self._broker is not None:
            self._broker.join(worker)
        if self._tally is not None:
            self._tally.join(worker)

    def _not_started(self, worker: Worker, why: str) -> None:
        """There is no room for its process: the others serve on meanwhile."""
        if not self._serving:
            raise server.StartError(why)
        if worker is self._fresh:
            self._give_up_restart(why)
        else:
            worker.put_off()
            say(f"{why}: trying again")

    def _give_up_restart(self, why: str) -> None:
        self._fresh = None
        self._to_replace.clear()
        say(f"not restarted: {why}")
        self._replaced()

    def _all(self) -> list[Worker]:
        fresh = [] if self._fresh is None else [self._fresh]
        return [*self._workers, *fresh, *self._retired]

    def _flush(self) -> None:
        for worker in self._all():
            if worker.link is not None and (worker.outbox or worker.blocked):
                worker.flush()
                if bool(worker.outbox) != worker.blocked:
                    worker.blocked = bool(worker.outbox)
                    events = selectors.EVENT_READ | (selectors.EVENT_WRITE * worker.blocked)
                    self._selector.modify(worker.link, events, worker)

    def _next_due(self) -> float | None:
        """Seconds until something is to be done without being asked."""
        times = [at for at in (self._sign_at, self._close_at, self._give_up_at) if at is not None]
        if self._lines.waiting:
            times.append(time.monotonic() + _LOOK)
        if self._tally is not None and self._tally.due is not None:
            times.append(self._tally.due)
        if not self._signals:
            times += [worker.due for worker in self._workers if worker.process is None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _linked(self, worker: Worker) -> None:
        """A worker says something, takes more, or is gone."""
        assert worker.link is not None
        assert worker.process is not None
        try:
            data = worker.link.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            for kind, value in worker.inbox.add(data):
                if kind == link.READY:
                    worker.ready = True
                    if worker is self._fresh:
                        self._take_over(worker)
                elif kind == link.TAKEN:
                    worker.taken = Taken(*value)
                elif kind == link.NEWS:
                    self._chorus.heard(worker.number, value)
                else:
                    for each in (self._broker, self._tally):
                        if each is not None:
                            each.heard(worker, kind, value)
            if not self._serving and all(each.ready for each in self._workers):
                self._serving = True
                self._ready()
                self._notifier.ready()
                if self._notifier.watchdog is not None:
                    self._sign()
                self._replaced()
            return
        self._selector.unregister(worker.link)
        pid = worker.process.pid
        status = worker.ended()
        if self._broker is not None:
            self._broker.leave(worker)
        if self._tally is not None:
            self._tally.leave(worker)
        if self._signals:
            return
        if not self._serving:
            # Whatever keeps it from starting now is the configuration's fault: it has said so.
            self._status = status or 1
            self._signalled()
            return
        if worker in self._retired:
            self._retired.remove(worker)
            return
        how = f"exited with status {status}" if status >= 0 else f"was killed by signal {-status}"
        if worker is self._fresh:
            self._give_up_restart(f"the new worker {worker.number} (pid {pid}) {how}")
            return
        if self._tally is not None:
            self._tally.replaced += 1
        say(f"worker {worker.number} (pid {pid}) {how}: starting another")

    def _reload(self) -> None:
        if self._reread is None or self._signals:
            return
        self._notifier.reloading()
        try:
            self._config, note = settings.reloaded(self._config, self._reread())
        except Exception as error:
            say(f"not reloaded: {why_not(error)}")
            self._notifier.ready()
            return
        for worker in self._all():
            if worker.process is not None:
                worker.outbox += link.config_message(self._config)
        say(f"reloaded {self._config.config}{note}")
        self._notifier.ready()

    def _replace(self) -> None:
        """Put a new worker in the place of each, one after the other; after those that are just
        starting, which may have begun with what was there before."""
        if self._signals:
            return
        if not self._serving or self._fresh is not None:
            self._replace_again = True
            say("workers are starting: they are restarted after that")
            return
        say("restarting the workers")
        self._to_replace = list(range(len(self._workers)))[::-1]
        self._replace_next()

    def _replaced(self) -> None:
        """All that were starting serve, or did not come to that."""
        if self._replace_again:
            self._replace_again = False
            self._replace()

    def _replace_next(self) -> None:
        if not self._to_replace or self._signals:
            say("restarted the workers")
            self._replaced()
            return
        old = self._workers[self._to_replace[-1]]
        self._fresh = Worker(old.number, old.sockets)
        self._start(self._fresh)

    def _take_over(self, fresh: Worker) -> None:
        """It serves: the one before it may go when it is done."""
        if self._signals:
            return
        place = self._to_replace.pop()
        old, self._workers[place] = self._workers[place], fresh
        self._fresh = None
        if old.process is not None:
            old.send(link.RETIRE, 0)
            self._retired.append(old)
        self._replace_next()

    def _signalled(self) -> None:
        now = time.monotonic()
        self._signals += 1
        if self._signals == 1:
            self._notifier.stopping()
            delay = self._config.drain_delay if self._serving else 0.0
            self._close_at = now + delay
            if self._config.graceful_timeout is not None:
                self._give_up_at = (
                    self._close_at
                    + self._config.graceful_timeout
                    + self._config.kill_grace
                    + _PATIENCE
                )
        # From now on they are the workers' alone: whoever lets go last takes all that wait.
        self._let_go()
        if self._signals > 1 or self._close_at == now:
            self._close()
        for worker in self._all():
            if worker.process is None:
                continue
            if self._signals == 1:
                worker.process.send_signal(signal.SIGTERM)
            else:
                worker.send(link.INSIST, 0)

    def _taken(self) -> str:
        """What a load balancer is told."""
        if self._signals or not self._serving:
            return DRAIN
        told = [each.taken for each in self._workers if each.taken is not None]
        return ready(weight(told, self._config.max_inflight_total))

    def _close(self) -> None:
        """No new connection is to come."""
        if self._close_at is None:
            return
        self._close_at = None
        self._stopping()

    def _let_go(self) -> None:
        for worker in self._workers:
            for sock in worker.sockets:
                sock.close()

    def _sign(self) -> None:
        """A sign of life, and when to give the next."""
        self._notifier.alive()
        self._sign_at = time.monotonic() + (self._notifier.watchdog or 0.0)

    def _kill(self) -> None:
        for worker in self._all():
            if worker.process is not None:
                worker.process.kill()
                worker.ended()
