"""Messages to workers that are killed: each is done at least once, and each repetition has a cause.

    make soak-work                  100,000 messages for each kind of server (N=2000)
    python tests/soak/work.py [--messages N] [--queue nats|redis] [--seed N] [--calm] ...

Workers (``fastspawn work``) get SIGKILL at random times, each as it is replaced by another, while
messages are added. A process writes its message's number, which delivery it is, and the worker that
it is of, in one line of a file that all append to; some fail at their first delivery, so that they
are tried again. At the end every number is there; a number that is there more often than its
failures explain was done once more, because the worker that had it was killed, after the process
had written and before the acknowledgement was heard of. Anything else is an error.

With ``--calm`` nobody is killed and nothing fails: messages per second, by strategy.
"""

from __future__ import annotations

import argparse
import collections
import random
import shlex
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import queues  # noqa: E402
from support import poll  # noqa: E402

ACK_WAIT = "3s"
FAILS = "77"
"""Messages whose numbers end so fail the first time."""
BATCH = 1000
STRATEGIES = ("direct", "snapshot", "reset")
CONCURRENCY = 8

RECORD = """
read number
echo "$number $MESSAGE_DELIVERY $WORKER" >> {file}
case $number in *{fails}) [ "$MESSAGE_DELIVERY" != 1 ] || exit 1;; esac
"""
"""A line of less than PIPE_BUF to a file that is open for appending is one write(2), which other
writers do not tear."""


@dataclass
class Hands:
    """The workers, of which some are killed."""

    queue: queues.Queue
    folder: Path
    options: argparse.Namespace
    alive: dict[str, queues.Worker] = field(default_factory=dict)
    killed: set[str] = field(default_factory=set)
    """Their names."""

    def hire(self, strategy: str) -> None:
        name = f"w{len(self.alive) + len(self.killed)}"
        text = RECORD.format(file=shlex.quote(str(self.folder / "ran")), fails=FAILS)
        words = [
            *("--create", "--concurrency", str(CONCURRENCY), "--ack-wait", ACK_WAIT),
            *("--backoff", "100ms", "--max-deliver", "none", "--set-env", f"WORKER={name}"),
            *("--strategy", strategy, self.queue.url, "--", "sh", "-c", text),
        ]
        self.alive[name] = queues.Worker(self.folder / f"log-{name}", *words)

    def kill_one(self, choose: random.Random) -> None:
        name = choose.choice(list(self.alive))
        worker = self.alive.pop(name)
        self.killed.add(name)
        worker.process.kill()
        worker.process.wait()

    def dismiss(self) -> list[str]:
        """Drain; returns what was wrong."""
        wrong = []
        for name, worker in self.alive.items():
            status = worker.stop()
            if status or "Traceback" in worker.told:
                wrong.append(f"{name} ended with {status}: {worker.told[-2000:]}")
        return wrong


class Publisher(threading.Thread):
    """Adds the messages, somewhat ahead of the workers."""

    def __init__(self, queue: queues.Queue, messages: int, ahead: int) -> None:
        super().__init__()
        self.queue, self.messages, self.ahead = queue, messages, ahead
        self.sent = 0
        self.done = 0
        """Messages of which a record was seen: the soak tells it."""
        self.trouble: Exception | None = None

    def run(self) -> None:
        try:
            while self.sent < self.messages:
                if self.sent - self.done > self.ahead:
                    time.sleep(0.05)
                    continue
                count = min(BATCH, self.messages - self.sent)
                self.queue.put([b"%d\n" % (self.sent + each) for each in range(count)])
                self.sent += count
        except Exception as error:
            self.trouble = error


@dataclass(frozen=True)
class Record:
    """A line that a process has written."""

    delivery: int
    worker: str


def records(file: Path) -> dict[int, list[Record]]:
    """By message, in the order of their lines."""
    found: dict[int, list[Record]] = collections.defaultdict(list)
    for line in file.read_text().splitlines():
        number, delivery, worker = line.split()
        found[int(number)].append(Record(int(delivery), worker))
    return found


