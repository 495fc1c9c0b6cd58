"""The application: its options, and what it has on each event loop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from subprocess import DEVNULL, PIPE, STDOUT
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from fastspawn import Command, TemplateError
from fastspawn.serve.cgi import spool
from fastspawn.serve.config.file import value_of
from fastspawn.serve.config.model import RouteConfig
from fastspawn.serve.config.options import OPTIONS
from fastspawn.serve.config.settings import SettingsError, make_route
from fastspawn.serve.figures.errors import Lines
from fastspawn.serve.http.response import Heads
from fastspawn.serve.http.watch import Delay
from fastspawn.serve.routes.admission import Admission
from fastspawn.serve.routes.route import Route
from fastspawn.serve.strategies.maker import Strategies

from ._cgi import CgiExchange, ToldExchange
from ._exchange import Exchange

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._messages import Receive, Scope, Send

_LOG: Final = logging.getLogger("fastspawn.asgi")

_EXCHANGES: Final[dict[str, type[Exchange]]] = {"raw": Exchange, "cgi": CgiExchange}


class ProcessApp:
    """An ASGI application that starts a process for every request.

    ``command``: argv, or a ``Command``, of which argv, env, cwd, limits and stderr count (a PIPE
    is "inherit"); None with ``cgi_dir``. ``options`` are those of a route of
    ``fastspawn.serve``, with the values that its file may have (docs/configuration.md) and the
    same defaults: ``mode`` ("raw" or "cgi"), ``strategy``, ``max_inflight``, ``queue``,
    ``exec_timeout`` (seconds, or "5m"), ``max_body`` (bytes, or "1M"), ``set_env`` (a mapping)
    and so on; None is "none". Limits count for each event loop by itself.

    The processes' engine starts with the server where that speaks the lifespan protocol, else
    with the first request. It is closed at the lifespan's end, by ``aclose()``, or at the end of
    ``async with app``, which an application that mounts this one has in its own lifespan.

    Raises ValueError or TypeError for options that can't be.
    """

    def __init__(
        self,
        command: Sequence[str] | Command | None = None,
        *,
        spawners: int | None = None,
        **options: Any,
    ) -> None:
        """``spawners``: threads of the engine; None: by the number of cores."""
        self.config = _config(command, options)
        if self.config.mode not in _EXCHANGES:
            raise ValueError(f"mode {self.config.mode!r} is not one of {', '.join(_EXCHANGES)}")
        self._exchange = ToldExchange if self.config.request_env else _EXCHANGES[self.config.mode]
        self._spawners = spawners
        self._hosts: dict[asyncio.AbstractEventLoop, _Host] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            host = await self._host()
            await self._exchange(host.route, scope, receive, send).run()
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})  # before accept: a 403
        else:
            raise ValueError(f"not for the ASGI protocol {kind!r}")

    async def start(self) -> None:
        """Be ready for requests on this event loop.

        Raises the OSError of an engine that the system has no room for, and TemplateError for a
        command that strategy "snapshot" can't do.
        """
        await self._host()

    async def aclose(self) -> None:
        """Kill what runs on this event loop, and end the engine. May be called twice."""
        host = self._hosts.pop(asyncio.get_running_loop(), None)
        if host is not None:
            await host.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _host(self) -> _Host:
        loop = asyncio.get_running_loop()
        host = self._hosts.get(loop)
        if host is None:
            await self._forget_closed()
            host = self._hosts.setdefault(loop, _Host(self.config, self._spawners, loop))
        if not host.ready:
            try:
                await host.start()
            except BaseException:
                if host.failed and self._hosts.get(loop) is host:
                    del self._hosts[loop]  # the next request tries again
                raise
        return host

    async def _forget_closed(self) -> None:
        """What loops have left that ended without ``aclose``."""
        for loop in [loop for loop in self._hosts if loop.is_closed()]:
            await self._hosts.pop(loop).close()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.start()
                except (OSError, TemplateError) as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


class _Host:
    """The route and its strategy, on one event loop."""

    def __init__(
        self, config: RouteConfig, spawners: int | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._loop = loop
        self._strategies = Strategies(loop, spawners, _LOG.info)
        self._strategy = self._strategies.make(config)
        self._admission = Admission(loop, config.max_inflight, config.queue, config.queue_timeout)
        self._delay = Delay(loop, 0.01)  # what counts is that there is one: see _exchange.py
        self.route = Route(
            config,
            self._strategy,
            self._admission,
            Heads(config.content_type),  # nobody asks for them here
            self._delay,
            config.title,
            ids=False,
            meter=None,
            lines=lambda exchange: Lines(exchange.tell_errors),
        )
        self._starting: asyncio.Task[None] | None = None
        self.ready = False

    @property
    def failed(self) -> bool:
        """It could not be started."""
        task = self._starting
        return task is not None and task.done() and not self.ready

    async def start(self) -> None:
        """All that wait for it wait for the same start; one that gives up does not end it."""
        if self._starting is None:
            self._starting = self._loop.create_task(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        config = self.route.config
        try:
            if config.mode == "cgi" and not config.stream_chunked:
                spool.check(config.buffer_body)
            await self._strategy.start()
            self._strategies.look_always()
        except BaseException:
            await self._end()
            raise
        self.ready = True

    async def close(self) -> None:
        if self._loop.is_closed():
            # Nothing of it can be waited for any more; what runs is killed with the engine.
            await self._strategies.close()
            return
        if self._starting is not None:
            await asyncio.wait([self._starting])
            if self.failed:
                self._starting.exception()  # has been told to those who asked
                return
        await self._end()

    async def _end(self) -> None:
        self._admission.dismiss()
        self._admission.close()
        self._delay.close()
        await self._strategy.close()
        await self._strategies.close()


def _config(command: Sequence[str] | Command | None, options: dict[str, Any]) -> RouteConfig:
    given = {name: _value(name, value) for name, value in options.items()}
    if isinstance(command, Command):
        given = {**_of_command(command), **given}
    elif command is not None:
        if isinstance(command, str):
            raise TypeError("the command is a sequence of words, not a str")
        given["command"] = tuple(command)
    elif "cgi_dir" not in given:
        raise TypeError("a command or cgi_dir is needed")
    try:
        return make_route({}, given)
    except SettingsError as error:
        raise ValueError(str(error)) from error


def _value(name: str, value: Any) -> Any:
    option = OPTIONS.get(name.replace("_", "-"))
    if option is None or not option.of_route:
        raise TypeError(f"{name!r} is not an option of a route")
    if value is None:
        value = "none"
    elif isinstance(value, tuple):
        value = list(value)
    try:
        return value_of(option, value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _of_command(command: Command) -> dict[str, Any]:
    options = command._options
    limits = command.limits
    unfit = [
        name
        for name, usual in (
            *(("executable", None), ("stdout", PIPE), ("umask", -1)),
            *(("cgroup", None), ("no_new_privs", False), ("death_signal", 0)),
        )
        if options[name] != usual
    ]
    if options["start_new_session"] or not options["restore_signals"] or limits.rlimits or unfit:
        raise ValueError("of a Command only argv, env, cwd, limits and stderr count here")
    given: dict[str, Any] = {
        "command": tuple(os.fsdecode(word) for word in command.argv),
        "exec_timeout": limits.timeout,
        "kill_grace": limits.kill_grace,
        "drain_timeout": limits.drain,
        "max_output": limits.max_output,
        "stderr": {None: "inherit", PIPE: "inherit", DEVNULL: "discard", STDOUT: "merge"}[
            options["stderr"]
        ],
    }
    if options["cwd"] is not None:
        given["cwd"] = os.fsdecode(options["cwd"])
    env = {os.fsdecode(name): os.fsdecode(value) for name, value in options["env"].items()}
    if env != dict(os.environ):
        given["clear_env"] = True
        given["set_env"] = tuple(env.items())
    return given
