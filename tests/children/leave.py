"""Prints the process ids of children that live, and ends without closing the engine."""

import asyncio
import contextlib
import os
import signal
import sys
import threading

from common import new_loop, run

from fastspawn import Command, Engine, Limits

kept: list[object] = []


async def live(engine: Engine) -> None:
    """Children that sleep, that write, that ignore signals, each with one of its own."""
    for text in ("exec sleep 60", "exec yes", 'trap "" TERM HUP INT; sleep 60; sleep 60'):
        for _ in range(2):
            argv = ["sh", "-c", f"sleep 60 >/dev/null & echo $! $$; {text}"]
            process = await engine.open(Command(argv, limits=Limits(kill_grace=60)))
            assert process.stdout is not None
            print((await process.stdout.readline()).decode(), flush=True)
            kept.append(process)


async def main(how: str) -> None:
    engine = Engine(2)
    await engine.start()
    await live(engine)
    if how != "loop closed":  # a task that is left over would complain there
        kept.append(asyncio.ensure_future(engine.run(["sleep", "60"])))
        await asyncio.sleep(0)
    if how != "forgotten":
        kept.append(engine)
    if how == "exit":
        sys.exit(0)
    if how == "raise":
        raise ZeroDivisionError
    if how == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)


kind, how = sys.argv[1:]
if how == "thread":
    thread = threading.Thread(target=lambda: run(kind, main(how)))
    thread.start()
    thread.join()
elif how == "loop closed":
    loop = new_loop(kind)
    loop.run_until_complete(main(how))
    loop.close()
else:
    with contextlib.suppress(ZeroDivisionError, KeyboardInterrupt):
        run(kind, main(how))
kept.clear()
