"""What systemd has to say, and what it wants to hear (sd_listen_fds(3), sd_notify(3)).

Nothing of it is linked: sockets come as descriptors from 3 on, news go out as datagrams. The
variables are taken out of the environment, so that no command takes them for its own. Without
them everything here does nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import MutableMapping

_FIRST: Final = 3
"""SD_LISTEN_FDS_START."""

_LISTEN: Final = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")
_NOTIFY: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


def listen_fds(environ: MutableMapping[str, str] = os.environ) -> list[int]:
    """The listening sockets that this process was started with; empty: none."""
    given = {name: environ.pop(name, "") for name in _LISTEN}
    count = given["LISTEN_FDS"]
    if given["LISTEN_PID"] != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return []
    return list(range(_FIRST, _FIRST + min(int(count), 1024)))


class Notifier:
    """Tells the service manager how things are. Never blocks, never raises: it may not listen."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        given = {name: environ.pop(name, "") for name in _NOTIFY}
        address = given["NOTIFY_SOCKET"]
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog: float | None = None
        """Seconds between signs of life, half of what is allowed; None: nobody waits for them."""
        usec = given["WATCHDOG_USEC"]
        meant = given["WATCHDOG_PID"] in ("", str(os.getpid()))
        if address and meant and usec.isascii() and usec.isdigit() and int(usec):
            self.watchdog = int(usec) / 2e6

    def ready(self) -> None:
        """Requests are answered; after ``reloading``: that is done, well or not."""
        self._send(f"READY=1\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def keep_alive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give signs of life for as long as ``loop`` turns."""
        if self.watchdog is not None:
            self.alive()
            loop.call_later(self.watchdog, self.keep_alive, loop)

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(text.encode(), self._address)
