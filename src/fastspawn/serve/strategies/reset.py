"""The reset strategy: forks as of snapshot, each of which serves one request after the other. And
auto where the operator allows that."""

from __future__ import annotations

from typing import Final

from .snapshot import AutoStrategy, SnapshotStrategy

_PLACES: Final = {"main": "main", "effect": "its first effect", "checkpoint": "its checkpoint"}


class ResetStrategy(SnapshotStrategy):
    """Residents of template processes (``fastspawn.Template``, ``reset``), on the same engine.

    Once its requests have come to be forks, its name is snapshot.
    """

    name = "reset"
    _reset = True

    async def start(self) -> None:
        await super().start()
        if self._forks() and self._route.strategy == "reset":
            self._tell_forks([self._route.title])

    def _forks(self) -> bool:
        """Whether requests have come to be forks."""
        why = self._template.not_reset
        if why is not None:
            self.name, self.reason = "snapshot", why
        return why is not None

    def _tell_forks(self, titles: list[str]) -> None:
        self._common.news.tell(f"--strategy reset is snapshot: {self.reason}", titles)

    def _look(self) -> None:
        """Also whether residents serve, and where they begin, or requests are forks now."""
        super()._look()
        if self.name != "reset":
            return
        lease, template = self._lease, self._template
        if self._forks():
            if lease.once("forks"):
                self._tell_forks(lease.titles)
        elif template.stats["resets"] and lease.once(f"residents at {template.place}"):
            place = _PLACES[template.place]
            self._common.news.tell(f"--strategy reset: residents begin at {place}", lease.titles)


class AutoResetStrategy(AutoStrategy, ResetStrategy):
    """Residents where the program and the route allow it, else what auto is."""
