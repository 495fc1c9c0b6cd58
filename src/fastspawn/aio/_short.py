"""run(): a whole command in one call, on an engine that lives as long as the event loop.

An engine has threads and descriptors, and a loop's close() is where they have to go: the loop is
given a close() that ends its engine first. Only the loop refers to the engine, so that a loop
which is garbage takes it along.
"""

from __future__ import annotations

import asyncio
import locale
import os
from collections.abc import Mapping, Sequence
from subprocess import PIPE, CalledProcessError, TimeoutExpired
from typing import Any

from fastspawn._command import StrOrBytesPath
from fastspawn._core import Plan
from fastspawn._engine import Engine
from fastspawn._limits import NO_LIMITS, Limits
from fastspawn._result import Result

_NAME = "_fastspawn_engine"


async def run(
    argv: Sequence[StrOrBytesPath],
    *,
    input: bytes | bytearray | memoryview | str | None = None,
    stdout: int | None = PIPE,
    stderr: int | None = PIPE,
    timeout: float | None = None,
    check: bool = False,
    text: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    executable: StrOrBytesPath | None = None,
    env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    cwd: StrOrBytesPath | None = None,
    start_new_session: bool = False,
    restore_signals: bool = True,
    umask: int = -1,
    limits: Limits = NO_LIMITS,
) -> Result:
    """Run a command to its end and collect its output: subprocess.run for event loops.

    stdin is ``input``, or /dev/null. stdout and stderr are collected unless they are None (the
    program's own) or DEVNULL; stderr may be STDOUT. With text, encoding or errors, input and
    output are str. ``timeout`` (seconds) goes before limits.timeout.

    The command has a process group of its own. If a limit is exceeded, or this is cancelled, the
    whole group is ended: SIGTERM, limits.kill_grace, SIGKILL.

    Raises the OSError of a program that cannot be started, subprocess.TimeoutExpired with what
    came before, and CalledProcessError for a return code other than 0 with ``check``.
    """
    timeout = limits.timeout if timeout is None else max(timeout, 0.0)
    if not isinstance(argv, (str, bytes, os.PathLike)):
        argv = list(argv)  # it may be readable only once
    # Not a Command: that keeps a copy of the environment, to be prepared in other ways later.
    plan = Plan(
        argv,
        executable=executable,
        env=env,
        cwd=cwd,
        stdout=stdout,
        stderr=stderr,
        start_new_session=start_new_session,
        # setsid(2) makes a group as well, and setpgid(2) would then be refused.
        process_group=None if start_new_session else 0,
        restore_signals=restore_signals,
        umask=umask,
        rlimits=limits.rlimits.items(),
        timeout=timeout,
        kill_grace=limits.kill_grace,
        drain=limits.drain,
        max_output=limits.max_output,
    )
    is_text = text or encoding is not None or errors is not None
    if is_text:
        encoding = encoding or locale.getpreferredencoding(False)
        errors = errors or "strict"
        if input is not None:
            input = input.encode(encoding, errors)  # type: ignore[union-attr]
    engine = engine_of(asyncio.get_running_loop())
    result: Any = await engine._collect(plan, argv, input)  # type: ignore[arg-type]
    if result.timed_out:
        raise TimeoutExpired(result.args, timeout or 0.0, result.stdout, result.stderr)
    if is_text:
        result.stdout = _decoded(result.stdout, encoding, errors)
        result.stderr = _decoded(result.stderr, encoding, errors)
    if check and result.returncode:
        raise CalledProcessError(
            result.returncode, result.args, output=result.stdout, stderr=result.stderr
        )
    return result  # type: ignore[no-any-return]


def _decoded(data: bytes | None, encoding: str | None, errors: str | None) -> str | None:
    """With the newlines of text files, as subprocess has it."""
    if data is None:
        return None
    text = data.decode(encoding or "", errors or "")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def engine_of(loop: asyncio.AbstractEventLoop) -> Engine:
    """The loop's engine, started when it is first asked for."""
    engine: Engine | None = vars(loop).get(_NAME)
    if engine is None:
        engine = Engine()
        engine._start(loop)
        setattr(loop, _NAME, engine)
        _end_with(loop, engine)
    return engine


def _end_with(loop: asyncio.AbstractEventLoop, engine: Engine) -> None:
    close = loop.close

    def close_both() -> None:
        if not loop.is_running():  # or it raises, and goes on
            engine._end()
            vars(loop).pop(_NAME, None)
            if vars(loop).get("close") is close_both:
                del vars(loop)["close"]
        close()

    loop.close = close_both  # type: ignore[method-assign]
