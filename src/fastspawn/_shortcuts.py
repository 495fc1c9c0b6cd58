"""run, call, check_call, check_output, getoutput and getstatusoutput of subprocess.

They are the standard library's on fastspawn.Popen. A command with common arguments takes a shorter
way to the same result: one call into the core starts it, feeds and collects without the GIL, and
reaps it, and no Popen or file object is made.
"""

from __future__ import annotations

import codecs
import locale
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from subprocess import (
    PIPE,
    STDOUT,
    CalledProcessError,
    CompletedProcess,
    TimeoutExpired,
)
from time import monotonic

from fastspawn._core import Talk, begin
from fastspawn._popen import SHELL, is_replaced, popen_class, take_over

TYPE_CHECKING = False  # as in _popen.py
if TYPE_CHECKING:
    from typing import Any, TypeAlias

_Outcome: TypeAlias = "tuple[Any, Any, Any]"
"""The return code, stdout and stderr."""

# ---- may it? ---------------------------------------------------------------------------------

# What 3.11 and later encode and decode with if nothing else is asked for.
_default_encoding: Callable[[], str] = getattr(
    subprocess, "_text_encoding", lambda: locale.getpreferredencoding(False)
)


def _warned(options: dict[str, Any]) -> dict[str, Any]:
    """With python -X warn_default_encoding (PEP 597): in text mode with no encoding, warn where we
    are called, and name the encoding, since Popen would blame us. (Before 3.11 it is silent.)"""
    text, universal = options.get("text"), options.get("universal_newlines")
    disagree = text is not None and universal is not None and bool(text) != bool(universal)
    if (
        disagree  # Popen says so
        or options.get("encoding") is not None
        or not (text or universal or options.get("errors"))
        or not hasattr(subprocess, "_text_encoding")
        or is_replaced()
    ):
        return options
    level, frame = 1, sys._getframe()
    ours = frame.f_code.co_filename
    while frame.f_code.co_filename == ours and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn("'encoding' argument not specified.", EncodingWarning, level)
    encoding = "utf-8" if sys.flags.utf8_mode else locale.getencoding()  # type: ignore[attr-defined,unused-ignore]
    return {**options, "encoding": encoding}


_EXTRA = frozenset({"shell", "text", "universal_newlines", "encoding", "errors"})
"""Options that begin() does not know."""

_CODECS = frozenset({"utf-8", "ascii", "iso8859-1"})
"""Those whose decoding does not depend on how the bytes are cut."""
_HANDLERS = frozenset({"strict", "ignore", "replace", "surrogateescape", "backslashreplace"})


def _codec(encoding: Any, errors: Any) -> tuple[str, str] | None:
    """Both for str.encode, or None if it is not sure what they would do."""
    if encoding is None:
        encoding = _default_encoding()
    if errors is None:
        errors = "strict"
    if type(encoding) is not str or type(errors) is not str or errors not in _HANDLERS:
        return None
    try:
        known = codecs.lookup(encoding).name in _CODECS
    except LookupError:
        return None
    return (encoding, errors) if known else None


# ---- the shorter way -------------------------------------------------------------------------


def _text(data: bytes | None, codec: tuple[str, str]) -> str | None:
    if data is None:
        return None
    text = data.decode(*codec)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _abandon(talk: Talk, args: Any, exc: BaseException, end: float | None) -> None:
    """Leave a child as Popen's context manager does after an exception in communicate()."""
    process = take_over(talk.detach(), args)
    if isinstance(exc, KeyboardInterrupt):
        # The child, too, has had the terminal's SIGINT, and has a moment to leave by itself.
        patience = process._sigint_wait_secs  # type: ignore[attr-defined]
        if end is not None:
            patience = min(patience, end - monotonic())
        try:
            process._wait(timeout=patience)
        except TimeoutExpired:
            process.kill()
        talk.close()
        return
    process.kill()
    talk.close()
    process.wait()


def _start(args: Any, input: Any, options: dict[str, Any]) -> tuple[Talk | None, Any]:
    """The child and the codec of its text, if it may take this way."""
    codec = None
    prefix = None
    if not _EXTRA.isdisjoint(options):
        options = dict(options)
        prefix = (SHELL, "-c") if options.pop("shell", False) else None
        text, universal = options.pop("text", None), options.pop("universal_newlines", None)
        encoding, errors = options.pop("encoding", None), options.pop("errors", None)
        if text is not None and universal is not None:
            return None, None
        if encoding or errors or text or universal:
            codec = _codec(encoding, errors)
            if codec is None:
                return None, None
            if input is not None:
                if type(input) is not str:
                    return None, None
                input = input.encode(*codec)
    return begin(args, input, options, prefix), codec


def _quick(args: Any, input: Any, timeout: Any, options: dict[str, Any]) -> _Outcome | None:
    """Run it, or None: nothing was done, and it is for Popen to do it or to say what is wrong."""
    if is_replaced():
        return None
    end = None
    if timeout is not None:
        if type(timeout) not in (int, float) or math.isnan(timeout):
            return None
        end = monotonic() + timeout
    if subprocess._active:  # type: ignore[attr-defined]
        subprocess._cleanup()  # type: ignore[attr-defined]
    talk, codec = _start(args, input, options)
    if talk is None:
        return None
    try:
        if not talk.communicate(timeout):
            raise TimeoutExpired(args, timeout, talk.stdout, talk.stderr)
    except BaseException as exc:
        _abandon(talk, args, exc, end)
        raise
    if codec is None:
        return talk.returncode, talk.stdout, talk.stderr
    return talk.returncode, _text(talk.stdout, codec), _text(talk.stderr, codec)


