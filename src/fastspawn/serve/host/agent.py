"""``--agent-check``: what a load balancer is told that asks how much to send.

The protocol is HAProxy's (agent-check, in its configuration manual): it connects, reads a line
and disconnects. A server that is to be sent requests says

    ready up 75%        it is to have 75 % of its weight, as a third of its places is taken
    drain               no more, but for those who are bound to it

``ready`` takes back the ``drain`` of the server that was here before, which HAProxy remembers.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

DRAIN: Final = "drain"


def ready(percent: int) -> str:
    return f"ready up {percent}%"


class Agent:
    """Answers on ``sockets`` (listening, not blocking) with what ``tell`` says, until ``close``."""

    def __init__(self, sockets: Sequence[socket.socket], tell: Callable[[], str]) -> None:
        self.sockets = sockets
        self._tell = tell

    def answer(self, sock: socket.socket) -> None:
        """Those who have connected to ``sock``, one of ours. Never waits."""
        with contextlib.suppress(OSError):  # no more of them, or no room: they ask again
            while True:
                with contextlib.closing(sock.accept()[0]) as asker:
                    self._answer(asker)

    def _answer(self, asker: socket.socket) -> None:
        asker.setblocking(False)
        with contextlib.suppress(OSError):  # it has gone
            asker.send(f"{self._tell()}\n".encode())
            # What is left unread would make a reset of our end, which may overtake the line.
            asker.recv(4096)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