def judge(ran: dict[int, list[Record]], messages: int, killed: set[str]) -> tuple[str, list[str]]:
    """What there is to tell, and what is wrong."""
    wrong = [f"message {number} is lost" for number in range(messages) if number not in ran]
    wrong += [f"message {number} was never sent" for number in ran if number >= messages]
    causes: collections.Counter[str] = collections.Counter()
    for number, found in ran.items():
        for record in found[:-1]:
            cause = why(number, record, killed)
            causes[cause] += 1
            if cause == "nobody knows":
                wrong.append(f"message {number} was done again: {found}")
        deliveries = [record.delivery for record in found]
        if len(set(deliveries)) < len(deliveries):
            wrong.append(f"message {number} had one delivery twice: {found}")
    told = ", ".join(f"{count} {cause}" for cause, count in sorted(causes.items())) or "none"
    lines = sum(map(len, ran.values()))
    return f"{len(ran)} messages, {lines} processes; repeated: {told}", wrong


def why(number: int, record: Record, killed: set[str]) -> str:
    """Another process came after this one."""
    if record.delivery == 1 and str(number).endswith(FAILS):
        return "failed the first time"
    if record.worker in killed:
        return "acknowledged by nobody: the worker was killed"
    return "nobody knows"


def soak(kind: str, options: argparse.Namespace, folder: Path) -> list[str]:
    """What is wrong."""
    choose = random.Random(options.seed)
    queue = queues.start(kind, folder / "server")
    hands = Hands(queue, folder, options)
    queue.make(ack_wait=float(ACK_WAIT[:-1]))
    (folder / "ran").touch()
    publisher = Publisher(queue, options.messages, 20 * BATCH)
    began = time.monotonic()
    try:
        for strategy in options.strategies:
            hands.hire(strategy)
        publisher.start()
        turns = 0
        while not over(publisher, queue, folder / "ran"):
            time.sleep(choose.expovariate(1 / options.every))
            if publisher.done < options.messages:  # else the last ones would never rest
                hands.kill_one(choose)
                hands.hire(options.strategies[turns % len(options.strategies)])
                turns += 1
        wrong = hands.dismiss()
        poll(lambda: queue.left() == 0, "all is settled")
    finally:
        publisher.messages = 0
        publisher.join()
        for worker in hands.alive.values():
            worker.process.kill()
            worker.process.wait()
        queue.server.stop()
    told, more = judge(records(folder / "ran"), options.messages, hands.killed)
    seconds = time.monotonic() - began
    print(f"{kind}: {told}; {len(hands.killed)} workers killed, {seconds:.0f} s", flush=True)
    return wrong + more


def over(publisher: Publisher, queue: queues.Queue, ran: Path) -> bool:
    """All are sent, done and settled."""
    if publisher.trouble is not None:
        raise publisher.trouble
    with ran.open("rb") as file:
        publisher.done = len({line.split()[0] for line in file if line.endswith(b"\n")})
    return (
        publisher.sent == publisher.messages
        and publisher.done == publisher.messages
        and queue.left() == 0
    )


def calm(kind: str, options: argparse.Namespace, folder: Path) -> list[str]:
    """Messages per second with one worker, by strategy."""
    for strategy in options.strategies:
        queue = queues.start(kind, folder / f"server-{strategy}")
        try:
            rate = options.messages / seconds_for(queue, strategy, options, folder)
        finally:
            queue.server.stop()
        print(f"{kind}: {strategy}: {rate:,.0f} messages/s", flush=True)
    return []


def seconds_for(
    queue: queues.Queue, strategy: str, options: argparse.Namespace, folder: Path
) -> float:
    queue.make()
    queue.put([b"%d\n" % number for number in range(options.messages)])
    words = ["--create", "--concurrency", str(options.concurrency), "--strategy", strategy]
    words += [queue.url, "--", "sh", "-c", "read number"]
    with queues.working(folder / f"log-{strategy}", *words):
        began = time.monotonic()
        poll(lambda: queue.left() == 0, "all is settled", 600)
        return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--queue", choices=["nats", "redis"], action="append")
    parser.add_argument("--strategies", type=lambda text: text.split(","), default=STRATEGIES)
    parser.add_argument("--every", type=float, default=4.0, help="seconds between kills")
    parser.add_argument("--concurrency", type=int, default=CONCURRENCY)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--calm", action="store_true", help="nobody is killed: messages per second")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    wrong = []
    for kind in options.queue or ["nats", "redis"]:
        folder = Path(tempfile.mkdtemp(prefix="fastspawn-work-"))
        wrong += (calm if options.calm else soak)(kind, options, folder)
        if wrong:
            print(*wrong[:20], f"see {folder}", sep="\n")
        else:
            shutil.rmtree(folder)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
