"""``fastspawn work``: what becomes of messages, with real servers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import needs
import queues
from fastspawn._work import address
from fastspawn._work.source import Options, QueueError
from fastspawn._work.verdict import Policy
from fastspawn._work.worker import Terms
from fastspawn._work.worker import Worker as Working
from fastspawn.serve.config.model import RouteConfig
from queues import Queue, Worker
from support import BOUND, LINUX, poll, sh

Work = Callable[..., Worker]

FIRST = "$(cat) $MESSAGE_DELIVERY"
"""What a process says of its message."""


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def settled(queue: Queue) -> None:
    poll(lambda: queue.left() == 0, "all is settled")


def test_each_message_is_a_process(queue: Queue, work: Work, tmp_path: Path) -> None:
    queue.make()
    queue.put([b"one", b"two", b"three"], kind="a-b")
    text = f'echo "$(cat)|$MESSAGE_STREAM|$MESSAGE_GROUP|$MESSAGE_HEADER_KIND|$$" >> {tmp_path}/ran'
    work(command=sh(text))
    settled(queue)
    ran = [line.split("|") for line in lines(tmp_path / "ran")]
    assert sorted(words[0] for words in ran) == ["one", "three", "two"]
    assert {tuple(words[1:4]) for words in ran} == {("JOBS", "workers", "a-b")}
    assert len({words[4] for words in ran}) == 3


def test_what_fails_is_tried_again_and_then_a_dead_letter(
    queue: Queue, work: Work, tmp_path: Path
) -> None:
    queue.make()
    worker = work(
        *("--max-deliver", "3", "--backoff", "10ms,20ms"),
        command=sh(f'echo "{FIRST}" >> {tmp_path}/ran; printf "a\\nb" >&2; exit 3'),
    )
    queue.put([b"bad"], kind="x")
    worker.says("dead letter (delivery 3)")
    settled(queue)
    assert lines(tmp_path / "ran") == ["bad 1", "bad 2", "bad 3"]
    (letter,) = queue.letters()
    assert letter["body"] == "bad"
    assert letter["kind"] == "x"
    assert letter["fastspawn-reason"] == "exit status 3"
    assert letter["fastspawn-status"] == "3"
    assert letter["fastspawn-deliveries"] == "3"
    assert letter["fastspawn-stderr"].replace("\\n", "\n") == "a\nb"
    assert "a\nb" in worker.told
    assert worker.stop() == 0
    assert "0 done, 2 to be tried again, 1 dead" in worker.told


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        ([], "exit 65", "exit status 65"),
        (["--reject", "3,4"], "exit 4", "exit status 4"),
        (["--max-deliver", "1"], "kill -9 $$", "SIGKILL"),
        (["--max-deliver", "1", "--timeout", "50ms"], "sleep 60",
         "it ran longer than --timeout (SIGTERM)"),
        (["--max-deliver", "1", "--max-output", "10"], "exec yes",
         "more output than --max-output (SIGTERM)"),
    ],
)  # fmt: skip
def test_dead_at_once(queue: Queue, work: Work, options: list[str], text: str, reason: str) -> None:
    queue.make()
    worker = work(*options, command=sh(text))
    queue.put([b"it"])
    worker.says("dead letter (delivery 1)")
    settled(queue)
    (letter,) = queue.letters()
    assert letter["fastspawn-reason"] == reason


def test_the_next_attempt_comes_no_sooner_than_it_may(
    queue: Queue, work: Work, tmp_path: Path
) -> None:
    """Also when that is later than the server would hand it to somebody else."""
    queue.make(ack_wait=1.0)
    clock = f"{sys.executable} -c 'import time; print(time.time())' >> {tmp_path}/ran"
    work(
        *("--backoff", "2500ms", "--ack-wait", "1s"),
        command=sh(f"{clock}; [ $MESSAGE_DELIVERY = 2 ]"),
    )
    queue.put([b"it"])
    settled(queue)
    first, second = map(float, lines(tmp_path / "ran"))
    assert second - first > 2.3  # the clock is read before the failure


def test_replies(queue: Queue, work: Work) -> None:
    queue.make()
    if queue.server.name == "nats":
        replies = queues.Nats(queue.server, "REPLIES")
        replies.make()
        to, other = "REPLIES.all", "REPLIES.one"
    else:
        to = other = "REPLIES"
    work("--reply-to", to, "--reply-header", "answer", command=sh('printf %s "$(cat)!"'))
    queue.put([b"one"])
    queue.put([b"two"], answer=other)
    settled(queue)
    found = queue.letters("REPLIES")
    assert sorted(each["body"] for each in found) == ["one!", "two!"]
    if queue.server.name == "nats":
        assert {each["body"]: each["subject"] for each in found} == {"one!": to, "two!": other}


def test_a_message_names_where_its_reply_goes(queue: Queue, work: Work) -> None:
    """Where none can go it is a dead letter, and no end of the worker; without a name the reply is
    the worker's own output."""
    queue.make()
    where = queue.other_kind() if isinstance(queue, queues.Redis) else "no subject"
    worker = work("--reply-header", "answer", command=("cat",))
    queue.put([b"bad"], answer=where)
    worker.says("dead letter (delivery 1)")
    queue.put([b"good\n"])
    worker.says("good\n")
    settled(queue)
    (letter,) = queue.letters()
    assert (letter["body"], letter["fastspawn-status"]) == ("bad", "0")
    assert letter["fastspawn-reason"].startswith("its reply cannot go to ")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[queues.Redis]:
    queue = queues.start("redis", tmp_path / "server")
    assert isinstance(queue, queues.Redis)
    queue.make(ack_wait=1.0)
    yield queue
    queue.server.stop()


