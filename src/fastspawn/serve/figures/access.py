"""The access log: one line per request on standard output.

``common``: the common log format, then the exit status (negative: the signal) and the process's
run time. ``combined``: with where the request came from and what sent it, and what the process
used. ``json``: an object a line, with all there is.

Lines are collected and handed over together, at most ``_DELAY`` seconds later, so that a request
costs a share of a write and not a whole one. Nothing that a client sends can end a line or a
quoted field, or move a cursor, or make a line so long that another writer's could come between.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from copy import copy
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from re import Match

    from fastspawn._core import Outlet
    from fastspawn.serve.config.model import LogFormat
    from fastspawn.serve.job import Job

    from .record import Exchange

_DELAY: Final = 0.02
_FULL: Final = 256  # lines
_LONGEST: Final = 4096
"""Bytes of a line: what a pipe keeps together (PIPE_BUF of Linux, pipe(7))."""

_UNSAFE: Final = re.compile(rb"[^ !#-\[\]-~]")
"""What is not printable ASCII, and what ends a quoted field."""

_MAXRSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024
"""getrusage(2)."""


class AccessLog:
    """Writes to ``outlet``, which stays the caller's."""

    __slots__ = ("_line", "_lines", "_loop", "_outlet", "_scheduled", "_stamp", "style")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, outlet: Outlet, style: LogFormat = "common"
    ) -> None:
        self._loop = loop
        self._outlet = outlet
        self._lines: list[bytes] = []
        self._scheduled = False
        self._stamp = b""
        self.style = style
        self._line: Callable[[Exchange, Job | None], bytes] = {
            "common": self._common,
            "combined": self._combined,
            "json": _json,
        }[style]
        self.refresh()

    def refresh(self) -> None:
        """Take the current time into the lines to come. To be called every second."""
        self._stamp = time.strftime(" - - [%d/%b/%Y:%H:%M:%S %z] ").encode("ascii", "replace")

    def record(self, exchange: Exchange, job: Job | None) -> None:
        """``job``: its process, which has ended; None: there was none."""
        line = self._line(exchange, job)
        if len(line) > _LONGEST:
            line = self._shorter(exchange, job)
        self._lines.append(line)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(_DELAY, self._due)
        elif len(self._lines) >= _FULL:
            self.flush()

    def flush(self) -> None:
        """Hand over what was collected. What can't be written is counted there."""
        self._outlet.put(b"".join(self._lines))
        self._lines.clear()

    def _due(self) -> None:
        self._scheduled = False
        self.flush()

    def _shorter(self, exchange: Exchange, job: Job | None) -> bytes:
        """The line, with what is longest in it cut."""
        most, line = _LONGEST, b""
        while most and (not line or len(line) > _LONGEST):
            most //= 2
            line = self._line(_cut(exchange, most), job)
        return line

    def _common(self, exchange: Exchange, job: Job | None) -> bytes:
        return b"%b %b%b\n" % (self._start(exchange), _end(job), _id(exchange))

    def _combined(self, exchange: Exchange, job: Job | None) -> bytes:
        about = exchange.about
        referer, agent = (b"", b"") if about is None else (about.referer, about.agent)
        usage = None if job is None else job.rusage
        if usage is None:
            used = b"user=- sys=- maxrss=-"
        else:
            used = b"user=%.3fms sys=%.3fms maxrss=%d" % (
                *(usage.ru_utime * 1000, usage.ru_stime * 1000),
                usage.ru_maxrss * _MAXRSS_UNIT,
            )
        return b'%b "%b" "%b" %b %b%b\n' % (
            *(self._start(exchange), quotable(referer) or b"-", quotable(agent) or b"-"),
            *(_end(job), used, _id(exchange)),
        )

    def _start(self, exchange: Exchange) -> bytes:
        target = exchange.target
        if b'"' in target or b"\\" in target:
            # The parser has refused all that is not printable ASCII; these end the field.
            target = target.replace(b"\\", b"\\x5c").replace(b'"', b"\\x22")
        about, stamp = exchange.about, self._stamp
        if about is not None and about.user:
            user = quotable(about.user).replace(b" ", b"\\x20")
            stamp = stamp.replace(b" - - [", b" - %b [" % user, 1)
        return b'%b%b"%b %b HTTP/1.%d" %d %d' % (
            *(exchange.peer, stamp, exchange.method, target, not exchange.http10),
            *(exchange.status, exchange.sent),
        )


def _cut(exchange: Exchange, most: int) -> Exchange:
    """What the lines show of it, each field of no more than ``most`` bytes and a mark."""
    about = copy(exchange.about)
    if about is not None:
        about.referer, about.agent = _shortened(about.referer, most), _shortened(about.agent, most)
    shown: Any = SimpleNamespace(
        **{name: getattr(exchange, name) for name in ("peer", "method", "http10", "status")},
        **{name: getattr(exchange, name) for name in ("received", "sent")},
        target=_shortened(exchange.target, most),
        route=SimpleNamespace(title=exchange.route.title[:most]),
        about=about,
    )
    return cast("Exchange", shown)


def _shortened(value: bytes, most: int) -> bytes:
    return value if len(value) <= most else value[:most] + b"..."


def _end(job: Job | None) -> bytes:
    if job is None or job.returncode is None:
        return b"exit=- wall=-"
    return b"exit=%d wall=%.3fms" % (job.returncode, job.wall * 1000)


def _id(exchange: Exchange) -> bytes:
    about = exchange.about
    return b" id=" + about.id if about is not None and about.id else b""


def quotable(value: bytes) -> bytes:
    """As it may stand between quotation marks."""
    return _UNSAFE.sub(_escaped, value)


def _escaped(found: Match[bytes]) -> bytes:
    return b"\\x%02x" % found[0][0]


def _json(exchange: Exchange, job: Job | None) -> bytes:
    now = datetime.now(timezone.utc)
    row: dict[str, object] = {
        "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "peer": _text(exchange.peer),
        "method": _text(exchange.method),
        "target": _text(exchange.target),
        "version": "HTTP/1.0" if exchange.http10 else "HTTP/1.1",
        "route": exchange.route.title,
        "status": exchange.status,
        "received": exchange.received,
        "sent": exchange.sent,
    }
    about = exchange.about
    if about is not None:
        row |= {"referer": _text(about.referer) or None, "agent": _text(about.agent) or None}
        if about.user:
            row["remote_user"] = _text(about.user)
        if about.id:
            row["id"] = _text(about.id)
    if job is not None:
        row |= _process(job)
    return json.dumps(row).encode() + b"\n"


def _process(job: Job) -> dict[str, object]:
    """Times in seconds, memory in bytes."""
    if job.error is not None:
        return {"error": getattr(job.error, "strerror", None) or str(job.error)}
    status = job.returncode
    row: dict[str, object] = {
        "exit": status if status is not None and status >= 0 else None,
        "signal": -status if status is not None and status < 0 else None,
        "wall": round(job.wall, 6),
    }
    if job.timed_out or job.truncated:
        row["killed"] = "deadline" if job.timed_out else "output"
    usage = job.rusage
    if usage is not None:
        row |= {
            "user": round(usage.ru_utime, 6),
            "sys": round(usage.ru_stime, 6),
            "maxrss": usage.ru_maxrss * _MAXRSS_UNIT,
        }
    return row


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
