"""The URL of a queue: server, and which of its queues."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass, field
from typing import Final

SCHEMES: Final = {
    "nats": "NATS", "tls": "NATS", "ws": "NATS", "wss": "NATS",
    "redis": "Redis", "rediss": "Redis",
}  # fmt: skip
_FORMS: Final = {
    "NATS": "nats://HOST[:PORT][,HOST...]/STREAM/CONSUMER",
    "Redis": "redis://HOST[:PORT]/DATABASE/STREAM/GROUP",
}


@dataclass(frozen=True)
class Address:
    """``servers``: URLs as the server's own clients take them."""

    kind: str
    servers: tuple[str, ...] = field(repr=False)  # a password may be in them
    stream: str
    group: str
    """Of Redis; the durable consumer of NATS."""

    @property
    def shown(self) -> str:
        """The servers, for people: without user and password."""
        parts = [urllib.parse.urlsplit(each) for each in self.servers]
        hosts = ",".join(part.netloc.rpartition("@")[2] for part in parts)
        return f"{parts[0].scheme}://{hosts}{parts[0].path}"


def parse(text: str) -> Address:
    """Raises ValueError."""
    kind = SCHEMES.get(text.partition("://")[0])
    if kind is None:
        forms = " or ".join(_FORMS.values())
        raise ValueError(f"{without_password(text)!r} is not {forms}")
    try:
        parts = urllib.parse.urlsplit(text)
        words = [urllib.parse.unquote(word) for word in parts.path.split("/")[1:]]
        make = _nats if kind == "NATS" else _redis
        return make(parts, words)
    except ValueError as error:
        told = f": {error}" if str(error) else ""
        raise ValueError(f"{without_password(text)!r} is not {_FORMS[kind]}{told}") from None


def without_password(text: str) -> str:
    """A URL as it may be shown."""
    return re.sub(r"(?<=://)[^/@]*@", "", text)


def _nats(parts: urllib.parse.SplitResult, words: list[str]) -> Address:
    if len(words) != 2 or parts.query:
        raise ValueError
    for word in words:
        if not re.fullmatch(r"[^\s.*>/\\\0]+", word):
            raise ValueError(f"{word!r} cannot be a name there")
    user, at, hosts = parts.netloc.rpartition("@")
    servers = [f"{parts.scheme}://{user}{at}{_host(host)}" for host in hosts.split(",")]
    return Address("NATS", tuple(servers), *words)


def _host(text: str) -> str:
    """HOST or HOST:PORT."""
    parts = urllib.parse.urlsplit(f"//{text}")
    if not parts.hostname or parts.path or parts.port == 0:
        raise ValueError(f"{text!r} is no host")
    return text


def _redis(parts: urllib.parse.SplitResult, words: list[str]) -> Address:
    if len(words) != 3 or not all(words):
        raise ValueError
    if not re.fullmatch(r"\d{1,5}", words[0], re.ASCII):
        raise ValueError(f"{words[0]!r} is no number of a database")
    _host(parts.netloc.rpartition("@")[2])
    server = parts._replace(path=f"/{words[0]}").geturl()
    return Address("Redis", (server,), words[1], words[2])