def test_a_reply_for_which_there_is_no_room_now(redis: queues.Redis, tmp_path: Path) -> None:
    words = ("--reply-to", "REPLIES", redis.url, "--", "cat")
    with queues.working(tmp_path / "log", *words) as worker:
        redis.full(b"one")
        worker.says("trying again")
        redis.full()
        settled(redis)
    assert [each["body"] for each in redis.letters("REPLIES")] == ["one"]


def test_a_dead_letter_that_nothing_takes_is_kept(redis: queues.Redis, tmp_path: Path) -> None:
    words = ("--dead-letter", "OTHER", "--ack-wait", "1s", redis.url, "--", *sh("exit 65"))
    with queues.working(tmp_path / "log", *words) as worker:
        redis.other_kind()
        redis.put([b"one"])
        worker.says("OTHER is a string: tried again in 30s")
    assert redis.left() == 1


@pytest.mark.parametrize("option", ["--dead-letter", "--reply-to"])
@pytest.mark.parametrize(
    ("name", "why"), [("JOBS", "would come back to JOBS"), ("OTHER", "cannot go to OTHER of ")]
)
def test_where_nothing_can_go(
    redis: queues.Redis, tmp_path: Path, option: str, name: str, why: str
) -> None:
    redis.other_kind()
    worker = Worker(tmp_path / "log", option, name, redis.url, "--", "true")
    assert worker.process.wait(BOUND) == 1
    assert why in worker.told
    assert "Traceback" not in worker.told


class Broken:
    """A queue of which nobody expects what it does."""

    ack_wait, max_deliver = 0.03, None

    def __init__(self, *faults: str) -> None:
        self._faults = faults

    async def get(self, room: int) -> list[Any]:
        if "get" in self._faults:
            raise LookupError("get")
        await asyncio.sleep(0.01)
        return []

    async def extend(self, messages: object) -> None:
        if "extend" in self._faults:
            raise LookupError("extend")

    async def stop(self) -> None:
        pass


@needs.module("redis")
@pytest.mark.parametrize(
    ("query", "why"), [("ssl=x", "'ssl'"), ("socket_timeout=x", "'socket_timeout'")]
)
def test_a_query_that_the_client_does_not_know(query: str, why: str) -> None:
    from fastspawn._work.redisstream import RedisStream

    asked = address.parse(f"redis://localhost/0/jobs/workers?{query}")
    with pytest.raises(QueueError, match=why):
        RedisStream(asked, Options(), print)


@pytest.mark.parametrize("fault", ["get", "extend"])
def test_a_fault_is_told_and_ends_the_worker(fault: str) -> None:
    """It does not go on without asking for messages, or without saying that it lives."""
    source: Any = Broken(fault)
    terms = Terms(1, Policy(), None, variables=False, replies=False)
    strategy: Any = None

    async def main() -> None:
        worker = Working(source, RouteConfig(), strategy, terms, print, (None, None))
        await asyncio.wait_for(worker.run(), BOUND)

    with pytest.raises(QueueError, match=f"LookupError..{fault}"):
        asyncio.run(main())


