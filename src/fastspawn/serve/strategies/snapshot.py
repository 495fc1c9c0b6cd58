"""The snapshot strategy: forks of a process of the command that has stopped at a place where all
requests are still alike (``fastspawn.Template``). And auto: that, or else direct."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from fastspawn import Template, TemplateError
from fastspawn._syscalls import stop_of
from fastspawn.serve.config.placeholders import why_not_alike

from .command import command_of
from .direct import DirectStrategy
from .sharing import key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastspawn.serve.config.model import RouteConfig, SnapshotAt

    from .arriving import Arriving
    from .base import Common
    from .sharing import Counts


_EVENTS: Final = {
    "restarted": "template_restart",
    "direct": "template_miss",
    "stale": "template_stale",
}
_RESETS: Final = {
    "resets": "requests",
    "retired": "retired",
    "reset_pages": "pages",
    "reset_ns": "nanoseconds",
}
"""What a template counts, and what it is in the figures."""


def _counts(template: Template) -> Counts:
    stats = template.stats
    return {
        "events": {ours: stats[name] for name, ours in _EVENTS.items() if name in stats},
        "resets": {ours: stats[name] for name, ours in _RESETS.items() if name in stats},
        "leaves": template.leaves,
    }


def _arriving() -> type[Arriving]:
    from .arriving import Arriving

    return Arriving


class SnapshotStrategy(DirectStrategy):
    """Forks of template processes (``fastspawn.Template``), on the same engine."""

    name = "snapshot"
    _reset = False
    _open = False

    def __init__(self, route: RouteConfig, common: Common) -> None:
        super().__init__(route, common)
        engine = common.engine
        self._common = common
        self._not_alike = why_not_alike(route)
        at: SnapshotAt | Literal["fixed"] = route.snapshot_at
        if at == "imports":
            at = "checkpoint"  # of the launcher, which is in its command
        if at == "auto" and not self._not_alike:
            at = "fixed"
        command = command_of(route)
        # Nothing is forked where the scripts of a directory are the commands.
        key = ("template", at, self._reset, route.cgi_dir, key_of(command))
        make = Template if route.application is None else partial(_arriving(), route)
        self._lease = common.shares.join(
            key,
            lambda: make(command, engine=engine, at=at, fallback=True, reset=self._reset),
            _counts,
            route.title,
        )
        self._template = self._lease.source
        self._submit = partial(engine.submit, template=self._template)
        self.spawn = partial(self._submit, self._template.command)

    async def start(self) -> None:
        await super().start()
        await self._lease.start()
        self._open = True
        self._common.looks.add(self._look)
        if self._route.snapshot_at in ("auto", "effect"):
            self._tell(self._begin(), [self._route.title])

    @property
    def kind(self) -> str:
        return self._template.kind if self._open else ""

    @property
    def alike(self) -> bool:
        return self._open and self._template.place == "effect"

    @property
    def counts(self) -> Counts:
        """Of those that share a template one tells of it."""
        return self._lease.counts if self._open else {}

    def _begin(self) -> str:
        """Where forks begin, and why there."""
        if self.kind == "effect":
            stop = stop_of(self._template.stats["stopped_by"])
            return f"effect: forks begin before {stop}"
        why = self._not_alike or self._template.not_at_effect
        return f"{self.kind}: {why}"

    def _tell(self, what: str, titles: Sequence[str]) -> None:
        self._common.news.tell(f"--snapshot-at {self._route.snapshot_at} is {what}", titles)

    def _look(self) -> None:
        """Whether a request has come to a checkpoint meanwhile, or was not let."""
        lease, template = self._lease, self._template
        if not lease.speaks:
            return
        if template.kind == "checkpoint" and lease.once("checkpoint"):
            self._tell("checkpoint: forks begin there now", lease.titles)
        by_exec = template.by_exec
        if by_exec is not None and lease.once("exec"):
            self._tell(f"exec: more than half of the requests start so: {by_exec}", lease.titles)
        why = template.no_checkpoint
        if why is not None and lease.once("refusal"):
            self._common.news.tell(f"no template at checkpoint(): {why}", lease.titles)

    async def close(self) -> None:
        self._common.looks.discard(self._look)
        await self._lease.close()


class AutoStrategy(SnapshotStrategy):
    """Forks where the program allows it. Where it does not, its template is never open, and what
    names it is executed."""

    async def start(self) -> None:
        try:
            if self._route.cgi_dir is not None:
                raise TemplateError("each script of a directory is a program of its own")
            await super().start()
        except (TemplateError, OSError) as error:
            await DirectStrategy.start(self)
            self.name, self.reason = "direct", str(error)
        why = f": {self.reason}" if self.reason else ""
        self._common.news.tell(f"--strategy auto is {self.name}{why}", [self._route.title])
