"""What a connection asks of its socket besides reading and writing."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from typing import Final

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


def unacknowledged(fd: int) -> int:
    """Bytes written to the socket that its peer has not acknowledged (tcp(7), unix(7))."""
    if sys.platform != "linux":
        return 0  # what is before the kernel tells as much, if later
    try:
        number = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4))
    except OSError:  # a TLS transport has closed it, and has not said so yet
        return 0
    return int.from_bytes(number, sys.byteorder)


def reset_on_close(sock: socket.socket) -> None:
    """Let the peer see that what it has is not all (socket(7), SO_LINGER)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
