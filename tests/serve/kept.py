"""Requests with bodies of all sizes and kinds on one connection, and what must come of each: an
answer, after which the next request is answered or the connection ends as it said."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import Phase
from hypothesis import strategies as st

from serve.harness import BOUND, Client, Response

MAX_BODY = 140_000
"""That of the servers under test."""
LIMITS = (0, 4096, 65536, 131072, MAX_BODY)
"""Where the server's ways with a body change."""
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""A hang takes its time: it is not tried again to find a smaller one."""


@dataclass(frozen=True)
class Ask:
    """A request."""

    method: str
    path: str
    size: int
    chunk: int
    """Bytes in each chunk; 0: the body has a length."""
    expect: bool

    @property
    def head(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: test"]
        lines.append("Transfer-Encoding: chunked" if self.chunk else f"Content-Length: {self.size}")
        if self.expect:
            lines.append("Expect: 100-continue")
        return "\r\n".join([*lines, "", ""]).encode()

    @property
    def body(self) -> bytes:
        if not self.chunk:
            return bytes(self.size)
        left, pieces = self.size, []
        while left:
            size = min(left, self.chunk)
            pieces.append(b"%x\r\n%b\r\n" % (size, bytes(size)))
            left -= size
        return b"".join((*pieces, b"0\r\n\r\n"))


@dataclass(frozen=True)
class Plan:
    """What one connection is used for."""

    asks: tuple[Ask, ...]
    pipelined: bool
    cuts: tuple[float, ...]
    """Where what is sent at a time is cut into pieces: from 0 to 1."""

    def pieces(self, data: bytes) -> list[bytes]:
        places = [0, *sorted(int(cut * len(data)) for cut in self.cuts), len(data)]
        return [data[a:b] for a, b in pairwise(places) if b > a]


def plans(paths: Sequence[str]) -> st.SearchStrategy[Plan]:
    around = st.builds(
        lambda limit, more: max(limit + more, 0), st.sampled_from(LIMITS), st.integers(-2, 500)
    )
    asks = st.builds(
        Ask,
        method=st.sampled_from(("POST", "POST", "POST", "GET", "HEAD")),
        path=st.sampled_from(paths),
        size=around | st.integers(0, MAX_BODY + 10_000),
        chunk=st.sampled_from((0, 0, 1000, 4096, 65536, 1 << 20)),
        expect=st.sampled_from((False, False, True)),
    )
    cuts = st.lists(st.floats(0, 1), max_size=3).map(tuple)
    return st.builds(Plan, st.lists(asks, min_size=1, max_size=4).map(tuple), st.booleans(), cuts)


def carry_out(client: Client, plan: Plan) -> Iterator[tuple[Ask, Response]]:
    """Each request with its answer, until the connection ends or the plan does. The last request
    is another, without a body."""
    asks = (*plan.asks, Ask("GET", plan.asks[0].path, 0, 0, expect=False))
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if plan.pipelined:
        send(client, plan.pieces(b"".join(ask.head + ask.body for ask in asks)))
    for ask in asks:
        answer = None
        if not plan.pipelined:
            answer = offer(client, plan, ask)
        answer = answer or final(client)
        if ask.method != "HEAD":
            client.read_body(answer)
        yield ask, answer
        if answer.fields.get("connection") == "close":
            assert client.ended()
            return


def offer(client: Client, plan: Plan, ask: Ask) -> Response | None:
    """Send a request. Its answer's head, if that came before the body was sent."""
    if not ask.expect or not ask.body:
        send(client, plan.pieces(ask.head + ask.body))
        return None
    send(client, [ask.head])
    head = client.read_head()
    if head.status != 100:
        if head.fields.get("connection") != "close":
            send(client, plan.pieces(ask.body))
        return head
    send(client, plan.pieces(ask.body))
    return None


def final(client: Client) -> Response:
    while (answer := client.read_head()).status == 100:
        pass
    return answer


def send(client: Client, pieces: Sequence[bytes]) -> None:
    """Send them, and meanwhile take what comes. A server that has ended takes no more."""
    for piece in pieces:
        left = memoryview(piece)
        while left:
            readable, writable, _ = select.select([client.sock], [client.sock], [], BOUND)
            assert readable or writable, "the server does not read"
            if readable and not client.fill():
                return
            if writable:
                left = left[client.sock.send(left) :]
