"""``--max-inflight-total`` with ``--workers``: one number of places for all of them.

The places are tokens (``routes/quota.py``). Each worker has those that the supervisor has lent it
(``LentPool``), and keeps what it does not use until others are short of them. The supervisor
(``Broker``) knows how many each has, so that those of a worker that is killed are free again as
soon as it is gone; nothing here blocks or is shared.

    worker -> supervisor   WANT n: lend me n more     GIVE n: n back     RECALLED: that was all
    supervisor -> worker   GRANT n     DENY: no more for now
                           RECALL 1: others are short, keep none that you do not use     RECALL 0
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol

from fastspawn.serve.routes.quota import Pool

if TYPE_CHECKING:
    from fastspawn.serve.routes.quota import PooledAdmission

WANT: Final = b"w"
GIVE: Final = b"g"
RECALLED: Final = b"d"
GRANT: Final = b"G"
DENY: Final = b"D"
RECALL: Final = b"R"


class LentPool(Pool):
    """Of a worker. ``send``: to the supervisor, kind and number."""

    def __init__(self, send: Callable[[bytes, int], None]) -> None:
        super().__init__(0)
        self._send = send
        self._asked = 0
        """Wanted, and not granted yet: a denial only says "not now"."""
        self._undecided = False
        self._recalled = False

    @property
    def undecided(self) -> bool:
        return self._undecided

    def want(self, admission: PooledAdmission) -> None:
        super().want(admission)
        self._ask()

    def give(self) -> None:
        if self._recalled:
            self._send(GIVE, 1)
        else:
            super().give()
        self._ask()

    def heard(self, kind: bytes, number: int) -> None:
        """A message of the supervisor."""
        if kind == GRANT:
            self._asked -= number
            self._undecided = self._undecided and self._asked > 0
            self._free += number
            self._hand_out()
            self._return_unused()
        elif kind == RECALL:
            self._recalled = bool(number)
            self._return_unused()
            if self._recalled:
                self._send(RECALLED, 0)
        elif kind == DENY:
            self._undecided = False
            for admission in list(self._waiting):
                admission.trim()

    def _ask(self) -> None:
        more = sum(admission.need for admission in self._waiting) - self._asked
        if more > 0:
            self._asked += more
            self._undecided = True
            self._send(WANT, more)

    def _return_unused(self) -> None:
        if self._recalled and self._free:
            self._send(GIVE, self._free)
            self._free = 0


class Member(Protocol):
    """A worker, for the supervisor's Broker."""

    def send(self, kind: bytes, number: int) -> None:
        """Never blocks."""


class Broker:
    """The supervisor's: ``total`` tokens, lent to ``members``."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._lent: dict[Member, int] = {}
        self._wanted: dict[Member, int] = {}
        self._order: deque[Member] = deque()
        """Who is next to get one."""
        self._silent: set[Member] = set()
        """Members that may have tokens they do not use: they have not answered the recall."""
        self._short = False

    def join(self, member: Member) -> None:
        self._lent[member] = self._wanted[member] = 0
        self._order.append(member)
        if self._short:
            member.send(RECALL, 1)

    def leave(self, member: Member) -> None:
        """It is gone, and holds nothing any more."""
        if member in self._lent:
            self._free += self._lent.pop(member)
            del self._wanted[member]
            self._order.remove(member)
            self._silent.discard(member)
            self._settle()
            self._deny(self._lent)

    def heard(self, member: Member, kind: bytes, number: int) -> None:
        """A message of a member."""
        if kind == WANT:
            self._wanted[member] += number
        elif kind == GIVE:
            self._lent[member] -= number
            self._free += number
        elif kind == RECALLED and member in self._silent:
            self._silent.discard(member)
            self._settle()
            self._deny(self._lent)
            return
        self._settle()
        if kind == WANT:
            self._deny([member])

    def _deny(self, members: Iterable[Member]) -> None:
        """Tell those of ``members`` who are in want that there is none, if that is known."""
        if not self._silent:
            for member in members:
                if self._wanted[member]:
                    member.send(DENY, 0)

    def _settle(self) -> None:
        """Lend what there is; see that nobody keeps what another is short of."""
        granted: dict[Member, int] = {}
        while self._free and (member := self._next()) is not None:
            self._free -= 1
            self._wanted[member] -= 1
            self._lent[member] += 1
            granted[member] = granted.get(member, 0) + 1
        for member, number in granted.items():
            member.send(GRANT, number)
        short = any(self._wanted.values())
        if short != self._short:
            self._short = short
            self._silent = {each for each, lent in self._lent.items() if lent and short}
            for member in self._lent:
                member.send(RECALL, int(short))

    def _next(self) -> Member | None:
        """Whose turn it is."""
        for _ in range(len(self._order)):
            member = self._order[0]
            self._order.rotate(-1)
            if self._wanted[member]:
                return member
        return None
