"""The values of options, from text. Each function raises ValueError with what is wrong."""

from __future__ import annotations

import math
import os
import re
import resource
import shlex
from collections.abc import Callable
from typing import Final, TypeVar

from fastspawn.serve import paths

from .units import duration, size

T = TypeVar("T")

# What llhttp parses of HTTP's methods (the IANA registry), so what can come in a request.
METHODS: Final = frozenset(
    "GET HEAD POST PUT DELETE PATCH OPTIONS TRACE QUERY "
    "PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK SEARCH BIND REBIND UNBIND ACL "
    "REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR "
    "LINK UNLINK".split()
)

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def number(least: int, most: int = 1 << 31) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or not least <= int(text) <= most:
            span = f"from {least} to {most}" if most < 1 << 31 else f"of at least {least}"
            raise ValueError(f"{text!r} is not a number {span}")
        return int(text)

    return convert


def positive(convert: Callable[[str], T]) -> Callable[[str], T]:
    def checked(text: str) -> T:
        value = convert(text)
        if not value:
            raise ValueError("must be more than 0")
        return value

    return checked


def limit(convert: Callable[[str], T]) -> Callable[[str], T | None]:
    return lambda text: None if text == "none" else convert(text)


def endless(convert: Callable[[str], float]) -> Callable[[str], float]:
    return lambda text: math.inf if text == "none" else convert(text)


class choice:
    """One of ``words``, which a shell completes."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, text: str) -> str:
        if text not in self.words:
            raise ValueError(f"{text!r} is not one of {', '.join(self.words)}")
        return text


def boolean(text: str) -> bool:
    """As environment variables say it."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


_OURS: Final = frozenset(
    "content-length transfer-encoding connection keep-alive upgrade trailer te date".split()
)
"""Fields of an answer that say where it ends and what becomes of its connection, and when."""


def field(text: str) -> tuple[str, str]:
    """``Name: value`` (RFC 9110 section 5.5, without obs-text)."""
    name, colon, value = text.partition(":")
    value = value.strip(" \t")
    if not colon or not _TOKEN.fullmatch(name) or not re.fullmatch(r"[\t -~]*", value):
        raise ValueError(f"{text!r} is not 'Name: value'")
    if name.lower() in _OURS or name.lower().startswith("proxy-"):
        raise ValueError(f"{name} is the server's to set")
    if name.lower() == "content-type":
        raise ValueError(f"{name} is --content-type's to set")
    return name, value


_ACTED_ON: Final = frozenset(
    "host authorization cookie content-type expect x-request-id x-forwarded-for x-forwarded-proto "
    "proxy proxy-authorization proxy-connection".split()
)


def field_name(text: str) -> str:
    """Of a request, in lower case: one that a proxy can set, and CGI makes a variable of."""
    name = text.lower()
    if not re.fullmatch(r"[0-9a-z-]+", name, re.ASCII):
        raise ValueError(f"{text!r} is not a field's name of letters, digits and '-'")
    if name in _OURS or name in _ACTED_ON:
        raise ValueError(f"{text} means something else")
    return name


def statuses(text: str) -> tuple[tuple[int, int], ...]:
    """``EXIT=HTTP``, with commas between them: what exit statuses are in HTTP. An answer has one of
    RFC 9110 section 15 that is final."""
    found: dict[int, int] = {}
    for each in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,3})\s*=\s*([2-5]\d\d)\s*", each, re.ASCII)
        if match is None or int(match[1]) > 255:
            raise ValueError(f"{each.strip()!r} is not EXIT=HTTP such as 1=404")
        if int(match[1]) in found:
            raise ValueError(f"exit status {match[1]} occurs twice in {text!r}")
        found[int(match[1])] = int(match[2])
    return tuple(found.items())


def hold(text: str) -> float:
    """Seconds; infinite: until the exit."""
    return math.inf if text == "exit" else positive(duration)(text)


