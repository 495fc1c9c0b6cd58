"""Many requests, and large ones: nothing is left behind, and memory stays small."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from serve.harness import Client, Server, asleep, children, fds, poll, reset_peak, resident, threads
from support import often

Serve = Callable[..., Server]
Script = Callable[..., tuple[str, ...]]

MIB = 1 << 20


async def hammer(port: int, connections: int, requests: int) -> list[tuple[int, bytes]]:
    """Status and body of each of ``requests``, by keep-alive connections in parallel."""
    answers: list[tuple[int, bytes]] = []
    left = iter(range(requests))

    async def run() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n in left:
            writer.write(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n\r\n%06d" % n)
            head = await reader.readuntil(b"\r\n\r\n")
            body = b""
            if b"Content-Length: " in head:
                length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
            else:
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    body += (await reader.readexactly(size + 2))[:-2]
                await reader.readexactly(2)
            answers.append((int(head.split(b" ", 2)[1]), body))
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(run() for _ in range(connections)))
    return answers


def census(server: Server) -> tuple[int, int, int]:
    """Descriptors, threads, children (zombies included)."""
    return fds(server.pid), threads(server.pid), len(children(server.pid))


def test_nothing_is_left_behind(serve: Serve) -> None:
    server = serve(command=("cat",))
    # Whatever is made once, at the first use.
    asyncio.run(hammer(server.port, 50, 200))
    poll(lambda: not children(server.pid), "an end of all processes")
    before: list[tuple[int, int, int]] = []

    def settled() -> bool:
        before.append(census(server))
        return len(before) > 3 and before[-1] == before[-2] == before[-3]

    poll(settled, "an idle server")
    answers = asyncio.run(hammer(server.port, 50, 2000))
    assert sorted(answers) == [(200, b"%06d" % n) for n in range(2000)]
    poll(lambda: census(server) <= before[-1], f"no more than the {before[-1]} before")


def test_more_clients_than_processes(serve: Serve) -> None:
    """With the default numbers, everybody is answered in the end."""
    server = serve(command=("cat",))
    answers = asyncio.run(hammer(server.port, 500, 1000))
    assert sorted(answers) == [(200, b"%06d" % n) for n in range(1000)]


def test_overload(serve: Serve, script: Script, tmp_path: Path) -> None:
    """All are answered, by 200 or by 503, and never more run than may."""
    running = tmp_path / "running"
    running.mkdir()
    text = """
        mkdir "$1/running/$$"
        set -- "$1" "$1"/running/*
        echo $(($# - 1)) >>"$1/seen"
        printf "%s" "$(cat)"
        rmdir "$1/running/$$"
    """
    server = serve("--max-inflight", "4", "--queue", "8", command=script(text, tmp_path))
    answers = asyncio.run(hammer(server.port, 100, 1000))
    assert len(answers) == 1000
    assert {status for status, _ in answers} == {200, 503}
    seen = [int(line) for line in (tmp_path / "seen").read_text().split()]
    assert len(seen) == sum(status == 200 for status, _ in answers)
    assert 0 < max(seen) <= 4
    with server.connect() as client:
        client.post(b"again")
        assert client.read().body == b"again"


def test_a_storm_is_refused_whole(serve: Serve, script: Script) -> None:
    """Every client hears 503, those that leave are forgotten, and the server goes on."""
    server = serve(
        *("--max-inflight", "1", "--queue", "0", "--exec-timeout", "none"),
        command=script("exec sleep 600"),
    )
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(400)]
        clients[0].get()
        poll(lambda: children(server.pid), "a process")
        for client in clients[1:]:
            client.get()
        for client in clients[300:350]:
            client.sock.close()
        assert {client.read().status for client in clients[1:300] + clients[350:]} == {503}
        clients[1].get()
        assert clients[1].read().status == 503


def test_more_clients_than_descriptors(serve: Serve, strategy: str) -> None:
    """Those that have a connection are served; the others wait; the log is not flooded."""
    server = serve(prefix=("sh", "-c", 'ulimit -n 48; exec "$@"', "sh"))
    clients = [server.connect() for _ in range(100)]
    try:
        poll(lambda: fds(server.pid) >= 40, "no more descriptors")
        clients[0].get()
        status = clients[0].read().status
        # The engine's descriptors are its own. (uvloop hides the reason, so 500.)
        assert status in ({200} if strategy == "direct" else {200, 500, 503})
    finally:
        for client in clients:
            client.sock.close()
    poll(lambda: works(server), "an answer")
    assert len(server.errors().splitlines()) < 10


def works(server: Server) -> bool:
    try:
        return server.get().status == 200
    except (ConnectionResetError, AssertionError):
        return False


def test_hundreds_of_mib_both_ways(serve: Serve) -> None:
    server = serve("--exec-timeout", "none", command=("cat",))
    with server.connect() as client:
        client.post(b"x" * MIB)
        client.read()
    idle = resident(server.pid)
    reset_peak(server.pid)
    block = bytes(range(256)) * (MIB // 256)
    blocks = often(300, 4096)

    with server.connect() as client:
        sender = threading.Thread(target=send_blocks, args=(client, block, blocks))
        sender.start()
        digest, length = hash_chunks(client)
        sender.join()
    assert length == blocks * MIB
    expected = hashlib.sha1(usedforsecurity=False)
    for _ in range(blocks):
        expected.update(block)
    assert digest == expected.hexdigest()
    assert resident(server.pid, peak=True) - idle < 64 * MIB


def send_blocks(client: Client, block: bytes, blocks: int) -> None:
    client.request("POST", "/", f"Content-Length: {len(block) * blocks}")
    for _ in range(blocks):
        client.send(block)


def hash_chunks(client: Client) -> tuple[str, int]:
    """Of a chunked answer, without keeping it."""
    assert client.read_head().fields["transfer-encoding"] == "chunked"
    digest, length = hashlib.sha1(usedforsecurity=False), 0
    while chunk := client.read_chunk():
        digest.update(chunk)
        length += len(chunk)
    assert client.last_seen
    return digest.hexdigest(), length


def test_upload_that_is_not_read_stays_outside(serve: Serve, script: Script) -> None:
    """A process that does not read stops its client, not at the expense of the server."""
    server = serve(command=script("sleep 1; wc -c"))
    with server.connect() as client:
        client.post(b"x" * MIB)
        client.read()
        idle = resident(server.pid)
        reset_peak(server.pid)
        block = b"x" * MIB
        sender = threading.Thread(target=send_blocks, args=(client, block, 100))
        sender.start()
        assert int(client.read().body) == 100 * MIB
        sender.join()
    assert resident(server.pid, peak=True) - idle < 16 * MIB


def test_unread_answers_stay_outside(serve: Serve) -> None:
    """A client that does not read stops its process, not at the expense of the server."""
    server = serve(command=("cat", "/dev/zero"))
    with server.connect() as client:
        client.get()
        client.read_head()
    poll(lambda: not children(server.pid), "the process's end")
    idle = resident(server.pid)
    reset_peak(server.pid)
    clients = [server.connect() for _ in range(10)]
    try:
        for client in clients:
            client.get()
            client.read_head()
        poll(lambda: asleep(server), "backpressure")
    finally:
        for client in clients:
            client.sock.close()
    poll(lambda: not children(server.pid), "an end of all processes")
    assert resident(server.pid, peak=True) - idle < 32 * MIB


def settled(server: Server) -> bool:
    """In a row of looks, the same processes have ended (maybe unseen) or wait."""
    looks = [children(server.pid) for _ in range(20)]
    return looks.count(looks[0]) == len(looks) and "R" not in str(looks[0])


def test_nothing_is_lost_of_a_process_that_ends_before_its_reader(
    start: Serve, strategy: str, loop: str, tmp_path: Path
) -> None:
    """What is in the pipe when it exits comes, however late."""
    # A Unix socket holds little, so there is a size for which all that is on the way is full.
    path = str(tmp_path / "socket")
    server = start(
        *("--strategy", strategy, "--loop", loop, "--drain-timeout", "1ms"),
        command=("sh", "-c", "exec head -c $(cat) /dev/zero"),
        where=("--uds", path),
    )
    clients = []
    try:
        for size in range(240_000, 720_000, 16_000):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
            clients.append((size, Client(sock)))
            clients[-1][1].post(b"%d" % size)
        poll(lambda: settled(server), "some have ended, and the others wait")
        for size, client in clients:
            answer = client.read()
            assert answer.complete
            assert len(answer.body) == size
    finally:
        for _, client in clients:
            client.sock.close()


def test_pipelined_requests_stay_outside(serve: Serve, script: Script) -> None:
    server = serve("--exec-timeout", "none", command=script("exec sleep 60"))
    request = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
    with server.connect() as client:
        client.sock.settimeout(1)
        idle = resident(server.pid)
        reset_peak(server.pid)
        try:
            while True:
                client.send(request * 1000)
        except TimeoutError:
            pass
        assert resident(server.pid, peak=True) - idle < 8 * MIB
