"""A directory of scripts: from a path to the program that it names.

The path is walked from the top, one segment at a time, and the first regular file is the
script; the rest is PATH_INFO (RFC 3875 sections 4.1.5 and 4.1.13). Nothing that is hidden or not
executable is ever run, and no directory is listed. What is outside of the directory is run where
a link there leads to it, and

- the link and the file have the same owner (Apache's SymLinksIfOwnerMatch), who so says that this
  program is to be here: packages install programs that way; or
- the operator has allowed where it leads.

It guards against links that were not meant so (to a directory, to what another user has). It does
not guard against who can write to the directory: he need not make a link to run something. So it
is enough that the look at a link and the start of what it leads to are two moments.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Final

from fastspawn.serve.http.refused import Refused

from .environment import Script

_NOT_FOUND: Final = b"no such script\n"


class ScriptDirectory:
    """The scripts below a directory, at the URLs where ``python -m http.server --cgi`` had them.

    ``directory`` holds ``cgi-bin`` or ``htbin``, and their scripts are at ``/cgi-bin/`` and
    ``/htbin/``; if it holds neither, it is itself what is at ``/cgi-bin/``. Raises OSError if it
    can't be read, ValueError for one of the two that is a link out of it. Which of them there
    are is looked up once. ``links``: directories where a link may lead besides.
    """

    def __init__(self, directory: str, links: Iterable[str] = ()) -> None:
        root = os.fsencode(os.path.realpath(directory))
        os.scandir(root).close()
        self.root: Final = root
        """The document root."""
        self._links: Final = tuple(os.fsencode(os.path.realpath(link)) for link in links)
        below = {}
        for name in (b"cgi-bin", b"htbin"):
            top = os.path.realpath(os.path.join(root, name))
            if os.path.isdir(top):
                if not (_is_below(top, root) or self._allows(top)):
                    raise ValueError(
                        f"{name.decode()} is a link out of the directory: "
                        f"--cgi-link-dir {_shown(top)} allows it"
                    )
                below[b"/" + name] = top
        self.prefixes: Final = below or {b"/cgi-bin": root}
        """The first part of the URL, to the directory that it stands for."""

    def find(self, segments: list[bytes]) -> Script:
        """The script for a path, decoded. Raises Refused: 404 or 403."""
        first, *segments = segments
        top = self.prefixes.get(b"/" + first)
        if top is None:
            raise Refused(404, _NOT_FOUND)
        return self._walk(top, b"/" + first, segments)

    def find_below(self, segments: list[bytes], depth: int) -> Script:
        """Likewise, where the first ``depth`` segments of the path stand for the directory."""
        name = b"".join(b"/" + segment for segment in segments[:depth])
        return self._walk(self.root, name, segments[depth:])

    def _walk(self, top: bytes, name: bytes, segments: list[bytes]) -> Script:
        if not segments:
            raise Refused(404, _NOT_FOUND)
        file = top.rstrip(b"/")
        for i, segment in enumerate(segments):
            if not segment and i == len(segments) - 1:
                break  # the directory itself
            if not segment or segment.startswith(b".") or b"/" in segment:
                raise Refused(404, _NOT_FOUND)
            file += b"/" + segment
            mode = self._mode(top, file)
            if stat.S_ISDIR(mode):
                continue
            # Not access(2), which asks for the real user and not for the effective one.
            if not stat.S_ISREG(mode) or not os.access(file, os.X_OK, effective_ids=_EFFECTIVE):
                why = f"{_shown(file)} is not a file that user {os.geteuid()} may execute"
                raise Refused(403, b"not an executable file\n", why=why)
            rest = segments[i + 1 :]
            return Script(
                name=b"/".join((name, *segments[: i + 1])),
                path_info=b"/" + b"/".join(rest) if rest else b"",
                file=file,
            )
        raise Refused(403, b"not a script\n")

    def _mode(self, top: bytes, file: bytes) -> int:
        """Of what is there, a link being followed. Raises Refused."""
        try:
            found = os.lstat(file)
            if not stat.S_ISLNK(found.st_mode):
                return found.st_mode
            return self._mode_of_target(top, file, found.st_uid)
        except PermissionError as error:
            why = f"{_shown(file)}: {error.strerror}, for user {os.geteuid()}"
            raise Refused(403, b"not an executable file\n", why=why) from None
        except (OSError, ValueError):
            # Too long a name, a loop of links: there is no such script either.
            raise Refused(404, _NOT_FOUND) from None

    def _mode_of_target(self, top: bytes, link: bytes, owner: int) -> int:
        target, where = os.stat(link), os.path.realpath(link)
        if _is_below(where, top) or self._allows(where):
            return target.st_mode
        allow = os.path.dirname(where)
        out = f"{_shown(link)} is a link out of the directory, to {_shown(where)}"
        if not stat.S_ISREG(target.st_mode):
            allow = where
            why = f"{out}, which is not a file"
        elif target.st_uid != owner:
            why = f"{out}, which is user {target.st_uid}'s and not the link's owner's, {owner}"
        else:
            return target.st_mode
        why += f" (--cgi-link-dir {_shown(allow)} would allow it)"
        raise Refused(403, b"a link out of the directory\n", why=why)

    def _allows(self, where: bytes) -> bool:
        return any(where == link or _is_below(where, link) for link in self._links)


_EFFECTIVE: Final = os.access in os.supports_effective_ids


def _is_below(file: bytes, directory: bytes) -> bool:
    return file.startswith(directory.rstrip(b"/") + b"/")


def _shown(file: bytes) -> str:
    name = os.fsdecode(file)
    return name if name.isprintable() else repr(name)