def test_a_worker_that_dies_and_one_that_takes_long(
    queue: Queue, work: Work, tmp_path: Path
) -> None:
    """What the first had is given to another; what takes longer is not, while its worker lives."""
    queue.make(ack_wait=1.0)
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    os.mkfifo(gate)
    text = (
        f'body=$(cat); echo "$body $MESSAGE_DELIVERY" >> {ran}; [ -n "$FREE" ] || read x < {gate}'
    )
    options = ("--concurrency", "1", "--ack-wait", "1s")
    work(*options, command=sh(text))
    queue.put([b"slow"])
    poll(lambda: lines(ran) == ["slow 1"], "the slow one runs")
    dies = work(*options, command=sh(text))
    queue.put([b"lost"])
    poll(lambda: "lost 1" in lines(ran), "it runs, too")
    dies.process.kill()
    dies.process.wait()
    work(*options, "--set-env", "FREE=yes", command=sh(text))
    poll(lambda: "lost 2" in lines(ran), "it comes once more")
    # The time after which it did is over for the other one as well.
    assert lines(ran) == ["slow 1", "lost 1", "lost 2"]
    gate.write_text("go\n")
    settled(queue)
    assert lines(ran) == ["slow 1", "lost 1", "lost 2"]


def test_a_message_that_its_workers_die_of(queue: Queue, work: Work, tmp_path: Path) -> None:
    queue.make(ack_wait=1.0)
    options = ("--max-deliver", "1", "--ack-wait", "1s")
    dies = work(*options, command=sh(f"echo >> {tmp_path}/ran; sleep 60"))
    queue.put([b"it"])
    poll(lambda: lines(tmp_path / "ran"), "it runs")
    dies.process.kill()
    dies.process.wait()
    worker = work(*options, command=sh(f"echo >> {tmp_path}/ran"))
    worker.says("dead letter (delivery 2)")
    settled(queue)
    assert len(lines(tmp_path / "ran")) == 1
    assert queue.letters()[0]["fastspawn-reason"] == "no worker told how it ended, 1 times"


def test_it_drains(queue: Queue, work: Work, tmp_path: Path) -> None:
    """What runs ends, and what waits is left to others."""
    queue.make()
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    os.mkfifo(gate)
    text = f'echo "{FIRST}" >> {ran}; read x < {gate}'
    worker = work("--concurrency", "1", command=sh(text))
    queue.put([b"one", b"two"])
    poll(lambda: lines(ran) == ["one 1"], "it runs")
    worker.process.send_signal(signal.SIGTERM)
    with gate.open("w") as writer:
        writer.write("go\n")
    assert worker.process.wait(queues.BOUND) == 0
    assert lines(ran) == ["one 1"]
    assert queue.left() == 1
    worker.says("0 running, 1 done, 0 to be tried again, 0 dead, 0 given back")


def test_a_second_signal_gives_back(queue: Queue, work: Work, tmp_path: Path) -> None:
    queue.make()
    ran = tmp_path / "ran"
    text = f'echo "{FIRST}" >> {ran}; [ -n "$FREE" ] || exec sleep 60'
    worker = work(command=sh(text))
    queue.put([b"it"])
    poll(lambda: lines(ran) == ["it 1"], "it runs")
    worker.process.send_signal(signal.SIGTERM)
    worker.says("taking nothing more, 1 running")
    assert worker.stop() == 0
    worker.says("0 running, 0 done, 0 to be tried again, 0 dead, 1 given back")
    work("--set-env", "FREE=yes", command=sh(text))
    settled(queue)
    # A refusal (NAK) counts as a delivery of NATS.
    assert lines(ran) == ["it 1", "it 2" if queue.server.name == "nats" else "it 1"]


def test_a_server_that_goes_and_comes_back(queue: Queue, work: Work, tmp_path: Path) -> None:
    queue.make()
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    os.mkfifo(gate)
    text = f'body=$(cat); echo "$body" >> {ran}; [ "$body" != first ] || read x < {gate}'
    worker = work(command=sh(text))
    queue.put([b"first"])
    poll(lambda: lines(ran), "it runs")
    queue.server.stop()
    worker.says("lost ")
    gate.write_text("go\n")  # it is done while nobody hears of it
    queue.server.start()
    worker.says("is back")
    queue.put([b"second"])
    settled(queue)
    assert lines(ran) == ["first", "second"]


def test_a_command_that_is_not_there_for_a_while(queue: Queue, work: Work, tmp_path: Path) -> None:
    """It is no message's fault."""
    queue.make()
    command, away = tmp_path / "command", tmp_path / "away"
    command.write_text(f'#!/bin/sh\necho "{FIRST}" >> {tmp_path}/ran\n')
    command.chmod(0o755)
    worker = work("--max-deliver", "1", command=(str(command),))
    command.rename(away)
    queue.put([b"one", b"two", b"three"])
    worker.says("cannot be started: ")
    away.rename(command)
    settled(queue)
    assert sorted(lines(tmp_path / "ran")) == ["one 1", "three 1", "two 1"]


