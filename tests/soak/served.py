"""The server of a soak by HTTP: a route for each strategy; and what it has, when nobody asks."""

from __future__ import annotations

import collections
import json
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from serve.harness import Server
from soak.answers import Program, programs
from soak.asking import STATUSES
from soak.processes import Child, below, children, descriptors, look_at, threads
from support import async_poll

SPAWNERS = 4
"""More than processors: each may wake any other."""
SPARES = 2
SLACK = 8 * SPAWNERS
"""Descriptors that spawners may keep for their next processes."""
BOUND = 180.0
LINE = re.compile(rb'(?:127\.0\.0\.1|-) - - \[[^\]]+\] "[^"]*" \d{3} (?:\d+|-)[^\n]*\n')


@dataclass
class Route:
    """What answers at /NAME."""

    strategy: str
    program: Program
    place: str = ""
    """--snapshot-at"""

    @property
    def alike(self) -> bool:
        """Each request has the same command line and environment."""
        return self.strategy == "warm" or self.place == "effect"

    def text(self, name: str) -> str:
        given = "-" if self.alike else "{query:n}"
        env = {**self.program.env, "NONCE": given}
        keys = {
            "path": f"/{name}",
            "strategy": self.strategy,
            "command": [*self.program.argv, given],
            **({"snapshot-at": self.place} if self.place else {}),
            **({"pool-size": SPARES} if self.strategy in ("warm", "pool") else {}),
            **({"pool-max": SPARES} if self.strategy == "warm" else {}),
        }
        table = ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in env.items())
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        return "\n".join(["[[route]]", *lines, f"set-env = {{ {table} }}", ""])


def routes(folder: Path) -> dict[str, Route]:
    by = programs(folder)
    return {
        "direct": Route("direct", by["main"]),
        "main": Route("snapshot", by["sh"], "main"),
        "effect": Route("snapshot", by["effect"], "effect"),
        "checkpoint": Route("snapshot", by["python"], "checkpoint"),
        "reset": Route("reset", by["main"], "main"),
        "warm": Route("warm", by["effect"]),
        "pool": Route("pool", by["main"]),
    }


@dataclass
class Census:
    descriptors: int
    threads: int
    pss: int
    """KB, of the server alone"""
    anon: int
    children: list[Child]

    def kinds(self) -> collections.Counter[str]:
        return collections.Counter(child.kind for child in self.children)


class Served:
    """``workers``: processes that serve. ``only``: this route, or all."""

    def __init__(self, folder: Path, workers: int = 1, only: str = "") -> None:
        self.folder, self.workers = folder, workers
        self.routes = {k: v for k, v in routes(folder).items() if only in ("", k)}
        self.turn = self.lines = self.rotations = 0
        self.config = folder / "serve.toml"
        self.log_path = folder / "access.log"
        self.write()
        # Appends, as what rotates logs by copy and truncation wants.
        out = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        options = ("--config", str(self.config), "--workers", str(workers))
        try:
            self.server = Server(folder, options, (), where=(), stdout=out)
        finally:
            os.close(out)

    @property
    def pid(self) -> int:
        return self.server.pid

    @property
    def pool(self) -> int:
        """Workers that there are, when all is well."""
        return SPARES * self.workers if "pool" in self.routes else 0

    def write(self, **options: str) -> None:
        """Each time something of the commands is new, and so are templates and all."""
        self.turn += 1
        statuses = ",".join(f"{code}={status}" for code, status in STATUSES.items())
        top = {
            "port": "0",
            "status": f"'{statuses}'",
            "hold": "'10ms'",
            "spawners": str(SPAWNERS),
            "kill-grace": "'100ms'",
            "drain-timeout": "'2m'",
            "exec-timeout": "'10m'",
            **options,
        }
        lines = [f"{key} = {value}" for key, value in top.items()]
        lines.append(f"set-env = {{ TURN = '{self.turn}' }}")
        tables = [route.text(name) for name, route in self.routes.items()]
        # At once: the server may be reading the one before.
        new = self.config.with_suffix(".new")
        new.write_text("\n".join([*lines, *tables]))
        new.replace(self.config)

    async def reload(self, **options: str) -> None:
        self.write(**options)
        said = self.server.errors().count("fastspawn: reloaded ")
        self.server.signal(signal.SIGHUP)
        await async_poll(
            lambda: self.server.errors().count("fastspawn: reloaded ") > said, "a reload", BOUND
        )

    def rotate(self) -> None:
        """Copy, and truncate; what comes between is lost. Raises AssertionError."""
        text = self.log_path.read_bytes()
        os.truncate(self.log_path, 0)
        self.rotations += 1
        for line in text.splitlines(keepends=True):
            assert LINE.fullmatch(line), line
            self.lines += 1

    def look(self) -> Census:
        found = [child for pid in below(self.pid) if (child := look_at(pid))]
        own = look_at(self.pid)
        assert own, self.server.errors()
        return Census(descriptors(self.pid), threads(self.pid), own.pss, own.anon, found)

    def reap(self) -> list[int]:
        """Of what its parents have left us, who are a subreaper: those that are still there."""
        others = [pid for pid in children() if pid != self.pid]
        return [pid for pid in others if os.waitpid(pid, os.WNOHANG) == (0, 0)]

    def stop(self) -> int:
        self.server.signal(signal.SIGTERM)
        status = self.server.wait(BOUND)
        self.server.stop()
        return status
