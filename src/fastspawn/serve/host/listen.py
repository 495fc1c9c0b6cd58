"""Listening sockets: made, taken over, multiplied for the workers."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING, Any, Final

from fastspawn.serve.http.ends import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fastspawn.serve.config.model import Config


_ASKED: Final = 3
"""How often a silent client is asked before it is given up, where no time says when."""
_MARGIN: Final = 10.0
"""Seconds: more than --send-timeout may be late."""
_MOST_SECONDS: Final = 32767
"""MAX_TCP_KEEPIDLE in Linux."""
_MOST_MILLISECONDS: Final = (1 << 31) - 1
_TRIES: Final = 20
"""Besides the last, for a port that is free on all of several addresses."""
_ABSENT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""A host's name often has an address of a family that is not configured."""


class ListenError(Exception):
    """Why there is nothing to listen on, in one line."""


class _InUse(ListenError):
    """It is another's."""


def listen(config: Config, owner: tuple[int, int] | None = None) -> list[socket.socket]:
    """The sockets that ``config`` asks for, listening: all of them, or none and ListenError.
    ``owner``: the user and the group of a socket's file, as chown(2) has them."""
    if config.fd is not None:
        return [adopt(config.fd, config.backlog)]
    socks: list[socket.socket] = []
    try:
        for place in config.places:
            if isinstance(place, str):
                socks.append(_listen_unix(place, config.backlog, config.uds_mode, owner))
            else:
                socks += listen_tcp(*place, config.backlog)
    except ListenError:
        for path in files(socks):
            unlink(path)
        _close(socks)
        raise
    return socks


def files(socks: Iterable[socket.socket]) -> list[str]:
    """Of those among ``socks`` that are Unix sockets."""
    return [os.fsdecode(each.getsockname()) for each in socks if each.family == socket.AF_UNIX]


def adopt(fd: int, backlog: int) -> socket.socket:
    """An inherited socket, listening (it may have been before). Raises ListenError."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise ListenError(f"file descriptor {fd}: {_why(error)}") from error
    why = _unfit(sock)
    try:
        sock.set_inheritable(False)
        sock.setblocking(False)
        if not why:
            sock.listen(backlog)
    except OSError as error:
        why = _why(error)
    if why:
        sock.close()
        raise ListenError(f"file descriptor {fd}: {why}")
    return sock


def _unfit(sock: socket.socket) -> str:
    """Why it can be none of ours; empty: it can."""
    if sock.type != socket.SOCK_STREAM:
        return "not a stream socket"
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        return "a socket of neither TCP nor Unix"
    return ""


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
    if sock.family == socket.AF_UNIX:
        path = os.fsdecode(sock.getsockname())
        # An abstract one (unix(7)), as systemd writes it.
        return f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{path}"
    return f"{scheme}://{place(sock)}"


def place(sock: socket.socket) -> str:
    """Host and port."""
    host, port, *_ = sock.getsockname()
    host = plain(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def which(path: str) -> tuple[int, int] | None:
    """The file that is there now."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def unlink(path: str, file: tuple[int, int] | None = None) -> None:
    """Remove the file of a Unix socket, where it is still ``file``: who takes a path over from a
    server that runs may have removed that first. To be done before the socket is closed: after
    that, another's may have the same number."""
    with contextlib.suppress(OSError):
        if file is None or which(path) == file:
            os.unlink(path)


def listen_tcp(hosts: Sequence[str], port: int, backlog: int) -> list[socket.socket]:
    """On each address of each of ``hosts``, at the same port. Raises ListenError."""
    wanted = {host: _find(host, port) for host in hosts}
    for _ in range(_TRIES if port == 0 else 0):
        # One that is free on the first address may be another's on the next.
        with contextlib.suppress(_InUse):
            return _listen_all(wanted, port, backlog)
    return _listen_all(wanted, port, backlog)


_Address = tuple[int, tuple[Any, ...]]
"""Family and address."""


def _find(host: str, port: int) -> list[_Address]:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise _cannot(host, port, error) from error
    return [(family, address) for family, *_, address in found]


def _listen_all(
    wanted: Mapping[str, Sequence[_Address]], port: int, backlog: int
) -> list[socket.socket]:
    socks: dict[_Address, socket.socket] = {}
    try:
        for host, addresses in wanted.items():
            absent: OSError | None = None
            for family, address in addresses:
                if (family, address) in socks:
                    continue  # it has two names
                try:
                    socks[family, address] = _listen_at(family, address, backlog, socks)
                except OSError as error:
                    if error.errno not in _ABSENT:
                        raise _cannot(host, port, error) from error
                    absent = error
            if absent is not None and not any(each in socks for each in addresses):
                raise _cannot(host, port, absent) from absent
    except ListenError:
        _close(socks.values())
        raise
    return list(socks.values())


def _listen_at(
    family: int,
    address: tuple[Any, ...],
    backlog: int,
    others: Mapping[_Address, socket.socket],
) -> socket.socket:
    if address[1] == 0 and others:
        port = next(iter(others.values())).getsockname()[1]
        address = (address[0], port, *address[2:])
    sock = _bind_tcp(family, address)
    try:
        # Two that are bound do not conflict before one listens (ip(7), SO_REUSEADDR).
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _cannot(host: str, port: int, error: Exception) -> ListenError:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
    return (_InUse if taken else ListenError)(f"cannot listen on {where}: {_why(error)}")


def _close(socks: Iterable[socket.socket]) -> None:
    for sock in socks:
        sock.close()


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
        probe.setblocking(False)  # where nobody accepts and no more can wait, it would
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
