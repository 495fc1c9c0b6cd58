"""Listening sockets: made, taken over, multiplied for the workers."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .config import Config


_ASKED: Final = 3
"""How often a silent client is asked before it is given up, where no time says when."""
_MARGIN: Final = 10.0
"""Seconds: more than --send-timeout may be late."""
_MOST_SECONDS: Final = 32767
"""MAX_TCP_KEEPIDLE in Linux."""
_MOST_MILLISECONDS: Final = (1 << 31) - 1


class ListenError(Exception):
    """Why there is nothing to listen on, in one line."""


def listen(config: Config, owner: tuple[int, int] | None = None) -> list[socket.socket]:
    """The sockets that ``config`` asks for, listening. ``owner``: the user and the group of a
    socket's file, as chown(2) has them. Raises ListenError."""
    if config.fd is not None:
        return [adopt(config.fd, config.backlog)]
    if config.uds is not None:
        return [_listen_unix(config.uds, config.backlog, config.uds_mode, owner)]
    return _listen_tcp(config.host, config.port, config.backlog)


def adopt(fd: int, backlog: int) -> socket.socket:
    """An inherited socket, listening (it may have been before). Raises ListenError."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise ListenError(f"file descriptor {fd}: {_why(error)}") from error
    try:
        if sock.type != socket.SOCK_STREAM:
            raise ListenError(f"file descriptor {fd}: not a stream socket")
        sock.set_inheritable(False)
        sock.setblocking(False)
        sock.listen(backlog)
    except OSError as error:
        raise ListenError(f"file descriptor {fd}: {_why(error)}") from error
    return sock


def multiply(sock: socket.socket, count: int, backlog: int) -> list[socket.socket]:
    """``sock`` and more on the same address, between which the kernel shares connections.

    Where that can't be had, ``sock`` alone, for all to share.
    """
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return [sock] * count
    socks = [sock]
    try:
        # Only now: had it been set when the first was bound, another server's use of the port
        # might have gone unnoticed (socket(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(count - 1):
            socks.append(_bind_tcp(sock.family, sock.getsockname(), reuse_port=True))
            socks[-1].listen(backlog)
    except OSError:
        for extra in socks[1:]:
            extra.close()
        return [sock] * count
    return socks


def find_the_gone(sock: socket.socket, config: Config) -> None:
    """Have the kernel find out, for each connection that comes by ``sock``, whether its client is
    still there: it asks those that are silent, and gives up those that do not acknowledge.

    The connections have it from ``sock`` (tcp(7), socket(7)), and so cost nothing each.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    if config.tcp_keepalive is not None:
        silence = min(max(round(config.tcp_keepalive), 1), _MOST_SECONDS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", silence),
            ("TCP_KEEPALIVE", silence),  # macOS
            ("TCP_KEEPINTVL", max(silence // _ASKED, 1)),
            ("TCP_KEEPCNT", _ASKED),
        ):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    timeout = config.tcp_user_timeout
    if timeout is None:
        # To the kernel a client that takes nothing is one that does not acknowledge. That is for
        # us to find, who can tell the two apart.
        timeout = math.inf if config.send_timeout is None else config.send_timeout + _MARGIN
    if timeout != math.inf and hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = min(max(round(timeout * 1000), 1), _MOST_MILLISECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def name(sock: socket.socket, scheme: str = "http") -> str:
    """Where clients find it."""
    address = sock.getsockname()
    if sock.family == socket.AF_INET6:
        return f"{scheme}://[{address[0]}]:{address[1]}"
    if sock.family == socket.AF_INET:
        return f"{scheme}://{address[0]}:{address[1]}"
    return f"unix:{os.fsdecode(address)}"


def unlink(path: str) -> None:
    """Remove the file of a Unix socket. To be done before the socket is closed: after that, the
    file may be another server's."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def _listen_tcp(host: str, port: int, backlog: int) -> list[socket.socket]:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise ListenError(f"cannot listen on {where}: {_why(error)}") from error
    socks: list[socket.socket] = []
    unavailable: OSError | None = None
    for family, address in dict.fromkeys((family, address) for family, *_, address in found):
        if port == 0 and socks:
            # The same one for all of the host's addresses.
            address = (address[0], socks[0].getsockname()[1], *address[2:])  # noqa: PLW2901
        try:
            socks.append(_bind_tcp(family, address))
            # Two that are bound do not conflict before one listens (ip(7), SO_REUSEADDR).
            socks[-1].listen(backlog)
        except OSError as error:
            # A host's name often has an address of a family that is not configured.
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                unavailable = error
                continue
            for sock in socks:
                sock.close()
            raise ListenError(f"cannot listen on {where}: {_why(error)}") from error
    if unavailable is not None and not socks:
        raise ListenError(f"cannot listen on {where}: {_why(unavailable)}") from unavailable
    return socks


def _bind_tcp(family: int, address: object, *, reuse_port: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)  # type: ignore[arg-type]
    except BaseException:
        sock.close()
        raise
    return sock


def _listen_unix(
    path: str, backlog: int, mode: int | None, owner: tuple[int, int] | None
) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound = False
    try:
        _remove_stale(path)
        sock.bind(path)
        bound = True
        # Nobody can connect before it listens.
        if owner is not None:
            os.chown(path, *owner, follow_symlinks=False)
        if mode is not None:
            os.chmod(path, mode)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as error:
        if bound:
            unlink(path)
        sock.close()
        raise ListenError(f"cannot listen on {path}: {_why(error)}") from error
    return sock


def _remove_stale(path: str) -> None:
    """Remove what a killed server left: a socket that nobody listens on."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return  # bind says what is wrong
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
