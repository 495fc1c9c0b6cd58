"""A consumer group of a Redis stream.

What a worker has read is in the group's list of pending entries until it is acknowledged, with the
time since it was last handed out or claimed (its idle time). A worker that lives claims its own
entries again and again, which sets that back; what is idle for longer than ``ack_wait`` belongs to
nobody any more, and whoever finds it claims it (XAUTOCLAIM). Redis has no time at which an entry is
handed out again, so one that is to wait gets an idle time that ends then. That cannot be in the
future by more than ``ack_wait``: until then its worker holds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

from redis import exceptions
from redis.asyncio import Redis

from . import letters
from .source import PATIENCE, Ended, NoReply, Options, QueueError, of_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from .address import Address

T = TypeVar("T")

_CONNECT: Final = 3.0
_ANSWER: Final = 10.0
"""Seconds: for a connection, for an answer."""
_LONGEST: Final = 512 << 20
"""Bytes that a field can have (redis.conf: proto-max-bulk-len): a client with more is cut off."""
_AWAY: Final = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ReadOnlyError,
                exceptions.OutOfMemoryError, OSError, asyncio.TimeoutError)  # fmt: skip
"""It is not there now, is about to be another one (a failover), or has no room for more."""


class _Message:
    """An entry. ``fields``: names and values, in their order."""

    def __init__(
        self, entry: bytes, fields: list[bytes], deliveries: int, source: RedisStream
    ) -> None:
        self.entry = entry
        self.fields = list(zip(fields[::2], fields[1::2], strict=True))
        self.deliveries = deliveries
        self._source = source

    @property
    def title(self) -> str:
        return f"{self._source.stream} {self.entry.decode()}"

    @cached_property
    def _field(self) -> bytes | None:
        """The name of that which is the body."""
        name = self._source.body
        if any(each == name for each, _ in self.fields):
            return name
        return self.fields[0][0] if len(self.fields) == 1 else None

    @property
    def body(self) -> bytes:
        return dict(self.fields).get(self._field or b"", b"")

    @cached_property
    def variables(self) -> Mapping[bytes, bytes]:
        others = ((name, value) for name, value in self.fields if name != self._field)
        return {
            b"MESSAGE_ID": self.entry,
            b"MESSAGE_STREAM": os.fsencode(self._source.stream),
            b"MESSAGE_GROUP": os.fsencode(self._source.group),
            b"MESSAGE_DELIVERY": str(self.deliveries).encode(),
            **of_headers((name.decode(errors="replace"), value) for name, value in others),
        }


class RedisStream:
    """A source: see ``source.py``."""

    max_deliver = None
    max_output: int | None = _LONGEST

    def __init__(self, address: Address, options: Options, say: Callable[[str], object]) -> None:
        self._address, self._options, self._say = address, options, say
        self.stream, self.group = address.stream, address.group
        self.name = f"{address.stream} of {address.shown}"
        self.ack_wait = options.ack_wait
        self.body = options.body.encode()
        self.figures = {"claimed": 0, "reconnects": 0}
        try:
            self._redis: Redis = self._client()
            pool = self._redis.connection_pool
            pool.connection_class(**pool.connection_kwargs)
        except (TypeError, ValueError) as error:
            # Of the URL's query, which is the client library's.
            raise QueueError(f"{address.shown}: {_told(error)}") from None
        host = socket.gethostname()
        self._me = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        self._mine: set[bytes] = set()
        """Entries that are the worker's now."""
        self._held: dict[bytes, float] = {}
        """Those that wait for a time, in the loop's."""
        self._cursor: bytes = b"0-0"
        self._claims = 0.0
        """When to look for what is nobody's."""
        self._away = False
        dead = options.dead_letter
        self._dead = f"{address.stream}:dead" if dead is None else dead

    def _client(self) -> Redis:
        options, more = self._options, dict[str, Any]()
        if options.password is not None:
            more["password"] = options.password
        if options.authorities is not None:
            more["ssl_ca_certs"] = options.authorities
        made = Redis.from_url(
            self._address.servers[0],
            protocol=2,
            socket_connect_timeout=_CONNECT,
            socket_timeout=_ANSWER,
            **more,
        )
        made.response_callbacks.clear()  # replies as they are, bytes in lists
        return made

    # ---- begin ----

    async def open(self) -> None:
        try:
            await self._open()
        except _AWAY as error:
            told = _told(error)
            raise QueueError(f"cannot connect to {self._address.shown}: {told}") from None
        except exceptions.RedisError as error:
            raise QueueError(f"{self.name}: {_told(error)}") from None

    async def _open(self) -> None:
        kind = await self._call("TYPE", self.stream)
        if kind not in (b"stream", b"none"):
            raise QueueError(f"{self.name} is no stream, but a {kind.decode()}")
        await self._look_at("dead letters", self._dead)
        await self._look_at("replies", self._options.reply_to)
        groups = [] if kind == b"none" else await self._call("XINFO", "GROUPS", self.stream)
        if self.group.encode() not in [each[each.index(b"name") + 1] for each in groups]:
            await self._create(kind)

    async def _look_at(self, what: str, stream: str | None) -> None:
        """Where something is to go."""
        if stream == self.stream:
            raise QueueError(f"{what} would come back to {stream}")
        if stream and (kind := await self._takes_none(stream)):
            raise QueueError(
                f"{what} cannot go to {stream} of {self._address.shown}: that is {kind}"
            )

    async def _takes_none(self, stream: str | bytes) -> str:
        """What it is that can be no stream; empty: it can."""
        kind: bytes = await self._call("TYPE", stream)
        return "" if kind in (b"stream", b"none") else f"a {kind.decode()}"

    async def _create(self, kind: bytes) -> None:
        if not self._options.create:
            what = "stream" if kind == b"none" else f"group {self.group}"
            raise QueueError(f"{self.name}: there is no such {what}: make it, or add --create")
        with contextlib.suppress(exceptions.ResponseError):  # somebody else was sooner
            await self._call("XGROUP", "CREATE", self.stream, self.group, "0", "MKSTREAM")

    async def _call(self, *words: Any) -> Any:
        return await self._redis.execute_command(*words)  # type: ignore[no-untyped-call]

    async def _insist(self, what: Callable[[], Awaitable[T]]) -> T:
        """Until there is a connection for it."""
        while not (found := await self._try(what)):
            pass
        return found[0]

    async def _try(self, what: Callable[[], Awaitable[T]]) -> tuple[T] | None:
        """None, after a while: there is no connection."""
        try:
            found = await what()
        except _AWAY as error:
            self._is_away(_told(error))
            await asyncio.sleep(PATIENCE)
            return None
        except exceptions.RedisError as error:
            raise QueueError(f"{self.name}: {_told(error)}") from None
        if self._away:
            self._away = False
            self.figures["reconnects"] += 1
            self._say(f"{self._address.shown} is back")
        return (found,)

    def _is_away(self, why: str) -> None:
        if not self._away:
            self._away = True
            self._say(f"lost {self._address.shown}: {why}: trying again")

    # ---- ask for messages ----

    def more(self, room: int) -> None:
        pass  # XREADGROUP waits for a first entry only, and then there is room for more

    async def get(self, room: int) -> list[_Message]:
        found: list[_Message] = []
        if asyncio.get_running_loop().time() >= self._claims:
            found = await self._insist(lambda: self._claim(room))
        found = found or await self._insist(lambda: self._read(room))
        self._mine.update(each.entry for each in found)
        return found

    async def _read(self, room: int) -> list[_Message]:
        found = await self._call(
            *("XREADGROUP", "GROUP", self.group, self._me),
            *("COUNT", room, "BLOCK", int(PATIENCE * 1000), "STREAMS", self.stream, ">"),
        )
        entries = found[0][1] if found else []
        return [_Message(entry, fields, 1, self) for entry, fields in entries if fields]

    async def _claim(self, room: int) -> list[_Message]:
        """What was given back, and what its worker is silent about."""
        idle = int(self.ack_wait * 1000)
        words = (self.stream, self.group, self._me, idle, self._cursor, "COUNT", room)
        self._cursor, entries, *_ = await self._call("XAUTOCLAIM", *words)
        if self._cursor == b"0-0":
            self._claims = asyncio.get_running_loop().time() + PATIENCE
        entries = [each for each in entries if each is not None and each[0] not in self._mine]
        gone = [entry for entry, fields in entries if not fields]  # trimmed; Redis 6
        if gone:
            await self._call("XACK", self.stream, self.group, *gone)
        counts = await self._deliveries([entry for entry, fields in entries if fields])
        self.figures["claimed"] += len(counts)
        return [
            _Message(entry, fields, counts[entry], self)
            for entry, fields in entries
            if entry in counts
        ]

    async def _deliveries(self, entries: Sequence[bytes]) -> dict[bytes, int]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for entry in entries:
                words = ("XPENDING", self.stream, self.group, entry, entry, 1)
                pipe.execute_command(*words)
            found = await pipe.execute() if entries else []
        return {each[0][0]: each[0][3] for each in found if each}

    # ---- settle ----

    async def extend(self, messages: Iterable[Any]) -> None:
        now = asyncio.get_running_loop().time()
        ripe = {entry: at - now for entry, at in self._held.items() if at - now <= self.ack_wait}
        try:
            for entry, wait in ripe.items():
                await self._release(entry, wait)
                self._held.pop(entry, None)
            entries = [message.entry for message in messages] + list(self._held)
            if entries:
                await self._call("XCLAIM", self.stream, self.group, self._me, 0, *entries, "JUSTID")
        except _AWAY:
            pass
        except exceptions.RedisError as error:
            self._say(f"{self.name}: {_told(error)}")

    async def done(self, message: Any, output: bytes) -> None:
        stream = self.reply_to(message)
        named = stream and stream != self._options.reply_to
        if named and (kind := await self._insist(lambda: self._takes_none(stream))):
            name = stream.decode(errors="backslashreplace")
            raise NoReply(f"its reply cannot go to {name!r}: that is {kind}")
        reply = ("XADD", stream, "*", "body", output, "stream", self.stream, "id", message.entry)
        await self._settle(message, reply if stream else None)

    def reply_to(self, message: Any) -> Any:
        named = self._options.reply_header
        found = None if named is None else dict(message.fields).get(named.encode())
        return found or self._options.reply_to

    async def _settle(self, message: _Message, first: Sequence[Any] | None = None) -> None:
        """It is not pending any more. ``first``: a command that goes with it. Both, or none: but a
        transaction goes on after one that fails for the kind of its key, which is asked before."""

        async def told() -> None:
            async with self._redis.pipeline(transaction=True) as pipe:
                if first is not None:
                    pipe.execute_command(*first)
                pipe.execute_command("XACK", self.stream, self.group, message.entry)
                if self._options.delete:
                    pipe.execute_command("XDEL", self.stream, message.entry)
                await pipe.execute()

        await self._insist(told)
        self._mine.discard(message.entry)

    async def again(self, message: Any, delay: float) -> None:
        self._mine.discard(message.entry)
        if delay > self.ack_wait:
            self._held[message.entry] = asyncio.get_running_loop().time() + delay
        else:
            await self._insist(lambda: self._release(message.entry, delay))

    async def give_back(self, message: Any) -> None:
        count = max(message.deliveries - 1, 0)  # whoever claims it adds one
        self._mine.discard(message.entry)
        await self._insist(lambda: self._release(message.entry, 0.0, "RETRYCOUNT", count))

    async def _release(self, entry: bytes, wait: float, *more: Any) -> None:
        """Whoever looks for it in ``wait`` seconds, at most ``ack_wait``, finds it idle enough."""
        idle = int(max(self.ack_wait - max(wait, 0.0), 0.0) * 1000)
        words = (self.stream, self.group, self._me, 0, entry, "IDLE", idle, *more)
        await self._call("XCLAIM", *words, "JUSTID")

    async def bury(self, message: Any, ended: Ended) -> None:
        if self._dead and (kind := await self._insist(lambda: self._takes_none(self._dead))):
            self._say(f"{message.title}: {self._dead} is {kind}: tried again in 30s")
            await self.again(message, 30.0)
            return
        told = letters.about(self.stream, self.group, message.entry.decode(), message.deliveries,
                             ended)  # fmt: skip
        words: list[Any] = ["XADD", self._dead, "*"]
        for name, value in (*message.fields, *((f"fastspawn-{each}", text) for each, text in told)):
            words += [name, value]
        await self._settle(message, words if self._dead else None)

    # ---- end ----

    async def stop(self) -> None:
        """What waits is handed out by itself when it is time, or when it was to be held longer than
        anybody can look after it, as soon as ``ack_wait`` is over."""
        now = asyncio.get_running_loop().time()
        for entry, at in self._held.items():
            with contextlib.suppress(*_AWAY):
                await self._release(entry, min(at - now, self.ack_wait))
        self._held.clear()

    async def close(self) -> None:
        """A consumer that has nothing would be there for ever; what it had would go with it."""
        with contextlib.suppress(exceptions.RedisError, OSError, asyncio.TimeoutError):
            if not self._away:
                await self._leave()
        await self._redis.aclose()

    async def _leave(self) -> None:
        pending = await self._call("XPENDING", self.stream, self.group, "-", "+", 1, self._me)
        if not pending:
            await self._call("XGROUP", "DELCONSUMER", self.stream, self.group, self._me)


def _told(error: BaseException) -> str:
    """In one line."""
    if isinstance(error, (asyncio.TimeoutError, exceptions.TimeoutError)):
        return "no answer"
    cause = error.__cause__ or error.__context__ or error
    if isinstance(cause, OSError) and cause.errno is not None and cause.strerror:
        return os.strerror(cause.errno) if cause.errno > 0 else cause.strerror
    return " ".join(str(error).split()) or type(error).__name__
