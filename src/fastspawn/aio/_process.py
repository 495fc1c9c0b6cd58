"""create_subprocess_exec and create_subprocess_shell, as asyncio.subprocess has them."""

from __future__ import annotations

import asyncio
import asyncio.subprocess
import sys
from asyncio.log import logger
from asyncio.subprocess import SubprocessStreamProtocol
from collections.abc import Callable
from subprocess import PIPE, STDOUT
from typing import Any, TypeVar

from fastspawn._command import StrOrBytesPath
from fastspawn.aio._transport import SubprocessTransport, make_transport

_LIMIT = 64 * 1024
"""Bytes that a StreamReader holds back by default."""

_CLOSES_STDIN = sys.version_info >= (3, 12)
"""Whether communicate() closes stdin when it has no input for it."""

ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)


class Process(asyncio.subprocess.Process):
    """asyncio.subprocess.Process with a communicate() that needs no tasks."""

    async def communicate(
        self, input: bytes | bytearray | memoryview | None = None
    ) -> tuple[bytes, bytes]:
        """Write input to stdin, close it, read to the end, wait: (stdout, stderr)."""
        transport: Any = self._transport  # type: ignore[attr-defined]
        if type(transport) is not SubprocessTransport or not transport.take_all():
            return await super().communicate(input)
        feeds = self.stdin is not None if _CLOSES_STDIN else input is not None
        if feeds:
            # What the child writes meanwhile is read all the same.
            await self._feed_stdin(input)  # type: ignore[attr-defined]
        await self.wait()
        out: Any = None if self.stdout is None else await self.stdout.read()
        err: Any = None if self.stderr is None else await self.stderr.read()
        return out, err


async def create_subprocess_exec(
    program: StrOrBytesPath,
    *args: StrOrBytesPath,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    limit: int = _LIMIT,
    **kwds: Any,
) -> asyncio.subprocess.Process:
    """asyncio.create_subprocess_exec on any event loop.

    ``kwds`` are those of subprocess.Popen, all of them. Raises what it raises.
    """
    loop = asyncio.get_running_loop()
    transport, protocol = await subprocess_exec(
        loop,
        lambda: SubprocessStreamProtocol(limit=limit, loop=loop),
        program,
        *args,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        **kwds,
    )
    return Process(transport, protocol, loop)


async def create_subprocess_shell(
    cmd: str | bytes,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    limit: int = _LIMIT,
    **kwds: Any,
) -> asyncio.subprocess.Process:
    """asyncio.create_subprocess_shell on any event loop.

    ``kwds`` are those of subprocess.Popen, all of them. Raises what it raises.
    """
    loop = asyncio.get_running_loop()
    transport, protocol = await subprocess_shell(
        loop,
        lambda: SubprocessStreamProtocol(limit=limit, loop=loop),
        cmd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        **kwds,
    )
    return Process(transport, protocol, loop)


async def subprocess_exec(
    loop: asyncio.AbstractEventLoop,
    protocol_factory: Callable[[], ProtocolT],
    program: StrOrBytesPath,
    *args: StrOrBytesPath,
    stdin: Any = PIPE,
    stdout: Any = PIPE,
    stderr: Any = PIPE,
    universal_newlines: bool = False,
    shell: bool = False,
    bufsize: int = 0,
    encoding: str | None = None,
    errors: str | None = None,
    text: bool | None = None,
    **kwargs: Any,
) -> tuple[asyncio.SubprocessTransport, ProtocolT]:
    """loop.subprocess_exec() for any loop."""
    if shell:
        raise ValueError("shell must be False")
    _check_binary(universal_newlines, bufsize, encoding, errors, text)
    protocol = protocol_factory()
    log = _log(loop, f"execute program {program!r}", stdin, stdout, stderr)
    transport = await make_transport(
        loop, protocol, (program, *args), False, stdin, stdout, stderr, bufsize, **kwargs
    )
    if log:
        logger.info("%s: %r", log, transport)
    return transport, protocol


async def subprocess_shell(
    loop: asyncio.AbstractEventLoop,
    protocol_factory: Callable[[], ProtocolT],
    cmd: str | bytes,
    *,
    stdin: Any = PIPE,
    stdout: Any = PIPE,
    stderr: Any = PIPE,
    universal_newlines: bool = False,
    shell: bool = True,
    bufsize: int = 0,
    encoding: str | None = None,
    errors: str | None = None,
    text: bool | None = None,
    **kwargs: Any,
) -> tuple[asyncio.SubprocessTransport, ProtocolT]:
    """loop.subprocess_shell() for any loop."""
    if not isinstance(cmd, (bytes, str)):
        raise ValueError("cmd must be a string")
    if not shell:
        raise ValueError("shell must be True")
    _check_binary(universal_newlines, bufsize, encoding, errors, text)
    protocol = protocol_factory()
    log = _log(loop, f"run shell command {cmd!r}", stdin, stdout, stderr)
    transport = await make_transport(
        loop, protocol, cmd, True, stdin, stdout, stderr, bufsize, **kwargs
    )
    if log:
        logger.info("%s: %r", log, transport)
    return transport, protocol


def _check_binary(
    universal_newlines: bool,
    bufsize: int,
    encoding: str | None,
    errors: str | None,
    text: bool | None,
) -> None:
    if universal_newlines:
        raise ValueError("universal_newlines must be False")
    if bufsize != 0:
        raise ValueError("bufsize must be 0")
    if text:
        raise ValueError("text must be False")
    if encoding is not None:
        raise ValueError("encoding must be None")
    if errors is not None:
        raise ValueError("errors must be None")


def _log(
    loop: asyncio.AbstractEventLoop, what: str, stdin: Any, stdout: Any, stderr: Any
) -> str | None:
    """asyncio's line for the debug log, in debug mode."""
    if not loop.get_debug():
        return None
    if stdout is not None and stderr == STDOUT:
        streams = {"stdin": stdin, "stdout=stderr": stdout}
    else:
        streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    names = {PIPE: "<pipe>", STDOUT: "<stdout>"}
    shown = [
        f"{name}={names.get(how, how) if isinstance(how, int) else how}"
        for name, how in streams.items()
        if how is not None
    ]
    line = " ".join([what, *shown])
    logger.debug(line)
    return line
