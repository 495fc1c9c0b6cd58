"""A directory of scripts: from a path to the program that it names.

The path is walked from the top, one segment at a time, and the first regular file is the
script; the rest is PATH_INFO (RFC 3875 sections 4.1.5 and 4.1.13). Nothing outside of the
directory is ever run, nothing that is hidden or not executable, and no directory is listed.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from .environment import Script
from .request import Refused

_NOT_FOUND: Final = b"no such script\n"


class ScriptDirectory:
    """The scripts below a directory, at the URLs where ``python -m http.server --cgi`` had them.

    ``directory`` holds ``cgi-bin`` or ``htbin``, and their scripts are at ``/cgi-bin/`` and
    ``/htbin/``; if it holds neither, it is itself what is at ``/cgi-bin/``. Raises OSError if it
    can't be read, ValueError for one of the two that is a link out of it. Which of them there
    are is looked up once.
    """

    def __init__(self, directory: str) -> None:
        root = os.fsencode(os.path.realpath(directory))
        os.scandir(root).close()
        self.root: Final = root
        """The document root."""
        below = {}
        for name in (b"cgi-bin", b"htbin"):
            top = os.path.realpath(os.path.join(root, name))
            if os.path.isdir(top):
                if not top.startswith(root.rstrip(b"/") + b"/"):
                    raise ValueError(f"{name.decode()} is a link out of the directory")
                below[b"/" + name] = top
        self.prefixes: Final = below or {b"/cgi-bin": root}
        """The first part of the URL, to the directory that it stands for."""

    def find(self, path: bytes) -> Script:
        """The script for a decoded path. Raises Refused: 404 or 403."""
        _, first, *segments = path.split(b"/")
        top = self.prefixes.get(b"/" + first)
        if top is None:
            raise Refused(404, _NOT_FOUND)
        return self._walk(top, b"/" + first, segments)

    def find_below(self, path: bytes, depth: int) -> Script:
        """Likewise, where the first ``depth`` segments of the path stand for the directory."""
        segments = path[1:].split(b"/")
        name = b"".join(b"/" + segment for segment in segments[:depth])
        return self._walk(self.root, name, segments[depth:])

    def _walk(self, top: bytes, name: bytes, segments: list[bytes]) -> Script:
        if not segments:
            raise Refused(404, _NOT_FOUND)
        file = top.rstrip(b"/")
        for i, segment in enumerate(segments):
            if not segment and i == len(segments) - 1:
                break  # the directory itself
            if not segment or segment.startswith(b"."):
                raise Refused(404, _NOT_FOUND)
            file += b"/" + segment
            mode = _mode(top, file)
            if stat.S_ISDIR(mode):
                continue
            # Not access(2), which asks for the real user and not for the effective one.
            if not stat.S_ISREG(mode) or not os.access(file, os.X_OK, effective_ids=_EFFECTIVE):
                raise Refused(403, b"not an executable file\n")
            rest = segments[i + 1 :]
            return Script(
                name=b"/".join((name, *segments[: i + 1])),
                path_info=b"/" + b"/".join(rest) if rest else b"",
                file=file,
            )
        raise Refused(403, b"not a script\n")


_EFFECTIVE: Final = os.access in os.supports_effective_ids


def _mode(top: bytes, file: bytes) -> int:
    """What is there, a link within ``top`` being followed."""
    try:
        mode = os.lstat(file).st_mode
        if stat.S_ISLNK(mode):
            _check_within(top, file)
            mode = os.stat(file).st_mode
    except (OSError, ValueError):
        # Too long a name, a loop of links: there is no such script either.
        raise Refused(404, _NOT_FOUND) from None
    return mode


def _check_within(directory: bytes, file: bytes) -> None:
    if not os.path.realpath(file).startswith(directory.rstrip(b"/") + b"/"):
        raise Refused(403, b"a link out of the directory\n")
