"""The file that is there as long as the server wants requests: of-watchdog's word to an exec probe,
``[ -e /tmp/.lock ]``, which asks no server."""

from __future__ import annotations

import contextlib
import os

from .systemd import Notifier


class Lock(Notifier):
    """Written when requests are answered, and gone with the first signal."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._stopping = False

    def check(self) -> None:
        """That it can be written. Raises OSError."""
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        self._write()
        self.remove()

    def ready(self) -> None:
        if not self._stopping:
            with contextlib.suppress(OSError):
                self._write()
        super().ready()

    def stopping(self) -> None:
        self._stopping = True
        self.remove()
        super().stopping()

    def remove(self) -> None:
        """Does nothing where it is gone."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _write(self) -> None:
        # Others may write to its directory: no link of theirs is to lead it elsewhere.
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(self._path, flags, 0o660))
