"""A worker of fastspawn.ResettablePool for Python; docs/strategies.md has the protocol.

    fastspawn serve --strategy pool \
        --worker 'python examples/workers/python/worker.py' -- sort
"""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT

READ = 65536
child = None


def send(kind, payload):
    frame = memoryview(kind + len(payload).to_bytes(4, "big") + payload)
    while frame:
        frame = frame[os.write(1, frame) :]  # blocks while the pool does not read


def kill(pid, number):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)  # the whole group; perhaps it has gone


async def pump(stream, kind):
    while stream is not None and (data := await stream.read(READ)):
        send(kind, data)


async def start(err, given, cwd, count, *words):
    global child
    n = int(count)
    try:
        mine = await asyncio.create_subprocess_exec(
            *words[:n],
            cwd=cwd or None,
            env=dict(word.split(b"=", 1) for word in words[n:]),
            stdin=PIPE if given == b"pipe" else DEVNULL,
            stdout=PIPE,
            stderr={b"inherit": None, b"discard": DEVNULL, b"merge": STDOUT}.get(err, PIPE),
            start_new_session=True,
        )
    except OSError as error:
        send(b"F", b"%d" % error.errno)
        return
    child = mine
    send(b"S", b"%d" % mine.pid)


async def finish(mine):
    global child
    pumps = asyncio.gather(pump(mine.stdout, b"O"), pump(mine.stderr, b"E"))
    while mine.returncode is None:  # wait() would wait for the pipes, too, which others may hold
        await asyncio.wait([pumps], timeout=0.01) if not pumps.done() else await mine.wait()
    kill(mine.pid, signal.SIGKILL)  # the reset
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(pumps, 0.05)
    mine._transport.close()
    child = None
    send(b"X", b"%d" % mine.returncode)


async def drain(stdin, size):
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read
        await stdin.drain()
    send(b"C", b"%d" % size)


async def main():
    loop, reader, running = asyncio.get_running_loop(), asyncio.StreamReader(), set()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    send(b"H", b"1")
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            head = await reader.readexactly(5)
            kind, payload = head[:1], await reader.readexactly(int.from_bytes(head[1:], "big"))
            task = None
            if kind == b"R":
                await start(*payload.split(b"\0"))
                task = asyncio.ensure_future(finish(child)) if child else None
            elif child and kind == b"K":
                kill(child.pid, int(payload))
            elif child and kind == b"I" and payload:
                child.stdin.write(payload)
                task = asyncio.ensure_future(drain(child.stdin, len(payload)))
            elif child and kind == b"I":
                child.stdin.close()
            if task:
                running.add(task)
                task.add_done_callback(running.discard)
    if child:
        kill(child.pid, signal.SIGKILL)
    os._exit(0)


asyncio.run(main())