def application(text: str) -> str:
    """``MODULE:APP``; what APP may be is known where it is looked for."""
    if not re.fullmatch(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*(?::[^\0]+)?", text):
        raise ValueError(f"{text!r} is not MODULE:APP such as app:application")
    return text


def host(text: str) -> str:
    """Empty: each of this machine's addresses."""
    if text == "*":
        return ""
    plain = text[1:-1] if re.fullmatch(r"\[.+\]", text) else text
    if any(char in "/[]\0" or char.isspace() for char in plain):
        raise ValueError(f"{text!r} is not a host")
    return plain


def address(text: str) -> tuple[str, int]:
    """``[HOST:]PORT``; without a host, the loopback's."""
    name, _, port = text.rpartition(":")
    try:
        return host(name or "127.0.0.1"), number(0, 65535)(port)
    except ValueError:
        raise ValueError(f"{text!r} is not [HOST:]PORT") from None


def place(text: str) -> str | tuple[str, int]:
    """``unix:PATH``: the path; else host and port. An IPv6 address is in brackets: without them,
    its last part could be a port."""
    if text.startswith("unix:"):
        return path(text[5:])
    name, colon, port = text.rpartition(":")
    try:
        found = host(name), number(0, 65535)(port)
        if not colon or (":" in name and found[0] == name):
            raise ValueError
        return found
    except ValueError:
        raise ValueError(f"{text!r} is not HOST:PORT, [ADDRESS]:PORT, :PORT or unix:PATH") from None


def path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(f"{text!r} is not a path")
    return text


def directory(text: str) -> str:
    """Made absolute: it is looked for from elsewhere."""
    try:
        return os.path.abspath(path(text))
    except OSError as error:
        raise ValueError(f"{text!r}: the working directory: {error.strerror}") from error


def words(text: str) -> tuple[str, ...]:
    """A command line, split as a shell does."""
    found = tuple(shlex.split(text))
    if not found:
        raise ValueError("must not be empty")
    return found


def url_path(text: str) -> str:
    """A path as it stands in a request line."""
    if not re.fullmatch(r"/[!-~]*", text, re.ASCII) or "?" in text or "#" in text:
        raise ValueError(f"{text!r} is not a URL's path")
    return text


def mode(text: str) -> int:
    """Permission bits of a socket's file."""
    if not re.fullmatch(r"0?o?[0-7]{3}", text, re.ASCII):
        raise ValueError(f"{text!r} is not a mode such as 660")
    return int(text[-3:], 8)


def sources(text: str) -> tuple[str, ...]:
    """Addresses and networks, ``unix`` or ``*``, with commas between them."""
    found = tuple(word for each in text.split(",") if (word := each.strip()))
    for each in found:
        if each not in ("*", "unix"):
            import ipaddress

            try:
                ipaddress.ip_network(each, strict=False)
            except ValueError:
                raise ValueError(f"{each!r} is not an address or a network") from None
    return found


def media_type(text: str) -> str:
    """RFC 9110 section 5.5, without obs-text."""
    if not re.fullmatch(r"[!-~](?:[ \t!-~]*[!-~])?", text, re.ASCII):
        raise ValueError(f"{text!r} is not a media type")
    return text


def variable_pattern(text: str) -> str:
    if text != "*" and not _VARIABLE.fullmatch(text.removesuffix("*")):
        raise ValueError(f"{text!r} is not a variable's name (or the beginning of one, and *)")
    return text


def assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not _VARIABLE.fullmatch(name) or "\0" in value:
        raise ValueError(f"{text!r} is not NAME=VALUE")
    return name, value


def methods(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    for method in found:
        if method not in METHODS:
            raise ValueError(f"{method!r} is not a method that can be served")
    if len(set(found)) != len(found):
        raise ValueError(f"a method occurs twice in {text!r}")
    return found


def route(text: str) -> dict[str, object]:
    """``[METHOD[,METHOD] ]/path=CMD``: the settings of a route; the command as it is."""
    match = re.fullmatch(r"(?:([^\s/=]+) +)?(/[^=\s]*)=(.*)", text, re.DOTALL)
    if match is None:
        raise ValueError(f"{text!r} is not [METHOD[,METHOD] ]/path=CMD")
    paths.parse(match[2])
    settings: dict[str, object] = {"path": match[2], "command": match[3]}
    if match[1] is not None:
        settings["methods"] = methods(match[1])
    return settings


def account(text: str) -> str:
    if not re.fullmatch(r"[^\s:/\0-]\S*", text):
        raise ValueError(f"{text!r} is not the name or number of an account")
    return text


def head_size(text: str) -> int:
    found = size(text)
    if not 4096 <= found <= 1 << 24:
        raise ValueError(f"{text!r} is not a size from 4k to 16M")
    return found


def rlimit_names() -> list[str]:
    """Those that ``rlimit`` takes here."""
    return [each[7:].lower() for each in dir(resource) if each.startswith("RLIMIT_")]


def rlimit(text: str) -> tuple[str, int, int]:
    """``NAME=VALUE`` or ``NAME=SOFT:HARD``: the name of a RLIMIT_ constant in lower case, and
    what setrlimit(2) takes."""
    name, equals, value = text.partition("=")
    name = name.strip().lower().removeprefix("rlimit_")
    if not equals or not hasattr(resource, f"RLIMIT_{name.upper()}"):
        raise ValueError(f"{text!r} is not NAME=VALUE with a NAME of {', '.join(rlimit_names())}")
    soft, colon, hard = value.partition(":")
    limits = _rlimit(soft), _rlimit(hard if colon else soft)
    least, most = (value if value != resource.RLIM_INFINITY else 1 << 64 for value in limits)
    if least > most:
        raise ValueError(f"{text!r}: the soft limit is above the hard one")
    return name, *limits


def _rlimit(text: str) -> int:
    return resource.RLIM_INFINITY if text.strip() == "unlimited" else size(text)


_ORIGIN: Final = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?", re.ASCII
)
_PORTS: Final = {"http": "80", "https": "443", "ws": "80", "wss": "443"}


def origin(text: str) -> str:
    """As a browser writes it (RFC 6454 section 6.2): in lower case, without a usual port."""
    if text == "*":
        return text
    found = _ORIGIN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not an origin: SCHEME://HOST[:PORT], or *")
    scheme, host, port = found[1].lower(), found[2].lower(), found[3]
    return f"{scheme}://{host}" + (f":{port}" if port and port != _PORTS.get(scheme) else "")


def token(text: str) -> str:
    """RFC 9110 section 5.6.2."""
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"{text!r} is not a token")
    return text
