"""``--openfaas``: what of-watchdog, which functions of OpenFaaS have in front of them, reads from
the environment, read as it does.

https://github.com/openfaas/of-watchdog, config/config.go. Where it takes its default for a value
that it cannot read, and where it does nothing of what is asked for, here is an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

from . import values

_MICRO: Final = "\N{MICRO SIGN}\N{GREEK SMALL LETTER MU}"
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0} | {
    f"{micro}s": 1e-6 for micro in _MICRO
}
_PART: Final = re.compile(rf"([0-9]+\.?[0-9]*|\.[0-9]+)([a-z{_MICRO}]+)")
_LONGEST: Final = 365 * 86400.0

_SERVERS: Final = {
    "http": "the function is a server of its own there: put that behind a proxy",
    "inproc": "the function is a part of of-watchdog's own program there",
    "static": "no files are served here",
    "afterburn": "the function is a server of its own there",
}
"""Modes without a process for each request."""


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """The options that of-watchdog's variables are, by field. Raises ValueError, which names the
    variable."""
    # An empty one is what a template leaves of a value that nobody gave.
    reader = _Reader({name: text for name, text in environ.items() if text})
    if reader.flag("jwt_auth"):
        raise ValueError("jwt_auth: tokens are not looked at here: a proxy has to")
    read_timeout = reader.duration("read_timeout", 30.0)
    write_timeout = reader.duration("write_timeout", 30.0)
    if not write_timeout:
        raise ValueError("write_timeout: must be more than 0")
    given: dict[str, Any] = {
        "mode": reader.mode(),
        "host": ("",),
        "port": reader.number("port", 8080, 65535),
        "content_type": reader.content_type(),
        "exec_timeout": reader.duration("exec_timeout", 30.0) or None,
        "body_timeout": read_timeout or None,
        "send_timeout": write_timeout,
        "graceful_timeout": write_timeout,
        "drain_delay": reader.duration("healthcheck_interval", write_timeout),
        # There while the function is healthy: what HEALTHCHECK [ -e /tmp/.lock ] looks for.
        "lock_file": None
        if reader.flag("suppress_lock")
        else os.path.join(environ.get("TMPDIR") or "/tmp", ".lock"),
        "function_ready_path": reader.path("ready_path"),
    }
    if read_timeout:
        # Go's IdleTimeout is its ReadTimeout.
        given |= {"header_timeout": read_timeout, "keep_alive_timeout": read_timeout}
    if places := reader.number("max_inflight", 0):
        given |= {"max_inflight": places, "queue": 0}
    if reader.flag("combine_output"):
        given["stderr"] = "merge"
    if command := reader.text("function_process", reader.text("fprocess", "")):
        given["command"] = tuple(command.split(" "))
    return given


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self.text = environ.get

    def mode(self) -> str:
        name = self.text("mode", "streaming")
        if why := _SERVERS.get(name):
            raise ValueError(f"mode: {name}: {why}")
        if name not in ("streaming", "serializing"):
            raise ValueError(f"mode: {name!r} is not one of streaming, serializing")
        return name

    def content_type(self) -> str:
        try:
            return values.media_type(self.text("content_type", "application/octet-stream"))
        except ValueError as error:
            raise ValueError(f"content_type: {error}") from error

    def path(self, name: str) -> str | None:
        text = self.text(name, "")
        try:
            return values.url_path(text) if text else None
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def number(self, name: str, default: int, most: int = 1 << 31) -> int:
        try:
            return values.number(0, most)(self.text(name, str(default)))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def flag(self, name: str) -> bool:
        return self.text(name, "") in ("true", "1")

    def duration(self, name: str, default: float) -> float:
        text = self.text(name)
        if text is None:
            return default
        try:
            return duration(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def duration(text: str) -> float:
    """Seconds, as a number of them or as Go's time.ParseDuration has it: "1m30s", "300ms", "1.5h".

    Raises ValueError.
    """
    if re.fullmatch(r"\d+", text, re.ASCII):
        seconds = float(text)
    else:
        parts = _PART.findall(text)
        if not parts or "".join(map("".join, parts)) != text or not {
            unit for _, unit in parts
        } <= set(_SECONDS):  # fmt: skip
            raise ValueError(f"{text!r} is not a duration such as 30, 30s, 500ms or 1m30s")
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > _LONGEST:
        raise ValueError(f"{text!r} is more than a year")
    return seconds
