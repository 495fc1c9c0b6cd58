"""Requests, spoilt at random: by what parsers of HTTP are known to read differently."""

from __future__ import annotations

from random import Random

CHUNKED = (
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2;e=f\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: t\r\n\r\n"
)
HTTP_2 = (
    b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    b"Content-Length: 3\r\n\r\nabc"
)
WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
SEEDS = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /a?b=c HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    CHUNKED,
    b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://x/y HTTP/1.1\r\nHost: x\r\nX-Field: a,\tb\r\n\r\n",
    HTTP_2,
    WEBSOCKET,
)
TOKENS = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"=", b"0", b"\x7f", b"\xff",
    b"\v",
    b"\r\n\r\n", b"\n\n", b"\r\n ", b"\r\n\t", b" :", b"Host: y\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: +5\r\n", b"Content-Length: 0x5\r\n", b"Content-Length: 5, 5\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Content-Length:\r\n", b"Content_Length: 9\r\n",
    b"Content-Length: 18446744073709551621\r\n", b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: chunked, chunked\r\n",
    b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n",
    b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding: chunked;q=1\r\n",
    b"X: y\r\nTransfer-Encoding: chunked\r\n", b"Connection: keep-alive, close\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n",
    b"00000000000000005\r\nhello\r\n", b"5 \r\nhello\r\n", b"5;\nhello\r\n", b"5\nhello\n0\n\n",
    b"ffffffffffffffff\r\n", b"10000000000000005\r\n", b"-5\r\n", b"0x5\r\n", b"5_0\r\n",
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.10", b"HTTP/1.1 ", b"http/1.1",
    b"GET", b"POST", b"CONNECT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"get", b"%00", b"%0d%0a",
    b"//", b"../", b"\\", b"#", b"?", b"@", b"x" * 300, b"A: b\r\n" * 40,
)  # fmt: skip


def _spoil(random: Random, data: bytes) -> bytes:
    at, end = sorted((random.randint(0, len(data)), random.randint(0, len(data))))
    match random.randrange(7):
        case 0:  # something more
            return data[:at] + random.choice(TOKENS) + data[at:]
        case 1:  # instead of some of it
            end = min(end, at + 8)
            return data[:at] + random.choice(TOKENS) + data[end:]
        case 2:  # a line more
            lines = data.split(b"\r\n")
            lines.insert(random.randint(0, len(lines)), random.choice(TOKENS).strip(b"\r\n"))
            return b"\r\n".join(lines)
        case 3:  # a part twice
            return data[:end] + data[at:end] + data[end:]
        case 4:  # less
            return data[:at] + data[min(end, at + 4) :]
        case 5:  # another byte
            return data[:at] + random.randbytes(1) + data[at + 1 :]
        case _:  # its case
            return data[:at] + data[at:end].swapcase() + data[end:]


def request(random: Random) -> bytes:
    """One to three on a connection, most of them spoilt."""
    data = b"".join(random.choices(SEEDS, k=random.randint(1, 3)))
    for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        data = _spoil(random, data)
    return data
