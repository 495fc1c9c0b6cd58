"""Mode ``raw`` with ``--request-env``: a command that finds its request in the environment, as
RFC 3875 has it, and whose output is the answer's body all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastspawn.serve.http.judged import JudgedExchange
from fastspawn.serve.http.refused import Refused

if TYPE_CHECKING:
    from fastspawn.serve.http.exchange import Connection

    from .gateway import Invocation
    from .route import Told


class ToldExchange(JudgedExchange):
    __slots__ = ("invocation", "length")

    route: Told

    def __init__(
        self,
        connection: Connection,
        route: Told,
        method: bytes,
        target: bytes,
        http10: bool,
        keep: bool,
    ) -> None:
        super().__init__(connection, route, method, target, http10, keep)
        self.invocation: Invocation | None = None
        self.length: int | None = None
        """Bytes of the body, if it says so: one in chunks is handed on as it comes."""

    def begin(self) -> None:
        if self.refusal is None:
            try:
                self.invocation = self.route.gateway.invocation(self)
            except Refused as refused:
                self.turn_down(refused)
                return
            self.length = self.match.length
        super().begin()
