"""An event loop that can be made above a checkpoint, and go on below it.

asyncio's own has an epoll descriptor and a pair of sockets to wake itself by. Forks would share
both, and one would be woken for another. This one waits by poll(2), which keeps nothing in the
kernel, and makes its sockets when it sleeps for the first time. Most requests never do.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any, ClassVar

_Base: Any = asyncio.SelectorEventLoop
_Selectable: Any = selectors.PollSelector


class _Selector(_Selectable):  # type: ignore[misc]
    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop
        self._map = self.get_map()

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout > 0:
            timeout = self._loop._before_sleep(timeout)
        if timeout == 0 and not self._map:
            return []
        return super().select(timeout)  # type: ignore[no-any-return]


class Loop(_Base):  # type: ignore[misc]
    """Made, and run, by one thread; rested between the two sides of a fork."""

    forks: ClassVar = True
    """Nothing of it is shared by forks, as long as it does not run (``_checkpoint``)."""

    _default_executor: Any
    _ssock: Any = None
    _csock: Any = None

    def __init__(self) -> None:
        super().__init__(_Selector(self))

    def rest(self) -> None:
        """Give back what forks would share, and its threads. It may run again afterwards."""
        if self._default_executor is not None:
            self._default_executor.shutdown(wait=True)
            self._default_executor = None
        self._close_self_pipe()
        # What runs at their end is whose it is that made them: not a request's.
        self._asyncgens.clear()

    def _make_self_pipe(self) -> None:
        """Later."""

    def _close_self_pipe(self) -> None:
        if self._ssock is not None:
            super()._close_self_pipe()

    def _before_sleep(self, timeout: float | None) -> float | None:
        """Whoever calls from another thread has first left his call, and then looked for the
        sockets; so if he found none, his call is seen here."""
        if self._csock is None:
            super()._make_self_pipe()
            if self._ready:
                return 0
        return timeout
