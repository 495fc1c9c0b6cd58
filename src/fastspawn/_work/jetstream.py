"""A durable pull consumer of NATS JetStream.

It asks for as many messages as there is room for and for no more, so that those that wait do so at
the server, where another worker may have them. The client's own ``fetch`` asks for a batch, and
hears of nothing else until that is complete or late; here each place that becomes free is asked for
at once, and what was asked for and has not come is known (NATS ADR-13, ADR-37).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from nats.aio.client import Client
from nats.errors import BadSubjectError, NoRespondersError
from nats.errors import Error as NatsError
from nats.js import api
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError, ServiceUnavailableError

from . import letters
from .source import PATIENCE, Ended, NoReply, Options, QueueError, of_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.js.client import JetStreamContext

    from .address import Address

_ACK, _NAK, _TERM, _PROGRESS = b"+ACK", b"-NAK", b"+TERM", b"+WPI"
_EXPIRES: Final = 10.0
"""Seconds for which a request for messages waits at the server."""
_CONNECT: Final = 3.0
_ANSWER: Final = 5.0
"""Seconds: for a first connection, for an answer."""
_TRIES: Final = 3
_HEADERS: Final = 4096
"""Bytes of a publication that its body cannot have."""
_GONE: Final = ("consumer deleted", "consumer is push based")


class _Message:
    """One, and where its acknowledgements go."""

    def __init__(self, raw: Msg) -> None:
        self.raw = raw
        about = raw.metadata
        self.body = raw.data
        self.deliveries = about.num_delivered
        self.stream, self.group = about.stream, about.consumer
        self.sequence = about.sequence.stream

    @property
    def title(self) -> str:
        return f"{self.stream} {self.sequence}"

    @property
    def id(self) -> str:
        return f"{self.stream}.{self.group}.{self.sequence}"

    @cached_property
    def variables(self) -> Mapping[bytes, bytes]:
        headers = self.raw.headers or {}
        return {
            b"MESSAGE_ID": str(self.sequence).encode(),
            b"MESSAGE_STREAM": self.stream.encode(),
            b"MESSAGE_GROUP": self.group.encode(),
            b"MESSAGE_SUBJECT": self.raw.subject.encode(),
            b"MESSAGE_DELIVERY": str(self.deliveries).encode(),
            **of_headers((name, value.encode()) for name, value in headers.items()),
        }


class JetStream:
    """A source: see ``source.py``."""

    max_output: int | None

    def __init__(self, address: Address, options: Options, say: Callable[[str], object]) -> None:
        self._address, self._options, self._say = address, options, say
        self.name = f"{address.stream} of {address.shown}"
        self.ack_wait = options.ack_wait
        self.max_deliver: int | None = None
        self.figures = {"unsettled": 0, "reconnects": 0}
        self._client = Client()
        self._js: JetStreamContext = self._client.jetstream(timeout=_ANSWER)
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._asked = 0
        """How many may still come, ..."""
        self._until = 0.0
        """... and until when: nothing that was asked for is answered later."""
        self._come: deque[_Message] = deque()
        self._arrived: asyncio.Future[None] | None = None
        """Of a ``get`` that waits."""
        self._asking: set[asyncio.Task[None]] = set()
        self._trouble = ""
        """Why nothing will come any more."""
        self._leaving = False
        self._dead = self._dead_subject()

    def _dead_subject(self) -> str:
        told = self._options.dead_letter
        return f"dead.{self._address.stream}.{self._address.group}" if told is None else told

    # ---- begin ----

    async def open(self) -> None:
        await self._connect()
        try:
            await self._look_at(await self._consumer())
            if self._dead:
                await self._find_dead()
        except ServiceUnavailableError:
            raise QueueError(f"{self._address.shown} has no JetStream (nats-server -js)") from None
        except (NatsError, asyncio.TimeoutError) as error:
            raise QueueError(f"{self.name}: {_told(error)}") from None
        self.max_output = self._client.max_payload - _HEADERS
        self._inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(
            f"{self._inbox}.*", cb=self._hear, pending_bytes_limit=0, pending_msgs_limit=0
        )

    async def _connect(self) -> None:
        last: list[Exception] = []

        async def failed(error: Exception) -> None:
            last[:] = [error]

        try:
            await asyncio.wait_for(self._first(failed), _CONNECT)
        except (OSError, NatsError, ValueError, asyncio.TimeoutError) as error:
            told = _told(last[0] if last else error)
            raise QueueError(f"cannot connect to {self._address.shown}: {told}") from None

    async def _first(self, failed: Callable[[Exception], Awaitable[None]]) -> None:
        """A server that comes a little later is waited for; one that goes later on, for ever."""
        await self._client.connect(
            list(self._address.servers),
            name="fastspawn work",
            error_cb=failed,
            disconnected_cb=self._lost,
            reconnected_cb=self._back,
            closed_cb=self._closed,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            connect_timeout=2,
            **self._secrets(),
        )

    def _secrets(self) -> dict[str, Any]:
        options, more = self._options, dict[str, Any]()
        if options.authorities is not None:
            import ssl

            more["tls"] = ssl.create_default_context(cafile=options.authorities)
        if options.credentials is not None:
            more["user_credentials"] = options.credentials
        if options.password is not None:
            user = self._address.servers[0].partition("://")[2].rpartition("@")[0]
            more |= {"user": user, "password": options.password} if user else {
                "token": options.password
            }  # fmt: skip
        return more

    async def _consumer(self) -> api.ConsumerInfo:
        stream, group = self._address.stream, self._address.group
        try:
            found: api.ConsumerInfo = await self._js.consumer_info(stream, group)
        except NotFoundError as error:
            if not self._options.create:
                raise QueueError(
                    f"{self.name}: {error.description or 'not found'} ({stream}/{group}): "
                    "make it, or add --create"
                ) from None
        else:
            return found
        await self._create_stream(stream, [self._options.subject or f"{stream}.>"], "workqueue")
        config = api.ConsumerConfig(
            durable_name=group,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._options.ack_wait,
            max_deliver=-1,
            # Those that wait for another try count, too: a thousand would stop all others.
            max_ack_pending=-1,
        )
        return await self._js.add_consumer(stream, config)

    async def _create_stream(self, name: str, subjects: list[str], retention: str) -> None:
        try:
            await self._js.stream_info(name)
        except NotFoundError:
            kept = api.RetentionPolicy(retention)
            await self._js.add_stream(name=name, subjects=subjects, retention=kept)

    async def _look_at(self, found: api.ConsumerInfo) -> None:
        config = found.config
        if config.deliver_subject:
            raise QueueError(f"{self.name}: {found.name} is a push consumer, not a pull consumer")
        if config.ack_policy != api.AckPolicy.EXPLICIT:
            raise QueueError(f"{self.name}: {found.name} acknowledges {config.ack_policy}, "
                             "not each message (explicit)")  # fmt: skip
        if config.ack_wait:
            self.ack_wait = config.ack_wait
        if config.backoff:  # it counts instead
            self.ack_wait = min(config.backoff)
        if config.max_deliver is not None and config.max_deliver > 0:
            self.max_deliver = config.max_deliver

    async def _find_dead(self) -> None:
        try:
            stream = await self._js.find_stream_name_by_subject(self._dead)
        except NotFoundError:
            if not self._options.create:
                raise QueueError(
                    f"no stream of {self._address.shown} takes dead letters ({self._dead}): make "
                    "one, or add --create, or --dead-letter none"
                ) from None
            name = f"{self._address.stream}_DEAD"
            await self._create_stream(name, [f"dead.{self._address.stream}.>"], "limits")
            stream = await self._js.find_stream_name_by_subject(self._dead)
        if stream == self._address.stream:
            raise QueueError(f"dead letters ({self._dead}) would come back to {stream}")

    # ---- the connection ----

    async def _lost(self) -> None:
        if not self._leaving:
            self._say(f"lost {self._address.shown}: trying again")

    async def _back(self) -> None:
        self._say(f"{self._address.shown} is back")
        self.figures["reconnects"] += 1
        self._asked = 0  # the requests went with the connection
        self._wake()

    async def _closed(self) -> None:
        if not self._leaving:
            told = self._client.last_error
            self._trouble = f"{self._address.shown} has closed the connection: {_told(told)}"
            self._wake()

    # ---- ask for messages ----

    async def get(self, room: int) -> list[_Message]:
        self.more(room)
        if not self._come and not self._trouble:
            await self._wait()
        if self._trouble:
            raise QueueError(self._trouble)
        return [self._come.popleft() for _ in range(min(room, len(self._come)))]

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._arrived = loop.create_future()
        timer = loop.call_later(PATIENCE, self._wake)
        try:
            await self._arrived
        finally:
            self._arrived = None
            timer.cancel()
        if self._asked and loop.time() > self._until:
            self._asked = 0  # nothing was heard of it: it is lost

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def more(self, room: int) -> None:
        wanted = room - self._asked - len(self._come)
        if wanted <= 0 or self._leaving or not self._client.is_connected:
            return
        loop = asyncio.get_running_loop()
        self._asked += wanted
        self._until = loop.time() + _EXPIRES + _ANSWER
        task = loop.create_task(self._ask(wanted))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, count: int) -> None:
        stream, group = self._address.stream, self._address.group
        asked = {"batch": count, "expires": int(_EXPIRES * 1e9)}
        try:
            await self._client.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{group}",
                json.dumps(asked).encode(),
                f"{self._inbox}.{count}",  # where a status comes that ends it
            )
        except NatsError:
            self._asked = max(self._asked - count, 0)

    async def _hear(self, raw: Msg) -> None:
        """A message, which has the subject that it was published to, or a request's status."""
        if raw.reply.startswith("$JS.ACK."):
            self._come.append(_Message(raw))
            self._asked = max(self._asked - 1, 0)
            self._wake()
            return
        headers = raw.headers or {}
        if headers.get("Status") == "100":  # a heartbeat
            return
        left = headers.get("Nats-Pending-Messages") or raw.subject.rpartition(".")[2]
        self._asked = max(self._asked - int(left), 0)
        if (told := headers.get("Description", "")).lower() in _GONE:
            self._trouble = f"{self.name}: {told}"
        self._wake()

    # ---- settle ----

    async def extend(self, messages: Iterable[Any]) -> None:
        with contextlib.suppress(NatsError):
            for message in messages:
                await self._client.publish(message.raw.reply, _PROGRESS)

    async def _settle(self, message: _Message, how: bytes) -> None:
        """Until the server says that it knows."""
        reply = message.raw.reply
        if not await self._insist(lambda: self._client.request(reply, how, timeout=_ANSWER)):
            self.figures["unsettled"] += 1
            self._say(f"{message.title}: no answer to {how[:4].decode()}: it may come once more")

    async def _insist(self, what: Callable[[], Awaitable[object]]) -> bool:
        """While there is no connection, for ever; else a few times."""
        tries = 0
        while not await self._try(what):
            tries += self._client.is_connected
            if tries >= _TRIES:
                return False
        return True

    async def _try(self, what: Callable[[], Awaitable[object]]) -> bool:
        try:
            await what()
        except (NatsError, asyncio.TimeoutError) as error:
            if self._client.is_closed:
                raise QueueError(self._trouble or "the connection is closed") from None
            if not isinstance(error, asyncio.TimeoutError):  # that has waited already
                await asyncio.sleep(PATIENCE)
            return False
        return True

    async def done(self, message: Any, output: bytes) -> None:
        subject = self.reply_to(message)
        if subject:
            headers = {"Fastspawn-Stream": message.stream, "Fastspawn-Id": str(message.sequence)}
            if not await self._insist(lambda: self._reply(subject, output, headers)):
                self._say(f"{message.title}: no reply could be sent to {subject!r}")
        await self._settle(message, _ACK)

    def reply_to(self, message: Any) -> Any:
        options = self._options
        named = (message.raw.headers or {}).get(options.reply_header or "")
        return named or options.reply_to

    async def _reply(self, subject: str, output: bytes, headers: dict[str, str]) -> None:
        """To whoever listens, a stream among them. Once it is flushed the server has it."""
        try:
            await self._client.publish(subject, output, headers=headers)
        except BadSubjectError:
            raise NoReply(f"its reply cannot go to {subject!r}: that is no subject") from None
        await self._client.flush(int(_ANSWER))

    async def again(self, message: Any, delay: float) -> None:
        how = _NAK + b' {"delay": %d}' % int(delay * 1e9) if delay else _NAK
        await self._settle(message, how)

    async def give_back(self, message: Any) -> None:
        await self._settle(message, _NAK)

    async def bury(self, message: Any, ended: Ended) -> None:
        if self._dead and not await self._insist(lambda: self._publish_dead(message, ended)):
            self._say(f"{message.title}: no stream takes {self._dead}: tried again in 30s")
            await self.again(message, 30.0)
            return
        await self._settle(message, _TERM)

    async def _publish_dead(self, message: _Message, ended: Ended) -> None:
        """A second copy, where the answer to the first was lost, is known by its id."""
        told = letters.about(message.stream, message.group, str(message.sequence),
                             message.deliveries, ended)  # fmt: skip
        headers = {f"Fastspawn-{name.title()}": letters.one_line(text) for name, text in told}
        headers["Fastspawn-Subject"] = message.raw.subject
        whole = {**(message.raw.headers or {}), **headers, "Nats-Msg-Id": f"dead.{message.id}"}
        body, room = message.body, self._client.max_payload
        if len(body) + _size(whole) > room:
            whole.pop("Fastspawn-Stderr", None)
        if len(body) + _size(whole) > room:
            body, whole["Fastspawn-Body"] = b"", "left out: too large with these headers"
        await self._js.publish(self._dead, body, timeout=_ANSWER, headers=whole)

    # ---- end ----

    async def stop(self) -> None:
        self._leaving = True
        with contextlib.suppress(NatsError, asyncio.TimeoutError):
            if self._subscription is not None and self._client.is_connected:
                await self._subscription.drain()  # type: ignore[no-untyped-call]
        while self._come:
            await self.give_back(self._come.popleft())

    async def close(self) -> None:
        self._leaving = True
        for task in self._asking:
            task.cancel()
        with contextlib.suppress(NatsError, OSError, asyncio.TimeoutError):
            await self._client.close()


def _size(headers: Mapping[str, str]) -> int:
    """Of a header block, and more than it is."""
    return 64 + sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())


def _told(error: BaseException | None) -> str:
    """In one line."""
    if isinstance(error, APIError):
        return error.description or str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, asyncio.TimeoutError):
        return "no answer"
    if isinstance(error, (NoRespondersError, NoStreamResponseError)):
        return "nobody answers there"
    text = " ".join(str(error or "").split()) or type(error).__name__
    return text.removeprefix("nats: ").strip("'\"")
