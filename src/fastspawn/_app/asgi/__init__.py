"""ASGI 3.0: one HTTP request of an application, by version 2.4 of the HTTP specification.

Above the checkpoint are the event loop and the application's lifespan, below it one call of the
application:

    loop.py      the loop of both
    lifespan.py  what the application does once
    scope.py     what it is told of its request
    body.py      what it receives: standard input as it comes, and that the client is gone
    answer.py    what it sends: a head and a body in CGI's form

Which messages are wrong, and what becomes of an exception, is as with uvicorn.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from fastspawn import _core
from fastspawn._app.log import tell, tell_exception

from .answer import Answer
from .body import Body
from .lifespan import Lifespan
from .loop import Loop
from .scope import scope_of

_PATIENCE: Final = 1.0
"""Seconds that threads have to end."""


class Output(Protocol):
    @property
    def fd(self) -> int:
        """Where the answer is written to; the application's own output is elsewhere."""


def prepare(application: Any) -> Callable[[Mapping[str, str], Output], bool]:
    """What is to be called below the checkpoint; false: the answer is not complete.

    Raises LifespanError for an application that does not start.
    """
    loop = Loop()
    asyncio.set_event_loop(loop)
    lifespan = Lifespan(application, loop)
    threads = threading.enumerate()
    lifespan.start()
    if lifespan.supported:
        atexit.register(lifespan.stop)
        if _core._arguments() is not None:
            tell("lifespan: started once for all requests; what it connects to belongs below, "
                  "into each request")  # fmt: skip
    loop.rest()
    _await_threads(threads)
    above = asyncio.all_tasks(loop)

    def answer(request: Mapping[str, str], output: Output) -> bool:
        call = _Call(application, loop, request, output, lifespan.state)
        return loop.run_until_complete(call.run(above))  # type: ignore[no-any-return]

    return answer


class _Call:
    def __init__(
        self,
        application: Any,
        loop: Loop,
        request: Mapping[str, str],
        output: Output,
        state: dict[str, Any],
    ) -> None:
        length = request.get("CONTENT_LENGTH")
        self._application = application
        self._loop = loop
        self._scope = scope_of(request, state)
        self._answer = Answer(loop, output.fd, self._scope["method"])
        self._body = Body(loop, self._answer, int(length) if length else None)

    async def run(self, above: set[asyncio.Task[Any]]) -> bool:
        complete = await self._answered()
        kept = {*above, asyncio.current_task()}
        while left := asyncio.all_tasks() - kept:
            # What it has left to do is done, as in a server that stays; the client has its answer,
            # and who takes too long is ended by the server.
            if not complete:
                for task in left:
                    task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        self._answer.close()
        return complete

    async def _answered(self) -> bool:
        answer = self._answer
        try:
            result = await self._application(self._scope, self._body.receive, answer.send)
        except BaseException:
            if answer.gone:
                return False  # so it was told, and has ended
            tell_exception("Exception in ASGI application")
        else:
            if result is not None:
                tell(f"ASGI callable should return None, but returned {result!r}.")
            elif answer.over:
                return answer.complete
            else:
                what = "completing" if answer.started else "starting"
                tell(f"ASGI callable returned without {what} response.")
        if not answer.sent and not answer.over:
            await answer.fail()
        return answer.complete


def _await_threads(before: list[threading.Thread]) -> None:
    """Those of the lifespan may be about to end, and there is no checkpoint with any."""
    until = time.monotonic() + _PATIENCE
    for thread in threading.enumerate():
        if thread not in before:
            thread.join(max(0, until - time.monotonic()))