STRATEGIES = [
    ["direct"],
    *(
        [["snapshot"], ["reset"], ["auto", "--allow-reset"],
         ["snapshot", "--no-variables", "--snapshot-at", "effect"]]
        if LINUX
        else []
    ),
]  # fmt: skip


@pytest.mark.parametrize("strategy", STRATEGIES, ids=" ".join)
def test_strategies(queue: Queue, work: Work, strategy: list[str]) -> None:
    queue.make()
    worker = work("--strategy", *strategy, command=sh('echo "<$(cat) $MESSAGE_DELIVERY>"'))
    queue.put([b"%d" % number for number in range(20)])
    settled(queue)
    assert worker.stop() == 0
    count = "" if "--no-variables" in strategy else "1"
    for number in range(20):
        assert worker.told.count(f"<{number} {count}>") == 1


def test_it_tells_what_it_has_done(queue: Queue, work: Work) -> None:
    queue.make()
    worker = work(command=("true",))
    queue.put([b"one", b"two"])
    settled(queue)

    def says_so() -> bool:  # a message is settled before its process is counted
        worker.process.send_signal(signal.SIGUSR1)
        return "0 running, 2 done" in worker.told

    poll(says_so, "0 running, 2 done")


def test_create(queue: Queue, work: Work, tmp_path: Path) -> None:
    refused = subprocess.run(
        [*queues.WORK, queue.url, "--", "true"], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 1
    assert "make it, or add --create" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    work(command=sh(f"echo {FIRST} >> {tmp_path}/ran"))
    queue.put([b"it"])
    settled(queue)
    assert lines(tmp_path / "ran") == ["it 1"]


@pytest.mark.parametrize("name", ["nats", "redis"])
def test_no_server(name: str) -> None:
    pytest.importorskip(name)
    path = "" if name == "nats" else "/0"
    url = f"{name}://user:secret@127.0.0.1:{queues.free_port()}{path}/a/b"
    done = subprocess.run([*queues.WORK, url, "true"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.endswith(": Connection refused\n")
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr


@pytest.mark.parametrize("name", ["nats", "redis"])
def test_no_client(name: str) -> None:
    path = "" if name == "nats" else "/0"
    code = (
        f"import sys; sys.modules['{name}'] = None; from fastspawn.__main__ import main; "
        f"sys.argv[1:] = ['work', '{name}://127.0.0.1{path}/a/b', 'true']; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.endswith(f"pip install 'fastspawn[{name}]'\n")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "a URL is expected"),
        (["nats://h/A/b"], "a command is expected"),
        (["--concurrncy", "1", "nats://h/A/b", "true"], "--concurrncy"),
        (["http://h/A/b", "true"], "'http://h/A/b' is not nats://"),
        (["nats://u:secret@h/A", "true"], "'nats://h/A' is not nats://"),
        (["redis://h/a/b", "true"], "is not redis://"),
        (["redis://h/x/a/b", "true"], "'x' is no number of a database"),
        (["redis://h/0/a/b", "no-such-program"], "cannot run no-such-program"),
        (["--delete", "nats://h/A/b", "true"], "--delete is for Redis, not NATS"),
        (["--subject", "a", "redis://h/0/a/b", "true"], "--subject is for NATS, not Redis"),
        (["--creds", "/no/such", "nats://h/A/b", "true"], "--creds /no/such: No such file"),
        (["--timeout", "soon", "nats://h/A/b", "true"], "'soon' is not a duration"),
        (["--reject", "0", "nats://h/A/b", "true"], "'0' is not a number from 1 to 255"),
        (["--backoff", "1s,x", "nats://h/A/b", "true"], "'x' is not a duration"),
        (["--strategy", "pool", "nats://h/A/b", "true"], "'pool' is not one of direct"),
        (["--snapshot-at", "main", "nats://h/A/b", "true"], "--snapshot-at needs --strategy"),
        (["--strategy", "snapshot", "--snapshot-at", "effect", "nats://h/A/b", "true"],
         "each has variables of its own"),
    ],
)  # fmt: skip
def test_wrong_words(words: list[str], said: str) -> None:
    done = subprocess.run([*queues.WORK, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.startswith("fastspawn work: error: ")
    assert len(done.stderr.splitlines()) == 1