# What check_output() refuses; before 3.11 a second check is run()'s TypeError.
_OVERRIDDEN = ("stdout", "check") if sys.version_info >= (3, 11) else ("stdout",)

# ---- subprocess's functions ------------------------------------------------------------------


def _complete(
    popenargs: tuple[Any, ...], input: Any, timeout: Any, kwargs: dict[str, Any]
) -> tuple[Any, _Outcome]:
    """Run it to its end: its args and how it ended."""
    if sys.flags.warn_default_encoding:
        kwargs = _warned(kwargs)
    if len(popenargs) == 1:
        done = _quick(popenargs[0], input, timeout, kwargs)
        if done is not None:
            return popenargs[0], done
    with popen_class()(*popenargs, **kwargs) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except TimeoutExpired:
            process.kill()
            process.wait()
            raise
        except:
            process.kill()
            raise
        return process.args, (process.poll(), out, err)


def _wait_for(popenargs: tuple[Any, ...], timeout: Any, kwargs: dict[str, Any]) -> int:
    """The return code; pipes are not looked after."""
    if sys.flags.warn_default_encoding:
        kwargs = _warned(kwargs)
    if len(popenargs) == 1 and PIPE not in map(kwargs.get, ("stdin", "stdout", "stderr")):
        done = _quick(popenargs[0], None, timeout, kwargs)
        if done is not None:
            code: int = done[0]
            return code
    with popen_class()(*popenargs, **kwargs) as process:
        try:
            return process.wait(timeout=timeout)
        except:
            process.kill()
            raise


if TYPE_CHECKING:
    run = subprocess.run
    call = subprocess.call
    check_call = subprocess.check_call
    check_output = subprocess.check_output
    getoutput = subprocess.getoutput
    getstatusoutput = subprocess.getstatusoutput
else:

    def run(*popenargs, input=None, capture_output=False, timeout=None, check=False, **kwargs):
        """subprocess.run: run a command to its end and return a CompletedProcess.

        The arguments are those of Popen, and: input (bytes, or str in text mode) for stdin;
        capture_output for both stdout=PIPE and stderr=PIPE; timeout in seconds, after which the
        child is killed and TimeoutExpired raised, with the output so far; check, to raise
        CalledProcessError for a return code other than 0.
        """
        if input is not None:
            if kwargs.get("stdin") is not None:
                raise ValueError("stdin and input arguments may not both be used.")
            kwargs["stdin"] = PIPE
        if capture_output:
            if kwargs.get("stdout") is not None or kwargs.get("stderr") is not None:
                raise ValueError("stdout and stderr arguments may not be used with capture_output.")
            kwargs["stdout"] = kwargs["stderr"] = PIPE
        args, (code, out, err) = _complete(popenargs, input, timeout, kwargs)
        if check and code:
            raise CalledProcessError(code, args, out, err)
        return CompletedProcess(args, code, out, err)

    def call(*popenargs, timeout=None, **kwargs):
        """subprocess.call: run a command to its end and return the return code.

        The arguments are those of Popen, and timeout in seconds, after which the child is killed
        and TimeoutExpired raised.
        """
        return _wait_for(popenargs, timeout, kwargs)

    def check_call(*popenargs, **kwargs):
        """subprocess.check_call: as call(), but CalledProcessError for a code other than 0."""
        code = call(*popenargs, **kwargs)
        if code:
            command = kwargs.get("args")
            raise CalledProcessError(code, popenargs[0] if command is None else command)
        return 0

    def check_output(*popenargs, timeout=None, **kwargs):
        """subprocess.check_output: the stdout of a command.

        The arguments are those of run(), without stdout and check. CalledProcessError for a
        return code other than 0.
        """
        for name in _OVERRIDDEN:
            if name in kwargs:
                raise ValueError(f"{name} argument not allowed, it will be overridden.")
        if kwargs.get("input", "") is None:
            # As if it were empty, and not stdin left alone, as it has always been.
            modes = ("universal_newlines", "text", "encoding", "errors")
            kwargs["input"] = "" if any(map(kwargs.get, modes)) else b""
        return run(*popenargs, stdout=PIPE, timeout=timeout, check=True, **kwargs).stdout

    def getstatusoutput(cmd, *, encoding=None, errors=None):
        """subprocess.getstatusoutput: the return code of a shell command, and stdout and stderr
        as one text without its last newline."""
        result = run(
            cmd,
            shell=True,
            text=True,
            stdout=PIPE,
            stderr=STDOUT,
            encoding=encoding,
            errors=errors,
        )
        return result.returncode, result.stdout.removesuffix("\n")

    def getoutput(cmd, *, encoding=None, errors=None):
        """subprocess.getoutput: as getstatusoutput(), but only the text."""
        return getstatusoutput(cmd, encoding=encoding, errors=errors)[1]
