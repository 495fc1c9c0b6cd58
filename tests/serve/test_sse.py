"""Server-Sent Events through plain stdout. The client is ``httpx-sse``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import httpx_sse
import pytest

from serve.harness import BOUND, Server

SCRIPT = """
for i in 1 2 3; do
    printf 'id: %s\\nevent: tick\\ndata: one\\ndata: two %s\\n\\n' $i $i
    while ! test -e "$1.$i"; do sleep 0.02; done
done
"""
CASES = {
    "raw": (("--content-type", "text/event-stream"), SCRIPT),
    "cgi": (("--mode", "cgi"), "printf 'Content-Type: text/event-stream\\n\\n'" + SCRIPT),
}


@pytest.mark.parametrize("mode", CASES)
def test_each_event_comes_as_it_is_printed(
    serve: Callable[..., Server], tmp_path: Path, mode: str
) -> None:
    go = tmp_path / "go"
    options, text = CASES[mode]
    server = serve(*options, command=("sh", "-c", text, "sh", str(go)))
    url = f"http://127.0.0.1:{server.port}/"
    seen = []
    with (
        httpx.Client(timeout=BOUND, trust_env=False) as client,
        httpx_sse.connect_sse(client, "GET", url) as source,
    ):
        for event in source.iter_sse():
            seen.append((event.event, event.id, event.data))
            go.with_name(f"go.{len(seen)}").touch()  # only now does the next one come
    assert seen == [("tick", str(i), f"one\ntwo {i}") for i in (1, 2, 3)]
