from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asgi.harness import AsgiServer


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., AsgiServer]]:
    """Starts ASGI servers: ``serve(kind, app="app", flags=(), **options)``. Stops them, and looks
    whether they ended as they should."""
    servers: list[AsgiServer] = []

    def serve(
        kind: str, *, app: str = "app", flags: tuple[str, ...] = (), **options: object
    ) -> AsgiServer:
        servers.append(AsgiServer(tmp_path, kind, options, app, flags))
        return servers[-1]

    yield serve
    for server in servers:
        server.stop()
