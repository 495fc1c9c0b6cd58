"""An application's lifespan (ASGI, "Lifespan Protocol"): started once, above the checkpoint.

Its task is left waiting there for the event of the shutdown. Below, nobody sends one: what was
started is the template's, which shuts it down when it ends, or never, if it is killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from fastspawn._app.load import LoadError
from fastspawn._app.log import tell

if TYPE_CHECKING:
    from .loop import Loop

_STEPS: Final = ("startup", "shutdown")
_ANSWERS: Final = {f"lifespan.{step}.{end}" for step in _STEPS for end in ("complete", "failed")}


class Lifespan:
    def __init__(self, application: Any, loop: Loop) -> None:
        self.state: dict[str, Any] = {}
        """What the application gives all requests: each has a copy."""
        self.supported = False
        self._application = application
        self._loop = loop
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Raises LoadError if the application does not start."""
        if self._loop.run_until_complete(self._start()) is False:
            raise LoadError("its lifespan's startup failed")

    def stop(self) -> None:
        """Tells if the application fails in that. In a template: what it prints is for the log."""
        sys.stdout.flush()
        os.dup2(2, 1)
        if self._loop.run_until_complete(self._ask("shutdown")) is False:
            tell("lifespan: its shutdown failed")

    async def _start(self) -> bool | None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        call = self._application(scope, self._events.get, self._send)
        self._task = asyncio.ensure_future(call)
        answer = await self._ask("startup")
        self.supported = answer is True
        if answer is None:
            # An application that knows no such scope raises, and is served without (ASGI,
            # "Lifespan Protocol").
            self.state.clear()
        return answer

    async def _ask(self, step: str) -> bool | None:
        """Whether the application has done it; None: it has ended without a word."""
        task = self._task
        assert task is not None
        self._events.put_nowait({"type": f"lifespan.{step}"})
        answer = asyncio.ensure_future(self._answers.get())
        await asyncio.wait({answer, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not task.cancelled():
            task.exception()  # has been looked at, so nobody is told
        if not answer.done():
            answer.cancel()
            return None
        message = answer.result()
        done: bool = message["type"] == f"lifespan.{step}.complete"
        if not done and message.get("message"):
            print(message["message"], file=sys.stderr)  # noqa: T201
        return done

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] not in _ANSWERS:
            raise RuntimeError(f"No message of a lifespan: {message['type']!r}.")
        self._answers.put_nowait(message)
